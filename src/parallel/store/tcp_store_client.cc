#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "net/tcp.h"
#include "parallel/store/store_check.h"
#include "parallel/store/store_stream.h"
#include "parallel/store/tcp_store.h"
#include "parallel/store/tcp_store_protocol.h"
#include "parallel/transport/tcp_socket.h"

namespace chorus {
namespace {

// A server answers a cancelled wait at once; this long after the deadline the connection is given up.
constexpr int cancel_ms = 5'000;

class TcpStore final : public Store {
 public:
  TcpStore(std::unique_ptr<StoreStream> stream, std::string peer)
      : stream_(std::move(stream)), peer_(std::move(peer)) {}

  // The ping makes a wrong port or a server that is going away an error here and not in the first get().
  Result<void> greet(int timeout_ms) {
    std::string request = begin(StoreRequest::validate);
    append_store_value(&request, tcp_store_mark);
    request += begin(StoreRequest::ping);
    const auto nonce = static_cast<std::uint32_t>(::getpid());
    append_store_value(&request, nonce);
    CHORUS_TRY_VOID(ask(request, "", timeout_ms));
    CHORUS_TRY(const auto answer, answer_value<std::uint32_t>("", timeout_ms));
    if (answer == nonce) return {};
    return broken(
        fail(ErrorCode::unavailable, "{} is not a store: it answers a ping of {} with {}", peer_, nonce, answer));
  }

  Result<void> set(const std::string& key, std::string_view value, int timeout_ms) override {
    CHORUS_TRY_VOID(check_store_value(key, value));
    std::string request = begin(StoreRequest::set, key);
    append_store_text(&request, value);
    return ask(request, key, timeout_ms);
  }

  Result<std::string> get(const std::string& key, int timeout_ms) override {
    const Nanoseconds deadline = deadline_after(timeout_ms);
    CHORUS_TRY_VOID(
        wait({&key, 1}, timeout_ms));  // a server closes the connection of a client that gets what is not there
    const int left_ms = std::max(milliseconds_until(deadline), 1000);
    CHORUS_TRY_VOID(ask(begin(StoreRequest::get, key), key, left_ms));
    return answer_text(key, left_ms);
  }

  Result<std::int64_t> add(const std::string& key, std::int64_t delta, int timeout_ms) override {
    CHORUS_TRY_VOID(check_store_key(key));
    std::string request = begin(StoreRequest::add, key);
    append_store_value(&request, delta);
    CHORUS_TRY_VOID(ask(request, key, timeout_ms));
    return answer_value<std::int64_t>(key, timeout_ms);
  }

  Result<std::string> compare_set(const std::string& key, std::string_view expected, std::string_view desired,
                                  int timeout_ms) override {
    CHORUS_TRY_VOID(check_store_value(key, expected));
    CHORUS_TRY_VOID(check_store_value(key, desired));
    std::string request = begin(StoreRequest::compare_set, key);
    append_store_text(&request, expected);
    append_store_text(&request, desired);
    CHORUS_TRY_VOID(ask(request, key, timeout_ms));
    return answer_text(key, timeout_ms);
  }

  Result<bool> delete_key(const std::string& key, int timeout_ms) override {
    CHORUS_TRY_VOID(check_store_key(key));
    CHORUS_TRY_VOID(ask(begin(StoreRequest::delete_key, key), key, timeout_ms));
    CHORUS_TRY(const auto deleted, answer_value<std::int64_t>(key, timeout_ms));
    return deleted > 0;
  }

  Result<bool> check(std::span<const std::string> keys, int timeout_ms) override {
    if (keys.empty()) return true;
    CHORUS_TRY_VOID(check_store_keys(keys));
    CHORUS_TRY_VOID(ask(begin(StoreRequest::check, keys), keys.front(), timeout_ms));
    CHORUS_TRY(const auto answer, answer_value<std::uint8_t>(keys.front(), timeout_ms));
    return answer == 0;
  }

  Result<void> wait(std::span<const std::string> keys, int timeout_ms) override {
    if (keys.empty()) return {};
    CHORUS_TRY_VOID(check_store_keys(keys));
    const std::string& key = keys.front();
    CHORUS_TRY_VOID(ask(begin(StoreRequest::wait, keys), key, std::max(timeout_ms, 1000)));
    const auto answered = receive_until(1, deadline_after(timeout_ms));
    if (!answered.ok()) return with_key(answered.error(), key, timeout_ms);
    if (*answered) {
      CHORUS_TRY(const auto answer, answer_value<std::uint8_t>(key, cancel_ms));
      if (answer == 0) return {};
      return broken(fail(ErrorCode::unavailable, "store key {}: {} answers a wait with {}", key, peer_, answer));
    }
    return cancel_wait(keys, timeout_ms);
  }

  std::string local_address() const override {
    const auto address = tcp::local_address(stream_->fd());
    return address.ok() ? address->host() : std::string();
  }

