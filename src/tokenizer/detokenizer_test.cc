#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <random>

#include "json/utf8.h"
#include "testing/test_tokenizers.h"

namespace chorus {
namespace {

using Ids = std::vector<std::int32_t>;

struct Streamed {
  std::string text;
  bool stopped = false;
  std::string stop;
  std::size_t tokens = 0;  // taken before it stopped
};

Streamed stream(const char* name, const Ids& prompt, const Ids& outputs, Detokenizer::Options options) {
  Detokenizer detokenizer(shared_test_tokenizer(name), prompt, std::move(options));
  Streamed result;
  for (const std::int32_t token : outputs) {
    if (detokenizer.stopped()) break;
    result.text += detokenizer.push(token);
    EXPECT_EQ(find_invalid_utf8(result.text), std::nullopt) << "half a character was handed out";
    ++result.tokens;
  }
  result.text += detokenizer.finish();
  result.stopped = detokenizer.stopped();
  result.stop = detokenizer.stop_string();
  return result;
}

Ids encode(const char* name, const std::string& text) {
  return test_tokenizer(name).encode(text, false).value();
}

// Goal: the pieces are the whole. Method: random ids, broken characters and byte runs among them, behind prompts that
// end in whole characters.
TEST(Detokenizer, EqualsTheWholeDecode) {
  std::mt19937 random(11);
  for (const char* name : test_tokenizer_names) {
    const Tokenizer& tokenizer = test_tokenizer(name);
    for (int round = 0; round < 400; ++round) {
      const Ids prompt = round % 3 == 0 ? Ids{} : encode(name, round % 3 == 1 ? "Once" : "A \xE4\xBD\xA0 b");
      const bool skip = round % 2 == 0;
      Ids outputs;
      for (std::size_t n = random() % 24; n > 0; --n) {
        // Every other id is small: there are the bytes.
        const auto limit = static_cast<std::uint32_t>(n % 2 == 0 ? 300 : tokenizer.vocab_size());
        outputs.push_back(static_cast<std::int32_t>(random() % limit));
      }
      Ids all = prompt;
      all.insert(all.end(), outputs.begin(), outputs.end());
      const std::string before = tokenizer.decode(prompt, skip).value();
      const std::string whole = tokenizer.decode(all, skip).value();
      ASSERT_TRUE(whole.starts_with(before));
      Detokenizer::Options options;
      options.skip_special_tokens = skip;
      EXPECT_EQ(stream(name, prompt, outputs, options).text, whole.substr(before.size())) << name << " " << round;
    }
  }
}

// Goal: stop strings cut where a search in the whole text would, whatever the token borders. Method: random texts over
// a small alphabet, random stop strings, the naive search as the model.
TEST(Detokenizer, StopsWhereANaiveSearchStops) {
  std::mt19937 random(5);
  const auto letters = [&](std::size_t size) {
    std::string text;
    while (text.size() < size) text += "ab c"[random() % 4];
    return text;
  };
  for (const char* name : {"gpt-2", "llama-3"}) {
    for (int round = 0; round < 2000; ++round) {
      const std::string text = letters(random() % 20);
      Detokenizer::Options options;
      for (std::size_t n = 1 + random() % 3; n > 0; --n) options.stop.push_back(letters(1 + random() % 4));
      options.include_stop_in_output = random() % 2 == 0;
      const bool include = options.include_stop_in_output;
      std::size_t end = std::string::npos, begin = std::string::npos;
      for (const std::string& stop : options.stop) {
        const std::size_t at = text.find(stop);
        if (at == std::string::npos) continue;
        if (at + stop.size() < end || (at + stop.size() == end && at < begin)) begin = at, end = at + stop.size();
      }
      const Streamed got = stream(name, {}, encode(name, text), options);
      EXPECT_EQ(got.stopped, end != std::string::npos) << text;
      EXPECT_EQ(got.text, got.stopped ? text.substr(0, include ? end : begin) : text);
      EXPECT_EQ(got.stop, got.stopped ? text.substr(begin, end - begin) : "");
    }
  }
}

TEST(Detokenizer, StopsWithTheTokenThatCompletesTheString) {
  // "\n" is a byte token in llama-2: kept back as text, but seen at once as a stop string.
  Ids ids = encode("llama-2", "one\ntwo");
  const Streamed got = stream("llama-2", {}, ids, {.stop = {"\n"}});
  EXPECT_EQ(got.text, "one");
  EXPECT_EQ(got.stop, "\n");
  EXPECT_EQ(got.tokens, encode("llama-2", "one\n").size());
  EXPECT_EQ(stream("gpt-2", {}, encode("gpt-2", "one"), {.stop = {"o"}}).text, "");
}

TEST(Detokenizer, HoldsBackWhatMayBecomeAStopString) {
  Detokenizer detokenizer(shared_test_tokenizer("gpt-2"), {}, {.stop = {"</end>"}});
  std::string text;
  for (const std::int32_t token : encode("gpt-2", "x </")) text += detokenizer.push(token);
  EXPECT_EQ(text, "x ");
  for (const std::int32_t token : encode("gpt-2", "b>")) text += detokenizer.push(token);
  EXPECT_EQ(text, "x </b>");
  EXPECT_EQ(detokenizer.finish(), "");
}

TEST(Detokenizer, LooksForNoStopStringInTheFirstTokens) {
  const Ids ids = encode("gpt-2", " stop a stop b");
  const Streamed got = stream("gpt-2", {}, ids, {.stop = {"stop"}, .min_tokens = 2});
  EXPECT_EQ(got.text, " stop a ");
  EXPECT_EQ(got.tokens, 3u);
  EXPECT_EQ(stream("gpt-2", {}, ids, {.stop = {"stop"}, .min_tokens = 9}).text, " stop a stop b");
}

// Goal: a start near the prompt's end gives what a start at its beginning gives. Method: prompts of random ids, broken
// characters and byte runs among them, and the stream over all of them as the model.
TEST(Detokenizer, StartsNearThePromptsEnd) {
  std::mt19937 random(17);
  for (const char* name : test_tokenizer_names) {
    const Tokenizer& tokenizer = test_tokenizer(name);
    const auto random_ids = [&](std::size_t count) {
      Ids ids;
      for (std::size_t n = 0; n < count; ++n) {
        const auto limit = static_cast<std::uint32_t>(random() % 3 != 0 ? 260 : tokenizer.vocab_size());
        ids.push_back(static_cast<std::int32_t>(random() % limit));
      }
      return ids;
    };
    int compared = 0;
    for (int round = 0; round < 2000; ++round) {
      const Ids prompt = random_ids(random() % 90), outputs = random_ids(1 + random() % 6);
      const bool skip = round % 2 == 0;
      const auto whole = tokenizer.start_decoding(skip);
      std::string unwanted, expected;
      for (const std::int32_t token : prompt) whole->push(token, unwanted);
      const std::string of_prompt(whole->tentative());
      for (const std::int32_t token : outputs) whole->push(token, expected);
      whole->finish(expected);
      // Else an output made a byte run of the prompt one that is no text, and the prompt's text is not what it was.
      if (!expected.starts_with(of_prompt)) continue;
      ++compared;
      Detokenizer::Options options;
      options.skip_special_tokens = skip;
      EXPECT_EQ(stream(name, prompt, outputs, options).text, expected.substr(of_prompt.size())) << name << " " << round;
    }
    EXPECT_GT(compared, 1000) << name;
  }
}

// "\n" is a byte token in llama-2, and the end of a byte run is known only when another token comes.
TEST(Detokenizer, LeavesThePromptsLastBytesToThePrompt) {
  const Ids prompt = encode("llama-2", "Question\n"), outputs = encode("llama-2", "one\ntwo");
  EXPECT_EQ(stream("llama-2", prompt, outputs, {}).text, " one\ntwo");
  const Streamed stopped = stream("llama-2", prompt, outputs, {.stop = {"\n"}});
  EXPECT_EQ(stopped.text, " one");
}

TEST(Detokenizer, StartsBehindAPromptOfAnyDecoder) {
  const std::string folder = testing::TempDir() + "chorus_detokenizer_test";
  std::filesystem::create_directories(folder);
  std::ofstream(folder + "/tokenizer.json")
      << R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2}, "merges": []}})";
  const auto tokenizer = load_tokenizer(folder).value();  // no decoder: tokens joined by spaces
  Detokenizer detokenizer(tokenizer, Ids{0, 1}, {});
  std::string text = detokenizer.push(2);
  text += detokenizer.push(0);
  EXPECT_EQ(text + detokenizer.finish(), " c a");
}

