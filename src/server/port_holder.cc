#include "server/port_holder.h"

#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <system_error>

namespace chorus {
namespace {

namespace fs = std::filesystem;

// "socket:[INODE]" of each listening socket with this port. proc(5): local address, "0A" for LISTEN, and the tenth
// column is the inode.
void add_listeners(const char* table, int port, std::set<std::string>* sockets) {
  std::ifstream file(table);
  const std::string wanted = fmt::format(":{:04X}", port);
  for (std::string line; std::getline(file, line);) {
    std::istringstream columns(line);
    std::string slot, local, remote, state, queues, timer, retransmits, user, timeout, inode;
    columns >> slot >> local >> remote >> state >> queues >> timer >> retransmits >> user >> timeout >> inode;
    if (local.ends_with(wanted) && state == "0A") sockets->insert("socket:[" + inode + "]");
  }
}

bool has_one_of(const fs::path& process, const std::set<std::string>& sockets) {
  std::error_code error;
  for (auto entry = fs::directory_iterator(process / "fd", error); !error && entry != fs::directory_iterator();
       entry.increment(error)) {
    std::error_code unreadable;
    if (sockets.contains(fs::read_symlink(entry->path(), unreadable).string())) return true;
  }
  return false;
}

}  // namespace

std::string port_holder(int port) {
  std::set<std::string> sockets;
  add_listeners("/proc/net/tcp", port, &sockets);
  add_listeners("/proc/net/tcp6", port, &sockets);
  std::error_code error;
  if (sockets.empty()) return {};
  for (auto entry = fs::directory_iterator("/proc", error); !error && entry != fs::directory_iterator();
       entry.increment(error)) {
    const std::string pid = entry->path().filename();
    if (pid.find_first_not_of("0123456789") != pid.npos || !has_one_of(entry->path(), sockets)) continue;
    std::string name;
    std::getline(std::ifstream(entry->path() / "comm"), name);
    return fmt::format("pid {} ({})", pid, name);
  }
  return {};
}

}  // namespace chorus
