#include "launch/ray_launcher.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/clock.h"

namespace chorus {
namespace {

constexpr int channel_fd = 3;
constexpr std::size_t line_bytes_max = std::size_t{16} << 20;
constexpr std::size_t text_bytes_max = 1000;
// Killing actors, giving their places back and ending its own cluster take a few seconds; chorus-ray bounds them
// itself.
constexpr int end_within_ms = 30'000;
constexpr int last_words_within_ms = 2'000;
constexpr int send_within_ms_max = 10'000;
constexpr int exit_not_started = 127;  // of the dynamic linker, too

std::string text_of(const Json& message, const char* key) {
  const auto found = message.find(key);
  std::string text = found != message.end() && found->is_string() ? found->get<std::string>() : "";
  if (text.size() > text_bytes_max) text.resize(text_bytes_max);
  // It goes into the log, and may come from another machine.
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
  return text;
}

double number_of(const Json& message, const char* key) {
  const auto found = message.find(key);
  return found != message.end() && found->is_number() ? found->get<double>() : 0;
}

RayCluster cluster_of(const Json& message) {
  RayCluster cluster{text_of(message, "address"), text_of(message, "head"), {}};
  const auto nodes = message.find("nodes");
  if (nodes == message.end() || !nodes->is_array()) return cluster;
  for (const Json& item : *nodes) {
    if (!item.is_object()) continue;
    const auto here = item.find("here");
    cluster.nodes.push_back({text_of(item, "address"), here != item.end() && here->is_boolean() && here->get<bool>(),
                             number_of(item, "cpus"), number_of(item, "cpus_free"), number_of(item, "memory_bytes")});
  }
  std::stable_partition(cluster.nodes.begin(), cluster.nodes.end(),
                        [&](const RayNode& node) { return node.address == cluster.own_node; });
  return cluster;
}

RayEvent event_of(const Json& message) {
  const std::string type = text_of(message, "type");
  const int rank = static_cast<int>(std::clamp(number_of(message, "rank"), -1.0, 1e6));
  const int part = static_cast<int>(std::clamp(number_of(message, "part"), 0.0, 1e6));
  if (type == "placed") return {RayEvent::Kind::placed, rank, part, text_of(message, "node")};
  if (type == "lost") return {RayEvent::Kind::lost, rank, part, text_of(message, "why")};
  if (type == "failed") return {RayEvent::Kind::failed, rank, part, text_of(message, "why")};
  return {RayEvent::Kind::note, -1, 0, text_of(message, "text")};
}

}  // namespace

bool RayCluster::all_here() const {
  return std::ranges::all_of(nodes, &RayNode::here);
}

Result<std::unique_ptr<RayLauncher>> RayLauncher::start(const std::string& program, const std::string& address,
                                                        int cpus, int timeout_ms) {
  if (::access(program.c_str(), X_OK) != 0) {
    return fail(ErrorCode::not_found,
                "--data-parallel-backend ray: there is no {}; build it with make ray, which installs Ray into a "
                "virtual environment (a Python package has it where make wheel came after that), "
                "or use --data-parallel-backend mp",
                program);
  }
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    return fail(ErrorCode::internal, "socketpair: {}", std::strerror(errno));
  }
  UniqueFd ours(ends[0]);
  const UniqueFd theirs(ends[1]);
  CHORUS_TRY(ChildProcess process, ChildProcess::spawn_program(program, "chorus-ray", theirs, channel_fd));
  std::unique_ptr<RayLauncher> launcher(new RayLauncher(std::move(process), std::move(ours)));
  launcher->send_within_ms_ = std::min(timeout_ms, send_within_ms_max);
  CHORUS_TRY_VOID(
      launcher->send({{"type", "connect"},
                      {"address", address},
                      {"cpus", cpus},
                      {"timeout_ms", timeout_ms},
                      {"actor", (std::filesystem::path(program).parent_path() / "libchorus_ray_actor.so").string()}}));
  return launcher;
}

RayLauncher::~RayLauncher() {
  socket_.reset();  // tells it to end
  process_.reap(end_within_ms);
}

