#include "server/server_options.h"

#include <fmt/format.h>

#include <algorithm>

#include "server/openai/output_parser.h"
#include "server/port_holder.h"

namespace chorus {
namespace {

constexpr int shutdown_timeout_s_max = 86'400;
constexpr int backlog = 4096;  // the kernel's own bound (somaxconn)

std::string tool_call_parser_names() {
  std::string names;
  for (const ToolCallFormat& format : tool_call_formats())
    names += fmt::format("{}{}", names.empty() ? "" : ", ", format.name);
  return names;
}

Result<void> validate_parsers(const ServerOptions& options) {
  if (options.enable_auto_tool_choice && options.tool_call_parser.empty()) {
    return fail(ErrorCode::invalid_argument, "--enable-auto-tool-choice needs --tool-call-parser: one of {}",
                tool_call_parser_names());
  }
  if (!options.tool_call_parser.empty() && find_tool_call_format(options.tool_call_parser) == nullptr) {
    return fail(ErrorCode::invalid_argument, "--tool-call-parser is {}: give one of {}", options.tool_call_parser,
                tool_call_parser_names());
  }
  if (!options.reasoning_parser.empty() && !reasoning_style(options.reasoning_parser)) {
    return fail(ErrorCode::invalid_argument, "--reasoning-parser is {}: give one of {}", options.reasoning_parser,
                reasoning_parser_names);
  }
  return {};
}

}  // namespace

Result<void> validate(const ServerOptions& options) {
  if (options.port < 0 || options.port > 65535) {
    return fail(ErrorCode::invalid_argument, "--port is {}: give a number from 0 to 65535", options.port);
  }
  if (options.shutdown_timeout_s < 0 || options.shutdown_timeout_s > shutdown_timeout_s_max) {
    return fail(ErrorCode::invalid_argument, "--shutdown-timeout is {}: give seconds from 0 to {}",
                options.shutdown_timeout_s, shutdown_timeout_s_max);
  }
  if (options.queued_requests_max < 0 || options.queued_tokens_max < 0) {
    return fail(ErrorCode::invalid_argument,
                "--max-num-queued-reqs is {} and --max-num-queued-tokens {}: give positive numbers, or 0 for no limit",
                options.queued_requests_max, options.queued_tokens_max);
  }
  CHORUS_TRY_VOID(validate_parsers(options));
  if (options.tls.certificates.empty() != options.tls.key.empty()) {
    return fail(ErrorCode::invalid_argument, "--ssl-certfile and --ssl-keyfile: give both of them");
  }
  if (options.tls.is_given()) CHORUS_TRY_VOID(load_tls(options.tls));
  return {};
}

FrontEndOptions front_end_options(const ServerOptions& options) {
  return {
      options.open_metrics,
      options.prompt_tokens_details,
      {static_cast<std::uint64_t>(options.queued_requests_max), static_cast<std::uint64_t>(options.queued_tokens_max)}};
}

Result<tcp::Address> address_of(const ServerOptions& options) {
  auto addresses = tcp::resolve(options.host, options.port);
  if (!addresses.ok()) return fail(ErrorCode::invalid_argument, "--host: {}", addresses.error().message);
  return addresses->front();
}

Result<AccessRules> access_rules(const ServerOptions& options, const std::optional<std::string>& key) {
  AccessRules rules;
  if (!options.api_key_file.empty()) {
    CHORUS_TRY(rules.keys, ApiKeys::read_file(options.api_key_file));
  }
  if (key && !key->empty()) {
    if (const auto added = rules.keys.add(*key); !added.ok()) return with_context(added.error(), "CHORUS_API_KEY");
  }
  return rules;
}

Result<AccessRules> access_rules(const ServerOptions& options, const tcp::Address& address,
                                 const std::optional<std::string>& key) {
  CHORUS_TRY(AccessRules rules, access_rules(options, key));
  if (!address.is_loopback() && rules.keys.empty() && !options.allow_no_api_key) {
    return fail(ErrorCode::invalid_argument,
                "{} can be reached from other machines and there is no API key: give --api-key-file FILE or "
                "CHORUS_API_KEY, listen on 127.0.0.1, or say --allow-no-api-key",
                address.host());
  }
  const bool any = std::ranges::find(options.allowed_hosts, "*") != options.allowed_hosts.end();
  if (any || !address.is_loopback()) return rules;
  rules.hosts = loopback_hosts(options.host);
  for (const std::string& host : options.allowed_hosts) rules.hosts.push_back(host);
  return rules;
}

Result<UniqueFd> listen_at(const tcp::Address& address) {
  auto listener = tcp::listen(address, backlog);
  if (listener.ok() || address.port() == 0) return listener;
  const std::string holder = port_holder(address.port());
  if (holder.empty()) return listener;
  return fail(listener.error().code, "{}: {} listens there; end it, or give another --port", listener.error().message,
              holder);
}

Result<std::vector<UniqueFd>> listen_at(const tcp::Address& address, int count) {
  std::vector<UniqueFd> listeners;
  // Alone first: a port that another server shares with its own front ends would be shared with it.
  CHORUS_TRY(UniqueFd alone, listen_at(address));
  if (count == 1) {
    listeners.push_back(std::move(alone));
    return listeners;
  }
  CHORUS_TRY(const tcp::Address bound, tcp::local_address(alone.get()));
  alone.reset();
  for (int i = 0; i < count; ++i) {
    CHORUS_TRY(UniqueFd listener, tcp::listen(bound, backlog, true));
    listeners.push_back(std::move(listener));
  }
  return listeners;
}

}  // namespace chorus
