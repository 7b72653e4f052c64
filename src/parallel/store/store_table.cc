#include "parallel/store/store_table.h"

#include <algorithm>

#include "parallel/store/store.h"
#include "parallel/store/store_check.h"

namespace chorus {

// One request out of what has come so far. When something is missing, `short_` is set and the request is read again
// from its beginning once there are bytes_needed() bytes; when it can never become a request, `refused`.
class StoreRequestReader {
 public:
  explicit StoreRequestReader(std::string_view bytes) : bytes_(bytes) {}

  template <typename T>
  T value() {
    T result{};
    const std::string_view raw = take(sizeof(T));
    if (raw.size() == sizeof(T)) std::memcpy(&result, raw.data(), sizeof(T));
    return result;
  }
  // `following`: how many texts are to come after this one.
  std::string_view text(std::size_t bytes_max, std::uint64_t following) {
    following_bytes_min_ = static_cast<std::size_t>(following) * sizeof(std::uint64_t);
    const auto bytes = value<std::uint64_t>();
    if (bytes > bytes_max) refused_ = true;
    return complete() ? take(static_cast<std::size_t>(bytes)) : std::string_view();
  }
  std::string_view key(std::uint64_t following = 0) { return text(store_key_bytes_max + 1, following); }
  std::string_view payload(std::uint64_t following = 0) { return text(store_value_bytes_max, following); }
  std::uint64_t count() {
    const auto result = value<std::uint64_t>();
    if (result > store_wait_keys_max) refused_ = true;
    return complete() ? result : 0;
  }
  std::vector<std::string> keys() {
    std::vector<std::string> result;
    for (std::uint64_t left = count(); left > 0 && complete(); --left) result.emplace_back(key(left - 1));
    return result;
  }

  bool complete() const { return !short_ && !refused_; }
  bool refused() const { return refused_; }
  std::size_t offset() const { return offset_; }
  // Of a request that is not complete: it has at least so many bytes. A text that is known only by its count has 8.
  std::size_t bytes_needed() const { return bytes_needed_; }

 private:
  std::string_view take(std::size_t bytes) {
    if (complete() && bytes_.size() - offset_ < bytes) {
      short_ = true;
      bytes_needed_ = offset_ + bytes + following_bytes_min_;
    }
    if (!complete()) return {};
    offset_ += bytes;
    return bytes_.substr(offset_ - bytes, bytes);
  }

