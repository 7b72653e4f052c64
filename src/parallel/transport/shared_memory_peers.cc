#include "parallel/transport/shared_memory_peers.h"

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <fstream>
#include <iterator>
#include <sstream>

namespace chorus {
namespace {

// When a process started, in ticks since boot: field 22 of /proc/PID/stat (proc(5)); 0 when it is not there.
std::uint64_t start_of_process(std::uint32_t process) {
  std::ifstream file(fmt::format("/proc/{}/stat", process));
  const std::string stat{std::istreambuf_iterator<char>(file), {}};
  const std::size_t name_end = stat.rfind(')');  // field 2 may hold blanks and parentheses
  if (name_end == std::string::npos) return 0;
  std::istringstream fields(stat.substr(name_end + 1));
  std::string skipped;
  for (int field = 3; field < 22; ++field) fields >> skipped;
  std::uint64_t start = 0;
  fields >> start;
  return start;
}

}  // namespace

SharedMemoryPeers::SharedMemoryPeers(const SharedMemory& memory, int self, const std::vector<int>& names)
    : memory_(memory), self_(self), names_(names) {
  for (int rank = 0; rank < memory.size(); ++rank) {
    if (rank != self) absent_.push_back(rank);
  }
}

SharedMemoryPeers::~SharedMemoryPeers() {
  for (const pollfd& watched : watched_) ::close(watched.fd);
}

void SharedMemoryPeers::announce() {
  RankSlot& slot = memory_.slot(self_);
  cpu_set_t cores;
  CPU_ZERO(&cores);
  ::sched_getaffinity(0, sizeof(cores), &cores);
  for (std::size_t core = 0; core < CPU_SETSIZE && core < slot.cores.size() * 64; ++core) {
    if (CPU_ISSET(core, &cores)) slot.cores[core / 64].fetch_or(std::uint64_t{1} << (core % 64));
  }
  const auto process = static_cast<std::uint32_t>(::getpid());
  slot.process.store(process);
  slot.process_start.store(start_of_process(process));
  slot.state.store(RankState::joined);
  for (int rank = 0; rank < memory_.size(); ++rank) {
    if (rank != self_) memory_.ring_doorbell(rank);
  }
}

bool SharedMemoryPeers::admit() {
  if (absent_.empty()) return true;
  std::erase_if(absent_, [&](int rank) {
    if (!joined(rank)) return false;
    watch(rank);
    return true;
  });
  if (absent_.empty()) count_cores();
  return absent_.empty();
}

void SharedMemoryPeers::watch(int rank) {
  const RankSlot& slot = memory_.slot(rank);
  const std::uint32_t process = slot.process.load();
  if (process == static_cast<std::uint32_t>(::getpid())) return;
  const int pidfd = static_cast<int>(::syscall(SYS_pidfd_open, process, 0));
  if (pidfd < 0) {
    // Other errors (EPERM in a sandbox, EMFILE) mean that it cannot be watched: then deadlines are what is left.
    if (errno == ESRCH) gone_.push_back(rank);
    return;
  }
  // The process that has the number now may be a later one.
  const std::uint64_t start = slot.process_start.load();
  if (start != 0 && start_of_process(process) != start) {
    ::close(pidfd);
    gone_.push_back(rank);
    return;
  }
  watched_.push_back({pidfd, POLLIN, 0});
  watched_ranks_.push_back(rank);
}

std::optional<std::string> SharedMemoryPeers::find_dead() {
  // A rank leaves before its process ends, so the state is read after the end was seen.
  for (const int rank : gone_) {
    if (!left(rank)) return death_of(rank);
  }
  if (watched_.empty() || ::poll(watched_.data(), watched_.size(), 0) <= 0) return std::nullopt;
  for (std::size_t i = 0; i < watched_.size(); ++i) {
    if ((watched_[i].revents & POLLIN) != 0 && !left(watched_ranks_[i])) return death_of(watched_ranks_[i]);
  }
  return std::nullopt;
}

std::string SharedMemoryPeers::death_of(int rank) const {
  return fmt::format("rank {} (process {}) died", names_[static_cast<std::size_t>(rank)],
                     memory_.slot(rank).process.load());
}

void SharedMemoryPeers::count_cores() {
  int count = 0;
  for (std::size_t word = 0; word < memory_.slot(self_).cores.size(); ++word) {
    std::uint64_t cores = 0;
    for (int rank = 0; rank < memory_.size(); ++rank) cores |= memory_.slot(rank).cores[word].load();
    count += std::popcount(cores);
  }
  core_for_each_ = count >= memory_.size();
}

}  // namespace chorus
