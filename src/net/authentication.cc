#include "net/authentication.h"

#include <fcntl.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/rand.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>

#include "base/check.h"
#include "net/unique_fd.h"

namespace chorus {
namespace {

const unsigned char* bytes_of(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}

}  // namespace

Result<std::shared_ptr<const ClusterKey>> ClusterKey::read(const std::string& path) {
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat status {};
  if (!file.valid() || ::fstat(file.get(), &status) != 0) {
    return fail(errno == ENOENT ? ErrorCode::not_found : ErrorCode::invalid_argument, "cluster key file {}: {}; {}",
                path, std::strerror(errno), how_to_make_a_key);
  }
  if (!S_ISREG(status.st_mode))
    return fail(ErrorCode::invalid_argument, "cluster key file {} is no regular file", path);
  if ((status.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
    return fail(ErrorCode::invalid_argument, "cluster key file {} has mode {:o}: others may use it; chmod 600 it", path,
                status.st_mode & 0777U);
  }
  // One byte more than may be there tells a file that is too long, whatever its size says.
  std::string bytes(cluster_key_bytes_max + 1, '\0');
  std::size_t count = 0;
  while (count < bytes.size()) {
    const ssize_t got = ::read(file.get(), bytes.data() + count, bytes.size() - count);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(ErrorCode::internal, "cluster key file {}: {}", path, std::strerror(errno));
    if (got == 0) break;
    count += static_cast<std::size_t>(got);
  }
  auto key = std::make_shared<const ClusterKey>(bytes.substr(0, count));
  OPENSSL_cleanse(bytes.data(), bytes.size());
  if (count < cluster_key_bytes_min || count > cluster_key_bytes_max) {
    return fail(ErrorCode::invalid_argument, "cluster key file {} has {} bytes, {} to {} are accepted; {}", path,
                count > cluster_key_bytes_max ? "too many" : std::to_string(count), cluster_key_bytes_min,
                cluster_key_bytes_max, how_to_make_a_key);
  }
  return key;
}

ClusterKey::~ClusterKey() {
  OPENSSL_cleanse(bytes_.data(), bytes_.size());
}

struct Hmac::State {
  EVP_MAC* method = nullptr;
  EVP_MAC_CTX* context = nullptr;
  State() = default;
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() {
    EVP_MAC_CTX_free(context);
    EVP_MAC_free(method);
  }
};

Hmac::Hmac(std::string_view key) : state_(std::make_unique<State>()) {
  state_->method = EVP_MAC_fetch(nullptr, OSSL_MAC_NAME_HMAC, nullptr);
  CHECK(state_->method != nullptr, "OpenSSL has no HMAC");
  state_->context = EVP_MAC_CTX_new(state_->method);
  char digest[] = "SHA256";
  const OSSL_PARAM parameters[] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
                                   OSSL_PARAM_construct_end()};
  CHECK(state_->context != nullptr && EVP_MAC_init(state_->context, bytes_of(key), key.size(), parameters) == 1,
        "OpenSSL has no HMAC-SHA256");
}

Hmac::Hmac(Hmac&&) noexcept = default;
Hmac& Hmac::operator=(Hmac&&) noexcept = default;
Hmac::~Hmac() = default;

void Hmac::tag(std::initializer_list<std::string_view> parts, std::span<char, tag_bytes> into) {
  // Without a key it begins anew with the one it has.
  bool done = EVP_MAC_init(state_->context, nullptr, 0, nullptr) == 1;
  for (const std::string_view part : parts) {
    done = done && EVP_MAC_update(state_->context, bytes_of(part), part.size()) == 1;
  }
  std::size_t count = 0;
  done =
      done && EVP_MAC_final(state_->context, reinterpret_cast<unsigned char*>(into.data()), &count, into.size()) == 1;
  CHECK(done && count == tag_bytes, "HMAC-SHA256 gave {} bytes", count);
}

std::string Hmac::tag(std::initializer_list<std::string_view> parts) {
  std::string text(tag_bytes, '\0');
  tag(parts, std::span<char, tag_bytes>(text.data(), tag_bytes));
  return text;
}

bool Hmac::verify(std::initializer_list<std::string_view> parts, std::string_view given) {
  std::array<char, tag_bytes> own{};
  tag(parts, own);
  return equal_in_constant_time({own.data(), own.size()}, given);
}

std::string sha256_hex(std::initializer_list<std::string_view> parts) {
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(), &EVP_MD_CTX_free);
  bool done = context != nullptr && EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr) == 1;
  for (const std::string_view part : parts) {
    done = done && EVP_DigestUpdate(context.get(), part.data(), part.size()) == 1;
  }
  std::array<unsigned char, tag_bytes> digest{};
  unsigned int count = 0;
  done = done && EVP_DigestFinal_ex(context.get(), digest.data(), &count) == 1;
  CHECK(done && count == digest.size(), "SHA-256 gave {} bytes", count);
  std::string text;
  for (const unsigned char byte : digest) text += fmt::format("{:02x}", byte);
  return text;
}

bool equal_in_constant_time(std::string_view left, std::string_view right) {
  return left.size() == right.size() && CRYPTO_memcmp(left.data(), right.data(), left.size()) == 0;
}

std::string random_bytes(std::size_t count) {
  std::string bytes(count, '\0');
  CHECK(RAND_bytes(reinterpret_cast<unsigned char*>(bytes.data()), static_cast<int>(count)) == 1,
        "no random bytes from the system");
  return bytes;
}

}  // namespace chorus
