#include "tokenizer/regex.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "json/utf8.h"
#include "tokenizer/pattern.h"
#include "tokenizer/split_scanner.h"
#include "tokenizer/unicode.h"

namespace chorus {
namespace {

std::vector<std::string> matches(std::string_view pattern, std::string_view text) {
  std::vector<std::string> found;
  const auto regex = Regex::compile(pattern);
  EXPECT_TRUE(regex.ok()) << regex.error().message;
  const std::vector<Span> spans = regex->find_all(text).value();
  for (const Span& span : spans) found.emplace_back(text.substr(span.begin, span.end - span.begin));
  return found;
}

// Expected values: `tokenizers` 0.23.3, pre_tokenizers.Split(Regex(PATTERN), "removed", invert=True).
TEST(Regex, MeansWhatOnigurumaMeans) {
  using testing::ElementsAre;
  EXPECT_THAT(matches(R"(\s+)",
                      "a\xC2\x85"
                      "b\xE1\xA0\x8E"
                      "c\xE3\x80\x80"),
              ElementsAre("\xC2\x85", "\xE3\x80\x80"));
  EXPECT_THAT(matches(R"(\h+)", "xaf09g"), ElementsAre("af09"));
  EXPECT_THAT(matches(R"(\d{1,3}+)", "12345"), ElementsAre("12345"));
  EXPECT_THAT(matches(R"(\d{1,3})", "12345"), ElementsAre("123", "45"));
  EXPECT_THAT(matches(R"(^b$)", "a\nb\nc"), ElementsAre("b"));
  EXPECT_THAT(matches(R"([a[0-9]]+)", "za01a]"), ElementsAre("a01a"));
  EXPECT_THAT(matches(R"(\w+)", "e\xCC\x81_1 \xE2\x81\xBF"), ElementsAre("e\xCC\x81_1", "\xE2\x81\xBF"));
  EXPECT_THAT(matches(R"((?i:'s))", "'s'S'\xC5\xBF"), ElementsAre("'s", "'S", "'\xC5\xBF"));
  EXPECT_THAT(matches(R"(\p{L}+|[\p{N}]+)", "\xF0\x93\xA4\x9A\xF0\x90\xB5\x80"),  // U+1391A, U+10D40: Unicode 16
              ElementsAre("\xF0\x93\xA4\x9A", "\xF0\x90\xB5\x80"));
  EXPECT_THAT(matches("a++b", "aaab"), ElementsAre("aaab"));
  EXPECT_THAT(matches("x*", "axb"), ElementsAre("", "x", ""));
}

TEST(Regex, RefusesWhatItCannotDo) {
  for (const char* pattern : {"(", ")", "[a", "[a&&b]", "[a[^b]]", "\\", "\\p{L", "\\p{NoSuchScript}", "a{2,1}"}) {
    const auto regex = Regex::compile(pattern);
    ASSERT_FALSE(regex.ok()) << pattern;
    EXPECT_THAT(regex.error().message, testing::HasSubstr(pattern));
  }
}

TEST(Regex, BoundsTheStepsOfAHostilePattern) {
  const auto regex = Regex::compile("(a+)+d");
  const auto found = regex->find_all(std::string(200, 'a') + "cd");
  ASSERT_FALSE(found.ok());
  EXPECT_THAT(found.error().message, testing::HasSubstr("(a+)+d"));
}

std::string random_text(std::mt19937& random) {
  static constexpr std::string_view parts[] = {"'",
                                               "'s",
                                               "'LL",
                                               "'\xC5\xBF",
                                               "\r",
                                               "\n",
                                               " ",
                                               "  ",
                                               "\t",
                                               "\xC2\xA0",
                                               "\xE3\x80\x80",
                                               "a",
                                               "Z",
                                               "\xC3\xA9",
                                               "\xE4\xBD\xA0",
                                               "1",
                                               "23",
                                               "\xD9\xA1",
                                               "\xE2\x85\xA0",
                                               "!",
                                               "?!",
                                               "\xF0\x9F\x98\x80",
                                               "\xCC\x81",
                                               "_",
                                               "\xE1\xA0\x8E",
                                               "\xF0\x93\xA4\x9A",
                                               "\xF0\x90\xB5\x80",
                                               "\xF0\xB1\xB9\xBC"};
  std::string text;
  for (std::size_t n = random() % 14; n > 0; --n) text += parts[random() % std::size(parts)];
  return text;
}

// Goal: the scanners written by hand are their patterns. Method: PCRE2 as the model, on random text.
TEST(SplitScanner, EqualsItsPattern) {
  const std::string qwen2 =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  std::string llama3 = qwen2;
  llama3.replace(llama3.find(R"(|\p{N}|)"), 7, R"(|\p{N}{1,3}|)");
  std::mt19937 random(3);
  for (const std::string& pattern : {std::string(gpt2_pattern), qwen2, llama3}) {
    const SplitScanner scanner = find_split_scanner(pattern);
    ASSERT_NE(scanner, nullptr) << pattern;
    const auto regex = Regex::compile(pattern).value();
    for (int round = 0; round < 20000; ++round) {
      const std::string text = random_text(random);
      const auto expected = regex.find_all(text).value();
      std::size_t at = 0;
      for (const Span& span : expected) {
        ASSERT_EQ(span.begin, at) << text;
        at = scanner(text, at);
        ASSERT_EQ(span.end, at) << text;
      }
      ASSERT_EQ(at, text.size());
    }
  }
  EXPECT_EQ(find_split_scanner("\\s+"), nullptr);
}

TEST(ByteLevel, IsABijection) {
  for (unsigned byte = 0; byte < 256; ++byte) {
    const std::string text(byte_level_character(static_cast<unsigned char>(byte)));
    EXPECT_EQ(byte_of_character(character_at(text, 0).code_point), static_cast<unsigned char>(byte));
  }
  EXPECT_EQ(to_byte_level(" a\n"),
            "\xC4\xA0"
            "a\xC4\x8A");
  std::string bytes;
  EXPECT_TRUE(from_byte_level(to_byte_level(" a\n\xFF"), bytes));
  EXPECT_EQ(bytes, " a\n\xFF");
  EXPECT_FALSE(from_byte_level("\xE4\xBD\xA0", bytes));
}

TEST(Pattern, ReplacesATextAsItReplacesARegex) {
  const Pattern text = Pattern::from_text("ab");
  const auto regex = Pattern::from_regex("ab");
  ASSERT_TRUE(regex.ok());
  for (const char* given : {"", "a", "ab", "abab", "xabyabz", "aab", "aba", "ba"}) {
    for (const char* replacement : {"", "-", "abc"}) {
      const auto one = replace_all(given, text, replacement, 100), other = replace_all(given, *regex, replacement, 100);
      ASSERT_TRUE(one.ok() && other.ok());
      EXPECT_EQ(*one, *other) << given;
    }
  }
  EXPECT_EQ(*replace_all("abc", Pattern::from_text(""), "x", 100), "abc");
  EXPECT_EQ(replace_all("ab ab", text, "long", 8).error().message,
            replace_all("ab ab", *regex, "long", 8).error().message);
  EXPECT_EQ(*replace_all("ab ab", text, "long", 9), "long long");
}

}  // namespace
}  // namespace chorus
