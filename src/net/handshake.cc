#include "net/handshake.h"

#include <utility>

#include "base/check.h"

namespace chorus {
namespace {

constexpr std::string_view magic = "chorus\x01\n";
constexpr std::size_t greeting_bytes = magic.size() + 1 + nonce_bytes;
constexpr std::size_t verdict_bytes = 1 + tag_bytes;
static_assert(greeting_bytes + tag_bytes == handshake_bytes_max);
constexpr char mode_plain = 0;
constexpr char mode_key = 1;
constexpr char refused = 0;
constexpr char accepted = 1;

std::string verdict(char judgement, std::string_view proof) {
  std::string bytes;
  bytes.push_back(judgement);
  return bytes.append(proof);
}

Error other_key() {
  return fail(ErrorCode::invalid_argument,
              "the peer holds another cluster key: --cluster-key-file must have the same bytes on every node");
}

}  // namespace

Handshake::Handshake(Role role, const ClusterKey* key, std::string nonce) : role_(role) {
  CHECK(nonce.size() == nonce_bytes, "a nonce of {} bytes", nonce.size());
  if (key != nullptr) hmac_.emplace(key->bytes());
  if (role_ == Role::listener) {
    listener_nonce_ = std::move(nonce);
    output_ = greeting();
  } else {
    connector_nonce_ = std::move(nonce);
  }
}

std::string Handshake::greeting() const {
  std::string bytes(magic);
  bytes += hmac_ ? mode_key : mode_plain;
  return bytes + (role_ == Role::listener ? listener_nonce_ : connector_nonce_);
}

// Each purpose has its own label, so that no value stands for another.
std::string Handshake::keyed(std::string_view purpose) {
  if (!hmac_) return std::string(tag_bytes, '\0');
  return hmac_->tag({"chorus handshake 1: ", purpose, listener_nonce_, connector_nonce_});
}

std::string Handshake::proof(Role role) {
  return keyed(role == Role::listener ? "proof of the listener" : "proof of the connector");
}

std::size_t Handshake::bytes_wanted() const {
  switch (waiting_) {
    case Waiting::hello:
      return role_ == Role::listener ? greeting_bytes + tag_bytes : greeting_bytes;
    case Waiting::verdict:
      return verdict_bytes;
    case Waiting::nothing:
      break;
  }
  return 0;
}

Result<void> Handshake::feed(std::string_view message) {
  CHECK(message.size() == bytes_wanted() && !done(), "a handshake message of {} bytes, {} were wanted", message.size(),
        bytes_wanted());
  if (role_ == Role::listener) return feed_listener(message);
  return waiting_ == Waiting::hello ? feed_connector_hello(message) : feed_connector_verdict(message);
}

Result<void> Handshake::check_greeting(std::string_view greeting) const {
  if (!greeting.starts_with(magic)) {
    return fail(ErrorCode::invalid_argument,
                "the peer does not speak this version of Chorus's protocol: same program on every node?");
  }
  const char mode = greeting[magic.size()];
  if (mode == (hmac_ ? mode_key : mode_plain)) return {};
  if (mode == mode_key) {
    return fail(ErrorCode::invalid_argument,
                "the peer asks for a cluster key and this process has none: give --cluster-key-file");
  }
  if (mode == mode_plain) {
    return fail(ErrorCode::invalid_argument,
                "the peer has no cluster key and this process asks for one: give the peer --cluster-key-file too");
  }
  return fail(ErrorCode::invalid_argument,
              "the peer asks for authentication of an unknown kind: same program on every node?");
}

Result<void> Handshake::feed_listener(std::string_view message) {
  connector_nonce_ = message.substr(magic.size() + 1, nonce_bytes);
  auto judged = check_greeting(message.substr(0, greeting_bytes));
  if (judged.ok() && !equal_in_constant_time(message.substr(greeting_bytes), proof(Role::connector)))
    judged = other_key();
  if (!judged.ok()) {
    output_ = verdict(refused, std::string(tag_bytes, '\0'));
    return judged;
  }
  output_ = verdict(accepted, proof(Role::listener));
  waiting_ = Waiting::nothing;
  return {};
}

Result<void> Handshake::feed_connector_hello(std::string_view message) {
  listener_nonce_ = message.substr(magic.size() + 1, nonce_bytes);
  const auto judged = check_greeting(message);
  // Where it does not fit the listener hears so, and no proof.
  output_ = greeting() + (judged.ok() ? proof(Role::connector) : std::string(tag_bytes, '\0'));
  waiting_ = Waiting::verdict;
  return judged;
}

Result<void> Handshake::feed_connector_verdict(std::string_view message) {
  if (message[0] != accepted) return other_key();
  if (!equal_in_constant_time(message.substr(1), proof(Role::listener))) return other_key();
  waiting_ = Waiting::nothing;
  return {};
}

std::optional<SessionKeys> Handshake::session_keys() {
  CHECK(done(), "session keys before the handshake is over");
  if (!hmac_) return std::nullopt;
  SessionKeys keys{keyed("frames of the listener"), keyed("frames of the connector")};
  if (role_ == Role::connector) std::swap(keys.sending, keys.receiving);
  return keys;
}

}  // namespace chorus
