#include "server/http/request_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <optional>

#include "base/ascii.h"
#include "base/check.h"

namespace chorus {
namespace {

namespace beast = boost::beast;
namespace http = boost::beast::http;
using Parser = http::request_parser<http::string_body>;
using Refusal = RequestReader::Refusal;

std::string lower(beast::string_view text) {
  return ascii_lower(std::string(text.data(), text.size()));
}

// Beast joins folded lines to one value. RFC 9112, section 5.2: refuse them.
bool has_folded_line(std::string_view head) {
  return head.find("\r\n ") != head.npos || head.find("\r\n\t") != head.npos;
}

// Beast waits for the end of a head, which lines that end so would not have.
bool has_bare_line_feed(std::string_view head) {
  for (auto at = head.find('\n'); at != head.npos; at = head.find('\n', at + 1)) {
    if (at == 0 || head[at - 1] != '\r') return true;
  }
  return false;
}

bool is_digits(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
}

// RFC 9112, section 6: what says where the body ends must say it once and in one way.
std::optional<Refusal> check_framing(const Parser::value_type& message) {
  const auto lengths = message.count(http::field::content_length);
  const auto encodings = message.count(http::field::transfer_encoding);
  if (lengths + encodings > 1) {
    return Refusal{400, "more than one Content-Length or Transfer-Encoding: the end of the body is not certain"};
  }
  if (lengths == 1 && !is_digits(std::string(message[http::field::content_length]))) {
    return Refusal{400, "Content-Length is no whole number"};
  }
  if (encodings == 0) return std::nullopt;
  if (message.version() < 11) return Refusal{400, "Transfer-Encoding in HTTP/1.0"};
  if (lower(message[http::field::transfer_encoding]) == "chunked") return std::nullopt;
  return Refusal{501, "the only Transfer-Encoding here is chunked"};
}

std::optional<Refusal> check_target(std::string_view target, const HttpLimits& limits) {
  if (target.size() > limits.target_bytes_max) {
    return Refusal{414,
                   fmt::format("the target has {} bytes, the limit is {}", target.size(), limits.target_bytes_max)};
  }
  const bool visible = std::ranges::all_of(target, [](char c) { return is_visible_ascii(c) && c != '#'; });
  if (visible && target.starts_with('/')) return std::nullopt;
  return Refusal{400, "the target is not a path that begins with / and has visible ASCII characters alone"};
}

std::optional<Refusal> check_head(const Parser& parser, std::string_view head, const HttpLimits& limits) {
  const Parser::value_type& message = parser.get();
  if (has_folded_line(head)) return Refusal{400, "a field over several lines (obsolete line folding)"};
  const auto fields = static_cast<std::size_t>(std::distance(message.begin(), message.end()));
  if (fields > limits.fields_max) {
    return Refusal{431, fmt::format("{} fields, the limit is {}", fields, limits.fields_max)};
  }
  const auto hosts = message.count(http::field::host);
  if (hosts > 1 || (hosts == 0 && message.version() == 11)) return Refusal{400, "give one Host field"};
  if (const auto wrong = check_framing(message)) return wrong;
  const beast::string_view target = message.target();
  return check_target({target.data(), target.size()}, limits);
}

Refusal refusal_of(const beast::error_code& error, const HttpLimits& limits) {
  if (error == http::error::header_limit) {
    return {431, fmt::format("the head is over {} bytes", limits.head_bytes_max)};
  }
  if (error == http::error::body_limit) {
    return {413, fmt::format("the body is over {} bytes", limits.body_bytes_max)};
  }
  return {400, fmt::format("not an HTTP/1.1 request: {}", error.message())};
}

HttpRequest head_of(const Parser& parser) {
  const Parser::value_type& message = parser.get();
  HttpRequest request;
  request.method = std::string(message.method_string());
  const std::string target(message.target());
  const std::size_t question = std::min(target.find('?'), target.size());
  request.path = target.substr(0, question);
  if (question < target.size()) request.query = target.substr(question + 1);
  for (const auto& field : message) {
    request.fields.emplace_back(lower(field.name_string()), std::string(field.value()));
  }
  request.keep_alive = parser.keep_alive();
  request.http_1_0 = message.version() < 11;
  request.has_body = parser.chunked() || parser.content_length().value_or(0) > 0;
  return request;
}

}  // namespace

struct RequestReader::State {
  explicit State(const HttpLimits& given) : limits(given) { restart(); }

