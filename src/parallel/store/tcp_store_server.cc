#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <list>
#include <map>
#include <optional>
#include <thread>
#include <vector>

#include "base/log.h"
#include "parallel/store/store_check.h"
#include "parallel/store/store_stream.h"
#include "parallel/store/tcp_store.h"
#include "parallel/store/tcp_store_protocol.h"

namespace chorus {
namespace {

constexpr std::size_t connections_max = 4096;
constexpr std::size_t store_bytes_max = std::size_t{1} << 30;
constexpr std::size_t input_bytes_max = std::size_t{32} << 20;   // of one request
constexpr std::size_t output_bytes_max = std::size_t{64} << 20;  // answers a client has not taken

// One request out of what has come so far. When something is missing, `short_` is set and the request is read again
// from its beginning once there is more; when it can never become a request, `refused`.
class RequestReader {
 public:
  explicit RequestReader(std::string_view bytes) : bytes_(bytes) {}

  template <typename T>
  T value() {
    T result{};
    const std::string_view raw = take(sizeof(T));
    if (raw.size() == sizeof(T)) std::memcpy(&result, raw.data(), sizeof(T));
    return result;
  }
  std::string_view text(std::size_t bytes_max) {
    const auto bytes = value<std::uint64_t>();
    if (bytes > bytes_max) refused_ = true;
    return complete() ? take(static_cast<std::size_t>(bytes)) : std::string_view();
  }
  std::string_view key() { return text(store_key_bytes_max + 1); }
  std::string_view payload() { return text(store_value_bytes_max); }
  std::uint64_t count() {
    const auto result = value<std::uint64_t>();
    if (result > store_wait_keys_max) refused_ = true;
    return complete() ? result : 0;
  }
  std::vector<std::string> keys() {
    std::vector<std::string> result;
    const std::uint64_t keys_left = count();
    for (std::uint64_t i = 0; i < keys_left && complete(); ++i) result.emplace_back(key());
    return result;
  }

  bool complete() const { return !short_ && !refused_; }
  bool refused() const { return refused_; }
  std::size_t offset() const { return offset_; }

 private:
  std::string_view take(std::size_t bytes) {
    if (!complete() || bytes_.size() - offset_ < bytes) {
      short_ = true;
      return {};
    }
    offset_ += bytes;
    return bytes_.substr(offset_ - bytes, bytes);
  }

  std::string_view bytes_;
  std::size_t offset_ = 0;
  bool short_ = false;
  bool refused_ = false;
};

struct Client {
  std::unique_ptr<StoreStream> stream;
  bool validated = false;
  bool closing = false;
  std::string input;
  std::string output;                  // not yet given to the stream
  std::vector<std::string> waits_for;  // keys of its pending wait; empty: none
};

class Server final : public TcpStoreServer {
 public:
  Server(std::unique_ptr<StoreDoor> door, UniqueFd stop)
      : door_(std::move(door)), stop_(std::move(stop)), port_(door_->port()), thread_([this] { run(); }) {}
  ~Server() override {
    const std::uint64_t one = 1;
    (void)!::write(stop_.get(), &one, sizeof one);
    thread_.join();
  }
  int port() const override { return port_; }

 private:
  void run() {
    std::vector<pollfd> items;
    while (true) {
      items.assign({{stop_.get(), POLLIN, 0}});
      for (const Client& client : clients_) {
        const bool unsent = client.stream->queued_bytes() > 0;
        items.push_back({client.stream->fd(), static_cast<short>(unsent ? POLLIN | POLLOUT : POLLIN), 0});
      }
      const bool open = clients_.size() < connections_max;
      if (open) door_->append_descriptors(&items);
      const auto deadline = open ? door_->next_deadline() : std::nullopt;
      if (::poll(items.data(), items.size(), deadline ? milliseconds_until(*deadline) : -1) < 0) continue;  // EINTR
      if (items[0].revents != 0) return;
      auto item = items.begin() + 1;
      for (Client& client : clients_) serve(&client, (item++)->revents);
      // Answers to others' waits are written at once, too: what a client does not take asks for POLLOUT.
      for (Client& client : clients_) flush(&client);
      clients_.remove_if([](const Client& client) { return client.closing; });
      if (!open) continue;
      for (auto& stream : door_->accept(monotonic_now())) clients_.emplace_back().stream = std::move(stream);
    }
  }

