// TLS of a server: its certificate and key, of PEM files. TLS 1.2 and 1.3 by OpenSSL's defaults (decision 022).
#pragma once

#include <openssl/types.h>

#include <memory>
#include <string>

#include "base/result.h"

namespace chorus {

// Both or neither.
struct TlsFiles {
  std::string certificates;  // the server's first, then those that vouch for it
  std::string key;
  bool is_given() const { return !certificates.empty(); }
  static constexpr auto fields(auto& self, auto&& visit) { return visit(self.certificates, self.key); }
};

struct TlsDeleter {
  void operator()(SSL_CTX* context) const;
  void operator()(SSL* session) const;
};
using TlsContext = std::unique_ptr<SSL_CTX, TlsDeleter>;
using TlsSession = std::unique_ptr<SSL, TlsDeleter>;

// Errors: no such file, not PEM, the key is of another certificate.
Result<TlsContext> load_tls(const TlsFiles& files);
// Of a connection that was accepted; the handshake is part of the first read. Null: there is no memory for it.
TlsSession begin_tls(SSL_CTX* context, int socket);

}  // namespace chorus
