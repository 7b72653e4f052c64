#include "json/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>

#include "json/file.h"
#include "json/utf8.h"

namespace chorus {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

std::vector<fs::path> suite_files() {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(CHORUS_TEST_DATA "/json/JSONTestSuite"))
    files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

std::string bytes_of(const fs::path& path) {
  return read_file(path.string(), 1u << 20).value();
}

std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::strict);
}

// Goal: RFC 8259, no more and no less. Method: the suite's y_ files parse, its n_ files are refused, its i_ files may
// do either. Two y_ files repeat a key, which we refuse on purpose.
TEST(ParseJson, FollowsTheTestSuite) {
  std::size_t files = 0;
  for (const fs::path& path : suite_files()) {
    const std::string name = path.filename().string();
    const auto json = parse_json(bytes_of(path));
    ++files;
    if (json.ok()) dump(*json);  // throws if a string is not UTF-8
    const bool duplicate = name.find("duplicated_key") != std::string::npos;
    if (name.starts_with("i_")) continue;
    EXPECT_EQ(json.ok(), name.starts_with("y_") && !duplicate) << name << (json.ok() ? "" : json.error().message);
  }
  EXPECT_GT(files, 150u);
}

// What parse_json() says of the text, said by the reader.
void expect_as_parsed(JsonObjectReader& reader, std::string_view text) {
  const auto parsed = parse_json(text);
  const auto read = reader.read(text);
  if (!parsed.ok() || !parsed->is_object()) {
    ASSERT_FALSE(read.ok()) << text;
    EXPECT_EQ(read.error().message, parsed.ok() ? "not a JSON object" : parsed.error().message);
    return;
  }
  ASSERT_TRUE(read.ok()) << read.error().message;
  ASSERT_EQ(reader.size(), parsed->size());
  std::size_t i = 0;
  for (const auto& [key, value] : parsed->items()) {
    EXPECT_EQ(reader.key(i), key);
    EXPECT_EQ(reader.find(key), i);
    EXPECT_EQ(reader.value(i), value);
    EXPECT_TRUE(!value.is_string() || reader.text(i) == value.get<std::string>()) << key;
    ++i;
  }
}

TEST(JsonObjectReader, SaysWhatParseJsonSays) {
  JsonObjectReader reader;
  for (const fs::path& path : suite_files()) {
    const std::string text = bytes_of(path);
    expect_as_parsed(reader, text);
    expect_as_parsed(reader, "{\"id\": 1, \"value\": " + text + "}");
  }
  for (const std::size_t levels : {62, 63, 64, 65}) {
    expect_as_parsed(reader, "{\"a\":" + std::string(levels, '[') + std::string(levels, ']') + "}");
  }
  expect_as_parsed(reader, "{\"a\": {\"b\": 1, \"b\": 2}}");
  expect_as_parsed(reader, "{\"a\": 1e400}");
}

TEST(JsonObjectReader, TellsKindsAndWholeNumbers) {
  JsonObjectReader reader;
  ASSERT_TRUE(
      reader.read(R"({"a":null,"b":true,"c":-1,"d":1.0,"e":"x","f":[3,-4,18446744073709551615],"g":{},"h":[1.5]})")
          .ok());
  std::vector<JsonKind> kinds;
  for (std::size_t i = 0; i < reader.size(); ++i) kinds.push_back(reader.kind(i));
  using enum JsonKind;
  EXPECT_EQ(kinds, (std::vector{null, boolean, number, number, string, array, object, array}));
  std::vector<std::int64_t> numbers;
  EXPECT_TRUE(reader.integers(5, &numbers));
  EXPECT_EQ(numbers, (std::vector<std::int64_t>{3, -4, INT64_MAX}));
  for (const std::size_t other : {0, 2, 4, 6, 7}) EXPECT_FALSE(reader.integers(other, &numbers)) << other;
  EXPECT_FALSE(reader.find("z"));
}

// A long text, then a short one, then one that is no JSON, then a good one.
TEST(JsonObjectReader, OneTextLeavesNothingForTheNext) {
  JsonObjectReader reader;
  const std::string large(1 << 20, 'x');
  ASSERT_TRUE(reader.read("{\"a\":\"" + large + "\"}").ok());
  EXPECT_EQ(reader.text(0), large);
  ASSERT_TRUE(reader.read("{\"b\":2}").ok());
  EXPECT_EQ(reader.size(), 1U);
  EXPECT_EQ(reader.key(0), "b");
  EXPECT_FALSE(reader.read("{\"c\":").ok());
  EXPECT_EQ(reader.size(), 0U);
  ASSERT_TRUE(reader.read("{}").ok());
  EXPECT_EQ(reader.size(), 0U);
  JsonObjectReader small({.bytes_max = 10});
  EXPECT_THAT(small.read("{\"abcdef\":1}").error().message, HasSubstr("over the limit of 10 bytes"));
}

