#include "server/http/response.h"

#include <fmt/format.h>

#include <ctime>

#include "json/json.h"

namespace chorus {
namespace {

struct Status {
  int code;
  const char* reason;
  const char* error_type;  // of OpenAI's error object
};
constexpr Status statuses[] = {
    {200, "OK", ""},
    {400, "Bad Request", "BadRequestError"},
    {401, "Unauthorized", "AuthenticationError"},
    {404, "Not Found", "NotFoundError"},
    {405, "Method Not Allowed", "MethodNotAllowedError"},
    {408, "Request Timeout", "RequestTimeoutError"},
    {413, "Content Too Large", "ContentTooLargeError"},
    {414, "URI Too Long", "BadRequestError"},
    {415, "Unsupported Media Type", "UnsupportedMediaTypeError"},
    {417, "Expectation Failed", "BadRequestError"},
    {421, "Misdirected Request", "MisdirectedRequestError"},
    {429, "Too Many Requests", "RateLimitError"},
    {431, "Request Header Fields Too Large", "BadRequestError"},
    {500, "Internal Server Error", "InternalServerError"},
    {501, "Not Implemented", "NotImplementedError"},
    {503, "Service Unavailable", "ServiceUnavailableError"},
};

const Status& status_of(int code) {
  for (const Status& status : statuses) {
    if (status.code == code) return status;
  }
  static constexpr Status other = {0, "Error", "InternalServerError"};
  return other;
}

}  // namespace

std::string error_json(int status, std::string_view message, std::string_view param) {
  std::string text;
  JsonWriter json(&text);
  json.begin_object().key("error").begin_object();
  json.key("message").value(message).key("type").value(status_of(status).error_type).key("param");
  if (param.empty()) {
    json.null();
  } else {
    json.value(param);
  }
  json.key("code").value(status).end_object().end_object();
  return text;
}

HttpResponse error_response(int status, std::string_view message, std::string_view param) {
  HttpResponse response;
  response.status = status;
  response.body = error_json(status, message, param);
  return response;
}

std::string response_head(const HttpResponse& response, BodyEnd end, bool keep_alive, std::string_view date) {
  std::string head =
      fmt::format("HTTP/1.1 {} {}\r\ndate: {}\r\n", response.status, status_of(response.status).reason, date);
  if (!response.content_type.empty()) head += fmt::format("content-type: {}\r\n", response.content_type);
  for (const auto& [name, value] : response.fields) head += fmt::format("{}: {}\r\n", name, value);
  if (end == BodyEnd::by_length) head += fmt::format("content-length: {}\r\n", response.body.size());
  if (end == BodyEnd::by_chunks) head += "transfer-encoding: chunked\r\n";
  head += keep_alive && end != BodyEnd::by_close ? "connection: keep-alive\r\n\r\n" : "connection: close\r\n\r\n";
  return head;
}

std::string http_date(std::int64_t unix_s) {
  const std::time_t time = unix_s;
  std::tm parts{};
  gmtime_r(&time, &parts);
  static constexpr const char* days[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  static constexpr const char* months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                           "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  return fmt::format("{}, {:02} {} {} {:02}:{:02}:{:02} GMT", days[parts.tm_wday], parts.tm_mday, months[parts.tm_mon],
                     parts.tm_year + 1900, parts.tm_hour, parts.tm_min, parts.tm_sec);
}

}  // namespace chorus
