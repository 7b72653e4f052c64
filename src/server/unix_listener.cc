#include "server/unix_listener.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "net/unix_socket.h"

namespace chorus {
namespace {

constexpr int backlog = 4096;  // the kernel's own bound (somaxconn)

Result<UniqueFd> make_socket() {
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket.valid()) return fail(ErrorCode::internal, "socket: {}", std::strerror(errno));
  return socket;
}

Result<void> remove_abandoned(const std::string& path, const char* option, const sockaddr_un& name) {
  struct stat found {};
  if (::lstat(path.c_str(), &found) != 0) return {};
  if (!S_ISSOCK(found.st_mode)) {
    return fail(ErrorCode::invalid_argument, "{} {}: there is a file that is no socket; name another path", option,
                path);
  }
  CHORUS_TRY(const UniqueFd probe, make_socket());
  const int connected = ::connect(probe.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name);
  if (connected == 0 || errno != ECONNREFUSED) {
    return fail(ErrorCode::unavailable, "{} {}: a server listens there; end it, or name another path", option, path);
  }
  ::unlink(path.c_str());
  return {};
}

}  // namespace

Result<UnixListener> UnixListener::open(const std::string& path, const char* option) {
  CHORUS_TRY(const sockaddr_un name, unix_address(path, fmt::format("{} {}", option, path)));
  CHORUS_TRY_VOID(remove_abandoned(path, option, name));
  CHORUS_TRY(UniqueFd socket, make_socket());
  // Nobody can connect before listen(): by then the file is this user's alone.
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name) != 0 ||
      ::chmod(path.c_str(), S_IRUSR | S_IWUSR) != 0 || ::listen(socket.get(), backlog) != 0) {
    return fail(ErrorCode::unavailable, "{} {}: {}", option, path, std::strerror(errno));
  }
  return UnixListener(std::move(socket), path);
}

UnixListener::UnixListener(UniqueFd socket, std::string path) : socket_(std::move(socket)), path_(std::move(path)) {
  struct stat made {};
  if (::lstat(path_.c_str(), &made) != 0) return;
  device_ = made.st_dev;
  file_ = made.st_ino;
}

UnixListener::UnixListener(UnixListener&& other) noexcept
    : socket_(std::move(other.socket_)),
      path_(std::exchange(other.path_, {})),
      device_(other.device_),
      file_(other.file_) {}

UnixListener::~UnixListener() {
  struct stat found {};
  if (path_.empty() || ::lstat(path_.c_str(), &found) != 0) return;
  if (found.st_dev == device_ && found.st_ino == file_) ::unlink(path_.c_str());
}

Result<std::vector<UniqueFd>> UnixListener::descriptors(int count) const {
  std::vector<UniqueFd> all;
  for (int i = 0; i < count; ++i) {
    all.emplace_back(::fcntl(socket_.get(), F_DUPFD_CLOEXEC, 0));
    if (!all.back().valid()) return fail(ErrorCode::resource_exhausted, "fcntl: {}", std::strerror(errno));
  }
  return all;
}

}  // namespace chorus