TEST(ParseJson, KeepsOrderAndTypes) {
  const auto json = parse_json(R"({"b":1,"a":[1.5,-2,18446744073709551615,null,true,"\ud834\udd1e"]})");
  ASSERT_TRUE(json.ok());
  EXPECT_EQ(dump(*json), "{\"b\":1,\"a\":[1.5,-2,18446744073709551615,null,true,\"\xF0\x9D\x84\x9E\"]}");
  EXPECT_TRUE((*json)["a"][0].is_number_float());
  EXPECT_TRUE((*json)["a"][2].is_number_unsigned());
}

TEST(ParseJson, SaysWhatAndWhere) {
  EXPECT_THAT(parse_json("{\"a\": 1,\n \"b\": }").error().message, HasSubstr("line 2, byte 15"));
  EXPECT_THAT(parse_json(R"({"x": {"k": 1, "k": 2}})").error().message, HasSubstr("duplicate key \"k\""));
  EXPECT_THAT(parse_json("[18446744073709551616]").error().message, HasSubstr("64-bit"));
  EXPECT_THAT(parse_json("[1e400]").error().message, HasSubstr("double"));
  EXPECT_THAT(parse_json("[\"\\udc00\"]").error().message, HasSubstr("byte 7"));
  EXPECT_FALSE(parse_json("").ok());
  EXPECT_FALSE(parse_json("1 2").ok());
}

