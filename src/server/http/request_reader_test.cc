#include "server/http/request_reader.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace chorus {
namespace {

using namespace std::string_literals;

using Step = RequestReader::Step;
using Phase = RequestReader::Phase;

HttpLimits small_limits() {
  HttpLimits limits;
  limits.head_bytes_max = 512;
  limits.fields_max = 4;
  limits.target_bytes_max = 64;
  limits.body_bytes_max = 32;
  return limits;
}

// Feeds `text` in pieces of `piece` bytes; gives the request or the refusal's status as text.
std::string read_all(const std::string& text, std::size_t piece) {
  RequestReader reader(small_limits());
  std::string read;
  for (std::size_t at = 0; at < text.size(); at += piece) {
    reader.feed(std::string_view(text).substr(at, piece));
    for (Step step = reader.advance(); step != Step::needs_bytes; step = reader.advance()) {
      if (step == Step::refused) return read + std::to_string(reader.refusal().status);
      if (step == Step::head) continue;
      const HttpRequest request = reader.take();
      read += request.method + " " + request.path + (request.query.empty() ? "" : "?" + request.query) + " '" +
              request.body + "'" + (request.keep_alive ? " keep" : "") + "; ";
    }
  }
  return read + (reader.phase() == Phase::idle ? "" : "more");
}

struct Case {
  const char* name;
  std::string text;
  std::string read;
};

std::vector<Case> cases() {
  const std::string host = "Host: a\r\n";
  const std::string chunked = "POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
  const std::string post = "POST /p HTTP/1.1\r\nHost: a\r\n";
  return {
      {"nothing", "", ""},
      {"get", "GET /a?b=1 HTTP/1.1\r\nHost: a\r\n\r\n", "GET /a?b=1 '' keep; "},
      {"close", "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "GET / ''; "},
      {"1.0", "GET / HTTP/1.0\r\n\r\n", "GET / ''; "},
      {"length", post + "Content-Length: 5\r\n\r\nabcde", "POST /p 'abcde' keep; "},
      {"chunks", chunked + "2\r\nab\r\n3;x=1\r\ncde\r\n0\r\n\r\n", "POST /p 'abcde' keep; "},
      {"trailers", chunked + "2\r\nab\r\n0\r\nX: y\r\n\r\n", "POST /p 'ab' keep; "},
      {"two", "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
       "GET /1 '' keep; GET /2 '' keep; "},
      {"half a head", "GET / HTTP/1.1\r\nHost:", "more"},
      {"half a body", post + "Content-Length: 5\r\n\r\nabc", "more"},
      // What two servers may read differently.
      {"length and chunks", post + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"},
      {"chunks and length", post + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", "400"},
      {"length twice", post + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nabcde", "400"},
      {"two lengths", post + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcde", "400"},
      {"list of lengths", post + "Content-Length: 5, 5\r\n\r\nabcde", "400"},
      {"signed length", post + "Content-Length: +5\r\n\r\nabcde", "400"},
      {"negative length", post + "Content-Length: -5\r\n\r\n", "400"},
      {"length of 2^64", post + "Content-Length: 18446744073709551616\r\n\r\n", "400"},
      {"chunks twice", post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"},
      {"gzip", post + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "501"},
      {"identity", post + "Transfer-Encoding: identity\r\n\r\n", "501"},
      {"xchunked", post + "Transfer-Encoding: xchunked\r\n\r\n", "501"},
      {"chunks in 1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"},
      {"folded", "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", "400"},
      {"folded by a tab", "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n\tc\r\n\r\n", "400"},
      {"bare LF", "GET / HTTP/1.1\nHost: a\n\n", "400"},
      {"bare LF in a value", "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", "400"},
      {"bare CR", "GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n", "400"},
      {"NUL", "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n"s, "400"},
      {"empty name", "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", "400"},
      {"space before the colon", "GET / HTTP/1.1\r\nHost : a\r\n\r\n", "400"},
      {"no host", "GET / HTTP/1.1\r\n\r\n", "400"},
      {"two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"},
      {"empty line first", "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
      {"no version", "GET /\r\nHost: a\r\n\r\n", "400"},
      {"2.0", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", "400"},
      {"two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
      {"no path", "GET x HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
      {"whole URL", "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
      {"raw UTF-8 in the target", "GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
      {"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "400"},
      {"chunk of hexadecimal prefix", chunked + "0x2\r\nab\r\n0\r\n\r\n", "400"},
      {"chunk without a size", chunked + "\r\nab\r\n0\r\n\r\n", "400"},
      {"chunk of size -1", chunked + "-1\r\nab\r\n", "400"},
      {"chunk of size 2^64", chunked + "10000000000000000\r\nab\r\n", "400"},
      {"chunk longer than its size", chunked + "2\r\nabc\r\n0\r\n\r\n", "400"},
      {"bare LF in a chunk's extension", chunked + "2;a\n\r\nab\r\n0\r\n\r\n", "400"},
      // Limits.
      {"long target", "GET /" + std::string(64, 'x') + " HTTP/1.1\r\nHost: a\r\n\r\n", "414"},
      {"long head", "GET / HTTP/1.1\r\nHost: a\r\nX: " + std::string(600, 'x') + "\r\n\r\n", "431"},
      {"head without end", "GET / HTTP/1.1\r\nHost: a\r\nX: " + std::string(600, 'x'), "431"},
      {"many fields", "GET / HTTP/1.1\r\nHost: a\r\nA:1\r\nB:2\r\nC:3\r\nD:4\r\n\r\n", "431"},
      {"large length", post + "Content-Length: 33\r\n\r\n", "413"},
      {"large chunk", chunked + "21\r\n" + std::string(33, 'x') + "\r\n0\r\n\r\n", "413"},
      {"chunk with a head without end", chunked + "1;" + std::string(600, 'x'), "400"},
  };
}

TEST(RequestReader, ReadsOrRefusesInAnyPieces) {
  for (const Case& one : cases()) {
    for (const std::size_t piece : {std::size_t{1}, std::size_t{7}, std::size_t{100000}}) {
      EXPECT_EQ(read_all(one.text, piece), one.read) << one.name << " in pieces of " << piece;
    }
  }
}

TEST(RequestReader, TellsTheHeadBeforeTheBodyIsThere) {
  RequestReader reader(HttpLimits{});
  EXPECT_EQ(reader.phase(), Phase::idle);
  reader.feed("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nEXPECT: 100-Continue\r\nX-Y: Zz \r\n\r\n");
  EXPECT_EQ(reader.phase(), Phase::head);
  ASSERT_EQ(reader.advance(), Step::head);
  EXPECT_EQ(reader.request().field("x-y"), "Zz");
  EXPECT_EQ(reader.request().field("x-z"), std::nullopt);
  EXPECT_TRUE(reader.request().has_body);
  EXPECT_TRUE(reader.expects_continue());
  EXPECT_EQ(reader.advance(), Step::needs_bytes);
  EXPECT_EQ(reader.phase(), Phase::body);
  reader.feed("ab");
  EXPECT_EQ(reader.advance(), Step::needs_bytes);
  EXPECT_EQ(reader.body_bytes(), 2U);
  reader.feed("cGET ");
  EXPECT_EQ(reader.advance(), Step::request);
  EXPECT_EQ(reader.phase(), Phase::whole);
  EXPECT_EQ(reader.take().body, "abc");
  EXPECT_EQ(reader.unread_bytes(), 4U);
  EXPECT_EQ(reader.phase(), Phase::head);
}

}  // namespace
}  // namespace chorus