Result<std::optional<RayCluster>> RayLauncher::wait_for_cluster(int timeout_ms) {
  CHORUS_TRY(const std::optional<Json> message, receive(timeout_ms));
  if (!message || text_of(*message, "type") != "cluster") return std::optional<RayCluster>();
  return std::optional<RayCluster>(cluster_of(*message));
}

Result<void> RayLauncher::place(const std::vector<RayRank>& ranks, int cpus, const std::string& only_here) {
  Json list = Json::array();
  for (const RayRank& rank : ranks) {
    Json parts = Json::array();
    for (const RayPart& part : rank.parts) parts.push_back({{"node", part.node}, {"command", part.command}});
    list.push_back({{"rank", rank.rank}, {"parts", std::move(parts)}});
  }
  return send(
      {{"type", "place"}, {"resources", {{"CPU", cpus}}}, {"only_here", only_here}, {"ranks", std::move(list)}});
}

std::vector<RayEvent> RayLauncher::take() {
  std::vector<RayEvent> events;
  while (socket_.valid()) {
    const auto message = receive(0);
    if (!message.ok()) {
      events.push_back({RayEvent::Kind::ended, -1, 0, message.error().message});
    } else if (*message) {
      events.push_back(event_of(**message));
    } else {
      break;
    }
  }
  return events;
}

// Its end is no error here: the next receive() finds it, with why.
Result<void> RayLauncher::send(const Json& message) {
  const std::string line = message.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  const Nanoseconds deadline = monotonic_now() + Nanoseconds{send_within_ms_} * 1'000'000;
  for (std::size_t at = 0; at < line.size();) {
    const ssize_t count = ::send(socket_.get(), line.data() + at, line.size() - at, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count >= 0) {
      at += static_cast<std::size_t>(count);
      continue;
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN) return {};
    const Nanoseconds left = deadline - monotonic_now();
    if (left <= 0) {
      return end_of(fmt::format("chorus-ray does not read: {} of {} bytes were to be said within {} ms",
                                line.size() - at, line.size(), send_within_ms_));
    }
    pollfd item{socket_.get(), POLLOUT, 0};
    ::poll(&item, 1, static_cast<int>(left / 1'000'000) + 1);
  }
  return {};
}

Result<std::optional<Json>> RayLauncher::receive(int timeout_ms) {
  if (!socket_.valid()) return fail(ErrorCode::unavailable, "chorus-ray has ended");
  while (true) {
    if (const auto end = received_.find('\n'); end != std::string::npos) {
      auto message = parse_json(std::string_view(received_).substr(0, end));
      received_.erase(0, end + 1);
      if (!message.ok() || !message->is_object()) return end_of("what it says is no JSON object");
      if (text_of(*message, "type") == "error") return end_of(text_of(*message, "why"));
      return std::optional<Json>(std::move(*message));
    }
    pollfd item{socket_.get(), POLLIN, 0};
    if (::poll(&item, 1, timeout_ms) <= 0) return std::optional<Json>();
    std::array<char, 65536> bytes;
    const ssize_t count = ::recv(socket_.get(), bytes.data(), bytes.size(), 0);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return end_of("");
    received_.append(bytes.data(), static_cast<std::size_t>(count));
    if (received_.size() > line_bytes_max) return end_of("a line of it passes 16 MiB");
  }
}

Error RayLauncher::end_of(const std::string& why) {
  socket_.reset();
  if (!why.empty()) return fail(ErrorCode::unavailable, "{}", why);
  const auto status = process_.reap(last_words_within_ms);
  if (status && status->code == exit_not_started) {
    return fail(
        ErrorCode::unavailable,
        "chorus-ray cannot be started, and has said why on stderr: where Ray's library libray_api.so is missing, "
        "install the package ray-cpp beside it (docs/ray.md)");
  }
  return fail(ErrorCode::unavailable, "chorus-ray {}: look whether the Ray cluster is healthy (ray status)",
              status ? describe(*status) : "says no more");
}

std::string beside_program(const std::string& program, const std::string& name) {
  std::error_code error;
  std::filesystem::path path = program;
  if (program == this_program) path = std::filesystem::read_symlink(path, error);
  return (path.parent_path() / name).string();
}

}  // namespace chorus
