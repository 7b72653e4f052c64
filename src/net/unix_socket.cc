#include "net/unix_socket.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>

namespace chorus {

Result<sockaddr_un> unix_address(const std::string& path, const std::string& subject) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  if (path.size() >= sizeof name.sun_path) {
    return fail(ErrorCode::invalid_argument, "{}: a socket's path has at most {} bytes", subject,
                sizeof name.sun_path - 1);
  }
  path.copy(name.sun_path, path.size());
  return name;
}

Result<UniqueFd> connect_unix(const std::string& path, const std::string& subject) {
  CHORUS_TRY(const sockaddr_un name, unix_address(path, subject));
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name) == 0) return socket;
  return fail(ErrorCode::unavailable, "{}: {}; is a server running that was given this path?", subject,
              std::strerror(errno));
}

}  // namespace chorus
