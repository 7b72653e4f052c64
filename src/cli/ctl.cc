// chorus ctl: what an operator asks of a running `chorus serve --control-socket PATH`.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "base/clock.h"
#include "cli/commands.h"
#include "json/json.h"
#include "server/control/control_server.h"

namespace chorus {
namespace {

constexpr int answer_timeout_ms = 10'000;
constexpr auto look_interval = std::chrono::milliseconds(50);

struct CtlOptions {
  std::string socket, action, rank;
  bool finish = false, json = false, no_wait = false;
  int timeout_s = 600;
};

struct Action {
  const char* name;
  bool takes_rank, needs_rank;
  bool (*is_done)(const std::string& state);  // of the replicas that it is about; nullptr: there is nothing to wait for
};
constexpr std::array actions = {
    Action{"list", false, false, nullptr},
    Action{"add", false, false, [](const std::string& state) { return state == "ready" || state == "drained"; }},
    Action{"drain", true, true, [](const std::string& state) { return state != "ready" && state != "draining"; }},
    Action{"resume", true, false, nullptr},
    Action{"remove", true, true, [](const std::string& state) { return state == "removed"; }},
    Action{"restart", true, true,
           [](const std::string& state) { return state == "ready" || state == "draining" || state == "drained"; }},
    Action{"pause", false, false, [](const std::string& state) { return state != "ready" && state != "draining"; }},
};

Result<Json> ask(const CtlOptions& options, const Json& request) {
  CHORUS_TRY(const std::string text, ask_control(options.socket, request.dump(), answer_timeout_ms));
  CHORUS_TRY(Json answer, parse_json(text));
  if (answer.value("ok", false)) return answer;
  return fail(answer.value("wrong_usage", false) ? ErrorCode::invalid_argument : ErrorCode::unavailable, "{}",
              answer.value("error", "the server refused, and did not say why"));
}

Result<const Action*> action_of(const CtlOptions& options) {
  const auto* const found =
      std::ranges::find_if(actions, [&](const Action& action) { return action.name == options.action; });
  if (found == actions.end()) {
    return fail(ErrorCode::invalid_argument, "'{}' is none of list, add, drain, resume, remove, restart, pause",
                options.action);
  }
  if (!options.rank.empty() && !found->takes_rank)
    return fail(ErrorCode::invalid_argument, "{} takes no rank", found->name);
  if (options.rank.empty() && found->needs_rank)
    return fail(ErrorCode::invalid_argument, "{} needs the rank of a replica: chorus ctl {} 1", found->name,
                found->name);
  return found;
}

Result<int> rank_of(const std::string& text) {
  if (!text.empty() && text.size() < 10 && text.find_first_not_of("0123456789") == text.npos) return std::stoi(text);
  return fail(ErrorCode::invalid_argument, "'{}' is no rank: a whole number from 0", text);
}

void print(const Json& list) {
  std::printf("%-5s %-10s %8s %6s %8s %8s %7s %7s\n", "RANK", "STATE", "PID", "EPOCH", "RUNNING", "WAITING", "KV",
              "DEATHS");
  for (const Json& replica : list["replicas"]) {
    const auto number = [&](const char* key) { return replica.value(key, std::int64_t{0}); };
    const double total = static_cast<double>(number("kv_blocks_total"));
    const double used = total > 0 ? 100 * (1 - static_cast<double>(number("kv_blocks_free")) / total) : 0;
    std::printf("%-5ld %-10s %8ld %6ld %8ld %8ld %6.1f%% %7ld\n", number("rank"), replica.value("state", "").c_str(),
                number("pid"), number("epoch"), number("running"), number("waiting"), used, number("deaths"));
  }
  if (list.value("paused", false)) std::printf("paused\n");
}

// Until the replicas are in the state that was asked for. One that is given up never is.
Result<void> wait_for(const CtlOptions& options, const Action& action, std::optional<int> rank) {
  const Nanoseconds deadline = monotonic_now() + Nanoseconds{options.timeout_s} * 1'000'000'000;
  while (true) {
    CHORUS_TRY(const Json list, ask(options, {{"command", "list"}}));
    bool done = true;
    for (const Json& replica : list["replicas"]) {
      const std::string state = replica.value("state", "");
      if (rank && replica.value("rank", -1) != *rank) continue;
      if (rank && state == "given_up" && std::string_view(action.name) != "remove") {
        return fail(ErrorCode::unavailable, "data parallel rank {} is given up: the server's log says why", *rank);
      }
      done = done && action.is_done(state);
    }
    if (done) return {};
    if (monotonic_now() > deadline) {
      return fail(ErrorCode::deadline_exceeded, "{} goes on, and is not done after {} s (--timeout)", action.name,
                  options.timeout_s);
    }
    std::this_thread::sleep_for(look_interval);
  }
}

Result<int> run(const CtlOptions& options) {
  if (options.socket.empty()) {
    return fail(ErrorCode::invalid_argument, "--control-socket is missing: the path that chorus serve was given");
  }
  CHORUS_TRY(const Action* const action, action_of(options));
  Json request = {{"command", action->name}, {"move", !options.finish}};
  std::optional<int> rank;
  if (!options.rank.empty()) {
    CHORUS_TRY(rank, rank_of(options.rank));
    request["rank"] = *rank;
  }
  CHORUS_TRY(const Json answer, ask(options, request));
  if (answer.contains("rank")) rank = answer["rank"].get<int>();
  const bool lists = answer.contains("replicas");
  if (action->is_done != nullptr && !options.no_wait) CHORUS_TRY_VOID(wait_for(options, *action, rank));
  if (options.json) {
    std::printf("%s\n", answer.dump().c_str());
  } else if (lists) {
    print(answer);
  } else if (answer.contains("rank")) {
    std::printf("%d\n", *rank);
  }
  return exit_done;
}

}  // namespace

std::function<Result<int>()> declare_ctl(Options& options) {
  auto values = std::make_shared<CtlOptions>();
  options.positional(
      "ACTION", &values->action,
      "list; add (prints the rank); drain, resume, remove or restart RANK; pause; resume (ends a pause)");
  options.positional("RANK", &values->rank, "of the replica", false);
  options.text("--control-socket", &values->socket, "as chorus serve has it");
  options.flag("--finish", &values->finish,
               "drain, remove, pause: what runs there ends there, instead of going elsewhere (or waiting)");
  options.flag("--json", &values->json, "the server's answer as it is");
  options.flag("--no-wait", &values->no_wait, "do not wait until it is done");
  options.number("--timeout", &values->timeout_s, "seconds to wait (600)");
  return [values] { return run(*values); };
}

}  // namespace chorus
