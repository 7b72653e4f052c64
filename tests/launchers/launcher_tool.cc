// Chorus's store and rendezvous as a program, for tests with real launchers and with torch:
//
//   launcher_tool serve             a TCP store; prints its port; ends when stdin does
//   launcher_tool client HOST PORT  commands from stdin, one answer per line: set K V | get K | add K N | wait K.. |
//                                   check K.. | compare_set K EXPECTED DESIRED | delete K
//   launcher_tool join              joins the world of the launcher's environment and prints what it found
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <numeric>
#include <sstream>

#include "parallel/group.h"
#include "parallel/launch/launcher.h"
#include "parallel/launch/rendezvous.h"
#include "parallel/store/tcp_store.h"

namespace chorus {
namespace {

constexpr int timeout_ms = 60'000;
constexpr int wait_ms = 2'000;

int failed(const Error& error) {
  std::cerr << name_of(error.code) << ": " << error.message << std::endl;
  return 1;
}

int serve() {
  const auto server = TcpStoreServer::start("127.0.0.1", 0);
  if (!server.ok()) return failed(server.error());
  std::cout << (*server)->port() << std::endl;
  std::string line;
  while (std::getline(std::cin, line)) continue;
  return 0;
}

template <typename T>
std::string text_of(const Result<T>& result) {
  if (!result.ok()) return fmt::format("error {}", name_of(result.error().code));
  return fmt::format("{}", *result);
}
std::string text_of(const Result<void>& result) {
  return result.ok() ? "ok" : fmt::format("error {}", name_of(result.error().code));
}

std::string run_command(Store* store, std::istringstream* words) {
  std::string command;
  std::vector<std::string> arguments;
  *words >> command;
  for (std::string word; *words >> word;) arguments.push_back(word == "''" ? "" : word);
  arguments.resize(std::max<std::size_t>(arguments.size(), command == "check" || command == "wait" ? 0 : 3));
  if (command == "set") return text_of(store->set(arguments[0], arguments[1], wait_ms));
  if (command == "get") return text_of(store->get(arguments[0], wait_ms));
  if (command == "add") return text_of(store->add(arguments[0], std::stoll(arguments[1]), wait_ms));
  if (command == "wait") return text_of(store->wait(arguments, wait_ms));
  if (command == "check") return text_of(store->check(arguments, wait_ms));
  if (command == "compare_set") return text_of(store->compare_set(arguments[0], arguments[1], arguments[2], wait_ms));
  if (command == "delete") return text_of(store->delete_key(arguments[0], wait_ms));
  return "unknown";
}

int client(const std::string& host, int port) {
  const auto store = connect_tcp_store(host, port, timeout_ms);
  if (!store.ok()) return failed(store.error());
  std::string line;
  while (std::getline(std::cin, line)) {
    std::istringstream words(line);
    std::cout << run_command(store->get(), &words) << std::endl;
  }
  return 0;
}

int join() {
  const auto environment = detect_launcher([](const std::string& name) -> std::optional<std::string> {
    const char* value = std::getenv(name.c_str());
    if (value == nullptr) return std::nullopt;
    return value;
  });
  if (!environment.ok()) return failed(environment.error());
  const auto place = open_meeting_place(*environment, nullptr, timeout_ms);
  if (!place.ok()) return failed(place.error());
  JoinOptions options;
  options.timeout_ms = options.exchange_timeout_ms = timeout_ms;
  const char* identity = std::getenv("LAUNCHER_TOOL_TCP");  // pretend that every rank is on another node
  if (identity != nullptr) options.node_identity = fmt::format("node {}", environment->rank);
  if (const char* key = std::getenv("LAUNCHER_TOOL_KEY"); key != nullptr) {
    auto read = ClusterKey::read(key);
    if (!read.ok()) return failed(read.error());
    options.key = std::move(*read);
  }
  const auto transport = join_world(place->store, environment->rank, environment->world_size, options);
  if (!transport.ok()) return failed(transport.error());
  std::vector<int> ranks(static_cast<std::size_t>(environment->world_size));
  std::iota(ranks.begin(), ranks.end(), 0);
  Group group(*transport, ranks);
  std::vector<float> sum{static_cast<float>(environment->rank + 1)};
  if (const auto summed = group.all_reduce_tree(sum); !summed.ok()) return failed(summed.error());
  if (const auto together = group.barrier(); !together.ok()) return failed(together.error());
  // One write, so that lines of several ranks do not mix.
  const std::string line = fmt::format("{} rank {} of {} sum {}\n", name_of(environment->launcher), environment->rank,
                                       environment->world_size, sum[0]);
  std::fwrite(line.data(), 1, line.size(), stdout);
  return 0;
}

}  // namespace
}  // namespace chorus

int main(int count, char** arguments) {
  const std::string mode = count > 1 ? arguments[1] : "";
  if (mode == "serve") return chorus::serve();
  if (mode == "client" && count == 4) return chorus::client(arguments[2], std::atoi(arguments[3]));
  if (mode == "join") return chorus::join();
  std::cerr << "launcher_tool serve | client HOST PORT | join" << std::endl;
  return 2;
}