  void serve(Client* client, short events) {
    if ((events & (POLLIN | POLLHUP | POLLERR)) == 0) return;
    for (bool more = true; more && !client->closing;) {
      const auto received = client->stream->receive(&client->input);
      if (!received.ok()) return cut_off(client, received.error().message);
      more = *received;
      answer_all(client);
    }
  }

  void answer_all(Client* client) {
    std::size_t used = 0;
    while (!client->closing && used < client->input.size()) {
      const std::size_t bytes_used = answer(client, std::string_view(client->input).substr(used));
      if (bytes_used == 0) break;
      used += bytes_used;
    }
    client->input.erase(0, used);
    if (client->input.size() > input_bytes_max ||
        client->output.size() + client->stream->queued_bytes() > output_bytes_max) {
      cut_off(client, "it is over the limits on requests and answers");
    }
  }

  void cut_off(Client* client, const std::string& why) {
    log(LogLevel::debug, "store on port {}: closing a connection: {}", port_, why);
    client->closing = true;
  }

  static void flush(Client* client) {
    if (client->closing) return;
    const auto sent = client->output.empty() ? client->stream->flush() : client->stream->send(client->output);
    client->output.clear();
    client->closing = !sent.ok();
  }

  // How many bytes the first request of `bytes` took; 0: it is not all there yet, or the client was cut off.
  std::size_t answer(Client* client, std::string_view bytes) {
    RequestReader reader(bytes);
    const auto kind = static_cast<StoreRequest>(reader.value<std::uint8_t>());
    if (!client->validated && kind != StoreRequest::validate) {
      cut_off(client, "it did not begin as a store's client does");
      return 0;
    }
    const bool sensible = dispatch(client, kind, &reader);
    if (reader.refused() || !sensible) {
      cut_off(client, "it sent what is no request");
      return 0;
    }
    return reader.complete() ? reader.offset() : 0;
  }

