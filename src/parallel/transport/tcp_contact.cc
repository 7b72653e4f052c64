#include "parallel/transport/tcp_contact.h"

#include "net/wire.h"

namespace chorus {
namespace {

constexpr std::string_view contact_mark = "chorus contact 1";

std::string tag_of(const TcpContact& contact, const ClusterKey& key) {
  WireWriter writer;
  writer.text(contact_mark);
  writer.text(contact.address);
  writer.u32(static_cast<std::uint32_t>(contact.port));
  writer.text(contact.token);
  return Hmac(key.bytes()).tag({writer.bytes()});
}

}  // namespace

std::string encode_contact(const TcpContact& contact, const ClusterKey* key) {
  WireWriter writer;
  writer.text(contact_mark);
  writer.text(contact.address);
  writer.u32(static_cast<std::uint32_t>(contact.port));
  writer.text(contact.token);
  writer.text(key != nullptr ? tag_of(contact, *key) : "");
  return writer.take();
}

Result<TcpContact> decode_contact(std::string_view bytes, const ClusterKey* key) {
  WireReader reader(bytes);
  TcpContact contact;
  const bool marked = reader.text() == contact_mark;
  contact.address = reader.text();
  contact.port = static_cast<int>(reader.u32());
  contact.token = reader.text();
  const std::string tag = reader.text();
  if (!reader.finish().ok() || !marked || contact.token.size() != tcp_token_bytes) {
    return fail(ErrorCode::invalid_argument, "{} bytes that are no contact: same program on every node?", bytes.size());
  }
  if (key == nullptr && !tag.empty()) {
    return fail(ErrorCode::invalid_argument,
                "it has a cluster key and this process has none: give --cluster-key-file on every node");
  }
  if (key != nullptr && tag.empty()) {
    return fail(ErrorCode::invalid_argument,
                "it has no cluster key and this process has one: give --cluster-key-file on every node");
  }
  if (key != nullptr && !equal_in_constant_time(tag, tag_of(contact, *key))) {
    return fail(ErrorCode::invalid_argument,
                "it holds another cluster key: --cluster-key-file must have the same bytes on every node");
  }
  return contact;
}

}  // namespace chorus
