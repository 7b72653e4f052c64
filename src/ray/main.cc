// chorus-ray: the distributed engine Ray for a head (chorus with --data-parallel-backend ray), which starts it with a
// socket as descriptor 3 and tells it what to place. It ends when that socket does (docs/ray.md).
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <thread>

#include "ray/channel.h"
#include "ray/cluster.h"
#include "ray/own_cluster.h"
#include "ray/ranks.h"
#include "ray/raylet_watch.h"

namespace chorus::ray_launcher {
namespace {

constexpr int channel_fd = 3;
constexpr int first_message_within_ms = 60'000;
constexpr int step_ms = 200;
constexpr int last_words_within_ms = 5'000;
constexpr unsigned end_without_raylet_within_s = 3;
std::atomic<unsigned> end_within_s = 20;

// A call into Ray may hang when the cluster does. When the head is gone, everything ends within end_within_s.
void bound_the_end() {
  std::thread([] {
    pollfd item{channel_fd, POLLRDHUP, 0};
    while (::poll(&item, 1, -1) <= 0 || (item.revents & (POLLRDHUP | POLLHUP | POLLERR)) == 0) {
    }
    ::alarm(end_within_s);
  }).detach();
}

Json receive_connect(Channel* channel) {
  std::optional<Json> message = channel->receive(first_message_within_ms);
  if (!message || message->value("type", "") != "connect") throw std::runtime_error("no connect from chorus");
  return *message;
}

// Ray's library reads its environment before main() begins. So this program sets it, and starts again with what it has
// heard.
[[noreturn]] void start_again(const Json& connect) {
  ::setenv("RAY_BACKEND_LOG_LEVEL", "error", 0);
  if (connect.at("address") == "") OwnCluster::set_environment();
  std::string program = "chorus-ray";
  std::string message = connect.dump();
  char* argv[] = {program.data(), message.data(), nullptr};
  ::execv("/proc/self/exe", argv);
  throw std::runtime_error(std::string("chorus-ray cannot start itself again: ") + std::strerror(errno));
}

// Ray's client speaks on stderr before it knows which lines are wanted.
class QuietErrors {
 public:
  QuietErrors() : kept_(::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0)) {
    const int null = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (null >= 0) ::dup2(null, STDERR_FILENO);
    if (null >= 0) ::close(null);
  }
  QuietErrors(const QuietErrors&) = delete;
  QuietErrors& operator=(const QuietErrors&) = delete;
  ~QuietErrors() {
    if (kept_ >= 0) ::dup2(kept_, STDERR_FILENO);
    if (kept_ >= 0) ::close(kept_);
  }

 private:
  int kept_;
};

Cluster reach(const Json& connect, const Channel& channel, OwnCluster* own) {
  const std::string address = connect.at("address");
  try {
    if (address.empty()) {
      return own->start(connect.at("cpus"), connect.at("timeout_ms").get<int>() / 1000 + 1,
                        [&] { return channel.hung_up(); });
    }
    return look_at_cluster(address, [&] { return channel.hung_up(); });
  } catch (const std::exception& error) {
    if (address.empty())
      throw std::runtime_error(std::string("a Ray cluster on this machine does not start: ") + error.what());
    throw std::runtime_error("no Ray cluster is reached at RAY_ADDRESS " + address + ": " + error.what() +
                             "; start one with ray start --head, or unset RAY_ADDRESS for one of chorus's own");
  }
}

// Disconnects at the end of its scope, so that Ray forgets this program's actors and places at once.
struct Connection {
  Connection() = default;
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection() {
    if (ray::IsInitialized()) ray::Shutdown();
  }
};

void connect_to_ray(const Json& connect, const Cluster& cluster) {
  const ClusterNode* own = cluster.own_node();
  if (own == nullptr) {
    throw std::runtime_error("this machine is no node of the Ray cluster at " + cluster.address +
                             ": add it with ray start --address=" + cluster.address + ", and run chorus again");
  }
  ray::RayConfig config;
  config.address = cluster.address;
  config.code_search_path = {connect.at("actor").get<std::string>()};
  std::string program = "chorus-ray";
  std::string node = "--ray_node_ip_address=" + own->address;
  char* argv[] = {program.data(), node.data(), nullptr};
  const QuietErrors quiet;
  ray::Init(config, 2, argv);
}

Json description_of(const Cluster& cluster) {
  Json nodes = Json::array();
  for (const ClusterNode& node : cluster.nodes) {
    Json item = node.resources;
    item["address"] = node.address;
    item["here"] = node.here;
    nodes.push_back(std::move(item));
  }
  return {{"type", "cluster"},
          {"address", cluster.address},
          {"head", cluster.own_node()->address},
          {"nodes", std::move(nodes)}};
}

void run(const Json& connect, Channel* channel) {
  OwnCluster own;
  const Cluster cluster = reach(connect, *channel, &own);
  const Connection connection;
  connect_to_ray(connect, cluster);
  const RayletWatch raylet(cluster.own_node()->raylet);
  channel->send(description_of(cluster));
  // The head holds the deadline: it ends this program when it has waited enough.
  std::optional<Json> place;
  while (!place && !channel->closed()) place = channel->receive(step_ms);
  if (!place || place->value("type", "") != "place") return;
  Ranks ranks(*place, cluster.address, channel);
  while (!channel->closed()) {
    if (raylet.has_ended()) {
      // Said before anything is given back: that may hang now, and Ray does it too when it finds this node dead.
      end_within_s = end_without_raylet_within_s;
      return channel->send({{"type", "error"},
                            {"why",
                             "the raylet of this machine has ended, through which it works: look at ray status, "
                             "start it again with ray start"}});
    }
    ranks.step(step_ms);
    if (channel->receive(0)) return;  // "end" is all that may come
  }
}

}  // namespace
}  // namespace chorus::ray_launcher

int main(int argc, char** argv) {
  using namespace chorus::ray_launcher;
  if (argc > 2 || ::fcntl(channel_fd, F_GETFD) < 0) {
    std::fputs("chorus-ray is started by chorus: chorus generate MODEL --data-parallel-backend ray\n", stderr);
    return 2;
  }
  ::signal(SIGINT, SIG_IGN);  // the head's business
  ::signal(SIGTERM, SIG_IGN);
  ::signal(SIGHUP, SIG_IGN);
  ::signal(SIGPIPE, SIG_IGN);
  Channel channel(channel_fd);
  try {
    if (argc == 1) start_again(receive_connect(&channel));
    ::fcntl(channel_fd, F_SETFD, FD_CLOEXEC);
    bound_the_end();
    run(Json::parse(argv[1]), &channel);
    channel.flush(last_words_within_ms);
    return 0;
  } catch (const std::exception& error) {
    channel.send({{"type", "error"}, {"why", error.what()}});
    channel.flush(last_words_within_ms);
    return 1;
  }
}
