// What is answered, and its head as bytes.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace chorus {

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  std::vector<std::pair<std::string, std::string>> fields;  // beside content-type, content-length, connection, date
};

// OpenAI's form: {"error": {"message", "type", "param", "code"}}, with vLLM's names of types; code is the status.
HttpResponse error_response(int status, std::string_view message, std::string_view param = {});
std::string error_json(int status, std::string_view message, std::string_view param = {});

// Where the body ends: by its length, by chunks, or by the connection's end (HTTP/1.0 has no chunks).
enum class BodyEnd { by_length, by_chunks, by_close };
// Status line and fields, up to and with the empty line. `date`: as RFC 9110, section 5.6.7.
std::string response_head(const HttpResponse& response, BodyEnd end, bool keep_alive, std::string_view date);

// "Fri, 27 Nov 2026 18:00:00 GMT".
std::string http_date(std::int64_t unix_s);

}  // namespace chorus
