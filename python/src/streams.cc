#include "streams.h"

#include <algorithm>
#include <map>
#include <utility>

namespace chorus::python {

std::vector<TextDelta> Mailbox::take() {
  const std::lock_guard lock(mutex_);
  wakeup_.quiet();
  return std::exchange(deltas_, {});
}

void Mailbox::put(std::vector<TextDelta>&& deltas) {
  const std::lock_guard lock(mutex_);
  if (deltas_.empty()) wakeup_.ring();
  std::ranges::move(deltas, std::back_inserter(deltas_));
}

Result<void> Streams::serve(TextEngine& engine, const EngineConfig& /*config*/, const std::atomic<bool>& stopping) {
  std::vector<TextDelta> deltas;
  while (!stopping) {
    CHORUS_TRY_VOID(take_orders(engine));
    CHORUS_TRY_VOID(idle(engine, &deltas));
    deliver(&deltas);
  }
  return {};
}

Result<void> Streams::take_orders(TextEngine& engine) {
  std::vector<std::uint64_t> aborted;
  {
    const std::lock_guard lock(mutex_);
    std::ranges::move(std::exchange(added_, {}), std::back_inserter(waiting_));
    aborted = std::exchange(aborted_, {});
  }
  for (const std::uint64_t number : aborted) {
    if (const auto found = streams_.find(number); found != streams_.end()) {
      engine.abort(found->second.id);
      streams_.erase(found);
    }
    std::erase_if(waiting_, [number](const Added& one) { return one.number == number; });
  }
  for (; !waiting_.empty() && engine.has_room(); waiting_.pop_front()) {
    Added& one = waiting_.front();
    one.input.tag = one.number;
    CHORUS_TRY(const TextRequestId id, engine.add(std::move(one.input)));
    streams_[one.number] = {id, std::move(one.mailbox)};
  }
  return {};
}

void Streams::deliver(std::vector<TextDelta>* deltas) {
  std::map<std::shared_ptr<Mailbox>, std::vector<TextDelta>> by_mailbox;
  for (TextDelta& delta : *deltas) {
    const auto found = streams_.find(delta.tag);
    if (found == streams_.end()) continue;
    const bool last = delta.last;
    by_mailbox[found->second.mailbox].push_back(std::move(delta));
    if (last) streams_.erase(found);
  }
  deltas->clear();
  for (auto& [mailbox, told] : by_mailbox) mailbox->put(std::move(told));
}

void Streams::refuse(std::uint64_t number, Mailbox& mailbox, const Error& why) {
  std::vector<TextDelta> only(1);
  only.front().tag = number;
  only.front().error = why.message;
  only.front().error_code = why.code;
  only.front().last = true;
  mailbox.put(std::move(only));
}

void Streams::end(const Error& why) {
  {
    const std::lock_guard lock(mutex_);
    ended_ = why;
    std::ranges::move(std::exchange(added_, {}), std::back_inserter(waiting_));
  }
  for (const auto& [number, stream] : std::exchange(streams_, {})) refuse(number, *stream.mailbox, why);
  for (const Added& one : std::exchange(waiting_, {})) refuse(one.number, *one.mailbox, why);
}

void Streams::add(std::uint64_t number, GenerationInput input, const std::shared_ptr<Mailbox>& mailbox) {
  std::optional<Error> ended;
  {
    const std::lock_guard lock(mutex_);
    ended = ended_;
    if (!ended) added_.push_back({number, std::move(input), mailbox});
  }
  if (ended) return refuse(number, *mailbox, *ended);
  wake();
}

void Streams::abort(std::uint64_t number) {
  {
    const std::lock_guard lock(mutex_);
    aborted_.push_back(number);
  }
  wake();
}

}  // namespace chorus::python