  void restart() {
    parser.emplace();
    parser->header_limit(static_cast<std::uint32_t>(limits.head_bytes_max));
    parser->body_limit(limits.body_bytes_max);
    head_told = false;
    request = {};
  }
  std::string_view unread() const { return std::string_view(buffer).substr(begin); }
  Step refuse(Refusal why) {
    refusal = std::move(why);
    return Step::refused;
  }
  // One call of the parser. False: it needs more bytes, or there is an error.
  bool parse() {
    beast::error_code error;
    const std::string_view text = unread();
    const std::size_t used = parser->put(boost::asio::const_buffer(text.data(), text.size()), error);
    begin += used;
    if (!error) return true;
    if (error != http::error::need_more) {
      refusal = refusal_of(error, limits);
    } else if (parser->is_header_done() && unread().size() > limits.head_bytes_max) {
      refusal = Refusal{400, "the head of a chunk, or the fields behind the last one, are too long"};
    }
    return used > 0 && !refusal;
  }

  HttpLimits limits;
  std::string buffer;
  std::size_t begin = 0;  // of what is not parsed
  std::optional<Parser> parser;
  bool head_told = false;
  HttpRequest request;
  std::optional<Refusal> refusal;
};

RequestReader::RequestReader(const HttpLimits& limits) : state_(std::make_unique<State>(limits)) {}
RequestReader::~RequestReader() = default;

void RequestReader::feed(std::string_view bytes) {
  State& state = *state_;
  state.buffer.erase(0, state.begin);
  state.begin = 0;
  state.buffer.append(bytes);
}

RequestReader::Step RequestReader::advance() {
  State& state = *state_;
  if (state.refusal) return Step::refused;
  while (!state.parser->is_header_done()) {
    const std::string_view head = state.unread();
    if (head.empty()) return Step::needs_bytes;
    const std::size_t end = head.find("\r\n\r\n");
    if (has_bare_line_feed(head.substr(0, end))) return state.refuse({400, "a line that ends without CR LF"});
    const bool went_on = state.parse();
    if (state.refusal) return Step::refused;
    if (!state.parser->is_header_done()) {
      if (went_on) continue;
      return Step::needs_bytes;
    }
    const std::size_t bytes = head.size() - state.unread().size();
    if (auto wrong = check_head(*state.parser, head.substr(0, bytes), state.limits)) {
      return state.refuse(std::move(*wrong));
    }
  }
  if (!state.head_told) {
    state.head_told = true;
    state.request = head_of(*state.parser);
    return Step::head;
  }
  while (!state.parser->is_done()) {
    if (state.unread().empty() || !state.parse()) return state.refusal ? Step::refused : Step::needs_bytes;
  }
  return Step::request;
}

RequestReader::Phase RequestReader::phase() const {
  const State& state = *state_;
  if (state.parser->is_done()) return Phase::whole;
  if (state.parser->is_header_done()) return Phase::body;
  return state.unread().empty() ? Phase::idle : Phase::head;
}

const HttpRequest& RequestReader::request() const {
  return state_->request;
}

HttpRequest RequestReader::take() {
  State& state = *state_;
  CHECK(state.head_told && state.parser->is_done(), "no whole request");
  HttpRequest request = std::move(state.request);
  request.body = std::move(state.parser->get().body());
  if (state.unread().empty()) {  // an idle connection holds no memory for bytes
    state.buffer = {};
    state.begin = 0;
  }
  state.restart();
  return request;
}

const RequestReader::Refusal& RequestReader::refusal() const {
  return state_->refusal.value();
}

std::size_t RequestReader::body_bytes() const {
  return state_->parser->get().body().size();
}

std::size_t RequestReader::unread_bytes() const {
  return state_->unread().size();
}

bool RequestReader::expects_continue() const {
  const auto expected = state_->request.field("expect");
  return expected && lower({expected->data(), expected->size()}) == "100-continue";
}

}  // namespace chorus
