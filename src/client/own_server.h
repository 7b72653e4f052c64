// A `chorus serve` of one client's own: on a loopback port that the system chooses, behind a key that only the two
// know.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "client/http_client.h"
#include "net/unique_fd.h"

namespace chorus {

class OwnServer {
 public:
  // Starts `chorus serve` with these words after it, and waits until it serves or ends. Its log goes to this process's
  // stderr. It is killed with the thread that called this (PR_SET_PDEATHSIG), and Ctrl-C at the terminal is not its.
  // cancelled: `stop` said so (asked ten times a second); invalid_argument, unavailable: it ended, and has said why.
  static Result<OwnServer> start(const std::vector<std::string>& words, const std::string& log_level,
                                 const std::function<bool()>& stop);
  OwnServer(OwnServer&& other) noexcept;
  OwnServer& operator=(OwnServer&&) = delete;
  ~OwnServer();  // SIGTERM, and SIGKILL where that takes too long

  const Endpoint& endpoint() const { return endpoint_; }

 private:
  OwnServer() = default;
  Result<void> spawn(const std::vector<std::string>& words, const std::string& log_level);
  Result<void> wait_until_it_serves(const std::function<bool()>& stop);
  Error ended();

  int pid_ = 0;
  UniqueFd output_;
  Endpoint endpoint_;
};

}  // namespace chorus
