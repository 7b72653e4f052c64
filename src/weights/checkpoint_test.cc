#include "weights/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <string_view>

#include "weights/safetensors_header.h"
#include "weights/tied_head.h"

namespace chorus {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A folder of one test's own.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = ::testing::TempDir() + "chorus-checkpoint-XXXXXX";
    path_ = ::mkdtemp(pattern.data());
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  const std::string& path() const { return path_; }
  void write(const std::string& name, const std::string& bytes) const {
    std::ofstream(path_ + "/" + name, std::ios::binary) << bytes;
  }

 private:
  std::string path_;
};

std::string file_of(const std::string& header, const std::string& data) {
  std::uint64_t length = header.size();
  std::string bytes(8, '\0');
  for (char& byte : bytes) {
    byte = static_cast<char>(length & 0xFF);
    length >>= 8;
  }
  return bytes + header + data;
}

std::string floats(std::initializer_list<float> values) {
  std::string bytes(values.size() * 4, '\0');
  std::memcpy(bytes.data(), values.begin(), bytes.size());
  return bytes;
}

// Two tensors, and metadata as Hugging Face writes it.
std::string valid_file() {
  return file_of(R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},)"
                 R"("b":{"dtype":"BF16","shape":[3],"data_offsets":[16,22]}} )",
                 floats({1, 2, 3, 4}) + std::string("\x80\x3f\x00\x40\x40\x40", 6));
}

std::string error_of(const std::string& file_bytes) {
  const TemporaryFolder folder;
  folder.write("model.safetensors", file_bytes);
  const auto opened = open_checkpoint(folder.path());
  return opened.ok() ? "" : opened.error().message;
}

TEST(Checkpoint, ReadsASingleFile) {
  const TemporaryFolder folder;
  folder.write("model.safetensors", valid_file());
  const auto checkpoint = std::move(open_checkpoint(folder.path())).value();
  EXPECT_THAT(checkpoint->names(), ElementsAre("a", "b"));
  EXPECT_TRUE(checkpoint->has("a"));
  EXPECT_FALSE(checkpoint->has("c"));
  const auto a = checkpoint->tensor("a", {2, 2});
  ASSERT_TRUE(a.ok());
  EXPECT_EQ(load_as_float(a->data, a->dtype, 3), 4.0F);
  const auto b = checkpoint->tensor("b", {3});
  ASSERT_TRUE(b.ok());
  EXPECT_EQ(b->dtype, DType::bfloat16);
  EXPECT_EQ(load_as_float(b->data, b->dtype, 0), 1.0F);
  EXPECT_EQ(load_as_float(b->data, b->dtype, 2), 3.0F);
  checkpoint->release("a");
  EXPECT_EQ(load_as_float(a->data, a->dtype, 3), 4.0F) << "a mapped tensor can be read again after release()";
}

TEST(Checkpoint, NamesWhatIsMissingOrMisshapen) {
  const TemporaryFolder folder;
  folder.write("model.safetensors", file_of(R"({"model.norm.weight":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                                            R"("ids":{"dtype":"I64","shape":[1],"data_offsets":[8,16]}})",
                                            std::string(16, '\0')));
  const auto checkpoint = std::move(open_checkpoint(folder.path())).value();
  const auto missing = checkpoint->tensor("model.nrom.weight", {2});
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.error().code, ErrorCode::not_found);
  EXPECT_THAT(missing.error().message, AllOf(HasSubstr("model.safetensors"), HasSubstr("nearest: model.norm.weight")));
  const auto misshapen = checkpoint->tensor("model.norm.weight", {2, 1});
  ASSERT_FALSE(misshapen.ok());
  EXPECT_THAT(misshapen.error().message, AllOf(HasSubstr("model.norm.weight"), HasSubstr("[2]"), HasSubstr("[2, 1]")));
  const auto integers = checkpoint->tensor("ids", {1});
  ASSERT_FALSE(integers.ok());
  EXPECT_THAT(integers.error().message, AllOf(HasSubstr("ids"), HasSubstr("I64")));
}

