#include "ray/cluster.h"

#include <fcntl.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <set>
#include <stdexcept>

#include "ray/child.h"
#include "ray/cluster_command.h"

namespace chorus::ray_launcher {
namespace {

using Clock = std::chrono::steady_clock;
using Interrupted = std::function<bool()>;
constexpr auto answer_within = std::chrono::seconds(30);
constexpr auto connect_within = std::chrono::seconds(10);
constexpr std::size_t answer_bytes_max = std::size_t{16} << 20;
constexpr int look_every_ms = 100;

std::set<std::string> own_addresses() {
  std::set<std::string> addresses;
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return addresses;
  for (const ifaddrs* item = list; item != nullptr; item = item->ifa_next) {
    if (item->ifa_addr == nullptr) continue;
    const int family = item->ifa_addr->sa_family;
    if (family != AF_INET && family != AF_INET6) continue;
    std::array<char, NI_MAXHOST> name{};
    const socklen_t size = family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
    if (::getnameinfo(item->ifa_addr, size, name.data(), name.size(), nullptr, 0, NI_NUMERICHOST) == 0) {
      addresses.emplace(name.data());
    }
  }
  ::freeifaddrs(list);
  return addresses;
}

struct Answer {
  int status = 0;
  std::string text;  // stdout and stderr
};

// Runs the script and reads what it says; one that does not end in time is killed.
Answer ask(const std::vector<std::string>& arguments, const Interrupted& interrupted) {
  std::array<int, 2> ends{-1, -1};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
  ChildOptions options;
  options.output = ends[1];
  const pid_t child = start_child(cluster_command(arguments), options);
  ::close(ends[1]);
  const auto deadline = Clock::now() + answer_within;
  Answer answer;
  std::array<char, 65536> bytes;
  while (Clock::now() < deadline && answer.text.size() < answer_bytes_max && !interrupted()) {
    pollfd item{ends[0], POLLIN, 0};
    if (::poll(&item, 1, look_every_ms) <= 0) continue;
    const ssize_t count = ::read(ends[0], bytes.data(), bytes.size());
    if (count <= 0) break;
    answer.text.append(bytes.data(), static_cast<std::size_t>(count));
  }
  ::close(ends[0]);
  while (!has_ended(child, &answer.status)) {
    if (Clock::now() >= deadline || interrupted()) ::kill(child, SIGKILL);
    ::poll(nullptr, 0, 10);
  }
  return answer;
}

std::string last_line(const std::string& text) {
  const auto end = text.find_last_not_of(" \n");
  if (end == std::string::npos) return "no answer in 30 s";
  const auto begin = text.find_last_of('\n', end);
  return text.substr(begin == std::string::npos ? 0 : begin + 1,
                     end - (begin == std::string::npos ? 0 : begin + 1) + 1);
}

// Why nobody is reached at one address until `deadline`; empty: somebody is.
std::string connect_error(const addrinfo& address, Clock::time_point deadline, const Interrupted& interrupted) {
  const int probe = ::socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  int error = ::connect(probe, address.ai_addr, address.ai_addrlen) == 0 ? 0 : errno;
  while (error == EINPROGRESS && Clock::now() < deadline && !interrupted()) {
    pollfd item{probe, POLLOUT, 0};
    socklen_t size = sizeof error;
    if (::poll(&item, 1, look_every_ms) > 0) ::getsockopt(probe, SOL_SOCKET, SO_ERROR, &error, &size);
  }
  ::close(probe);
  return error == 0 ? "" : error == EINPROGRESS ? "no answer in 10 s" : std::strerror(error);
}

// A port that refuses at once says so at once; Ray's own client would try for half a minute. A name may have several
// addresses, of which one is enough.
std::string unreachable(const std::string& address, const Interrupted& interrupted) {
  const auto colon = address.rfind(':');
  if (address == "auto") return "";
  if (colon == std::string::npos) return "it is not HOST:PORT";
  std::string host = address.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  if (const int error = ::getaddrinfo(host.c_str(), address.substr(colon + 1).c_str(), &hints, &list); error != 0) {
    return ::gai_strerror(error);
  }
  int left = 0;
  for (const addrinfo* item = list; item != nullptr; item = item->ai_next) ++left;
  const auto end = Clock::now() + connect_within;
  std::string why;
  for (const addrinfo* item = list; item != nullptr; item = item->ai_next, --left) {
    why = connect_error(*item, Clock::now() + (end - Clock::now()) / left, interrupted);
    if (why.empty()) break;
  }
  ::freeaddrinfo(list);
  return why;
}

}  // namespace

const ClusterNode* Cluster::own_node() const {
  const ClusterNode* own = nullptr;
  for (const ClusterNode& node : nodes) {
    if (node.here && (own == nullptr || (node.head && !own->head))) own = &node;
  }
  return own;
}

bool Cluster::has(const std::string& node_address) const {
  return std::any_of(nodes.begin(), nodes.end(), [&](const ClusterNode& node) { return node.address == node_address; });
}

Cluster look_at_cluster(const std::string& address, const Interrupted& interrupted) {
  if (const std::string why = unreachable(address, interrupted); !why.empty()) throw std::runtime_error(why);
  const Answer answer = ask({"nodes", address}, interrupted);
  const std::string line = last_line(answer.text);
  const Json json = Json::parse(line, nullptr, false);
  if (answer.status != 0 || !json.is_object()) throw std::runtime_error(line);
  const std::set<std::string> own = own_addresses();
  Cluster cluster;
  cluster.address = json.at("address");
  for (const Json& item : json.at("nodes")) {
    ClusterNode node;
    node.address = item.at("address");
    node.here = own.count(node.address) > 0 || node.address.rfind("127.", 0) == 0;
    node.head = item.at("head");
    node.raylet = item.at("raylet");
    for (const char* name : {"cpus", "cpus_free", "gpus", "gpus_free", "memory_bytes"}) {
      node.resources[name] = item.at(name);
    }
    cluster.nodes.push_back(std::move(node));
  }
  return cluster;
}

}  // namespace chorus::ray_launcher