  std::string_view bytes_;
  std::size_t offset_ = 0;
  std::size_t following_bytes_min_ = 0;
  std::size_t bytes_needed_ = 0;
  bool short_ = false;
  bool refused_ = false;
};

void StoreTable::close(Session* session) {
  sessions_.remove_if([session](const Session& one) { return &one == session; });
}

Result<void> StoreTable::answer(Session* session) {
  std::size_t used = 0;
  while (session->input.size() - used >= session->bytes_needed) {
    CHORUS_TRY(const std::size_t taken, answer_first(session, std::string_view(session->input).substr(used)));
    if (taken == 0) break;
    used += taken;
  }
  session->input.erase(0, used);
  if (session->input.size() <= store_input_bytes_max && session->output.size() <= store_output_bytes_max) return {};
  return fail(ErrorCode::resource_exhausted, "it is over the limits on requests and answers");
}

// How many bytes the first request of `bytes` took; 0: it is not all there yet.
Result<std::size_t> StoreTable::answer_first(Session* session, std::string_view bytes) {
  Reader reader(bytes);
  const auto kind = static_cast<StoreRequest>(reader.value<std::uint8_t>());
  if (!session->validated && kind != StoreRequest::validate) {
    return fail(ErrorCode::invalid_argument, "it did not begin as a store's client does");
  }
  const bool sensible = dispatch(session, kind, &reader);
  if (reader.refused() || !sensible) return fail(ErrorCode::invalid_argument, "it sent what is no request");
  session->bytes_needed = reader.complete() ? 1 : reader.bytes_needed();
  return reader.complete() ? reader.offset() : 0;
}

// False: the request is whole and makes no sense. Nothing may be done before reader->complete().
bool StoreTable::dispatch(Session* session, StoreRequest kind, Reader* reader) {
  switch (kind) {
    case StoreRequest::validate: {
      const auto mark = reader->value<std::uint32_t>();
      session->validated = session->validated || (reader->complete() && mark == tcp_store_mark);
      return !reader->complete() || mark == tcp_store_mark;
    }
    case StoreRequest::ping: {
      const auto nonce = reader->value<std::uint32_t>();
      if (reader->complete()) append_store_value(&session->output, nonce);
      return true;
    }
    case StoreRequest::set: {
      const auto key = reader->key(), value = reader->payload();
      return !reader->complete() || store(std::string(key), value);
    }
    case StoreRequest::append: {
      const auto key = reader->key(), value = reader->payload();
      if (!reader->complete()) return true;
      const auto found = values_.find(key);
      return store(std::string(key), (found == values_.end() ? "" : found->second) + std::string(value));
    }
    case StoreRequest::multi_set:
      return multi_set(reader);
    case StoreRequest::compare_set:
      return compare_set(session, reader);
    case StoreRequest::add:
      return add(session, reader);
    case StoreRequest::get: {
      const auto key = reader->key();
      return !reader->complete() || append_value_of(session, key);
    }
    case StoreRequest::multi_get: {
      const auto keys = reader->keys();
      return !reader->complete() ||
             std::ranges::all_of(keys, [&](const auto& key) { return append_value_of(session, key); });
    }
    case StoreRequest::check: {
      const auto keys = reader->keys();
      if (reader->complete()) session->output.push_back(all_there(keys) ? 0 : 1);
      return true;
    }
    case StoreRequest::wait:
      return wait(session, reader);
    case StoreRequest::cancel_wait:
      session->waits_for.clear();
      session->output.push_back(1);
      return true;
    case StoreRequest::key_count:
      append_store_value(&session->output, static_cast<std::int64_t>(values_.size()));
      return true;
    case StoreRequest::delete_key: {
      const auto key = reader->key();
      if (reader->complete()) append_store_value(&session->output, static_cast<std::int64_t>(erase(key)));
      return true;
    }
  }
  return false;
}

bool StoreTable::multi_set(Reader* reader) {
  std::vector<std::pair<std::string_view, std::string_view>> read;
  for (std::uint64_t left = reader->count(); left > 0 && reader->complete(); --left) {
    const auto key = reader->key(2 * left - 1);
    read.emplace_back(key, reader->payload(2 * left - 2));
  }
  if (!reader->complete()) return true;
  return std::ranges::all_of(read, [&](const auto& pair) { return store(std::string(pair.first), pair.second); });
}

// For a key that is not there and an `expected` that is not empty the answer is `expected`, as torch's server gives
// it.
bool StoreTable::compare_set(Session* session, Reader* reader) {
  const auto key = reader->key(2), expected = reader->payload(1), desired = reader->payload();
  if (!reader->complete()) return true;
  const auto found = values_.find(key);
  if (found == values_.end() ? expected.empty() : found->second == expected) {
    append_store_text(&session->output, desired);
    return store(std::string(key), desired);
  }
  append_store_text(&session->output, found == values_.end() ? expected : std::string_view(found->second));
  return true;
}

bool StoreTable::add(Session* session, Reader* reader) {
  const std::string key(reader->key());
  const auto delta = reader->value<std::int64_t>();
  if (!reader->complete()) return true;
  const auto found = values_.find(key);
  const auto sum = add_to_counter(key, found == values_.end() ? "" : found->second, delta);
  if (!sum.ok() || !store(key, std::to_string(*sum))) return false;
  append_store_value(&session->output, *sum);
  return true;
}

bool StoreTable::wait(Session* session, Reader* reader) {
  auto keys = reader->keys();
  if (!reader->complete()) return true;
  if (all_there(keys)) {
    session->output.push_back(0);
  } else {
    session->waits_for = std::move(keys);
  }
  return true;
}

// False: the store is full.
bool StoreTable::store(const std::string& key, std::string_view value) {
  if (value.size() > store_value_bytes_max) return false;
  erase(key);
  if (bytes_ + key.size() + value.size() > store_bytes_max) return false;
  bytes_ += key.size() + value.size();
  values_.emplace(key, value);
  for (Session& session : sessions_) {
    if (session.waits_for.empty() || std::ranges::find(session.waits_for, key) == session.waits_for.end()) continue;
    if (!all_there(session.waits_for)) continue;
    session.waits_for.clear();
    session.output.push_back(0);
  }
  return true;
}

std::size_t StoreTable::erase(std::string_view key) {
  const auto found = values_.find(key);
  if (found == values_.end()) return 0;
  bytes_ -= found->first.size() + found->second.size();
  values_.erase(found);
  return 1;
}

bool StoreTable::append_value_of(Session* session, std::string_view key) {
  const auto found = values_.find(key);
  if (found == values_.end()) return false;
  append_store_text(&session->output, found->second);
  return session->output.size() <= store_output_bytes_max;
}

bool StoreTable::all_there(const std::vector<std::string>& keys) const {
  return std::ranges::all_of(keys, [&](const auto& key) { return values_.contains(key); });
}

}  // namespace chorus
