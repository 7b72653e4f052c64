#include "server/http/tls.h"

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <array>

namespace chorus {
namespace {

Error tls_error(const std::string& what) {
  std::array<char, 256> reason{};
  ERR_error_string_n(ERR_peek_error(), reason.data(), reason.size());
  ERR_clear_error();
  return fail(ErrorCode::invalid_argument, "{}: {}", what, reason.data());
}

}  // namespace

void TlsDeleter::operator()(SSL_CTX* context) const {
  SSL_CTX_free(context);
}
void TlsDeleter::operator()(SSL* session) const {
  SSL_free(session);
}

Result<TlsContext> load_tls(const TlsFiles& files) {
  ERR_clear_error();
  TlsContext context(SSL_CTX_new(TLS_server_method()));
  if (context == nullptr) return tls_error("TLS cannot begin");
  SSL_CTX_set_min_proto_version(context.get(), TLS1_2_VERSION);
  // A write may take a part, and the buffer may move until it is tried again; an idle connection holds no buffer.
  SSL_CTX_set_mode(context.get(),
                   SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_options(context.get(), SSL_OP_NO_RENEGOTIATION);
  if (SSL_CTX_use_certificate_chain_file(context.get(), files.certificates.c_str()) != 1) {
    return tls_error("--ssl-certfile " + files.certificates);
  }
  if (SSL_CTX_use_PrivateKey_file(context.get(), files.key.c_str(), SSL_FILETYPE_PEM) != 1) {
    return tls_error("--ssl-keyfile " + files.key);
  }
  if (SSL_CTX_check_private_key(context.get()) != 1) return tls_error("--ssl-keyfile " + files.key);
  return context;
}

TlsSession begin_tls(SSL_CTX* context, int socket) {
  TlsSession session(SSL_new(context));
  if (session == nullptr || SSL_set_fd(session.get(), socket) != 1) return nullptr;
  SSL_set_accept_state(session.get());
  return session;
}

}  // namespace chorus
