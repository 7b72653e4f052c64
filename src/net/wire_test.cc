#include "net/wire.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace chorus {
namespace {

TEST(Wire, BytesAreLittleEndian) {
  WireWriter writer;
  writer.u32(0x01020304);
  writer.u8(0xFF);
  writer.text("ab");
  EXPECT_EQ(writer.bytes(), std::string("\x04\x03\x02\x01\xFF\x02\x00\x00\x00"
                                        "ab",
                                        11));
}

TEST(Wire, ExtremesReadBackExactly) {
  WireWriter writer;
  writer.i32(std::numeric_limits<std::int32_t>::min());
  writer.u64(std::numeric_limits<std::uint64_t>::max());
  writer.f32(std::nextafterf(0.0F, 1.0F));
  writer.f64(-0.0);
  writer.f32(std::numeric_limits<float>::quiet_NaN());
  writer.boolean(true);
  writer.text(std::string("\0x", 2));
  WireReader reader(writer.bytes());
  EXPECT_EQ(reader.i32(), std::numeric_limits<std::int32_t>::min());
  EXPECT_EQ(reader.u64(), std::numeric_limits<std::uint64_t>::max());
  EXPECT_EQ(reader.f32(), std::nextafterf(0.0F, 1.0F));
  EXPECT_TRUE(std::signbit(reader.f64()));
  EXPECT_TRUE(std::isnan(reader.f32()));
  EXPECT_TRUE(reader.boolean());
  EXPECT_EQ(reader.text(), std::string("\0x", 2));
  EXPECT_TRUE(reader.finish().ok());
}

TEST(Wire, EveryTruncationIsRefused) {
  WireWriter writer;
  writer.u64(7);
  writer.text("hello");
  writer.f64(1.5);
  for (std::size_t size = 0; size < writer.size(); ++size) {
    WireReader reader(std::string_view(writer.bytes()).substr(0, size));
    reader.u64();
    reader.text();
    reader.f64();
    ASSERT_FALSE(reader.finish().ok()) << size;
    EXPECT_NE(reader.finish().error().message.find("malformed message"), std::string::npos);
  }
}

TEST(Wire, BytesLeftOverAreRefused) {
  WireReader reader("abc");
  reader.u8();
  EXPECT_FALSE(reader.finish().ok());
}

TEST(Wire, ACountThatCannotFitIsRefusedBeforeAnyAllocation) {
  WireWriter writer;
  writer.count(0xFFFFFFFF);
  writer.u32(1);
  WireReader reader(writer.bytes());
  EXPECT_EQ(reader.count(4), 0U);
  EXPECT_TRUE(reader.failed());
}

TEST(Wire, AFlagOfTwoIsRefused) {
  WireReader reader("\x02");
  reader.boolean();
  EXPECT_FALSE(reader.finish().ok());
}

TEST(Wire, RandomBytesNeverCrashAReader) {
  std::mt19937 random(1);
  for (int round = 0; round < 20000; ++round) {
    std::string bytes(random() % 40, '\0');
    for (char& byte : bytes) byte = static_cast<char>(random() % 4 == 0 ? random() : 0);
    WireReader reader(bytes);
    while (!reader.failed()) {
      switch (random() % 6) {
        case 0:
          reader.u8();
          break;
        case 1:
          reader.u64();
          break;
        case 2:
          EXPECT_LE(reader.text().size(), bytes.size());
          break;
        case 3:
          EXPECT_LE(reader.count(3), bytes.size() / 3);
          break;
        case 4:
          reader.boolean();
          break;
        default:
          reader.f32();
          break;
      }
    }
    EXPECT_FALSE(reader.finish().ok());
  }
}

}  // namespace
}  // namespace chorus
