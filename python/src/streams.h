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

class Streams final : public EngineWork {
 public:
  TextEngineLimits limits(const EngineConfig&) const override { return {}; }
  Result<void> serve(TextEngine& engine, const EngineConfig& config, const std::atomic<bool>& stopping) override;
  void end(const Error& why) override;

  // Any thread. `number` is the caller's, and of no other request. A request that cannot run tells so by its only
  // delta; what has no room waits here, in order.
  void add(std::uint64_t number, GenerationInput input, std::shared_ptr<Mailbox> mailbox);
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

  std::mutex mutex_;
  std::deque<Added> added_;             // not with the engine yet
  std::vector<std::uint64_t> aborted_;  // likewise
  std::optional<Error> ended_;
  std::unordered_map<std::uint64_t, Stream> streams_;  // with the engine, by number; of the engine's thread
};

}  // namespace chorus::python