  // False: the request is whole and makes no sense. Nothing may be done before reader->complete().
  bool dispatch(Client* client, StoreRequest kind, RequestReader* reader) {
    switch (kind) {
      case StoreRequest::validate: {
        const auto mark = reader->value<std::uint32_t>();
        client->validated = client->validated || (reader->complete() && mark == tcp_store_mark);
        return !reader->complete() || mark == tcp_store_mark;
      }
      case StoreRequest::ping: {
        const auto nonce = reader->value<std::uint32_t>();
        if (reader->complete()) append_store_value(&client->output, nonce);
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
        return compare_set(client, reader);
      case StoreRequest::add:
        return add(client, reader);
      case StoreRequest::get: {
        const auto key = reader->key();
        return !reader->complete() || append_value_of(client, key);
      }
      case StoreRequest::multi_get: {
        const auto keys = reader->keys();
        return !reader->complete() ||
               std::ranges::all_of(keys, [&](const auto& key) { return append_value_of(client, key); });
      }
      case StoreRequest::check: {
        const auto keys = reader->keys();
        if (reader->complete()) client->output.push_back(all_there(keys) ? 0 : 1);
        return true;
      }
      case StoreRequest::wait:
        return wait(client, reader);
      case StoreRequest::cancel_wait:
        client->waits_for.clear();
        client->output.push_back(1);
        return true;
      case StoreRequest::key_count:
        append_store_value(&client->output, static_cast<std::int64_t>(values_.size()));
        return true;
      case StoreRequest::delete_key: {
        const auto key = reader->key();
        if (reader->complete()) append_store_value(&client->output, static_cast<std::int64_t>(erase(key)));
        return true;
      }
    }
    return false;
  }

  bool multi_set(RequestReader* reader) {
    const std::uint64_t pairs = reader->count();
    std::vector<std::pair<std::string_view, std::string_view>> read;
    for (std::uint64_t i = 0; i < pairs && reader->complete(); ++i) {
      const auto key = reader->key();
      read.emplace_back(key, reader->payload());
    }
    if (!reader->complete()) return true;
    return std::ranges::all_of(read, [&](const auto& pair) { return store(std::string(pair.first), pair.second); });
  }

  // For a key that is not there and an `expected` that is not empty the answer is `expected`, as torch's server gives
  // it.
  bool compare_set(Client* client, RequestReader* reader) {
    const auto key = reader->key(), expected = reader->payload(), desired = reader->payload();
    if (!reader->complete()) return true;
    const auto found = values_.find(key);
    if (found == values_.end() ? expected.empty() : found->second == expected) {
      append_store_text(&client->output, desired);
      return store(std::string(key), desired);
    }
    append_store_text(&client->output, found == values_.end() ? expected : std::string_view(found->second));
    return true;
  }

  bool add(Client* client, RequestReader* reader) {
    const std::string key(reader->key());
    const auto delta = reader->value<std::int64_t>();
    if (!reader->complete()) return true;
    const auto found = values_.find(key);
    const auto sum = add_to_counter(key, found == values_.end() ? "" : found->second, delta);
    if (!sum.ok() || !store(key, std::to_string(*sum))) return false;
    append_store_value(&client->output, *sum);
    return true;
  }

  bool wait(Client* client, RequestReader* reader) {
    auto keys = reader->keys();
    if (!reader->complete()) return true;
    if (all_there(keys)) {
      client->output.push_back(0);
    } else {
      client->waits_for = std::move(keys);
    }
    return true;
  }

  // False: the store is full.
  bool store(const std::string& key, std::string_view value) {
    if (value.size() > store_value_bytes_max) return false;
    erase(key);
    if (bytes_ + key.size() + value.size() > store_bytes_max) return false;
    bytes_ += key.size() + value.size();
    values_.emplace(key, value);
    for (Client& client : clients_) {
      if (client.waits_for.empty() || std::ranges::find(client.waits_for, key) == client.waits_for.end()) continue;
      if (!all_there(client.waits_for)) continue;
      client.waits_for.clear();
      client.output.push_back(0);
    }
    return true;
  }

  std::size_t erase(std::string_view key) {
    const auto found = values_.find(key);
    if (found == values_.end()) return 0;
    bytes_ -= found->first.size() + found->second.size();
    values_.erase(found);
    return 1;
  }

  bool append_value_of(Client* client, std::string_view key) {
    const auto found = values_.find(key);
    if (found == values_.end()) return false;
    append_store_text(&client->output, found->second);
    return client->output.size() <= output_bytes_max;
  }

  bool all_there(const std::vector<std::string>& keys) const {
    return std::ranges::all_of(keys, [&](const auto& key) { return values_.contains(key); });
  }

  std::unique_ptr<StoreDoor> door_;
  UniqueFd stop_;  // an eventfd: readable when the thread shall end
  int port_;
  std::list<Client> clients_;
  std::map<std::string, std::string, std::less<>> values_;
  std::size_t bytes_ = 0;  // of keys and values
  std::thread thread_;     // last: it uses all of the above
};

}  // namespace

Result<std::unique_ptr<TcpStoreServer>> TcpStoreServer::start(const std::string& address, int port,
                                                              std::shared_ptr<const ClusterKey> key) {
  auto door = open_store_door(address, port, std::move(key));
  if (!door.ok()) return with_context(door.error(), "store");
  UniqueFd stop(::eventfd(0, EFD_CLOEXEC));
  if (!stop.valid()) return fail(ErrorCode::internal, "eventfd: {}", std::strerror(errno));
  return std::unique_ptr<TcpStoreServer>(std::make_unique<Server>(std::move(door).value(), std::move(stop)));
}

}  // namespace chorus
