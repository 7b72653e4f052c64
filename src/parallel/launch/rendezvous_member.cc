#include "parallel/launch/rendezvous_member.h"

#include "net/wire.h"

namespace chorus {

std::string encode_member(const RendezvousMember& member) {
  WireWriter writer;
  writer.text(member.node);
  writer.i32(member.process);
  writer.count(member.fingerprint.size());
  for (const auto& [name, value] : member.fingerprint) {
    writer.text(name);
    writer.text(value);
  }
  return writer.take();
}

Result<RendezvousMember> decode_member(std::string_view bytes) {
  WireReader reader(bytes);
  RendezvousMember member;
  member.node = reader.text();
  member.process = reader.i32();
  const std::size_t pairs = reader.count(8);
  if (pairs > rendezvous_pairs_max) reader.refuse("more than 256 pairs");
  for (std::size_t i = 0; i < pairs && !reader.failed(); ++i) {
    std::string name = reader.text();
    member.fingerprint.emplace_back(std::move(name), reader.text());
  }
  CHORUS_TRY_VOID(reader.finish());
  return member;
}

}  // namespace chorus