TEST(ParseJson, HoldsItsLimits) {
  const auto nested = [](std::size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_TRUE(parse_json(nested(64)).ok());
  EXPECT_THAT(parse_json(nested(65)).error().message, HasSubstr("limit of 64"));
  EXPECT_TRUE(parse_json("[[]]", {.depth_max = 2}).ok());
  EXPECT_FALSE(parse_json("[[[]]]", {.depth_max = 2}).ok());
  EXPECT_FALSE(parse_json("[[[1]]]", {.depth_max = 2}).ok());
  EXPECT_THAT(parse_json("[1,2,3]", {.bytes_max = 6}).error().message, HasSubstr("limit of 6 bytes"));
}

TEST(ParseJson, FindsOneDuplicateAmongMany) {
  std::string text = "{";
  for (int n = 0; n < 5000; ++n) text += fmt::format("\"key{}\":{},", n, n);
  EXPECT_TRUE(parse_json(text + "\"other\":0}").ok());
  EXPECT_THAT(parse_json(text + "\"key4711\":0}").error().message, HasSubstr("key4711"));
}

TEST(ReadJsonFile, NamesThePath) {
  const std::string path = testing::TempDir() + "chorus_json_test.json";
  std::ofstream(path) << "{\"a\": [1, 2}";
  EXPECT_THAT(read_json_file(path).error().message, HasSubstr(path));
  EXPECT_THAT(read_json_file(path + ".none").error().message, HasSubstr(path + ".none"));
  EXPECT_EQ(read_json_file(path + ".none").error().code, ErrorCode::not_found);
  EXPECT_THAT(read_json_file(testing::TempDir()).error().message, HasSubstr("directory"));
  EXPECT_THAT(read_json_file(path, {.bytes_max = 5}).error().message, HasSubstr("limit of 5"));
  std::ofstream(path) << "{\"a\": [1, 2]}";
  EXPECT_EQ(dump(read_json_file(path).value()), "{\"a\":[1,2]}");
  fs::remove(path);
}

TEST(JsonLines, CountsLinesAndNamesTheBadOne) {
  std::vector<std::pair<std::size_t, std::string>> seen;
  const auto take = [&](std::size_t line, Json&& value) -> Result<void> {
    seen.emplace_back(line, dump(value));
    return {};
  };
  ASSERT_TRUE(for_each_json_line("{\"a\":1}\n\n  \r\n[2]\r\n3", take).ok());
  EXPECT_THAT(seen,
              testing::ElementsAre(testing::Pair(1u, "{\"a\":1}"), testing::Pair(4u, "[2]"), testing::Pair(5u, "3")));
  EXPECT_THAT(for_each_json_line("1\n2\n{x\n4", take).error().message, testing::StartsWith("line 3: "));
  const auto refuse = [](std::size_t, Json&&) -> Result<void> { return fail(ErrorCode::invalid_argument, "no"); };
  EXPECT_EQ(for_each_json_line("\n1", refuse).error().message, "line 2: no");
}

TEST(JsonWriter, WritesNestedValues) {
  std::string out;
  JsonWriter writer(&out);
  writer.begin_object().key("a").begin_array().value(1).value("x").null().end_array();
  writer.key("b").begin_object().end_object().key("c").value(true).key("d").raw(Json{{"k", 1}});
  writer.key("e").begin_array().begin_array().end_array().begin_array().end_array().end_array().end_object();
  EXPECT_EQ(out, R"({"a":[1,"x",null],"b":{},"c":true,"d":{"k":1},"e":[[],[]]})");
}

template <typename T>
std::string written(T value) {
  std::string out;
  JsonWriter(&out).value(value);
  return out;
}

TEST(JsonWriter, WritesNumbersThatReadBack) {
  EXPECT_EQ(written(0.1f), "0.1");
  EXPECT_EQ(written(0.1), "0.1");
  EXPECT_EQ(written(static_cast<double>(0.1f)), "0.10000000149011612");
  EXPECT_EQ(written(1.0f), "1.0");
  EXPECT_EQ(written(-0.0), "-0.0");
  EXPECT_EQ(written(1e30f), "1e+30");
  EXPECT_EQ(written(std::numeric_limits<float>::infinity()), "null");
  EXPECT_EQ(written(std::nan("")), "null");
  EXPECT_EQ(written(std::numeric_limits<std::int64_t>::min()), "-9223372036854775808");
  EXPECT_EQ(written(std::numeric_limits<std::uint64_t>::max()), "18446744073709551615");
  std::mt19937 random(1);
  for (int n = 0; n < 20000; ++n) {
    const auto number = std::bit_cast<float>(static_cast<std::uint32_t>(random()));
    if (!std::isfinite(number)) continue;
    const auto json = parse_json(written(number));
    ASSERT_TRUE(json.ok()) << written(number);
    ASSERT_TRUE(json->is_number_float()) << written(number);
    EXPECT_EQ(std::bit_cast<std::uint32_t>(static_cast<float>(json->get<double>())),
              std::bit_cast<std::uint32_t>(number));
  }
}

TEST(JsonWriter, EscapesAndRepairsStrings) {
  EXPECT_EQ(written("a\"\\\n\x01/\x7f"), "\"a\\\"\\\\\\n\\u0001/\x7f\"");
  EXPECT_EQ(written("\xE2\x82\xAC"), "\"\xE2\x82\xAC\"");
  // One replacement for each maximal subpart: a cut-off character is one, a stray byte is one.
  EXPECT_EQ(written("\xE2\x82"
                    "a\xFF\xFF"),
            "\"\xEF\xBF\xBD"
            "a\xEF\xBF\xBD\xEF\xBF\xBD\"");
}

// Goal: no input makes the parser crash or hand out text that is not UTF-8, and writing is reading's inverse.
void fuzz_json(std::string_view data) {
  const auto json = parse_json(data, {.bytes_max = 1u << 20, .depth_max = 32});
  if (!json.ok()) {
    EXPECT_FALSE(json.error().message.empty());
    return;
  }
  std::string out;
  JsonWriter(&out).raw(*json);
  const auto again = parse_json(out, {.depth_max = 32});
  ASSERT_TRUE(again.ok()) << out;
  EXPECT_EQ(*again, *json) << out;
}

TEST(ParseJson, SurvivesMutatedFiles) {
  std::mt19937 random(20240601);
  const auto below = [&](std::size_t limit) {
    return std::uniform_int_distribution<std::size_t>(0, limit - 1)(random);
  };
  JsonObjectReader reader;
  for (const fs::path& path : suite_files()) {
    const std::string original = bytes_of(path);
    if (original.size() > 4096) continue;
    for (int round = 0; round < 60; ++round) {
      std::string data = original;
      for (std::size_t edits = 1 + below(4); edits > 0; --edits) {
        const std::size_t at = below(data.size() + 1);
        const char byte = below(2) == 0 ? "{}[]\",:\\u0-.eE"[below(14)] : static_cast<char>(below(256));
        switch (below(3)) {
          case 0:
            data.insert(at, 1, byte);
            break;
          case 1:
            data.erase(at, below(3));
            break;
          default:
            if (at < data.size()) data[at] = byte;
        }
      }
      fuzz_json(data);
      expect_as_parsed(reader, data);
    }
  }
}

TEST(Utf8, StepsByMaximalSubparts) {
  const auto sizes = [](std::string_view text) {
    std::string out;
    for (std::size_t at = 0; at < text.size();) {
      const Utf8Step step = utf8_step(text, at);
      out += fmt::format("{}{}{} ", step.size, step.valid ? "" : "!", step.cut_off ? "?" : "");
      at += step.size;
    }
    return out;
  };
  EXPECT_EQ(sizes("a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80"), "1 2 3 4 ");
  EXPECT_EQ(sizes("\xC0\x80"), "1! 1! ");
  EXPECT_EQ(sizes("\xED\xA0\x80"), "1! 1! 1! ");
  EXPECT_EQ(sizes("\xF0\x9F\x98"
                  "a"),
            "3! 1 ");
  EXPECT_EQ(sizes("\xF0\x9F\x98"), "3!? ");
  EXPECT_EQ(sizes("\xF4\x90"), "1! 1! ");
  EXPECT_EQ(find_invalid_utf8("abc\xFF"), 3u);
  EXPECT_EQ(find_invalid_utf8("abc\xE2\x82"), 3u);
  EXPECT_EQ(find_invalid_utf8("abc\xE2\x82\xAC"), std::nullopt);
}

TEST(Utf8, AppendsEveryCodePoint) {
  for (char32_t code_point = 0; code_point <= 0x10FFFF; ++code_point) {
    if (code_point >= 0xD800 && code_point <= 0xDFFF) continue;
    std::string text;
    append_utf8(text, code_point);
    const Utf8Step step = utf8_step(text, 0);
    ASSERT_TRUE(step.valid && step.code_point == code_point && step.size == text.size()) << std::uint32_t(code_point);
  }
}

}  // namespace
}  // namespace chorus
