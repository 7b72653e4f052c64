#include "server/access.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <algorithm>
#include <fstream>

#include "base/ascii.h"

namespace chorus {
namespace {

constexpr std::size_t key_bytes_max = 1024;

// Lower case, without the port: "localhost:8000", "[::1]:8000".
std::string host_name(std::string_view field) {
  const std::size_t bracket = field.find(']');
  const std::size_t colon = field.find(':', bracket == field.npos ? 0 : bracket);
  return ascii_lower(std::string(field.substr(0, colon)));
}

std::optional<std::string_view> bearer_key(const HttpRequest& request) {
  constexpr std::string_view scheme = "bearer ";
  const auto field = request.field("authorization");
  if (!field || field->size() <= scheme.size()) return std::nullopt;
  if (ascii_lower(std::string(field->substr(0, scheme.size()))) != scheme) return std::nullopt;
  return field->substr(scheme.size());
}

std::string hash_of(std::string_view key) {
  std::string hash(SHA256_DIGEST_LENGTH, '\0');
  SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(), reinterpret_cast<unsigned char*>(hash.data()));
  return hash;
}

}  // namespace

Result<void> ApiKeys::add(std::string_view key) {
  const bool visible = std::ranges::all_of(key, is_visible_ascii);
  if (key.empty() || key.size() > key_bytes_max || !visible) {
    return fail(ErrorCode::invalid_argument, "an API key is 1 to {} visible ASCII characters without spaces",
                key_bytes_max);
  }
  hashes.push_back(hash_of(key));
  return {};
}

Result<ApiKeys> ApiKeys::read_file(const std::string& path) {
  std::ifstream file(path);
  if (!file) return fail(ErrorCode::not_found, "cannot read the API keys of {}", path);
  ApiKeys keys;
  std::size_t number = 0;
  for (std::string line; std::getline(file, line);) {
    ++number;
    if (line.ends_with('\r')) line.pop_back();
    if (line.empty() || line.starts_with('#')) continue;
    if (const auto added = keys.add(line); !added.ok()) {
      return with_context(added.error(), fmt::format("{} line {}", path, number));
    }
  }
  if (keys.empty()) return fail(ErrorCode::invalid_argument, "{} has no API key: write one a line", path);
  return keys;
}

// Looks at all of them, so that the time tells nothing.
bool ApiKeys::contains(std::string_view key) const {
  const std::string given = hash_of(key);
  int found = 0;
  for (const std::string& hash : hashes) {
    found |= hash.size() == given.size() && CRYPTO_memcmp(hash.data(), given.data(), given.size()) == 0 ? 1 : 0;
  }
  return found != 0;
}

std::vector<std::string> loopback_hosts(const std::string& host) {
  std::vector<std::string> names = {"localhost", "127.0.0.1", "[::1]"};
  if (const std::string own = host_name(host); std::ranges::find(names, own) == names.end()) names.push_back(own);
  return names;
}

std::optional<HttpResponse> refuse_access(const AccessRules& rules, const HttpRequest& request, bool open) {
  const auto host = request.field("host");
  if (!rules.hosts.empty() && host && std::ranges::find(rules.hosts, host_name(*host)) == rules.hosts.end()) {
    return error_response(421, fmt::format("this server is not {}: name it with --allowed-host", host_name(*host)));
  }
  if (open || rules.keys.empty()) return std::nullopt;
  const auto key = bearer_key(request);
  if (key && rules.keys.contains(*key)) return std::nullopt;
  HttpResponse refusal = error_response(
      401, key ? "the API key is not one of this server's" : "give an API key: Authorization: Bearer KEY");
  refusal.fields.emplace_back("www-authenticate", "Bearer");
  return refusal;
}

}  // namespace chorus
