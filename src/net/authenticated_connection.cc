#include "net/authenticated_connection.h"

#include <utility>

#include "net/wire.h"

namespace chorus {
namespace {

// The tags of one direction.
class FrameTags {
 public:
  explicit FrameTags(std::string_view key) : hmac_(key) {}
  // Both are about the frame that is the next one; next() moves on.
  void append(std::uint8_t type, std::uint32_t epoch, std::string* payload) {
    const std::size_t bytes = payload->size();
    payload->resize(bytes + tag_bytes);
    hmac_.tag({header(type, epoch, bytes), {payload->data(), bytes}},
              std::span<char, tag_bytes>(payload->data() + bytes, tag_bytes));
  }
  bool verify(std::uint8_t type, std::uint32_t epoch, std::string_view payload, std::string_view tag) {
    return hmac_.verify({header(type, epoch, payload.size()), payload}, tag);
  }
  void next() { ++number_; }
  std::uint64_t number() const { return number_; }

 private:
  std::string_view header(std::uint8_t type, std::uint32_t epoch, std::size_t bytes) {
    header_.clear();
    header_.u64(number_);
    header_.u8(type);
    header_.u32(epoch);
    header_.u64(bytes);
    return header_.bytes();
  }

  Hmac hmac_;
  WireWriter header_;
  std::uint64_t number_ = 0;
};

class AuthenticatedConnection final : public Connection {
 public:
  AuthenticatedConnection(std::unique_ptr<Connection> inner, const SessionKeys& keys)
      : inner_(std::move(inner)), sending_(keys.sending), receiving_(keys.receiving) {}

  Result<void> queue(std::uint8_t type, std::uint32_t epoch, std::string payload, int descriptor) override {
    if (broken_) return *broken_;
    if (descriptor >= 0) return fail(ErrorCode::invalid_argument, "a descriptor cannot go to another machine");
    sending_.append(type, epoch, &payload);
    CHORUS_TRY_VOID(inner_->queue(type, epoch, std::move(payload), -1));
    sending_.next();  // what was not queued has used no number
    return {};
  }
  Result<void> flush() override { return broken_ ? Result<void>(*broken_) : inner_->flush(); }
  std::size_t queued_bytes() const override { return inner_->queued_bytes(); }

  Result<std::optional<Frame>> receive() override {
    if (broken_) return *broken_;
    CHORUS_TRY(std::optional<Frame> frame, inner_->receive());
    if (!frame.has_value()) return frame;
    const std::string_view whole = frame->payload;
    const std::size_t bytes = whole.size() - std::min(whole.size(), tag_bytes);
    if (frame->descriptor.valid() ||
        !receiving_.verify(frame->type, frame->epoch, whole.substr(0, bytes), whole.substr(bytes))) {
      broken_ =
          fail(ErrorCode::invalid_argument,
               "message {} of this connection bears a wrong tag: it was changed, repeated or displaced on its way",
               receiving_.number());
      return *broken_;
    }
    receiving_.next();
    frame->payload.resize(bytes);
    return frame;
  }
  Result<bool> wait(int timeout_ms) override { return inner_->wait(timeout_ms); }
  int fd() const override { return inner_->fd(); }

 private:
  std::unique_ptr<Connection> inner_;
  FrameTags sending_, receiving_;
  std::optional<Error> broken_;
};

}  // namespace

ConnectionLimits with_room_for_tags(ConnectionLimits limits) {
  limits.payload_bytes_max += tag_bytes;
  limits.send_queue_bytes_max += tag_bytes;
  return limits;
}

std::unique_ptr<Connection> make_authenticated_connection(std::unique_ptr<Connection> inner, const SessionKeys& keys) {
  return std::make_unique<AuthenticatedConnection>(std::move(inner), keys);
}

}  // namespace chorus
