#include "tokenizer/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "json/file.h"
#include "json/json.h"
#include "json/utf8.h"
#include "testing/test_tokenizers.h"
#include "tokenizer/folder_tokens.h"

namespace chorus {
namespace {

using ::testing::HasSubstr;
using Ids = std::vector<std::int32_t>;

class Reference : public testing::TestWithParam<const char*> {
 protected:
  Reference()
      : tokenizer_(test_tokenizer(GetParam())),
        vectors_(read_json_file(test_tokenizer_folder(GetParam()) + "/vectors.json").value()) {}
  const Tokenizer& tokenizer_;
  const Json vectors_;
};

TEST_P(Reference, EncodesAndDecodesEveryVector) {
  std::size_t cases = 0;
  ASSERT_FALSE(vectors_["cases"].empty());
  for (const Json& vector : vectors_["cases"]) {
    const auto text = vector["text"].get<std::string>();
    const auto ids = vector["ids"].get<Ids>();
    const auto with_special = vector.contains("ids_with_special") ? vector["ids_with_special"].get<Ids>() : ids;
    EXPECT_EQ(tokenizer_.encode(text, false).value(), ids) << vector["name"] << ": " << text;
    EXPECT_EQ(tokenizer_.encode(text, true).value(), with_special) << vector["name"];
    EXPECT_EQ(tokenizer_.decode(ids, false).value(), vector["decoded"].get<std::string>()) << vector["name"];
    EXPECT_EQ(tokenizer_.decode(ids, true).value(), vector["decoded_skip_special"].get<std::string>());
    ++cases;
  }
  EXPECT_GT(cases, 100u);
}

TEST_P(Reference, DecodesRandomIds) {
  ASSERT_FALSE(vectors_["decode"].empty());
  for (const Json& vector : vectors_["decode"]) {
    EXPECT_EQ(tokenizer_.decode(vector["ids"].get<Ids>(), false).value(), vector["text"].get<std::string>())
        << vector["name"];
  }
}

TEST_P(Reference, DecodesPrefixes) {
  ASSERT_FALSE(vectors_["stream"].empty());
  for (const Json& vector : vectors_["stream"]) {
    const auto ids = vector["ids"].get<Ids>();
    EXPECT_EQ(tokenizer_.encode(vector["text"].get<std::string>(), false).value(), ids);
    for (std::size_t n = 0; n < ids.size(); ++n) {
      EXPECT_EQ(tokenizer_.decode(std::span(ids).first(n + 1), false).value(),
                vector["prefix_texts"][n].get<std::string>());
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Tokenizers, Reference, testing::ValuesIn(test_tokenizer_names), [](const auto& info) {
  std::string name = info.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

std::vector<std::string> split_text(const std::string& text, const std::string& separator) {
  std::vector<std::string> parts;
  std::size_t begin = 0;
  for (std::size_t end; (end = text.find(separator, begin)) != std::string::npos; begin = end + separator.size()) {
    parts.push_back(text.substr(begin, end - begin));
  }
  parts.push_back(text.substr(begin));
  return parts;
}

// Goal: agreement with a second implementation. Method: llama.cpp's own vectors.
TEST(LlamaCppVectors, Agree) {
  const std::pair<const char*, const char*> pairs[] = {{"deepseek-coder", "deepseek-coder"},
                                                       {"gpt-2", "gpt-2"},
                                                       {"llama-bpe", "llama-3"},
                                                       {"llama-spm", "llama-2"},
                                                       {"qwen2", "qwen2"}};
  for (const auto& [file, name] : pairs) {
    const std::string stem = test_tokenizer_folder("llamacpp_vectors") + "/" + file;
    const auto inputs = split_text(read_file(stem + ".inp", 1 << 20).value(), "\n__ggml_vocab_test__\n");
    const auto outputs = split_text(read_file(stem + ".out", 1 << 20).value(), "\n");
    ASSERT_GE(outputs.size(), inputs.size());
    ASSERT_GT(inputs.size(), 40u);
    for (std::size_t n = 0; n < inputs.size(); ++n) {
      Ids expected;
      std::istringstream line(outputs[n]);
      for (std::int32_t id; line >> id;) expected.push_back(id);
      EXPECT_EQ(test_tokenizer(name).encode(inputs[n], false).value(), expected)
          << file << " " << n << ": " << inputs[n];
    }
  }
}

TEST(Tokenizer, RefusesInvalidUtf8AndUnknownIds) {
  const Tokenizer& tokenizer = test_tokenizer("gpt-2");
  EXPECT_THAT(tokenizer.encode("abc\xFF", true).error().message, HasSubstr("byte 3"));
  const Ids beyond = {1, tokenizer.vocab_size()};
  EXPECT_THAT(tokenizer.decode(beyond, true).error().message, HasSubstr("50257"));
  EXPECT_FALSE(tokenizer.decode(Ids{-1}, true).ok());
  EXPECT_EQ(tokenizer.encode("", true).value(), Ids{});
  EXPECT_EQ(tokenizer.token_to_id("<|endoftext|>"), 50256);
  EXPECT_EQ(tokenizer.id_to_token(50256), "<|endoftext|>");
  EXPECT_TRUE(tokenizer.is_special(50256));
  EXPECT_FALSE(tokenizer.is_special(0));
  EXPECT_EQ(tokenizer.token_to_id("no such token"), std::nullopt);
}

// Goal: byte-level tokenizers lose nothing, and a long word takes no quadratic time. Method: random text round trips.
TEST(Tokenizer, RoundTripsRandomText) {
  std::mt19937 random(7);
  const auto below = [&](std::uint32_t limit) { return static_cast<std::uint32_t>(random() % limit); };
  for (const char* name : {"gpt-2", "llama-3", "llama-2", "deepseek-coder"}) {
    for (int round = 0; round < 300; ++round) {
      std::string text;
      for (std::uint32_t size = 1 + below(60); size > 0; --size) {
        static constexpr char32_t bases[] = {0x20, 0x20, 0x61, 0x41, 0x30, 0xA0, 0x3B1, 0x4E00, 0x1F600, 0x2028};
        const char32_t base = bases[below(10)];
        append_utf8(text, base + below(base == 0x20 ? 2 : 26));
      }
      const auto ids = test_tokenizer(name).encode(text, false).value();
      EXPECT_EQ(test_tokenizer(name).decode(ids, false).value(), text) << name;
    }
  }
}

TEST(Tokenizer, EncodesHostileTextInTime) {
  for (const char* name : test_tokenizer_names) {
    for (const std::string_view unit : {"a", " ", "\n", "ab", "\xE4\xBD\xA0", "'", "<", "\xE2\x96\x81"}) {
      std::string text;
      while (text.size() < 100'000) text += unit;
      const auto ids = test_tokenizer(name).encode(text, false);
      ASSERT_TRUE(ids.ok());
      EXPECT_FALSE(ids->empty());
    }
  }
}

// Goal: one long piece, cut where no merge crosses or merged by heap, gives what short pieces give by linear search.
TEST(Tokenizer, LongWordsEqualTheirParts) {
  const Tokenizer& tokenizer = test_tokenizer("llama-2");
  std::string text;
  Ids expected;
  for (int n = 0; n < 300; ++n) {
    const std::string word = fmt::format(" word{}\n", n * 7919);
    const auto ids = tokenizer.encode("x" + word, false).value();
    const auto prefix = tokenizer.encode("x", false).value();
    expected.insert(expected.end(), ids.begin() + static_cast<std::ptrdiff_t>(prefix.size()), ids.end());
    text += word;
  }
  Ids all = tokenizer.encode("x" + text, false).value();
  all.erase(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(tokenizer.encode("x", false).value().size()));
  EXPECT_EQ(all, expected);
}

class LoadErrors : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "chorus_tokenizer_test";
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string error_of(const std::string& text) {
    std::ofstream(folder_ + "/tokenizer.json") << text;
    const auto loaded = load_tokenizer(folder_);
    return loaded.ok() ? "" : loaded.error().message;
  }
  static std::string with(const std::string& model, const std::string& rest = "") {
    return "{\"model\": {\"type\": \"BPE\", " + model + "}" + rest + "}";
  }
  std::string folder_;
};

TEST_F(LoadErrors, NameTheFileAndThePart) {
  const std::string plain = R"("vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"])";
  EXPECT_EQ(error_of(with(plain)), "");
  EXPECT_THAT(load_tokenizer(folder_ + "/none").error().message, HasSubstr("/none/tokenizer.json"));
  EXPECT_THAT(error_of(with(plain).substr(0, 60)), HasSubstr("tokenizer.json"));
  EXPECT_THAT(error_of("[]"), HasSubstr("must be an object"));
  EXPECT_THAT(error_of("{}"), HasSubstr("model"));
  for (const char* type : {"WordPiece", "WordLevel"}) {
    EXPECT_THAT(error_of(fmt::format(R"({{"model": {{"type": "{}"}}}})", type)), HasSubstr(type));
  }
  EXPECT_THAT(error_of(with(R"("vocab": [], "merges": [])")), HasSubstr("model.vocab"));
  EXPECT_THAT(error_of(with(R"("vocab": {"a": "0"}, "merges": [])")), HasSubstr("model.vocab[\"a\"]"));
  EXPECT_THAT(error_of(with(R"("vocab": {"a": -1}, "merges": [])")), HasSubstr("model.vocab[\"a\"]"));
  EXPECT_THAT(error_of(with(R"("vocab": {"a": 4000000000}, "merges": [])")), HasSubstr("model.vocab[\"a\"]"));
  EXPECT_THAT(error_of(with(R"("vocab": {"a": 0, "b": 0}, "merges": [])")), HasSubstr("id 0 is also"));
  EXPECT_THAT(error_of(with(R"("vocab": {"a": 0, "a": 1}, "merges": [])")), HasSubstr("twice"));
  EXPECT_THAT(error_of(with(R"("vocab": {"a": 0}, "merges": ["a c"])")), HasSubstr("\"c\" is not in model.vocab"));
  EXPECT_THAT(error_of(with(R"("vocab": {"a": 0}, "merges": ["a a"])")), HasSubstr("\"aa\" is not in model.vocab"));
  EXPECT_THAT(error_of(with(R"("vocab": {"a": 0}, "merges": ["a"])")), HasSubstr("model.merges[0]"));
  EXPECT_THAT(error_of(with(R"("vocab": {"a": 0}, "merges": [["a", 1]])")), HasSubstr("model.merges[0]"));
  EXPECT_THAT(error_of(with(R"("vocab": {"a": 0}, "merges": [], "unk_token": "u")")), HasSubstr("model.unk_token"));
  EXPECT_THAT(error_of(with(R"("vocab": {"a": 0}, "merges": [], "dropout": 0.1)")), HasSubstr("model.dropout"));
}

TEST_F(LoadErrors, NameWhatIsWrongOfAUnigramModel) {
  const auto unigram = [](const std::string& model, const std::string& rest = "") {
    return R"({"model": {"type": "Unigram", )" + model + "}" + rest + "}";
  };
  const std::string plain = R"("vocab": [["<unk>", 0], ["a", -1.5]], "unk_id": 0)";
  EXPECT_EQ(error_of(unigram(plain)), "");
  EXPECT_THAT(error_of(unigram(R"("vocab": {"a": 0})")), HasSubstr("model.vocab"));
  EXPECT_THAT(error_of(unigram(R"("vocab": [])")), HasSubstr("model.vocab"));
  EXPECT_THAT(error_of(unigram(R"("vocab": [["a", -1], ["b"]])")), HasSubstr("model.vocab[1]"));
  EXPECT_THAT(error_of(unigram(R"("vocab": [["a", "b"]])")), HasSubstr("model.vocab[0]"));
  EXPECT_THAT(error_of(unigram(R"("vocab": [["a", -1], ["a", -2]])")), HasSubstr("twice"));
  EXPECT_THAT(error_of(unigram(R"("vocab": [[")" + std::string(300, 'a') + R"(", -1]])")), HasSubstr("limit of 256"));
  EXPECT_THAT(error_of(unigram(R"("vocab": [["a", -1]], "unk_id": 1)")), HasSubstr("model.unk_id"));
  EXPECT_THAT(error_of(unigram(R"("vocab": [["a", -1]], "byte_fallback": 1)")), HasSubstr("model.byte_fallback"));
  // Cut short, letters that are none, and a trie longer than the table.
  for (const char* table : {"", "AAAA", "!!!!", "/////w==", "CAAAAAAAAAA="}) {
    const std::string normalizer =
        fmt::format(R"(, "normalizer": {{"type": "Precompiled", "precompiled_charsmap": "{}"}})", table);
    EXPECT_THAT(error_of(unigram(plain, normalizer)), HasSubstr("precompiled_charsmap")) << table;
  }
}

// Units that point outside the trie, and texts outside the table, are no normal forms.
TEST_F(LoadErrors, APrecompiledTableOfAnyBytesIsHarmless) {
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    std::string bytes = {16, 0, 0, 0};
    for (int i = 0; i < 24; ++i) bytes.push_back(static_cast<char>(random() % (round % 2 == 0 ? 256 : 4)));
    std::string table;
    constexpr std::string_view letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (std::size_t at = 0; at + 3 <= bytes.size(); at += 3) {
      std::uint32_t three = 0;
      for (std::size_t i = 0; i < 3; ++i) three = three << 8 | static_cast<unsigned char>(bytes[at + i]);
      for (int shift = 18; shift >= 0; shift -= 6) table.push_back(letters[three >> shift & 63]);
    }
    std::ofstream(folder_ + "/tokenizer.json")
        << R"({"model": {"type": "Unigram", "vocab": [["a", -1]], "unk_id": 0}, "normalizer": {"type": "Precompiled",
               "precompiled_charsmap": ")"
        << table << "\"}}";
    const auto loaded = load_tokenizer(folder_);
    ASSERT_TRUE(loaded.ok()) << loaded.error().message;
    EXPECT_TRUE((*loaded)->encode("abc \r\n \u00e9 e\u0301 \u0904", false).ok());
  }
}

TEST_F(LoadErrors, NameTheTypeThatIsNotSupported) {
  const std::string plain = R"("vocab": {"a": 0}, "merges": [])";
  EXPECT_THAT(error_of(with(plain, R"(, "normalizer": {"type": "BertNormalizer"})")),
              HasSubstr("normalizer: type \"BertNormalizer\""));
  EXPECT_THAT(error_of(with(plain, R"(, "pre_tokenizer": {"type": "UnicodeScripts"})")),
              HasSubstr("pre_tokenizer: type"));
  EXPECT_THAT(error_of(with(plain, R"(, "decoder": {"type": "CTC"})")), HasSubstr("decoder: type \"CTC\""));
  EXPECT_THAT(error_of(with(plain, R"(, "post_processor": {"type": "Other"})")), HasSubstr("post_processor: type"));
  EXPECT_THAT(error_of(with(plain, R"(, "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a"}})")),
              HasSubstr("\"(a\""));
}

TEST_F(LoadErrors, CheckAddedTokens) {
  const std::string plain = R"("vocab": {"a": 0, "b": 1}, "merges": [])";
  const auto added = [&](const std::string& tokens) { return with(plain, ", \"added_tokens\": [" + tokens + "]"); };
  EXPECT_EQ(error_of(added(R"({"id": 2, "content": "<s>", "special": true})")), "");
  EXPECT_THAT(error_of(added(R"({"id": 1, "content": "<s>"})")), HasSubstr("added_tokens: [0]"));
  EXPECT_THAT(error_of(added(R"({"id": 2, "content": "a"})")), HasSubstr("has id 2, but 0"));
  EXPECT_THAT(error_of(added(R"({"id": 2, "content": "x"}, {"id": 2, "content": "y"})")), HasSubstr("[1]: id 2"));
  EXPECT_THAT(error_of(added(R"({"id": 2, "content": "x"}, {"id": 3, "content": "x"})")), HasSubstr("twice"));
  EXPECT_THAT(error_of(added(R"({"id": -2, "content": "x"})")), HasSubstr("id: must be a whole number"));
  EXPECT_THAT(error_of(added(R"({"id": 3000000000, "content": "x"})")), HasSubstr("id: must be a whole number"));
  EXPECT_THAT(error_of(added(R"({"id": 2})")), HasSubstr("content: must be a string"));
}

// Expected: transformers 5.23, AutoTokenizer on such a folder.
class FolderTokensTest : public testing::Test {
 protected:
  FolderTokensTest() {
    std::filesystem::create_directories(folder_);
    write("tokenizer.json",
          R"({"model": {"type": "BPE", "vocab": {"h": 0, "i": 1, ".": 2}, "merges": []},
              "added_tokens": [{"id": 3, "content": "<s>", "special": true}]})");
  }
  ~FolderTokensTest() override { std::filesystem::remove_all(folder_); }
  void write(const std::string& name, const std::string& text) { std::ofstream(folder_ / name) << text; }
  Ids ids(const std::string& text) {
    const auto tokenizer = load_tokenizer(folder_.string());
    if (!tokenizer) ADD_FAILURE() << tokenizer.error().message;
    return tokenizer ? (*tokenizer)->encode(text, false).value() : Ids{};
  }
  std::string folder() const { return folder_.string(); }

 private:
  const std::filesystem::path folder_ =
      std::filesystem::path(testing::TempDir()) / fmt::format("folder_tokens_{}", ::getpid());
};

TEST_F(FolderTokensTest, AreThoseOfTheAddedTokensDecoder) {
  write("tokenizer_config.json",
        R"({"model_max_length": 1000000000000000019884624838656, "unread": NaN,
            "added_tokens_decoder": {"5": {"content": "<e>", "special": true}, "4": {"content": "<b>", "special": true}}})");
  EXPECT_EQ(ids("<b>hi<e><s>"), (Ids{4, 0, 1, 5, 3}));
}

TEST_F(FolderTokensTest, AreThoseOfAddedTokensJsonAndTheSpecialTokensMap) {
  write("added_tokens.json", R"({"<b>": 4, "<e>": 5})");
  write("special_tokens_map.json", R"({"eos_token": {"content": "<e>"}, "additional_special_tokens": ["<x>"]})");
  EXPECT_EQ(ids("<b>hi<e><x>"), (Ids{4, 0, 1, 5, 6}));
  const auto tokenizer = load_tokenizer(folder());
  EXPECT_TRUE((*tokenizer)->is_special(5));
  EXPECT_FALSE((*tokenizer)->is_special(4));
  write("tokenizer_config.json", R"({"added_tokens_decoder": {}})");
  EXPECT_EQ(ids("h<e>"), (Ids{0})) << "then the older files are not read, and the vocabulary has no '<'";
}

TEST_F(FolderTokensTest, ASpecialTokenOfTheVocabularyKeepsItsId) {
  write("tokenizer_config.json", R"({"eos_token": ".", "bos_token": "<s>", "image_token": "<i>"})");
  EXPECT_EQ(ids("<s>h.<i>"), (Ids{3, 0, 2, 4}));
  const auto tokens = read_folder_tokens(folder());
  ASSERT_TRUE(tokens.ok());
  EXPECT_EQ(tokens->named.at("eos_token"), ".");
  EXPECT_EQ(tokens->named.at("image_token"), "<i>");
}

TEST_F(FolderTokensTest, JsonOfPythonsAloneIsRead) {
  write("tokenizer.json",
        R"({"unread": [Infinity, 1e400, 100000000000000000000, "\ud800"], "model": 1, "model": {"type": "BPE",
            "vocab": {"h": 0, "i": 1}, "merges": [], "unread": NaN}})");
  EXPECT_EQ(ids("hi"), (Ids{0, 1}));
}

}  // namespace
}  // namespace chorus