TEST(Checkpoint, EmptyTensorsAndScalarsAreAllowed) {
  EXPECT_EQ(error_of(file_of(R"({"e":{"dtype":"F32","shape":[0,7],"data_offsets":[0,0]},)"
                             R"("s":{"dtype":"F32","shape":[],"data_offsets":[0,4]}})",
                             floats({1}))),
            "");
  EXPECT_EQ(error_of(file_of("{}", "")), "");
  EXPECT_EQ(error_of(file_of(R"({"f":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}})", "x")), "");
}

struct HostileCase {
  const char* name;
  std::string bytes;
  std::string expected;  // part of the message
};

std::string one_tensor(const std::string& entry) {
  return file_of(R"({"t":)" + entry + "}", std::string(8, '\0'));
}

std::vector<HostileCase> hostile_cases() {
  std::string nested = R"({"t":)";
  for (int depth = 0; depth < 100000; ++depth) nested += "[";
  std::string long_length = valid_file();
  long_length.replace(0, 8, std::string("\xff\xff\xff\xff\xff\xff\xff\xff", 8));
  std::string past_end = valid_file();
  past_end[1] = '\x01';
  const std::string valid = valid_file();
  return {
      {"empty", "", "at least 8"},
      {"short", "\x01\x02", "at least 8"},
      {"length_of_all_ones", long_length, "over the limit"},
      {"length_past_the_end", past_end, "passes the end"},
      {"cut_in_data", valid.substr(0, valid.size() - 1), "pass the"},
      {"trailing_byte", valid + "x", "belongs to none"},
      {"no_json", file_of("hello", ""), "header"},
      {"empty_header", file_of("", ""), "header"},
      {"a_list", file_of("[]", ""), "not a JSON object"},
      {"not_utf8", file_of("{\"\xff\":1}", ""), "header"},
      {"deep", file_of(nested, ""), "header"},
      {"garbage_behind_json", file_of("{}{}", ""), "header"},
      {"metadata_of_numbers", file_of(R"({"__metadata__":{"a":1}})", ""), "__metadata__"},
      {"metadata_list", file_of(R"({"__metadata__":[]})", ""), "__metadata__"},
      {"duplicate_tensor",
       file_of(
           R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"t":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
           std::string(8, '\0')),
       "uplicate"},
      {"entry_is_number", one_tensor("1"), "tensor t"},
      {"dtype_missing", one_tensor(R"({"shape":[2],"data_offsets":[0,8]})"), "dtype"},
      {"dtype_number", one_tensor(R"({"dtype":32,"shape":[2],"data_offsets":[0,8]})"), "dtype"},
      {"dtype_unknown", one_tensor(R"({"dtype":"F33","shape":[2],"data_offsets":[0,8]})"), "unknown dtype \"F33\""},
      {"shape_missing", one_tensor(R"({"dtype":"F32","data_offsets":[0,8]})"), "shape"},
      {"shape_negative", one_tensor(R"({"dtype":"F32","shape":[-2],"data_offsets":[0,8]})"), "shape"},
      {"shape_fraction", one_tensor(R"({"dtype":"F32","shape":[2.0],"data_offsets":[0,8]})"), "shape"},
      {"shape_text", one_tensor(R"({"dtype":"F32","shape":["2"],"data_offsets":[0,8]})"), "shape"},
      {"shape_past_int64", one_tensor(R"({"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,8]})"),
       "shape"},
      {"product_wraps_to_two", one_tensor(R"({"dtype":"F32","shape":[4611686018427387905,2],"data_offsets":[0,8]})"),
       "64 bits"},
      {"product_wraps_to_zero", one_tensor(R"({"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]})"),
       "64 bits"},
      {"shape_too_large", one_tensor(R"({"dtype":"F32","shape":[3],"data_offsets":[0,8]})"), "need 12 bytes"},
      {"half_a_byte", one_tensor(R"({"dtype":"F4","shape":[15],"data_offsets":[0,8]})"), "whole number"},
      {"offsets_missing", one_tensor(R"({"dtype":"F32","shape":[2]})"), "data_offsets"},
      {"offsets_of_three", one_tensor(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8,8]})"), "data_offsets"},
      {"offsets_backwards", one_tensor(R"({"dtype":"F32","shape":[2],"data_offsets":[8,0]})"), "end before they begin"},
      {"offsets_past_end", one_tensor(R"({"dtype":"F32","shape":[4],"data_offsets":[0,16]})"), "pass the 8 bytes"},
      {"offsets_huge",
       one_tensor(R"({"dtype":"F32","shape":[2],"data_offsets":[18446744073709551608,18446744073709551616]})"), ""},
      {"offsets_negative", one_tensor(R"({"dtype":"F32","shape":[2],"data_offsets":[-8,0]})"), "data_offsets"},
      {"unknown_key", one_tensor(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1})"), "other than"},
      {"overlap",
       file_of(
           R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
           std::string(8, '\0')),
       "tensor b: begins at byte 4 inside"},
      {"same_bytes_twice",
       file_of(
           R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
           std::string(8, '\0')),
       "inside"},
      {"hole",
       file_of(
           R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}})",
           std::string(12, '\0')),
       "tensor b: begins at byte 8, leaving a hole from byte 4"},
      {"hole_at_the_front", one_tensor(R"({"dtype":"F32","shape":[1],"data_offsets":[4,8]})"), "hole from byte 0"},
  };
}

