#include "ray/own_cluster.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <stdexcept>

#include "ray/child.h"
#include "ray/cluster_command.h"

namespace chorus::ray_launcher {
namespace {

using Clock = std::chrono::steady_clock;

// A loopback address that Ray does not replace by an outer one, as it does with 127.0.0.1.
constexpr const char* node_address = "127.0.0.2";
// Ray's objects carry a few words each; the least that Ray takes is 75 MiB.
constexpr const char* object_store_bytes = "80000000";
constexpr int end_within_ms = 12'000;

int free_port() {
  const int probe = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  ::inet_pton(AF_INET, node_address, &address.sin_addr);
  socklen_t size = sizeof address;
  const bool bound = ::bind(probe, reinterpret_cast<const sockaddr*>(&address), size) == 0 &&
                     ::getsockname(probe, reinterpret_cast<sockaddr*>(&address), &size) == 0;
  ::close(probe);
  if (!bound) throw std::runtime_error("no free port for its own Ray cluster");
  return ntohs(address.sin_port);
}

std::string random_token() {
  std::array<unsigned char, 32> bytes{};
  if (::getrandom(bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size()))
    throw std::runtime_error("getrandom");
  std::string token;
  for (const unsigned char byte : bytes) {
    token += "0123456789abcdef"[byte >> 4];
    token += "0123456789abcdef"[byte & 15];
  }
  return token;
}

// The last line of what `ray start` has said.
std::string end_of(int log) {
  std::string text(65536, '\0');
  const off_t size = ::lseek(log, 0, SEEK_END);
  const ssize_t count =
      ::pread(log, text.data(), text.size(), std::max<off_t>(0, size - static_cast<off_t>(text.size())));
  text.resize(count < 0 ? 0 : static_cast<std::size_t>(count));
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text.substr(text.find_last_of('\n') == std::string::npos ? 0 : text.find_last_of('\n') + 1);
}

}  // namespace

void OwnCluster::set_environment() {
  ::setenv("RAY_AUTH_MODE", "token", 1);
  ::setenv("RAY_AUTH_TOKEN", random_token().c_str(), 1);
  ::setenv("RAY_USAGE_STATS_ENABLED", "0", 1);
  ::setenv("RAY_worker_niceness", "0", 1);  // ranks compute; by default Ray's workers yield to everything else
}

Cluster OwnCluster::start(int cpus, int timeout_s, const std::function<bool()>& interrupted) {
  std::string pattern = (std::filesystem::temp_directory_path() / "chorus-ray-XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error(pattern + " cannot be made");
  directory_ = pattern;
  const std::string address = std::string(node_address) + ":" + std::to_string(free_port());
  log_ = ::memfd_create("ray start", MFD_CLOEXEC);  // the directory goes before one may want to read there
  ChildOptions options;
  options.output = log_;
  options.death_signal = SIGTERM;  // it ends its processes then
  options.own_group = true;        // Ray signals its whole group
  process_ = start_child(cluster_command({"start",
                                          directory_,
                                          "--head",
                                          "--block",
                                          "--node-ip-address",
                                          node_address,
                                          "--port",
                                          address.substr(address.find(':') + 1),
                                          "--num-cpus",
                                          std::to_string(cpus),
                                          "--include-dashboard",
                                          "false",
                                          "--disable-usage-stats",
                                          "--ray-client-server-port",
                                          std::to_string(free_port()),
                                          "--dashboard-agent-listen-port",
                                          std::to_string(free_port()),
                                          "--object-store-memory",
                                          object_store_bytes,
                                          "--temp-dir",
                                          directory_,
                                          "--log-style",
                                          "record"}),
                         options);
  const auto deadline = Clock::now() + std::chrono::seconds(timeout_s);
  std::string why = "it did not come up";
  while (Clock::now() < deadline) {
    if (interrupted()) throw std::runtime_error("chorus has ended");
    int status = 0;
    if (has_ended(process_, &status)) {
      process_ = 0;
      throw std::runtime_error("ray start ended: " + end_of(log_));
    }
    ::poll(nullptr, 0, 200);
    // Written when the head's processes answer.
    if (!std::filesystem::exists(directory_ + "/ray_current_cluster")) continue;
    try {
      Cluster cluster = look_at_cluster(address, interrupted);
      if (cluster.own_node() != nullptr) return cluster;
    } catch (const std::exception& error) {
      why = error.what();
    }
  }
  throw std::runtime_error("no answer from it within " + std::to_string(timeout_s) + " s: " + why);
}

OwnCluster::~OwnCluster() {
  if (process_ > 0) {
    ::kill(process_, SIGTERM);
    int status = 0;
    for (int waited_ms = 0; !has_ended(process_, &status); waited_ms += 20) {
      if (waited_ms >= end_within_ms) ::kill(process_, SIGKILL);  // Ray's reaper then ends its group
      ::poll(nullptr, 0, 20);
    }
  }
  if (log_ >= 0) ::close(log_);
  std::error_code ignored;
  if (!directory_.empty()) std::filesystem::remove_all(directory_, ignored);
}

}  // namespace chorus::ray_launcher
