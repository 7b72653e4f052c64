#include <gtest/gtest.h>

#include "base/check.h"
#include "base/digest.h"
#include "base/log.h"
#include "base/philox.h"
#include "base/result.h"

namespace chorus {
namespace {

// Known answers of Philox4x32-10 from the authors' Random123 library (kat_vectors: philox 4x32 10).
TEST(Philox, MatchesThePublishedVectors) {
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}),
            (std::array<std::uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (std::array<std::uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (std::array<std::uint32_t, 4>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

// Goal: how the bytes are cut does not matter. Method: against the hash of the whole, pieces of 0 to 22 bytes.
TEST(ByteHash, IsThatOfTheWhole) {
  std::string bytes;
  ByteHash pieces(digest_key);
  for (std::size_t i = 0; i < 300; ++i) {
    const std::string piece(i * 7 % 23, static_cast<char>(i));
    pieces.add(piece);
    bytes += piece;
    const auto* data = reinterpret_cast<const unsigned char*>(bytes.data());
    ASSERT_EQ(pieces.value(), siphash128(digest_key, {data, bytes.size()})) << i;
  }
}

TEST(Digest, TellsPartsApart) {
  const auto of = [](std::initializer_list<const char*> parts) {
    Digest digest;
    for (const char* part : parts) digest.add(part);
    return digest.text();
  };
  EXPECT_EQ(of({"ab", "c"}), of({"ab", "c"}));
  EXPECT_NE(of({"ab", "c"}), of({"a", "bc"}));
  EXPECT_NE(of({"", "a"}), of({"a", ""}));
  EXPECT_NE(of({}), of({""}));
  EXPECT_EQ(of({}).size(), 32U);
}

TEST(Philox, UniformStaysInsideTheUnitIntervalAndDependsOnEveryArgument) {
  double sum = 0;
  for (std::uint64_t position = 0; position < 1000000; ++position) {
    const double u = philox_uniform(7, 0, position);
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    sum += u;
  }
  EXPECT_NEAR(sum / 1000000, 0.5, 0.002);
  EXPECT_NE(philox_uniform(7, 0, 1), philox_uniform(7, 1, 1));
  EXPECT_NE(philox_uniform(7, 0, 1), philox_uniform(8, 0, 1));
}

Result<int> half(int value) {
  if (value % 2 != 0) return fail(ErrorCode::invalid_argument, "{} is odd: give an even number", value);
  return value / 2;
}

Result<int> quarter(int value) {
  CHORUS_TRY(const int once, half(value));
  return half(once);
}

TEST(Result, CarriesAValueOrSaysWhatAndWhatNext) {
  EXPECT_EQ(*quarter(8), 2);
  ASSERT_FALSE(quarter(6).ok());
  EXPECT_EQ(quarter(6).error().message, "3 is odd: give an even number");
  EXPECT_EQ(with_context(quarter(6).error(), "row 4").message, "row 4: 3 is odd: give an even number");
}

TEST(CheckDeathTest, PrintsConditionAndValues) {
  EXPECT_DEATH(CHECK(1 + 1 == 3, "sum was {}", 2), "CHECK.1 . 1 == 3. failed. sum was 2");
}

TEST(Log, ReadsTheLevelsOfVllm) {
  LogLevel level = LogLevel::off;
  EXPECT_TRUE(parse_log_level("DEBUG", &level));
  EXPECT_EQ(level, LogLevel::debug);
  EXPECT_TRUE(parse_log_level("warn", &level));
  EXPECT_EQ(level, LogLevel::warning);
  EXPECT_FALSE(parse_log_level("loud", &level));
}

}  // namespace
}  // namespace chorus