TEST(Checkpoint, RefusesHostileHeadersWithTheReason) {
  for (const HostileCase& hostile : hostile_cases()) {
    const std::string message = error_of(hostile.bytes);
    EXPECT_NE(message, "") << hostile.name << " was accepted";
    EXPECT_THAT(message, HasSubstr("model.safetensors")) << hostile.name;
    EXPECT_THAT(message, HasSubstr(hostile.expected)) << hostile.name;
    EXPECT_LT(message.size(), 1000U) << hostile.name;
    EXPECT_EQ(message.find('\n'), std::string::npos) << hostile.name;
  }
}

std::string damaged(std::string bytes, std::mt19937* random) {
  constexpr std::string_view alphabet = "0123456789{}[],:\"-.";
  const std::size_t header_end = bytes.size() - 22;
  for (auto edits = 1 + (*random)() % 3; edits > 0; --edits) {
    const std::size_t at = (*random)() % header_end;
    const char letter = alphabet[(*random)() % alphabet.size()];
    switch ((*random)() % 4) {
      case 0:
        bytes[at] = static_cast<char>((*random)());
        break;
      case 1:
        bytes[at] = letter;
        break;
      case 2:
        bytes.erase(at, 1 + (*random)() % 4);
        break;
      default:
        bytes.insert(at, 1, letter);
        break;
    }
  }
  return bytes;
}

// Reads every byte of every tensor, so that a sanitizer sees a view that leaves the file.
std::byte read_all(const Checkpoint& checkpoint) {
  std::byte all{};
  for (const std::string& name : checkpoint.names()) {
    for (const std::vector<std::int64_t>& shape : {std::vector<std::int64_t>{2, 2}, {3}, {4}, {1}}) {
      const auto view = checkpoint.tensor(name, shape);
      if (!view.ok()) continue;
      std::size_t count = 1;
      for (const auto dimension : shape) count *= static_cast<std::size_t>(dimension);
      for (std::size_t i = 0; i < count * bytes_of(view->dtype); ++i) all ^= view->data[i];
    }
  }
  return all;
}

// Goal: no damage to a header crashes, reads out of bounds (the sanitizer builds see it) or yields an entry outside the
// data.
TEST(Checkpoint, SurvivesTwentyThousandDamagedHeaders) {
  const std::string valid = valid_file();
  std::mt19937 random(7);
  int accepted = 0;
  for (int round = 0; round < 20000; ++round) {
    const std::string bytes = damaged(valid, &random);
    unsigned char prefix[8];
    std::memcpy(prefix, bytes.data(), 8);
    const auto length = safetensors_header_length(prefix, bytes.size());
    if (!length.ok()) continue;
    const std::string header = bytes.substr(8, *length);
    const std::size_t data_bytes = bytes.size() - 8 - header.size();
    const auto entries = parse_safetensors_header(header, data_bytes);
    if (!entries.ok()) continue;
    ++accepted;
    for (const SafetensorsEntry& entry : entries->entries)
      ASSERT_TRUE(entry.begin <= entry.end && entry.end <= data_bytes);
  }
  EXPECT_GT(accepted, 100) << "some edits (in a name, in metadata) leave a valid file";
  EXPECT_LT(accepted, 10000);
}

