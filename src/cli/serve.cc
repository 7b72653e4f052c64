// chorus serve MODEL: OpenAI's API before N replicas; with --headless the engines of a node without a front end, for a
// fleet on another machine.

#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/descriptor_limit.h"
#include "base/log.h"
#include "cli/commands.h"
#include "cli/version.h"
#include "config/outer_balancer.h"
#include "exec/kv_capacity.h"
#include "fleet/fleet_setup.h"
#include "fleet/host.h"
#include "frontend/chat_format.h"
#include "frontend/read_model.h"
#include "launch/launch_fleet.h"
#include "launch/remote_node.h"
#include "server/api.h"
#include "server/control/control_server.h"
#include "server/control/operator.h"
#include "server/front_end.h"
#include "server/parent.h"
#include "server/server_options.h"
#include "server/service_manager.h"
#include "server/unix_listener.h"

namespace chorus {
namespace {

struct ServeOptions {
  EngineConfig engine;
  ServerOptions server;
};

Result<int> serve_headless(const EngineConfig& engine) {
  CHORUS_TRY(const ModelConfig model, read_model(engine));
  CHORUS_TRY(const EngineConfig fitted, fit_to_kv_memory(engine, model, detect_node()));
  CHORUS_TRY_VOID(run_remote_node(fitted, model, interrupted));
  return exit_done;
}

std::string url_of(const ServerOptions& options, int port) {
  const bool is_ipv6 = options.host.find(':') != options.host.npos;
  return fmt::format("{}://{}{}{}:{}", options.tls.is_given() ? "https" : "http", is_ipv6 ? "[" : "", options.host,
                     is_ipv6 ? "]" : "", port);
}

// Where clients come in.
struct Door {
  AccessRules access;
  std::vector<UniqueFd> listeners;        // one a front end
  std::optional<UnixListener> unix_file;  // as long as the server runs
  std::vector<std::string> urls;          // one, or one a front end
};

Result<void> open_unix_door(const ServerOptions& server, int front_ends, Door* door) {
  CHORUS_TRY(UnixListener listener, UnixListener::open(server.uds, "--uds"));
  CHORUS_TRY(door->listeners, listener.descriptors(front_ends));
  door->unix_file.emplace(std::move(listener));
  door->urls = {"unix:" + server.uds};
  return {};
}

// A port for all front ends, or from it on one for each.
Result<void> open_ports(const ServerOptions& server, const EngineConfig& engine, Door* door) {
  const bool one_each = engine.parallel.data_parallel_multi_port_external_lb;
  const int ports = one_each ? engine.front_ends() : 1;
  if (server.port > 0 && server.port + ports - 1 > 65535) {
    return fail(ErrorCode::invalid_argument,
                "--port is {}, and {} replicas have a port each, the last one {}: at most 65535", server.port, ports,
                server.port + ports - 1);
  }
  for (int i = 0; i < ports; ++i) {
    ServerOptions one = server;
    if (one.port > 0) one.port += i;
    CHORUS_TRY(const tcp::Address address, address_of(one));
    CHORUS_TRY(std::vector<UniqueFd> listeners, listen_at(address, one_each ? 1 : engine.front_ends()));
    CHORUS_TRY(const tcp::Address bound, tcp::local_address(listeners.front().get()));
    door->urls.push_back(url_of(server, bound.port()));
    for (UniqueFd& listener : listeners) door->listeners.push_back(std::move(listener));
  }
  return {};
}

Result<Door> open_door(const ServerOptions& server, const EngineConfig& engine) {
  Door door;
  const auto key = environment_variable("CHORUS_API_KEY");
  if (!server.uds.empty()) {
    if (engine.parallel.data_parallel_multi_port_external_lb) {
      return fail(
          ErrorCode::invalid_argument,
          "--uds {} is one door, and --data-parallel-multi-port-external-lb a port for each replica: leave one of "
          "them out",
          server.uds);
    }
    CHORUS_TRY(door.access, access_rules(server, key));
    CHORUS_TRY_VOID(open_unix_door(server, engine.front_ends(), &door));
    return door;
  }
  CHORUS_TRY(const tcp::Address address, address_of(server));
  CHORUS_TRY(door.access, access_rules(server, address, key));
  CHORUS_TRY_VOID(open_ports(server, engine, &door));
  return door;
}

// Nothing meets where replicas are independent; where they exchange tokens they have to be one server's.
Result<void> check_world(const EngineConfig& engine, const ModelConfig& model) {
  const ParallelConfig parallel = settled(engine, model).parallel;
  if (!parallel.behind_outer_balancer()) return {};
  if (parallel.replicas_step_together() && parallel.local_replicas() < parallel.data_parallel_size) {
    return fail(
        ErrorCode::invalid_argument,
        "--enable-expert-parallel spreads the experts over {} replicas, and this server has {} of them: behind an "
        "outer load balancer one server must have all (--data-parallel-multi-port-external-lb), or give "
        "--headless on the other nodes",
        parallel.data_parallel_size, parallel.local_replicas());
  }
  if (!parallel.data_parallel_address.empty() || parallel.data_parallel_rpc_port != 0) {
    log(LogLevel::info, "Replicas are independent: no server waits for another at --data-parallel-address {}, port {}",
        parallel.head_address(), parallel.data_parallel_rpc_port);
  }
  return {};
}

// What a server has before its engines.
struct Prepared {
  FrontEndStart start;
  std::shared_ptr<const Tokenizer> tokenizer;
  Door door;                               // its rules have moved to `start`
  std::shared_ptr<ControlServer> control;  // nullptr: none
  std::shared_ptr<ServiceManager> manager;
  bool log_stats = true;
};

Result<Prepared> prepare(ServeOptions& options) {
  ServerOptions& server = options.server;
  CHORUS_TRY_VOID(validate(server));
  CHORUS_TRY(const ModelConfig config, read_model(options.engine));
  options.engine = settled(std::move(options.engine), config);
  CHORUS_TRY(options.engine, fit_to_kv_memory(options.engine, config, detect_node()));
  CHORUS_TRY(TextModel model, with_tokenizer(config));
  if (model.tokenizer == nullptr) {
    return fail(ErrorCode::not_found, "{}: no tokenizer.json, and a server speaks text", options.engine.model);
  }
  CHORUS_TRY_VOID(ChatFormat::load(options.engine.model));
  CHORUS_TRY_VOID(check_world(options.engine, model.config));
  // Before the weights: a port that is taken is told at once.
  CHORUS_TRY(Door door, open_door(server, options.engine));
  CHORUS_TRY(ServiceManager manager,
             ServiceManager::open(environment_variable("NOTIFY_SOCKET"), environment_variable("WATCHDOG_USEC"),
                                  environment_variable("WATCHDOG_PID")));
  std::shared_ptr<ControlServer> control;
  if (!server.control_socket.empty()) {
    CHORUS_TRY(ControlServer opened, ControlServer::open(server.control_socket));
    control = std::make_shared<ControlServer>(std::move(opened));
  }
  if (server.served_model_names.empty()) server.served_model_names = {options.engine.model};
  FrontEndStart start{options.engine,
                      std::move(model.config),
                      server.served_model_names,
                      std::move(door.access),
                      version(),
                      server.shutdown_timeout_s,
                      {server.enable_auto_tool_choice ? server.tool_call_parser : "", server.reasoning_parser},
                      server.tls,
                      static_cast<std::uint32_t>(log_level()),
                      front_end_options(server)};
  return Prepared{std::move(start),
                  std::move(model.tokenizer),
                  std::move(door),
                  std::move(control),
                  std::make_shared<ServiceManager>(std::move(manager)),
                  !server.disable_log_stats};
}

// "4 replicas"; of a server with some of them "1 replicas, rank 2 of 4".
std::string replicas_behind(const ParallelConfig& door) {
  std::string text = fmt::format("{} replicas", door.door_end() - door.door_begin());
  if (!door.behind_outer_balancer()) return text;
  const int last = door.door_end() - 1;
  text += last == door.door_begin() ? fmt::format(", rank {}", last)
                                    : fmt::format(", ranks {} to {}", door.door_begin(), last);
  return text + fmt::format(" of {}", door.data_parallel_size);
}

// A line for each door.
void say_that_it_serves(const FrontEndStart& start, const std::vector<std::string>& urls, const FleetHost& host,
                        ServiceManager& manager) {
  for (std::size_t i = 0; i < urls.size(); ++i) {
    const ParallelConfig door = engine_of_door(start.engine, static_cast<int>(i)).parallel;
    std::printf("chorus: serving %s at %s (%s)\n", start.model_names.front().c_str(), urls[i].c_str(),
                replicas_behind(door).c_str());
  }
  std::fflush(stdout);
  manager.serves(fmt::format("serving {} at {} ({})", start.model_names.front(), fmt::join(urls, ", "),
                             replicas_behind(start.engine.parallel)));
  host.tell_what_is_loaded();
  log(LogLevel::info, "Routes: {}", fmt::join(Api::route_names(), ", "));
}

// What else is done whenever the server asks whether to stop, ten times a second: the operator's socket is looked at,
// and the service manager is told.
std::function<bool()> stop_of(const Prepared& prepared, FleetHost& host) {
  return [control = prepared.control, manager = prepared.manager, &host, ends = false]() mutable {
    if (control) control->turn([&host](std::string_view request) { return answer_operator(host, request); });
    manager->turn(monotonic_now());
    if (interrupted() && !std::exchange(ends, true)) manager->ends();
    return ends;
  };
}

// This process is the parent of engines and front ends.
Result<void> serve_from_processes(Prepared prepared) {
  const FrontEndStart start = prepared.start;
  prepared.tokenizer.reset();  // a front end has its own
  CHORUS_TRY(FleetSetup setup, launch_setup(start.engine, start.model, interrupted));
  FleetHost host(settled(start.engine, start.model), start.model, setup.supervisor, nullptr);
  CHORUS_TRY(MetricStore metrics, MetricStore::create(metric_shape(start.engine, start.model)));
  ServerParent parent(&host, std::move(prepared.start), std::move(prepared.door.listeners), std::move(metrics),
                      prepared.log_stats);
  CHORUS_TRY_VOID(parent.begin());  // they load what they need while the engines start
  CHORUS_TRY_VOID(host.start(std::move(setup)));
  CHORUS_TRY_VOID(parent.connect(interrupted));
  say_that_it_serves(start, prepared.door.urls, host, *prepared.manager);
  return parent.run(stop_of(prepared, host));
}

// The replicas, or some of them, are other machines': their sockets cannot be handed to another process, so the front
// end is this one.
Result<void> serve_from_here(Prepared prepared) {
  const FrontEndStart& start = prepared.start;
  CHORUS_TRY(FleetSetup setup, launch_setup(start.engine, start.model, interrupted));
  CHORUS_TRY(const auto fleet, start_fleet(start.engine, start.model, std::move(setup)));
  CHORUS_TRY(const MetricStore metrics, MetricStore::create(metric_shape(start.engine, start.model)));
  FrontEndConfig config = front_end_config(start);
  config.has_host = true;
  config.log_stats = prepared.log_stats;
  CHORUS_TRY(const auto front_end, FrontEnd::make(config, prepared.tokenizer, *fleet, metrics, 0));
  CHORUS_TRY_VOID(front_end->listen_on(std::move(prepared.door.listeners.front())));
  say_that_it_serves(start, prepared.door.urls, fleet->host(), *prepared.manager);
  return front_end->run(stop_of(prepared, fleet->host()));
}

Result<int> serve(ServeOptions& options) {
  CHORUS_TRY_VOID(settle_outer_balancer(&options.engine));
  if (options.engine.headless) return serve_headless(options.engine);
  CHORUS_TRY(Prepared prepared, prepare(options));
  raise_descriptor_limit();
  const bool all_here = !options.engine.parallel.several_nodes() && !options.engine.on_ray();
  CHORUS_TRY_VOID(all_here ? serve_from_processes(std::move(prepared)) : serve_from_here(std::move(prepared)));
  return exit_done;
}

}  // namespace

std::function<Result<int>()> declare_serve(Options& options) {
  auto values = std::make_shared<ServeOptions>();
  ServerOptions& server = values->server;
  options.positional("MODEL", &values->engine.model, "Hugging Face model directory or .gguf file");
  options.text("--host", &server.host, "address to listen on (127.0.0.1)");
  options.number("--port", &server.port, "port to listen on (8000); 0: the system chooses");
  options.list("--served-model-name", &server.served_model_names, "what clients call the model; repeatable");
  options.text("--uds", &server.uds, "listen on a Unix socket at this path, in the place of --host and --port");
  options.text("--control-socket", &server.control_socket,
               "a Unix socket at this path, for `chorus ctl`: this user's alone");
  options.text("--ssl-certfile", &server.tls.certificates, "HTTPS with this certificate chain (PEM)");
  options.text("--ssl-keyfile", &server.tls.key, "the certificate's private key (PEM)");
  options.text("--api-key-file", &server.api_key_file,
               "API keys, one a line; one may also be in the environment, as CHORUS_API_KEY");
  options.flag("--allow-no-api-key", &server.allow_no_api_key, "listen for other machines without a key");
  options.list("--allowed-host", &server.allowed_hosts,
               "a name that the Host field may have; *: any; repeatable. Matters on the loopback alone");
  options.number("--shutdown-timeout", &server.shutdown_timeout_s,
                 "seconds that running requests have after SIGTERM (30)");
  options.number("--max-num-queued-reqs", &server.queued_requests_max,
                 "prompts that may wait for their first token; more are refused with 429 (0: no limit)");
  options.number("--max-num-queued-tokens", &server.queued_tokens_max,
                 "the same, in tokens of these prompts (0: no limit)");
  options.flag("--open-metrics", &server.open_metrics, "/metrics needs no API key");
  options.flag("--disable-log-stats", &server.disable_log_stats,
               "no line of each busy replica's throughput in the log every ten seconds");
  options.flag("--enable-prompt-tokens-details", &server.prompt_tokens_details,
               "tell in `usage` how many prompt tokens the prefix cache had");
  options.flag("--enable-auto-tool-choice", &server.enable_auto_tool_choice,
               "let a model call tools; with --tool-call-parser");
  options.text("--tool-call-parser", &server.tool_call_parser,
               "how the model writes calls: hermes (Qwen too), llama3_json, llama4_json or mistral");
  options.text("--reasoning-parser", &server.reasoning_parser,
               "how the model writes its thoughts: deepseek_r1 or qwen3");
  options.engine(&values->engine);
  return [values] { return serve(*values); };
}

}  // namespace chorus
