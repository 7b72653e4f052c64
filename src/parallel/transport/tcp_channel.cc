#include "parallel/transport/tcp_channel.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/check.h"

namespace chorus {
namespace {

struct PartHeader {
  std::uint64_t mark = 0x314B4E494C4B4E52;  // "RNKLINK1"; a frame's tag begins with the frame's number, which is small
  std::uint64_t number = 0;
  std::uint64_t bytes = 0;
};
static_assert(sizeof(PartHeader) == 24);

std::string_view text_of(const PartHeader& header) {
  return {reinterpret_cast<const char*>(&header), sizeof header};
}

std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// What errno says of a call that moved nothing: false (no more now), true (try again), or the end.
Result<bool> after_failed_call(const char* what) {
  if (errno == EINTR) return true;
  if (errno == EAGAIN || errno == EWOULDBLOCK) return false;
  return fail(ErrorCode::unavailable, "{}: {}", what, std::strerror(errno));
}

constexpr const char* closed = "it closed the connection";

}  // namespace

TcpChannel::TcpChannel(ProvenSocket proven) : socket_(std::move(proven.socket)) {
  if (!proven.keys) return;
  out_.hmac.emplace(proven.keys->sending);
  in_.hmac.emplace(proven.keys->receiving);
}

void TcpChannel::Flow::begin_part(std::size_t piece_bytes) {
  part_bytes = part_left = hmac ? std::min(piece_bytes, tcp_part_bytes_max) : piece_bytes;
  tag_left = hmac ? tag.size() : 0;
}

std::size_t TcpChannel::Flow::advance(std::size_t count) {
  const std::size_t of_part = std::min(count, part_left);
  part_left -= of_part;
  tag_left -= count - of_part;
  return of_part;
}

void TcpChannel::begin_sending(std::span<const std::byte> piece) {
  CHECK(!sending(), "a piece of {} bytes before the last one is done", piece.size());
  out_piece_ = piece;
}

void TcpChannel::begin_receiving(std::span<std::byte> piece) {
  CHECK(!receiving(), "a piece of {} bytes before the last one is done", piece.size());
  in_piece_ = piece;
}

Result<bool> TcpChannel::send_some() {
  if (out_.between_parts()) {
    out_.begin_part(out_piece_.size());
    const PartHeader header{.number = out_.number++, .bytes = out_.part_bytes};
    if (out_.hmac) out_.hmac->tag({text_of(header), text_of(out_piece_.first(out_.part_bytes))}, out_.tag);
  }
  iovec rest[2] = {{const_cast<std::byte*>(out_piece_.data()), out_.part_left}, {out_.tag_rest(), out_.tag_left}};
  msghdr message{};
  message.msg_iov = rest;
  message.msg_iovlen = 2;
  const ssize_t count = ::sendmsg(socket_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  if (count < 0) return after_failed_call("sending to it");
  out_piece_ = out_piece_.subspan(out_.advance(static_cast<std::size_t>(count)));
  return true;
}

Result<bool> TcpChannel::receive_some() {
  if (in_.between_parts()) in_.begin_part(in_piece_.size());
  iovec rest[2] = {{in_piece_.data(), in_.part_left}, {in_.tag_rest(), in_.tag_left}};
  msghdr message{};
  message.msg_iov = rest;
  message.msg_iovlen = 2;
  const ssize_t count = ::recvmsg(socket_.get(), &message, MSG_DONTWAIT);
  if (count < 0) return after_failed_call("receiving from it");
  if (count == 0) return fail(ErrorCode::unavailable, closed);
  in_piece_ = in_piece_.subspan(in_.advance(static_cast<std::size_t>(count)));
  if (!in_.hmac || !in_.between_parts()) return true;
  const std::span<const std::byte> part(in_piece_.data() - in_.part_bytes, in_.part_bytes);
  const PartHeader header{.number = in_.number++, .bytes = in_.part_bytes};
  if (in_.hmac->verify({text_of(header), text_of(part)}, {in_.tag.data(), in_.tag.size()})) return true;
  return fail(ErrorCode::invalid_argument,
              "part {} of this connection bears a wrong tag: it was changed, repeated or displaced on its way, or the "
              "two ranks disagree about its length",
              header.number);
}

Result<bool> TcpChannel::has_byte() const {
  char byte;
  const ssize_t count = ::recv(socket_.get(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  if (count > 0) return true;
  if (count == 0) return fail(ErrorCode::unavailable, closed);
  CHORUS_TRY_VOID(after_failed_call("receiving from it"));
  return false;
}

}  // namespace chorus
