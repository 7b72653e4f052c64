#include "client/endpoint.h"

#include <algorithm>

#include "base/text_values.h"

namespace chorus {

std::string Endpoint::host_field() const {
  if (!path.empty()) return "localhost";
  return host.find(':') == host.npos ? fmt::format("{}:{}", host, port) : fmt::format("[{}]:{}", host, port);
}

std::string Endpoint::text() const {
  return path.empty() ? "http://" + host_field() : "unix:" + path;
}

bool is_url(std::string_view text) {
  return text.find("://") != text.npos || text.starts_with("unix:");
}

Result<Endpoint> parse_url(std::string_view url) {
  const auto wrong = [url] {
    return fail(ErrorCode::invalid_argument, "\"{}\" is no server's URL: give http://HOST:PORT or unix:PATH", url);
  };
  Endpoint endpoint;
  if (url.starts_with("unix:")) {
    endpoint.path = url.substr(5);
    return endpoint.path.empty() ? Result<Endpoint>(wrong()) : endpoint;
  }
  if (url.starts_with("https://")) {
    return fail(ErrorCode::invalid_argument,
                "{}: this client speaks plain HTTP alone; reach the server through a tunnel (ssh -L "
                "8000:localhost:8000 HOST, then http://127.0.0.1:8000) or its Unix socket (--uds)",
                url);
  }
  if (!url.starts_with("http://")) return wrong();
  std::string_view rest = url.substr(7);
  if (rest.ends_with('/')) rest.remove_suffix(1);
  const std::size_t bracket = rest.starts_with('[') ? rest.find(']') : 0;
  if (bracket == rest.npos) return wrong();
  const std::size_t colon = rest.find(':', bracket);
  endpoint.host = bracket > 0 ? rest.substr(1, bracket - 1) : rest.substr(0, colon);
  endpoint.port = 80;
  if (colon != rest.npos) {
    const auto port = number_in<int>(rest.substr(colon + 1));
    if (!port) return wrong();
    endpoint.port = *port;
  }
  const bool is_plain = std::ranges::all_of(endpoint.host, [](unsigned char c) { return c > ' ' && c < 127; });
  if (endpoint.host.empty() || !is_plain || endpoint.host.find_first_of("/@?#") != std::string::npos) return wrong();
  if (endpoint.port < 1 || endpoint.port > 65535) return wrong();
  return endpoint;
}

}  // namespace chorus
