// The socket of an operator: `chorus ctl` asks, and what it is told is done to the fleet. A Unix socket as a file
// (0600), on which the kernel says who asks: the server's own user or root, nobody else.
//
// A request is a line of JSON, and so is its answer:
//   {"command": "drain", "rank": 1}     {"ok": true, ...}  or  {"ok": false, "wrong_usage": true, "error": "..."}
// Any number of them on a connection, one after the other. What they say is operator.h's.
//
// On the thread of the fleet's host. turn() never waits; its caller calls it ten times a second or more.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "server/unix_listener.h"

namespace chorus {

// The answer to a request, without the end of its line.
using ControlHandler = std::function<std::string(std::string_view request)>;

class ControlServer {
 public:
  static Result<ControlServer> open(const std::string& path);
  ControlServer(ControlServer&&) noexcept = default;

  // Takes what has come, and answers.
  void turn(const ControlHandler& handler);

 private:
  struct Client {
    UniqueFd socket;
    std::string input;   // what has come of a line
    std::string output;  // what has not been taken
    Nanoseconds heard_at = 0;
    bool ended = false;
  };
  ControlServer(UnixListener listener, UniqueFd socket);
  void accept();
  static void read(Client& client, const ControlHandler& handler);
  static void write(Client& client);

  UnixListener listener_;
  UniqueFd socket_;
  std::vector<Client> clients_;
};

// Asks the server at `path`, and waits for the answer, at most timeout_ms. Errors: nobody listens there, or it says
// nothing.
Result<std::string> ask_control(const std::string& path, const std::string& request, int timeout_ms);

}  // namespace chorus
