// Requests that come and go one by one, each of which tells what it says as it says it.
#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <vector>

#include "engine_work.h"

namespace chorus::python {

// Where the deltas of the requests of one event loop come together: its descriptor is readable while there are some.
// TextDelta::tag is the request's number.
class Mailbox {
 public:
  int descriptor() const { return wakeup_.fd(); }
  std::vector<TextDelta> take();
  void put(std::vector<TextDelta>&& deltas);

 private:
  std::mutex mutex_;
  std::vector<TextDelta> deltas_;
  Wakeup wakeup_;
};

// As Python holds one. Streams keep the mailbox itself: a reference to a Python object would ask for the GIL at its
// end.
struct MailboxHandle {
  std::shared_ptr<Mailbox> mailbox = std::make_shared<Mailbox>();
};

class Streams final : public EngineWork {
 public:
  TextEngineLimits limits(const EngineConfig&) const override { return {}; }
  Result<void> serve(TextEngine& engine, const EngineConfig& config, const std::atomic<bool>& stopping) override;
  void end(const Error& why) override;

  // Any thread. `number` is the caller's, and of no other request. A request that cannot run tells so by its only
  // delta; what has no room waits here, in order.
  void add(std::uint64_t number, GenerationInput input, const std::shared_ptr<Mailbox>& mailbox);
  void abort(std::uint64_t number);

 private:
  struct Added {
    std::uint64_t number = 0;
    GenerationInput input;
    std::shared_ptr<Mailbox> mailbox;
  };
  struct Stream {
    TextRequestId id = 0;
    std::shared_ptr<Mailbox> mailbox;
  };

  Result<void> take_orders(TextEngine& engine);
  void deliver(std::vector<TextDelta>* deltas);
  static void refuse(std::uint64_t number, Mailbox& mailbox, const Error& why);

  std::mutex mutex_;  // of these three; nothing is done under it, since Python's threads wait for it with the GIL
  std::deque<Added> added_;
  std::vector<std::uint64_t> aborted_;
  std::optional<Error> ended_;
  // Of the engine's thread: what it has taken of `added_`, and what the engine has taken of that, by number.
  std::deque<Added> waiting_;
  std::unordered_map<std::uint64_t, Stream> streams_;
};

}  // namespace chorus::python
