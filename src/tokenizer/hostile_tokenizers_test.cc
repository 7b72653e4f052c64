// A tokenizer.json is written by strangers: whatever it asks for is an error, in bounded time and memory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "json/json.h"
#include "tokenizer/regex.h"
#include "tokenizer/token_finder.h"
#include "tokenizer/tokenizer.h"

namespace chorus {
namespace {

using testing::HasSubstr;

Json plain_tokenizer() {
  return Json::parse(
      R"({"added_tokens": [], "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "<s>": 3}, "merges": ["a b"]}})");
}

Result<std::shared_ptr<const Tokenizer>> load(const Json& config) {
  std::string folder = (std::filesystem::temp_directory_path() / "chorus-tokenizer-XXXXXX").string();
  EXPECT_NE(mkdtemp(folder.data()), nullptr);
  std::ofstream(folder + "/tokenizer.json") << config.dump();
  auto tokenizer = load_tokenizer(folder);
  std::filesystem::remove_all(folder);
  return tokenizer;
}

// The error of loading, or of encoding `text`; "" if there is none.
std::string error_of(const Json& config, const std::string& text) {
  const auto tokenizer = load(config);
  if (!tokenizer.ok()) return tokenizer.error().message;
  const auto ids = (*tokenizer)->encode(text, true);
  return ids.ok() ? "" : ids.error().message;
}

Json sequence(const char* list, const Json& step, std::size_t count) {
  return Json{{"type", "Sequence"}, {list, Json(count, step)}};
}

