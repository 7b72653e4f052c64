#include "ray/rank_actor.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "ray/child.h"

namespace chorus::ray_launcher {
namespace {

constexpr std::size_t last_words_bytes_max = 4096;
constexpr int look_every_ms = 100;

// Of this node, as Ray has it: it tells every worker on its command line.
std::string node_address() {
  std::ifstream file("/proc/self/cmdline");
  const std::string line((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  static const std::string option = "--ray_node_ip_address=";
  const auto at = line.find(option);
  return at == std::string::npos ? "" : line.substr(at + option.size(), line.find('\0', at) - at - option.size());
}

std::string refusal(const std::string& network, const std::string& only_here) {
  if (only_here.empty() || network == network_of_this_process()) return "";
  return "Ray has put it on node " + node_address() + ", which is another machine than the head's: " + only_here;
}

std::string dump(const nlohmann::json& value) {
  return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

std::string network_of_this_process() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string boot;
  std::getline(file, boot);
  std::error_code ignored;
  return boot + " " + std::filesystem::read_symlink("/proc/self/ns/net", ignored).string();
}

RankActor* RankActor::Create(std::vector<std::string> command, std::string network, std::string only_here) {
  return new RankActor(std::move(command), refusal(network, only_here));
}

RankActor::RankActor(std::vector<std::string> command, std::string refusal)
    : command_(std::move(command)), refusal_(std::move(refusal)), keeper_([this] { keep(); }) {}

std::string RankActor::Report(bool until_end) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return ended_ || (child_ != 0 && !until_end); });
  if (!until_end) return dump({{"node", node_address()}, {"pid", child_}});
  return dump({{"status", WIFEXITED(status_) ? WEXITSTATUS(status_) : 0},
               {"signal", WIFSIGNALED(status_) ? WTERMSIG(status_) : 0},
               {"last_words", last_words_}});
}

void RankActor::keep() {
  std::array<int, 2> ends{-1, -1};
  std::string failed;
  try {
    if (!refusal_.empty()) throw std::runtime_error(refusal_);
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
    ChildOptions options;
    options.output = ends[1];
    const pid_t child = start_child(command_, options);
    const std::lock_guard lock(mutex_);
    child_ = child;
  } catch (const std::exception& error) {
    failed = error.what();
  }
  ::close(ends[1]);
  changed_.notify_all();
  int status = 0x100;
  if (failed.empty()) {
    while (!has_ended(child_, &status)) take_output(ends[0]);
    take_output(ends[0]);
  }
  ::close(ends[0]);
  const std::lock_guard lock(mutex_);
  ended_ = true;
  status_ = status;
  if (!failed.empty()) last_words_ = failed;
  changed_.notify_all();
}

// Passes on to this worker's log what the child has said, and keeps the end of it. Waits a moment for it.
void RankActor::take_output(int descriptor) {
  std::array<char, 4096> bytes;
  pollfd item{descriptor, POLLIN, 0};
  while (::poll(&item, 1, look_every_ms) > 0 && (item.revents & POLLIN) != 0) {
    const ssize_t count = ::read(descriptor, bytes.data(), bytes.size());
    if (count <= 0) return;
    [[maybe_unused]] const auto written = ::write(STDERR_FILENO, bytes.data(), static_cast<std::size_t>(count));
    const std::lock_guard lock(mutex_);
    last_words_.append(bytes.data(), static_cast<std::size_t>(count));
    if (last_words_.size() > last_words_bytes_max) last_words_.erase(0, last_words_.size() - last_words_bytes_max);
  }
  // Closed while the child still runs: do not spin.
  if ((item.revents & POLLHUP) != 0) ::poll(nullptr, 0, look_every_ms);
}

RAY_REMOTE(RankActor::Create, &RankActor::Report);

}  // namespace chorus::ray_launcher
