#include "server/control/operator.h"

#include <nlohmann/json.hpp>

#include "json/json.h"

namespace chorus {
namespace {

struct Command {
  std::string name;
  std::optional<int> rank;
  bool move = true;
};

Result<Command> parse(std::string_view request) {
  CHORUS_TRY(const Json body, parse_json(request, {.bytes_max = 4096, .depth_max = 4}));
  if (!body.is_object()) return fail(ErrorCode::invalid_argument, "a request is a JSON object");
  Command command;
  for (const auto& [key, value] : body.items()) {
    if (key == "command" && value.is_string()) {
      command.name = value.get<std::string>();
    } else if (key == "rank" && value.is_number_integer() && value >= 0 && value < replica_ids_max) {
      command.rank = value.get<int>();
    } else if (key == "move" && value.is_boolean()) {
      command.move = value.get<bool>();
    } else {
      return fail(ErrorCode::invalid_argument,
                  "'{}' is no member of a request, or its value is none: command (a string), rank (a whole number from "
                  "0), move (true or false)",
                  key);
    }
  }
  return command;
}

Json described(const ReplicaStatus& replica) {
  return {{"rank", replica.dp_rank},
          {"state", name_of(replica.condition)},
          {"epoch", replica.epoch},
          {"pid", replica.pid},
          {"requests", replica.in_flight},
          {"running", replica.load.running},
          {"waiting", replica.load.waiting},
          {"kv_blocks_free", replica.load.kv_blocks_free},
          {"kv_blocks_total", replica.load.kv_blocks_total},
          {"deaths", replica.deaths}};
}

Json list(const FleetHost& host) {
  Json replicas = Json::array();
  for (const ReplicaStatus& replica : host.replicas()) replicas.push_back(described(replica));
  return {{"ok", true}, {"paused", host.is_paused()}, {"replicas", std::move(replicas)}};
}

Result<void> follow(FleetHost& host, const Command& command, int rank) {
  if (command.name == "drain") return host.drain(rank, command.move);
  if (command.name == "resume") return host.resume(rank);
  if (command.name == "remove") return host.remove(rank, command.move);
  if (command.name == "restart") return host.restart(rank);
  return fail(ErrorCode::invalid_argument,
              "'{}' takes no rank, or is no command: list, add, drain, resume, remove, restart, pause", command.name);
}

Result<Json> follow(FleetHost& host, const Command& command) {
  const Json done = {{"ok", true}};
  if (command.rank) {
    CHORUS_TRY_VOID(follow(host, command, *command.rank));
    return done;
  }
  if (command.name == "list") return list(host);
  if (command.name == "pause") return host.pause(command.move), done;
  if (command.name == "resume") return host.resume_all(), done;
  if (command.name != "add") {
    return fail(ErrorCode::invalid_argument,
                "'{}' needs a rank, or is no command: list, add, drain, resume, remove, restart, pause", command.name);
  }
  CHORUS_TRY(const int rank, host.add());
  return Json{{"ok", true}, {"rank", rank}};
}

}  // namespace

std::string answer_operator(FleetHost& host, std::string_view request) {
  const auto answer = [&]() -> Result<Json> {
    CHORUS_TRY(const Command command, parse(request));
    return follow(host, command);
  }();
  if (answer.ok()) return answer->dump();
  const bool wrong = answer.error().code == ErrorCode::invalid_argument;
  return Json{{"ok", false}, {"wrong_usage", wrong}, {"error", answer.error().message}}.dump(
      -1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace chorus