TEST(HostileTokenizers, PipelinesHaveABoundedNumberOfSteps) {
  const Json digits = {{"type", "Digits"}, {"individual_digits", true}};
  Json config = plain_tokenizer();
  config["pre_tokenizer"] = sequence("pretokenizers", digits, 40'000);
  EXPECT_THAT(error_of(config, "ab"), HasSubstr("more than 64 steps"));
  config["pre_tokenizer"] = sequence("pretokenizers", digits, 60);
  EXPECT_EQ(error_of(config, "ab"), "");
  config = plain_tokenizer();
  config["normalizer"] = sequence("normalizers", sequence("normalizers", {{"type", "NFC"}}, 9), 9);
  EXPECT_THAT(error_of(config, "ab"), HasSubstr("more than 64 steps"));
  config = plain_tokenizer();
  config["decoder"] = sequence("decoders", {{"type", "Fuse"}}, 65);
  EXPECT_THAT(error_of(config, "ab"), HasSubstr("more than 64 steps"));
}

TEST(HostileTokenizers, StepsMakeATextLongerByABoundedFactor) {
  const Json tenfold = {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", std::string(10, 'a')}};
  const std::string text(10'000, 'a');
  Json config = plain_tokenizer();
  config["normalizer"] = sequence("normalizers", tenfold, 20);
  EXPECT_THAT(error_of(config, text), HasSubstr("bytes of a text"));
  config["normalizer"] = sequence("normalizers", {{"type", "ByteLevel"}}, 40);
  EXPECT_THAT(error_of(config, "\xc3\xa9"), HasSubstr("bytes of a text"));
  config["normalizer"] = {{"type", "Prepend"}, {"prepend", std::string(1 << 20, 'a')}};
  EXPECT_THAT(error_of(config, text), HasSubstr("bytes of a text"));
  config["normalizer"] = tenfold;
  EXPECT_EQ(error_of(config, text), "");
  config = plain_tokenizer();
  config["pre_tokenizer"] = sequence("pretokenizers", {{"type", "ByteLevel"}, {"use_regex", false}}, 40);
  EXPECT_THAT(error_of(config, "\xc3\xa9"), HasSubstr("steps that change the text"));
}

TEST(HostileTokenizers, ADecoderMakesATextLongerUpToABound) {
  Json config = plain_tokenizer();
  const Json tenfold = {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", std::string(10, 'a')}};
  const std::vector<std::int32_t> ids(100, 0);
  const auto decoded_bytes = [&](std::size_t count) {
    const auto tokenizer = load(config);
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.error().message;
    const auto text = (*tokenizer)->decode(std::span(ids).first(count), false);
    EXPECT_TRUE(text.ok()) << text.error().message;
    return text->size();
  };
  config["decoder"] = sequence("decoders", tenfold, 20);  // token by token
  EXPECT_EQ(decoded_bytes(1), 1000U) << "3 steps: 10,000 bytes are over 4 KiB and 16 times one";
  EXPECT_EQ(decoded_bytes(100), 100'000U);
  config["decoder"]["decoders"].push_back({{"type", "BPEDecoder"}, {"suffix", "x"}});  // all tokens anew for each
  EXPECT_LE(decoded_bytes(100), (std::size_t{4} << 10) + 16 * 100) << "of them together";
  config["decoder"] = sequence("decoders", {{"type", "Fuse"}}, 1);
  config["decoder"]["decoders"].push_back(tenfold);
  EXPECT_EQ(decoded_bytes(100), 1000U) << "what a text of this length may become";
}

TEST(HostileTokenizers, FewIdsArePutAroundAText) {
  Json config = plain_tokenizer();
  const Json special = {{"SpecialToken", {{"id", "x"}, {"type_id", 0}}}};
  Json single(900, special);
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  config["post_processor"] = {{"type", "TemplateProcessing"},
                              {"single", single},
                              {"special_tokens", {{"x", {{"id", "x"}, {"ids", Json(900, 3)}}}}}};
  EXPECT_THAT(error_of(config, "ab"), HasSubstr("1024 ids"));
}

TEST(HostileTokenizers, AddedTokensHaveABoundedSum) {
  Json config = plain_tokenizer();
  for (int i = 0; i < 500; ++i) {
    config["added_tokens"].push_back({{"id", 100 + i}, {"content", std::string(65'000, 'a') + std::to_string(i)}});
  }
  EXPECT_THAT(error_of(config, "ab"), HasSubstr("together have more than"));
}

// Goal: no token makes the search go over the same text again for each of its places. Method: a text of equal letters
// and a token that nearly matches everywhere; at quadratic time this takes minutes.
TEST(HostileTokenizers, ATokenThatNearlyMatchesEverywhereIsSearchedInLinearTime) {
  Json config = plain_tokenizer();
  config["added_tokens"] = {{{"id", 10}, {"content", std::string(65'000, 'a') + "Z"}, {"normalized", false}},
                            {{"id", 11}, {"content", "Z" + std::string(65'000, 'a')}, {"normalized", false}},
                            {{"id", 12}, {"content", "Y"}, {"normalized", false}}};
  config["pre_tokenizer"] = {{"type", "Digits"}, {"individual_digits", true}};
  const auto tokenizer = load(config);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message;
  std::string text;
  for (int i = 0; i < 40; ++i) text += std::string(50'000, 'a') + "Y";
  const auto ids = (*tokenizer)->encode(text, false);
  ASSERT_TRUE(ids.ok()) << ids.error().message;
  EXPECT_EQ(std::count(ids->begin(), ids->end(), 12), 40);
}

// Goal: TokenFinder finds what it says. Method: against a search of each place for each token, over random tokens and
// texts of two letters.
TEST(TokenFinder, FindsTheLongestAtTheLeftmostPlace) {
  std::mt19937 random(5);
  const auto word = [&](std::size_t size_max) {
    std::string text;
    for (std::size_t n = random() % (size_max + 1); n > 0; --n) text += random() % 2 == 0 ? 'x' : '\xff';
    return text;
  };
  for (int round = 0; round < 3000; ++round) {
    std::vector<std::string> words;
    for (std::size_t n = 1 + random() % 6; n > 0; --n) words.push_back(word(6));
    std::vector<TokenFinder::Token> tokens;
    for (std::size_t n = 0; n < words.size(); ++n) tokens.push_back({words[n], static_cast<std::int32_t>(n)});
    const TokenFinder finder(tokens);
    const std::string text = word(30);
    const auto found = finder.find_all(text);
    std::size_t next = 0;
    for (std::size_t at = 0; at < text.size();) {
      const TokenFinder::Token* best = nullptr;
      for (const auto& token : tokens) {
        if (token.text.empty() || !std::string_view(text).substr(at).starts_with(token.text)) continue;
        if (best == nullptr || token.text.size() > best->text.size()) best = &token;
      }
      if (best == nullptr) {
        ++at;
        continue;
      }
      ASSERT_LT(next, found.size());
      EXPECT_EQ(found[next].begin, at);
      EXPECT_EQ(found[next].end, at + best->text.size());
      EXPECT_EQ(found[next].id, best->id);
      at = found[next++].end;
    }
    EXPECT_EQ(next, found.size());
  }
}

std::string search_error(const std::string& pattern, const std::string& text) {
  const auto regex = Regex::compile(pattern);
  if (!regex.ok()) return regex.error().message;
  const auto matches = regex->find_all(text);
  return matches.ok() ? "" : matches.error().message;
}

TEST(HostileTokenizers, PatternsCannotLiftTheirLimits) {
  for (const char* pattern :
       {"(*NO_JIT)a", "(*LIMIT_MATCH=4000000000)(a+)+$", "a(*SKIP)b", "(*UTF)(*UCP)a", "(?:(*ACCEPT))"}) {
    EXPECT_THAT(search_error(pattern, "aaa"), HasSubstr("(*...) is not supported")) << pattern;
  }
  EXPECT_EQ(search_error("\\(*a", "(((a"), "");
  EXPECT_EQ(search_error("[(*]a", "*a"), "");
}

TEST(HostileTokenizers, ASearchAlwaysAdvances) {
  EXPECT_NE(search_error("(?(DEFINE)(ab\\K))(?=(?1))", "Hello abab"), "");
  EXPECT_NE(search_error("(?=a\\K)", "aaa"), "");
  EXPECT_EQ(search_error("a\\Kb", "abab"), "");
  EXPECT_EQ(search_error("^|$|\\b", "ab cd\nef"), "");
}

TEST(HostileTokenizers, ATextHasAnEndOfItsSteps) {
  const std::string text(300'000, 'a');
  EXPECT_THAT(search_error("[^Z]*Z|.", text), HasSubstr("match limit"));
  EXPECT_THAT(search_error("(a+)+$", text + "b"), HasSubstr("limit"));
  EXPECT_EQ(search_error("a+|\\s", text), "");
}

}  // namespace
}  // namespace chorus