 private:
  static std::string begin(StoreRequest kind) { return std::string(1, static_cast<char>(kind)); }
  static std::string begin(StoreRequest kind, const std::string& key) {
    std::string request = begin(kind);
    append_store_text(&request, tcp_store_key_prefix + key);
    return request;
  }
  static std::string begin(StoreRequest kind, std::span<const std::string> keys) {
    std::string request = begin(kind);
    append_store_value<std::uint64_t>(&request, keys.size());
    for (const std::string& key : keys) append_store_text(&request, tcp_store_key_prefix + key);
    return request;
  }

  // Half a request or half an answer cannot be made good: the connection is not used again.
  Error broken(Error error) {
    broken_ = error.message;
    return error;
  }

  Error with_key(const Error& error, const std::string& key, int timeout_ms) {
    return broken(
        fail(error.code, "store{}{}: {} (limit {} ms)", key.empty() ? "" : " key ", key, error.message, timeout_ms));
  }

  Result<void> ask(std::string_view request, const std::string& key, int timeout_ms) {
    if (!broken_.empty()) {
      return fail(ErrorCode::unavailable, "store key {}: the connection is broken since: {}", key, broken_);
    }
    const auto sent = send_until(request, deadline_after(timeout_ms));
    if (!sent.ok()) return with_key(sent.error(), key, timeout_ms);
    if (*sent) return {};
    return with_key(fail(ErrorCode::deadline_exceeded, "{} takes no bytes", peer_), key, timeout_ms);
  }

  // False: the deadline passed first.
  Result<bool> send_until(std::string_view bytes, Nanoseconds deadline) {
    for (auto sent = stream_->send(bytes);; sent = stream_->flush()) {
      if (!sent.ok()) return with_context(sent.error(), peer_);
      if (stream_->queued_bytes() == 0) return true;
      CHORUS_TRY(const bool ready, wait_for_socket(stream_->fd(), POLLOUT, deadline));
      if (!ready) return false;
    }
  }

  // Until `count` bytes are in received_. False: the deadline passed first.
  Result<bool> receive_until(std::size_t count, Nanoseconds deadline) {
    while (true) {
      const auto more = stream_->receive(&received_);
      if (!more.ok()) return with_context(more.error(), peer_);
      if (received_.size() >= count) return true;
      if (*more) continue;
      CHORUS_TRY(const bool ready, wait_for_socket(stream_->fd(), POLLIN, deadline));
      if (!ready) return false;
    }
  }

  Result<void> answer_bytes(void* to, std::size_t count, const std::string& key, int timeout_ms) {
    const auto received = receive_until(count, deadline_after(timeout_ms));
    if (!received.ok()) return with_key(received.error(), key, timeout_ms);
    if (!*received)
      return with_key(fail(ErrorCode::deadline_exceeded, "{} gave no answer in time", peer_), key, timeout_ms);
    std::memcpy(to, received_.data(), count);
    received_.erase(0, count);
    return {};
  }

  template <typename T>
  Result<T> answer_value(const std::string& key, int timeout_ms) {
    T value{};
    CHORUS_TRY_VOID(answer_bytes(&value, sizeof value, key, timeout_ms));
    return value;
  }

  Result<std::string> answer_text(const std::string& key, int timeout_ms) {
    CHORUS_TRY(const auto bytes, answer_value<std::uint64_t>(key, timeout_ms));
    if (bytes > store_value_bytes_max) {
      return broken(fail(ErrorCode::invalid_argument, "store key {}: a value of {} bytes, the limit is {}", key, bytes,
                         store_value_bytes_max));
    }
    std::string text(bytes, '\0');
    CHORUS_TRY_VOID(answer_bytes(text.data(), text.size(), key, timeout_ms));
    return text;
  }

  // The wait's answer may be on its way already: then it comes before the cancellation's.
  Result<void> cancel_wait(std::span<const std::string> keys, int timeout_ms) {
    const std::string& key = keys.front();
    CHORUS_TRY_VOID(ask(begin(StoreRequest::cancel_wait), key, cancel_ms));
    CHORUS_TRY(const auto answer, answer_value<std::uint8_t>(key, cancel_ms));
    if (answer != 0) return store_deadline_error(keys, timeout_ms);
    CHORUS_TRY([[maybe_unused]] const auto cancelled, answer_value<std::uint8_t>(key, cancel_ms));
    return {};
  }

  std::unique_ptr<StoreStream> stream_;
  std::string peer_;      // "the store at host port 1234"
  std::string received_;  // and not used yet
  std::string broken_;    // why
};

}  // namespace

Result<std::unique_ptr<Store>> connect_tcp_store(const std::string& host, int port, int timeout_ms,
                                                 std::shared_ptr<const ClusterKey> key) {
  const Nanoseconds deadline = deadline_after(timeout_ms);
  auto stream = connect_store_stream(host, port, std::move(key), deadline);
  if (!stream.ok()) return with_context(stream.error(), "store");
  auto store =
      std::make_unique<TcpStore>(std::move(stream).value(), fmt::format("the store at {} port {}", host, port));
  CHORUS_TRY_VOID(store->greet(std::max(milliseconds_until(deadline), 1000)));
  return std::unique_ptr<Store>(std::move(store));
}

}  // namespace chorus
