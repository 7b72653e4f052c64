#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <list>
#include <optional>
#include <thread>
#include <vector>

#include "base/log.h"
#include "parallel/store/store_check.h"
#include "parallel/store/store_stream.h"
#include "parallel/store/store_table.h"
#include "parallel/store/tcp_store.h"

namespace chorus {
namespace {

constexpr std::size_t connections_max = 4096;

struct Client {
  std::unique_ptr<StoreStream> stream;
  StoreTable::Session* session = nullptr;
  bool closing = false;
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
      clients_.remove_if([this](const Client& client) {
        if (client.closing) table_.close(client.session);
        return client.closing;
      });
      if (!open) continue;
      for (auto& stream : door_->accept(monotonic_now())) clients_.push_back({std::move(stream), table_.open()});
    }
  }

  void serve(Client* client, short events) {
    if ((events & (POLLIN | POLLHUP | POLLERR)) == 0) return;
    for (bool more = true; more && !client->closing;) {
      const auto received = client->stream->receive(&client->session->input);
      if (!received.ok()) return cut_off(client, received.error().message);
      more = *received;
      if (const auto answered = table_.answer(client->session); !answered.ok())
        return cut_off(client, answered.error().message);
      if (client->session->output.size() + client->stream->queued_bytes() > store_output_bytes_max)
        return cut_off(client, "it does not take its answers");
    }
  }

  void cut_off(Client* client, const std::string& why) {
    log(LogLevel::debug, "store on port {}: closing a connection: {}", port_, why);
    client->closing = true;
  }

  static void flush(Client* client) {
    if (client->closing) return;
    std::string& output = client->session->output;
    const auto sent = output.empty() ? client->stream->flush() : client->stream->send(output);
    output.clear();
    client->closing = !sent.ok();
  }

  std::unique_ptr<StoreDoor> door_;
  UniqueFd stop_;  // an eventfd: readable when the thread shall end
  int port_;
  StoreTable table_;
  std::list<Client> clients_;
  std::thread thread_;  // last: it uses all of the above
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
