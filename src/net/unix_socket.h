// Stream sockets of the Unix domain, by the path of their file.
#pragma once

#include <sys/un.h>

#include <string>

#include "base/result.h"
#include "net/unique_fd.h"

namespace chorus {

// `subject`: what the path was given as, in front of each message ("unix:/run/chorus.sock"). Errors: invalid_argument,
// a path that is longer than the kernel takes.
Result<sockaddr_un> unix_address(const std::string& path, const std::string& subject);

// Blocking, connected. Errors: unix_address()'s; unavailable, nobody listens there.
Result<UniqueFd> connect_unix(const std::string& path, const std::string& subject);

}  // namespace chorus