// Goal: a chain that has no fast way waits for the end of a byte run: until then its characters change.
TEST(Detokenizer, WaitsForByteRunsOfAnyDecoder) {
  const std::string folder = testing::TempDir() + "chorus_detokenizer_bytes_test";
  std::filesystem::create_directories(folder);
  std::string vocab;
  for (int byte = 0; byte < 256; ++byte) vocab += fmt::format(R"("<0x{:02X}>": {}, )", byte, byte);
  std::ofstream(folder + "/tokenizer.json") << R"({"model": {"type": "BPE", "byte_fallback": true, "vocab": {)" << vocab
                                            << R"("▁a": 256}, "merges": []}, "decoder": {"type": "Sequence", "decoders":
      [{"type": "ByteFallback"}, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": false}]}})";
  const auto loaded = load_tokenizer(folder);
  ASSERT_TRUE(loaded.ok()) << loaded.error().message;
  std::mt19937 random(3);
  const std::int32_t ids[] = {0xE2, 0x82, 0xAC, 'b', 256, 0xC3};
  for (int round = 0; round < 500; ++round) {
    Ids outputs(random() % 12);
    for (std::int32_t& id : outputs) id = ids[random() % std::size(ids)];
    Detokenizer detokenizer(*loaded, Ids{256}, {});
    std::string text;
    for (const std::int32_t id : outputs) {
      text += detokenizer.push(id);
      ASSERT_EQ(find_invalid_utf8(text), std::nullopt) << "half a character was handed out";
    }
    text += detokenizer.finish();
    Ids all = {256};
    all.insert(all.end(), outputs.begin(), outputs.end());
    EXPECT_EQ(text, (*loaded)->decode(all, true).value().substr((*loaded)->decode(Ids{256}, true).value().size()));
  }
}

TEST(Detokenizer, KeepsTheFirstOutputsLeadingSpace) {
  const Ids prompt = encode("llama-2", "Hello");
  const Ids outputs = encode("llama-2", "world");  // "▁world"
  EXPECT_EQ(stream("llama-2", prompt, outputs, {}).text, " world");
  EXPECT_EQ(stream("llama-2", {}, outputs, {}).text, "world");
}

TEST(Detokenizer, HandsOutAnUnbrokenByteRunInTime) {
  // A vocabulary without the script: the text must not wait for the end.
  Detokenizer detokenizer(shared_test_tokenizer("stories260k"), {}, {});
  std::string text;
  for (int n = 0; n < 100; ++n) {
    for (const std::int32_t token : {0xE1 + 3, 0x80 + 3, 0x81 + 3}) text += detokenizer.push(token);
  }
  EXPECT_GT(text.size(), 200u);
  text += detokenizer.finish();
  EXPECT_EQ(text.size(), 300u);
}

}  // namespace
}  // namespace chorus
