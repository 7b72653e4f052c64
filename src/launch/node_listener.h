// The head's side of replicas on other machines: listens for the nodes that bring them (launch/remote_node.h), checks
// that they belong here, and hands over each engine's connection. Never waits: the fleet's loop does.
#pragma once

#include <poll.h>

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "config/engine_config.h"
#include "net/frame_listener.h"
#include "protocol/messages.h"

namespace chorus {

class NodeListener {
 public:
  // Listens at the configuration's head address and port. Nodes that come before set_fingerprint() wait.
  static Result<std::unique_ptr<NodeListener>> listen(const EngineConfig& config);
  void set_fingerprint(Fingerprint fingerprint) { fingerprint_ = std::move(fingerprint); }
  const tcp::Address& address() const { return listener_.address(); }
  const std::string& last_refusal() const { return last_refusal_.empty() ? listener_.last_refusal() : last_refusal_; }

  void append_descriptors(std::vector<pollfd>* items) const;
  std::optional<Nanoseconds> next_deadline() const;

  struct Joined {
    int rank = 0;
    int worker = 0;  // of the replica; 0 brings the others with it, unless workers join singly
    std::string node;
    std::unique_ptr<Connection> connection;
  };
  // Who has joined since the last call. `objection` says why a worker's place is not free, or nothing. Who does not
  // belong here is told why, and logged.
  using Objection = std::function<std::string(int rank, int worker)>;
  std::vector<Joined> take(Nanoseconds now, const Objection& objection);

 private:
  struct Joining {
    std::unique_ptr<Connection> connection;
    std::string peer;
    Nanoseconds deadline = 0;
  };
  NodeListener(const EngineConfig& config, FrameListener listener);
  std::optional<Error> judge(const JoinMessage& join, const Objection& objection) const;
  // False: it is still to be waited for.
  bool advance(Joining* joining, Nanoseconds now, const Objection& objection, std::vector<Joined>* joined);

  ParallelConfig parallel_;
  FrameListener listener_;
  Fingerprint fingerprint_;
  std::string last_refusal_;     // of a node that held the key
  std::deque<Joining> joining_;  // authenticated, and JOIN not yet there; oldest first
};

}  // namespace chorus
