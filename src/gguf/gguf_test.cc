#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "gguf/architecture.h"
#include "gguf/documents.h"
#include "gguf/gguf_parser.h"
#include "json/json.h"

namespace chorus {
namespace {

using testing::HasSubstr;

std::string unhex(const std::string& digits) {
  std::string bytes;
  for (std::size_t i = 0; i + 1 < digits.size(); i += 2) {
    bytes += static_cast<char>(std::stoi(digits.substr(i, 2), nullptr, 16));
  }
  return bytes;
}

// References: tests/data/gguf/README.md.
TEST(GgufTensorType, BlocksStandForTheReferencesValues) {
  const Json golden = read_json_file(CHORUS_TEST_DATA "/gguf/blocks.json").value();
  std::size_t types = 0;
  for (const Json& entry : golden["cases"]) {
    const GgufTensorType* const type = find_gguf_tensor_type(entry["type"].get<std::uint32_t>());
    ASSERT_NE(type, nullptr);
    ASSERT_TRUE(type->is_readable());
    EXPECT_EQ(type->name, entry["name"].get<std::string>());
    const std::string block = unhex(entry["block"].get<std::string>()),
                      values = unhex(entry["values"].get<std::string>());
    ASSERT_EQ(block.size(), type->block_bytes);
    ASSERT_EQ(values.size(), static_cast<std::size_t>(type->block_elements) * sizeof(float));
    std::vector<float> made(static_cast<std::size_t>(type->block_elements));
    type->to_float(reinterpret_cast<const std::byte*>(block.data()), made.data());
    EXPECT_EQ(std::memcmp(made.data(), values.data(), values.size()), 0) << type->name;
    ++types;
  }
  EXPECT_EQ(types, 17U);
}

// Writes a head byte by byte.
class Head {
 public:
  Head(std::uint64_t tensors, std::uint64_t values) {
    bytes_ = "GGUF";
    put<std::uint32_t>(3).put(tensors).put(values);
  }
  template <typename T>
  Head& put(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(value));
    return *this;
  }
  Head& text(std::string_view text) {
    put<std::uint64_t>(text.size());
    bytes_ += text;
    return *this;
  }
  Head& tensor(std::string_view name, std::vector<std::uint64_t> dimensions, std::uint32_t type, std::uint64_t offset) {
    text(name).put(static_cast<std::uint32_t>(dimensions.size()));
    for (const std::uint64_t dimension : dimensions) put(dimension);
    return put(type).put(offset);
  }
  Head& data(std::size_t bytes) {
    bytes_.resize((bytes_.size() + 31) / 32 * 32 + bytes);
    return *this;
  }
  std::span<const std::byte> bytes() const { return std::as_bytes(std::span(bytes_.data(), bytes_.size())); }
  std::string refused() const {
    const auto head = parse_gguf_head(bytes());
    return head.ok() ? "" : head.error().message;
  }

