// The host's end of one incarnation of one replica: its process, unless that is somebody else's, the socket to it, and
// what waits to be sent there.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "base/result.h"
#include "cluster/hang_watch.h"
#include "cluster/placement.h"
#include "net/connection.h"
#include "protocol/messages.h"
#include "worker/child_process.h"
#include "worker/progress_memory.h"

namespace chorus {

class ReplicaLink {
 public:
  // Starts "chorus engine dp=RANK" from the program at that path.
  static Result<ReplicaLink> start(Placement replica, const std::string& program);
  // An engine that somebody else started and ends: process() is none, and never runs.
  static ReplicaLink adopt(Placement replica, std::unique_ptr<Connection> connection);

  Placement replica() const { return replica_; }
  bool adopted() const { return adopted_; }
  int pid() const { return pid_; }  // also after its end; of an adopted one as it says
  void set_pid(int pid) { pid_ = pid; }
  int present_pid() const { return adopted_ ? pid_ : process_.pid(); }  // 0: none
  ChildProcess& process() { return process_; }
  const ProgressMemory& progress_memory() const { return progress_; }  // none of an adopted one
  const ChildProcess& process() const { return process_; }

  // Queues a message; it goes out with this or a later pump(), as the engine takes it.
  void post(MessageType type, std::string payload, int descriptor = -1);
  // What is posted now goes to the connection at once. Whoever has much to send asks first: posts are not bounded here.
  bool has_room() const;
  // Of a link that has room: goes out with the next pump(), in one write with what else is queued then.
  void queue(MessageType type, std::string payload);
  // Sends what can be sent. A broken connection is not told here but by receive(), after the engine's last words.
  void pump();
  // Why a message could not be sent though the engine is there (it is over a limit): this engine waits for it in vain.
  const std::optional<Error>& send_error() const { return send_error_; }
  // The next frame of this incarnation; frames of another epoch are dropped (HELLO alone comes before the engine knows
  // its epoch, as 0). An error: the connection is broken, or spoke garbage; later calls give nothing.
  Result<std::optional<Frame>> receive();
  // HELLO, once. Errors: a second one, or another version of the program.
  Result<HelloMessage> take_hello(const Frame& frame);

  bool connected() const { return connection_ != nullptr; }
  void disconnect() { connection_.reset(); }
  // For poll(2), which skips the negative descriptor of a closed connection.
  pollfd poll_item() const;

  HangWatch hang_watch;
  bool was_ready = false;
  struct Closed {
    std::string why;
    Nanoseconds exits_until = 0;  // by then its process has ended, or it counts as broken
  };
  std::optional<Closed> closed;            // its connection
  std::optional<FatalMessage> last_words;  // the engine's own
  // Why it is dead, for "Worker rank 1 ...": set by who noticed; empty when a deadline ran out.
  std::string reason;

 private:
  void note(const Result<void>& sent);  // why nothing more can be sent
  struct Outgoing {
    MessageType type;
    std::string payload;
    int descriptor;
  };

  Placement replica_;
  int pid_ = 0;
  bool adopted_ = false;
  bool said_hello_ = false;
  ChildProcess process_;
  ProgressMemory progress_;
  std::unique_ptr<Connection> connection_;
  std::deque<Outgoing> outbox_;
  std::optional<Error> send_error_;
};

}  // namespace chorus
