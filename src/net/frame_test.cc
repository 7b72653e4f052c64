#include "net/frame.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace chorus {
namespace {

std::string encoded(std::uint8_t type, std::uint32_t epoch, const std::string& payload) {
  return encode_frame_header(type, epoch, payload.size(), false) + payload;
}

TEST(FrameParser, CutsAStreamFedByteByByte) {
  const std::string stream =
      encoded(1, 10, "") + encoded(2, 11, "abc") + encoded(127, 0xFFFFFFFF, std::string(1000, 'x'));
  FrameParser parser;
  std::vector<Frame> frames;
  for (const char byte : stream) {
    parser.feed(std::string_view(&byte, 1));
    auto parsed = parser.next();
    ASSERT_TRUE(parsed.ok());
    if (parsed->has_value()) frames.push_back(std::move((*parsed)->frame));
  }
  ASSERT_EQ(frames.size(), 3U);
  EXPECT_EQ(frames[0].type, 1);
  EXPECT_EQ(frames[1].payload, "abc");
  EXPECT_EQ(frames[1].epoch, 11U);
  EXPECT_EQ(frames[2].epoch, 0xFFFFFFFF);
  EXPECT_EQ(frames[2].payload, std::string(1000, 'x'));
  EXPECT_EQ(parser.pending_bytes(), 0U);
}

TEST(FrameParser, RefusesAPayloadOverTheLimitByItsHeaderAlone) {
  FrameParser parser(100);
  parser.feed(encode_frame_header(3, 1, 101, false));
  const auto parsed = parser.next();
  ASSERT_FALSE(parsed.ok());
  EXPECT_EQ(parsed.error().code, ErrorCode::invalid_argument);
  EXPECT_NE(parsed.error().message.find("101 bytes: the limit is 100"), std::string::npos) << parsed.error().message;
}

TEST(FrameParser, RefusesTextThatIsNoFrame) {
  FrameParser parser;
  parser.feed("GET / HTTP/1.1\r\n");
  EXPECT_FALSE(parser.next().ok());
}

// Goal: no mutation of a stream crashes the parser or makes it give more than it was fed.
TEST(FrameParser, MutatedStreamsNeverCrash) {
  std::mt19937 random(7);
  for (int round = 0; round < 5000; ++round) {
    std::string stream;
    for (int i = 0; i < 5; ++i) {
      const auto type = static_cast<std::uint8_t>(random() % 128);
      stream += encoded(type, static_cast<std::uint32_t>(random()), std::string(random() % 50, 'a'));
    }
    for (auto i = random() % 6; i > 0; --i) stream[random() % stream.size()] = static_cast<char>(random());
    stream.resize(random() % (stream.size() + 1));
    FrameParser parser(1 << 16);
    std::size_t fed = 0;
    std::size_t given = 0;
    bool failed = false;
    while (fed < stream.size() && !failed) {
      const std::size_t size = std::min<std::size_t>(1 + random() % 60, stream.size() - fed);
      parser.feed(std::string_view(stream).substr(fed, size));
      fed += size;
      while (true) {
        auto parsed = parser.next();
        failed = !parsed.ok();
        if (failed || !parsed->has_value()) break;
        given += frame_header_bytes + (*parsed)->frame.payload.size();
      }
      ASSERT_LE(given, fed);
    }
  }
}

}  // namespace
}  // namespace chorus