TEST(Checkpoint, SurvivesDamagedFiles) {
  const std::string valid = valid_file();
  const TemporaryFolder folder;
  std::mt19937 random(8);
  std::byte all{};
  for (int round = 0; round < 300; ++round) {
    folder.write("model.safetensors", damaged(valid, &random));
    const auto opened = open_checkpoint(folder.path());
    if (opened.ok()) all ^= read_all(**opened);
  }
  ::testing::Test::RecordProperty("bytes", std::to_integer<int>(all));  // so that the reads stay
}

std::string shard_of(const std::string& name, float value) {
  return file_of(R"({")" + name + R"(":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", floats({value}));
}

std::string index_error(const std::string& index) {
  const TemporaryFolder folder;
  folder.write("one.safetensors", shard_of("a", 1));
  folder.write("model.safetensors.index.json", index);
  const auto opened = open_checkpoint(folder.path());
  return opened.ok() ? "" : opened.error().message;
}

TEST(ShardedCheckpoint, FindsEachTensorInItsShard) {
  const TemporaryFolder folder;
  folder.write("model-00001-of-00002.safetensors", shard_of("a", 1));
  folder.write("model-00002-of-00002.safetensors", shard_of("b", 2));
  folder.write(
      "model.safetensors.index.json",
      R"({"metadata":{"total_size":8},"weight_map":{"b":"model-00002-of-00002.safetensors","a":"model-00001-of-00002.safetensors"}})");
  const auto checkpoint = std::move(open_checkpoint(folder.path())).value();
  EXPECT_THAT(checkpoint->names(), ElementsAre("a", "b"));
  const auto b = checkpoint->tensor("b", {1});
  ASSERT_TRUE(b.ok());
  EXPECT_EQ(load_as_float(b->data, b->dtype, 0), 2.0F);
  EXPECT_THAT(b->file, HasSubstr("model-00002-of-00002.safetensors"));
}

std::string digest_of(const std::string& name, float value) {
  const TemporaryFolder folder;
  folder.write("model.safetensors", shard_of(name, value));
  return std::move(open_checkpoint(folder.path())).value()->digest();
}

TEST(Checkpoint, ADigestIsOfWhatItHoldsAndNotOfWhereItLies) {
  EXPECT_EQ(digest_of("a", 1), digest_of("a", 1));
  EXPECT_NE(digest_of("a", 1), digest_of("a", 2));
  EXPECT_NE(digest_of("a", 1), digest_of("b", 1));
  const TemporaryFolder folder;
  folder.write("one.safetensors", shard_of("a", 1));
  folder.write("model.safetensors.index.json", R"({"weight_map":{"a":"one.safetensors"}})");
  EXPECT_EQ(std::move(open_checkpoint(folder.path())).value()->digest(), digest_of("a", 1));
  EXPECT_NE(make_dummy_checkpoint(1, DType::float32)->digest(), make_dummy_checkpoint(2, DType::float32)->digest());
}

// An index may name more than the shards have: that is an error of the tensor, when it is needed.
TEST(ShardedCheckpoint, WhatTheIndexNamesAndNoShardHasIsAnErrorWhenItIsAskedFor) {
  const TemporaryFolder folder;
  folder.write("one.safetensors", shard_of("a", 1));
  folder.write("model.safetensors.index.json",
               R"({"metadata":{"total_size":1e400},"weight_map":{"a":"one.safetensors","b":"one.safetensors",
                   "c":"two.safetensors"}})");
  const auto checkpoint = open_checkpoint(folder.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.error().message;
  EXPECT_TRUE((*checkpoint)->tensor("a", {1}).ok());
  EXPECT_FALSE((*checkpoint)->has("b"));
  EXPECT_THAT((*checkpoint)->tensor("b", {1}).error().message,
              AllOf(HasSubstr("tensor b"), HasSubstr("one.safetensors, which does not have it")));
  EXPECT_THAT((*checkpoint)->tensor("c", {1}).error().message, HasSubstr("two.safetensors, which is not there"));
}