 private:
  std::string bytes_;
};

constexpr std::uint32_t f32 = 0, q4_0 = 2, q4_k = 12;

TEST(GgufParser, GivesShapesRowsFirstAndPlacesEachTensor) {
  Head head(2, 0);
  head.tensor("b", {4, 3}, f32, 64).tensor("a", {64}, q4_0, 0).data(64 + 48);
  const GgufHead parsed = parse_gguf_head(head.bytes()).value();
  ASSERT_EQ(parsed.tensors.size(), 2U);  // in the order of their bytes
  EXPECT_EQ(parsed.tensors[0].name, "a");
  EXPECT_EQ(parsed.tensors[0].bytes, 36U);
  EXPECT_EQ(parsed.tensors[1].shape, (std::vector<std::int64_t>{3, 4}));
  EXPECT_EQ(parsed.tensors[1].data - parsed.tensors[0].data, 64);
}

TEST(GgufParser, SizesThatDoNotFitAreRefused) {
  constexpr std::uint64_t huge = std::uint64_t{1} << 62;
  EXPECT_THAT(Head(1, 0).tensor("t", {huge, huge}, f32, 0).data(64).refused(), HasSubstr("tensor t"));
  EXPECT_THAT(Head(1, 0).tensor("t", {huge, 4}, f32, 0).data(64).refused(), HasSubstr("tensor t"));
  EXPECT_THAT(Head(1, 0).tensor("t", {huge}, f32, 0).data(64).refused(), HasSubstr("more bytes"));
  EXPECT_THAT(Head(1, 0).tensor("t", {0}, f32, 0).data(64).refused(), HasSubstr("not positive"));
  EXPECT_THAT(Head(1, 0).tensor("t", {~std::uint64_t{0}}, f32, 0).data(64).refused(), HasSubstr("not positive"));
  EXPECT_THAT(Head(1, 0).tensor("t", {17}, f32, 0).data(64).refused(), HasSubstr("68 bytes at 0"));
  EXPECT_THAT(Head(1, 0).tensor("t", {1}, f32, ~std::uint64_t{31}).data(64).refused(), HasSubstr("of the 64"));
  EXPECT_THAT(Head(1, 0).tensor("t", {1}, f32, 4).data(64).refused(), HasSubstr("alignment 32"));
  EXPECT_THAT(Head(1, 0).tensor("t", {33}, q4_0, 0).data(64).refused(), HasSubstr("not whole blocks of 32"));
  EXPECT_THAT(Head(1, 0).tensor("t", {128}, q4_k, 0).data(640).refused(), HasSubstr("not whole blocks of 256"));
  EXPECT_THAT(Head(1, 0).tensor("t", {1, 1, 1, 1, 1}, f32, 0).data(64).refused(), HasSubstr("5 dimensions"));
  EXPECT_THAT(Head(1, 0).tensor("t", {1}, 77, 0).data(64).refused(), HasSubstr("unknown type 77"));
  EXPECT_THAT(Head(2, 0).tensor("t", {16}, f32, 0).tensor("u", {8}, f32, 32).data(64).refused(), HasSubstr("overlap"));
}

TEST(GgufParser, CountsBeyondTheFileAreRefusedAtOnce) {
  constexpr std::uint64_t huge = ~std::uint64_t{0};
  EXPECT_THAT(Head(huge, 0).data(64).refused(), HasSubstr("cut short"));
  EXPECT_THAT(Head(0, huge).data(64).refused(), HasSubstr("there twice"));  // the empty key
  EXPECT_THAT(Head(0, 1).put(huge).data(64).refused(), HasSubstr("a text of"));
  EXPECT_THAT(Head(0, 1).text("k").put<std::uint32_t>(8).put(huge).data(64).refused(), HasSubstr("a text of"));
  // Arrays: of 8-byte numbers, of texts, of arrays.
  EXPECT_THAT(Head(0, 1).text("k").put<std::uint32_t>(9).put<std::uint32_t>(10).put(huge / 8 + 2).data(64).refused(),
              HasSubstr("bytes are left"));
  EXPECT_THAT(Head(0, 1).text("k").put<std::uint32_t>(9).put<std::uint32_t>(8).put(huge).data(64).refused(),
              HasSubstr("cut short"));
  EXPECT_THAT(Head(0, 1).text("k").put<std::uint32_t>(9).put<std::uint32_t>(9).put(huge).data(64).refused(),
              HasSubstr("is of type 9 in an array"));
  EXPECT_THAT(Head(0, 1).text("general.alignment").put<std::uint32_t>(4).put<std::uint32_t>(0).data(64).refused(),
              HasSubstr("general.alignment is 0"));
  EXPECT_THAT(Head(0, 1).text("general.alignment").put<std::uint32_t>(4).put<std::uint32_t>(48).data(64).refused(),
              HasSubstr("power of two"));
}

TEST(GgufParser, NoDamagedByteReachesPastTheFile) {
  Head head(2, 2);
  head.text("general.architecture").put<std::uint32_t>(8).text("llama");
  head.text("list").put<std::uint32_t>(9).put<std::uint32_t>(8).put<std::uint64_t>(2).text("one").text("two");
  head.tensor("a", {32}, q4_0, 0).tensor("b", {4, 2}, f32, 32).data(64);
  std::string content(reinterpret_cast<const char*>(head.bytes().data()), head.bytes().size());
  ASSERT_TRUE(parse_gguf_head(std::as_bytes(std::span(content.data(), content.size()))).ok());
  std::mt19937 random(1);
  for (int round = 0; round < 20000; ++round) {
    // Of its own size on the heap, so that a sanitizer sees what reads past it.
    std::string damaged = content.substr(0, random() % 4 == 0 ? random() % content.size() : content.size());
    for (unsigned i = 0; i < random() % 4 && !damaged.empty(); ++i)
      damaged[random() % damaged.size()] = static_cast<char>(random());
    damaged.shrink_to_fit();
    const auto parsed = parse_gguf_head(std::as_bytes(std::span(damaged.data(), damaged.size())));
    if (!parsed.ok()) continue;
    for (const GgufTensor& tensor : parsed->tensors) {
      const auto* const begin = reinterpret_cast<const std::byte*>(damaged.data());
      ASSERT_GE(tensor.data, begin);
      ASSERT_LE(tensor.data + tensor.bytes, begin + damaged.size());
    }
  }
}

// The rows of a tensor by where they lie: source 0 is the first of `sources`.
std::vector<std::int64_t> places_of(const HfTensor& tensor, std::span<const GgufTensor> sources) {
  std::vector<std::int64_t> places;
  for (std::int64_t row = 0; row < tensor.rows(); ++row) {
    const SourceRow from = source_row(tensor, row);
    places.push_back((from.source - sources.data()) * 100 + from.row);
    if (from.column >= 0) places.back() += 1000 * (from.column + 1);
  }
  return places;
}

TEST(HfTensor, RowsOfReorderedHeadsComeInHalves) {
  const GgufTensor source;
  HfTensor tensor;
  tensor.shape = {8, 2};
  tensor.columns = 2;
  tensor.pieces = {{&source, 0, 8}};
  tensor.reordered_heads = 2;
  EXPECT_EQ(places_of(tensor, {&source, 1}), (std::vector<std::int64_t>{0, 2, 1, 3, 4, 6, 5, 7}));
}

TEST(HfTensor, RowsOfPiecesComeInTurn) {
  const GgufTensor sources[2];
  HfTensor tensor;
  tensor.shape = {8, 3};
  tensor.columns = 3;
  tensor.pieces = {{&sources[0], 0, 1}, {&sources[0], 2, 2}, {&sources[1], 0, 1}};
  EXPECT_EQ(places_of(tensor, sources), (std::vector<std::int64_t>{0, 2, 3, 100, 1, 4, 5, 101}));
  // A head's columns, then its rows: the second head's matrix begins at row 3 of the first source.
  tensor.shape = {6, 3};
  tensor.pieces = {{&sources[0], 0, 2, true}, {&sources[1], 0, 1}};
  EXPECT_EQ(places_of(tensor, sources), (std::vector<std::int64_t>{1000, 2000, 100, 1003, 2003, 101}));
}

TEST(GgufTensorType, AnMxfp4BlockIsAGroupOfIntegers) {
  const GgufTensorType* const type = find_gguf_tensor_type(39);
  std::byte row[2 * 17];
  for (std::size_t i = 0; i < sizeof(row); ++i) row[i] = static_cast<std::byte>(i * 37);
  row[17] = static_cast<std::byte>(125);  // 1/4
  float floats[32];
  type->to_float(row + 17, floats);
  const LinearGroup group = type->read_group(row, 32, LinearFormat::int8);
  for (int k = 0; k < 32; ++k) EXPECT_EQ(half_to_float(group.scale) * static_cast<float>(group.codes[k]), floats[k]);
}

class GgufOnDisk {
 public:
  explicit GgufOnDisk(const Head& head)
      : path_(testing::TempDir() + "gguf_test." + std::to_string(::getpid()) + ".gguf") {
    const auto bytes = head.bytes();
    std::ofstream(path_, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  }
  GgufOnDisk(const GgufOnDisk&) = delete;
  GgufOnDisk& operator=(const GgufOnDisk&) = delete;
  ~GgufOnDisk() { std::filesystem::remove(path_); }
  GgufFile open() const { return GgufFile::open(path_).value(); }

 private:
  std::string path_;
};

// The ids that end an answer, of a vocabulary of control tokens.
std::vector<int> ends_of(const std::vector<std::string>& tokens) {
  Head head(0, 2);
  head.text("tokenizer.ggml.tokens").put<std::uint32_t>(9).put<std::uint32_t>(8).put<std::uint64_t>(tokens.size());
  for (const std::string& token : tokens) head.text(token);
  head.text("tokenizer.ggml.token_type").put<std::uint32_t>(9).put<std::uint32_t>(5).put<std::uint64_t>(tokens.size());
  for (std::size_t i = 0; i < tokens.size(); ++i) head.put<std::uint32_t>(3);
  const GgufOnDisk file(head.data(0));
  return Json::parse(gguf_generation_config_json(file.open()).value())["eos_token_id"].get<std::vector<int>>();
}

TEST(GgufGenerationConfig, AnswersEndWhereChatModelsEndTheirTurn) {
  EXPECT_EQ(ends_of({"<s>", "<|end|>", "<|endoftext|>", "<|im_end|>"}), (std::vector<int>{1, 2, 3}));
  EXPECT_EQ(ends_of({"<|start|>", "<|end|>", "<|return|>", "<|call|>"}), (std::vector<int>{2, 3}))
      << "gpt-oss's messages, of which an answer has several";
}

}  // namespace
}  // namespace chorus
