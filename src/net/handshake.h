// How two ends of a new connection prove that they hold the same cluster key, before a frame is believed. Pure: bytes
// in, bytes out. Sizes are fixed, so whoever is not authenticated can send handshake_bytes_max bytes and no more.
//
//   listener  -> connector   magic, mode, its nonce
//   connector -> listener    magic, mode, its nonce, proof = HMAC(key, "connector", both nonces)
//   listener  -> connector   verdict, proof = HMAC(key, "listener", both nonces)
//
// Both nonces are fresh, so an old proof is worth nothing; the roles' words differ, so one's own proof cannot be sent
// back. The listener proves last: a stranger gets from it only a nonce. Each direction then has its own key, from
// the same nonces. Mode 0 is a cluster without a key (on one machine, FrameListener sees to that): nobody proves
// anything.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "net/authentication.h"

namespace chorus {

inline constexpr std::size_t nonce_bytes = 32;
inline constexpr std::size_t handshake_bytes_max = 8 + 1 + nonce_bytes + tag_bytes;

struct SessionKeys {
  std::string sending, receiving;
};

class Handshake {
 public:
  enum class Role : unsigned char { listener, connector };
  // `key`: of the cluster, or nullptr; not kept. `nonce`: nonce_bytes of random_bytes(), for this connection alone.
  Handshake(Role role, const ClusterKey* key, std::string nonce);

  // What is to be sent now; also after an error: the other side learns by it why it was refused.
  std::string take_output() { return std::exchange(output_, {}); }
  // Length of the message that is to come; 0: done.
  std::size_t bytes_wanted() const;
  // One message of that length. An error (invalid_argument) is final.
  Result<void> feed(std::string_view message);
  bool done() const { return bytes_wanted() == 0; }
  // When done; nullopt: a cluster without a key.
  std::optional<SessionKeys> session_keys();

 private:
  enum class Waiting : unsigned char { hello, verdict, nothing };
  Result<void> check_greeting(std::string_view greeting) const;
  Result<void> feed_listener(std::string_view message);
  Result<void> feed_connector_hello(std::string_view message);
  Result<void> feed_connector_verdict(std::string_view message);
  std::string greeting() const;
  std::string proof(Role role);
  std::string keyed(std::string_view purpose);

  Role role_;
  std::optional<Hmac> hmac_;
  std::string listener_nonce_, connector_nonce_;
  std::string output_;
  Waiting waiting_ = Waiting::hello;
};

}  // namespace chorus
