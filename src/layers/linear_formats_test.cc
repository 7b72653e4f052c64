#include "layers/linear_formats.h"

#include <gtest/gtest.h>

#include "layers/parameters.h"

namespace chorus {
namespace {

std::vector<ParameterSource> rows_of(std::initializer_list<const char*> names) {
  std::vector<ParameterSource> sources;
  for (const char* name : names) sources.push_back({name, {8, 64}, 0, 8, 0});
  return sources;
}

ModelConfig stored_model() {
  ModelConfig model;
  model.stored_formats = {{"q", LinearFormat::int4},
                          {"k", LinearFormat::int4},
                          {"v", LinearFormat::int8},
                          {"up", LinearFormat::int4_minimum},
                          {"gate", LinearFormat::int4_zero},
                          {"down", LinearFormat::plain},
                          {"l.experts.*.up", LinearFormat::int4},
                          {"model.embed_tokens.weight", LinearFormat::int8}};
  return model;
}

TEST(LinearFormats, NothingIsQuantisedUnlessAsked) {
  EXPECT_EQ(LinearFormats().of({8, 64, 1}, rows_of({"q"}), DType::bfloat16), LinearFormat(DType::bfloat16));
  EXPECT_EQ(LinearFormats(Quantization::none, stored_model()).of({8, 64, 1}, rows_of({"q"}), DType::float32),
            LinearFormat(DType::float32));
}

TEST(LinearFormats, FourBitsLeaveTheOutputMatrixInEight) {
  const LinearFormats formats(Quantization::int4, {});
  EXPECT_EQ(formats.of({8, 64, 1}, rows_of({"q"}), DType::bfloat16), LinearFormat(LinearFormat::int4));
  EXPECT_EQ(formats.of_output({8, 64, 1}, rows_of({"transformer.wte.weight"}), DType::bfloat16),
            LinearFormat(LinearFormat::int8));
  EXPECT_EQ(LinearFormats(Quantization::none, {}).of_output({8, 64, 1}, rows_of({"lm_head.weight"}), DType::bfloat16),
            LinearFormat(DType::bfloat16));
}

// Goal: rows of several tensors get a format that holds the numbers of all, and floats where there is none.
TEST(LinearFormats, StackedTensorsShareAFormatThatLosesNothing) {
  const LinearFormats formats(Quantization::automatic, stored_model());
  const auto of = [&](std::initializer_list<const char*> names) {
    return formats.of({8, 64, 1}, rows_of(names), DType::bfloat16);
  };
  EXPECT_EQ(of({"q", "k"}), LinearFormat(LinearFormat::int4));
  EXPECT_EQ(of({"q", "k", "v"}), LinearFormat(LinearFormat::int8));
  EXPECT_EQ(of({"v", "q"}), LinearFormat(LinearFormat::int8));
  EXPECT_EQ(of({"up"}), LinearFormat(LinearFormat::int4_minimum));
  EXPECT_EQ(of({"up", "q"}), LinearFormat(DType::bfloat16));
  EXPECT_EQ(of({"gate", "q"}), LinearFormat(LinearFormat::int4_zero));
  EXPECT_EQ(of({"q", "gate"}), LinearFormat(LinearFormat::int4_zero));
  EXPECT_EQ(of({"q", "gate", "v"}), LinearFormat(LinearFormat::int8));
  EXPECT_EQ(of({"gate", "up"}), LinearFormat(DType::bfloat16));
  EXPECT_EQ(of({"down"}), LinearFormat(DType::bfloat16));
  EXPECT_EQ(of({"q", "unknown"}), LinearFormat(DType::bfloat16));
  EXPECT_EQ(of({"l.experts.12.up"}), LinearFormat(LinearFormat::int4));
}

TEST(LinearFormats, SegmentsThatCutBlocksAreFloats) {
  const LinearFormats formats(Quantization::automatic, stored_model());
  EXPECT_EQ(formats.of({8, 64, 2}, rows_of({"q"}), DType::bfloat16), LinearFormat(LinearFormat::int4));
  EXPECT_EQ(formats.of({8, 64, 4}, rows_of({"q"}), DType::bfloat16), LinearFormat(DType::bfloat16));
}

TEST(LinearFormats, ATiedModelsFileMayHaveEither) {
  ModelConfig model = stored_model();
  model.tie_word_embeddings = true;
  const LinearFormats formats(Quantization::automatic, model);
  EXPECT_EQ(formats.of({8, 64, 1}, rows_of({"lm_head.weight"}), DType::bfloat16), LinearFormat(LinearFormat::int8));
}

}  // namespace
}  // namespace chorus