TEST(Checkpoint, ReadsWhatSaveModelWritesOfTensorsThatShareTheirMemory) {
  const TemporaryFolder folder;
  folder.write("model.safetensors",
               file_of(R"({"__metadata__":{"format":"pt","model.embed_tokens.weight":"lm_head.weight","x":"nothing"},)"
                       R"("lm_head.weight":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]}})",
                       floats({1, 2})));
  const auto checkpoint = std::move(open_checkpoint(folder.path())).value();
  EXPECT_THAT(checkpoint->names(), ElementsAre("lm_head.weight"));
  EXPECT_FALSE(checkpoint->has("x"));
  EXPECT_TRUE(checkpoint->tensor("model.embed_tokens.weight", {2, 1}).ok());
  EXPECT_FALSE(*has_own_head(*checkpoint, 2, 1));
}

TEST(Checkpoint, NullMetadataIsNone) {
  EXPECT_EQ(
      error_of(file_of(R"({"__metadata__":null,"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", floats({1}))),
      "");
}

TEST(Checkpoint, ATiedHeadStandsForTheEmbeddingThatIsNotThere) {
  const TemporaryFolder folder;
  folder.write("model.safetensors",
               file_of(R"({"lm_head.weight":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]}})", floats({1, 2})));
  EXPECT_FALSE((*open_checkpoint(folder.path()))->has("model.embed_tokens.weight"));
  EXPECT_TRUE((*open_checkpoint(folder.path(), true))->has("model.embed_tokens.weight"));
}

TEST(Checkpoint, TellsAHeadOfOtherValuesFromTheEmbedding) {
  for (const float last : {2.0F, 3.0F}) {
    const TemporaryFolder folder;
    folder.write("model.safetensors",
                 file_of(R"({"lm_head.weight":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},)"
                         R"("model.embed_tokens.weight":{"dtype":"F32","shape":[2,1],"data_offsets":[8,16]}})",
                         floats({1, 2, 1, last})));
    EXPECT_EQ(*has_own_head(**open_checkpoint(folder.path()), 2, 1), last != 2.0F);
  }
}

TEST(ShardedCheckpoint, RefusesAnIndexThatLies) {
  EXPECT_EQ(index_error(R"({"weight_map":{"a":"one.safetensors"}})"), "");
  EXPECT_THAT(index_error(R"({"weight_map":{"a":1}})"), HasSubstr("weight_map[a]"));
  EXPECT_THAT(index_error(R"({"weight_map":{}})"), HasSubstr("weight_map"));
  EXPECT_THAT(index_error(R"([])"), HasSubstr("weight_map"));
  EXPECT_THAT(index_error(R"({)"), HasSubstr("index.json"));
  for (const char* escape : {"../one.safetensors", "/etc/passwd", "..", ".", "", "sub/one.safetensors", "a\\u0000b"}) {
    EXPECT_THAT(index_error(fmt::format(R"({{"weight_map":{{"a":"{}"}}}})", escape)), HasSubstr("same directory"))
        << escape;
  }
}

TEST(Checkpoint, SaysWhatAModelDirectoryNeeds) {
  const TemporaryFolder folder;
  const auto opened = open_checkpoint(folder.path());
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.error().code, ErrorCode::not_found);
  EXPECT_THAT(opened.error().message, HasSubstr("model.safetensors.index.json"));
  ASSERT_EQ(::mkfifo((folder.path() + "/model.safetensors").c_str(), 0600), 0);
  EXPECT_THAT(open_checkpoint(folder.path()).error().message, HasSubstr("not a regular file"));
}

}  // namespace
}  // namespace chorus
