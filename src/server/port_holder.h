// Who listens on a TCP port of this machine, for the error of somebody who wanted it.
#pragma once

#include <string>

namespace chorus {

// "pid 1234 (nginx)"; empty: it cannot be seen (another user's process, no /proc).
std::string port_holder(int port);

}  // namespace chorus
