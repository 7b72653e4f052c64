#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <thread>

#include "weights/checkpoint.h"

namespace chorus {
namespace {

std::vector<float> values(const TensorView& view) {
  std::size_t count = 1;
  for (const auto dimension : view.shape) count *= static_cast<std::size_t>(dimension);
  std::vector<float> result(count);
  for (std::size_t i = 0; i < count; ++i) result[i] = load_as_float(view.data, view.dtype, i);
  return result;
}

TEST(DummyCheckpoint, MatricesAreUniformWithTheStatedDeviation) {
  const auto checkpoint = make_dummy_checkpoint(1, DType::float32);
  const auto matrix = values(checkpoint->tensor("model.layers.0.mlp.up_proj.weight", {512, 512}).value());
  double sum = 0, squares = 0, largest = 0;
  for (const float value : matrix) {
    ASSERT_TRUE(std::isfinite(value));  // std::max() would pass over a NaN
    sum += value;
    squares += static_cast<double>(value) * value;
    largest = std::max(largest, std::fabs(static_cast<double>(value)));
  }
  const auto count = static_cast<double>(matrix.size());
  EXPECT_NEAR(sum / count, 0, 5 * 0.02 / std::sqrt(count));
  EXPECT_NEAR(std::sqrt(squares / count), 0.02, 1e-4);
  EXPECT_LE(largest, 0.02 * std::sqrt(3.0));
  double neighbours = 0;  // correlation of neighbours: that of independent draws is 0 +- 1 / sqrt(count)
  for (std::size_t i = 1; i < matrix.size(); ++i) neighbours += static_cast<double>(matrix[i]) * matrix[i - 1];
  EXPECT_NEAR(neighbours / squares, 0, 5 / std::sqrt(count));
}

TEST(DummyCheckpoint, ElementsAreAFunctionOfSeedNameAndIndex) {
  const auto first = make_dummy_checkpoint(1, DType::bfloat16);
  const auto again = make_dummy_checkpoint(1, DType::bfloat16);
  const auto other = make_dummy_checkpoint(2, DType::bfloat16);
  const auto a = values(first->tensor("a", {7, 9}).value());
  EXPECT_EQ(a, values(again->tensor("a", {7, 9}).value()));
  EXPECT_NE(a, values(first->tensor("b", {7, 9}).value()));
  EXPECT_NE(a, values(other->tensor("a", {7, 9}).value()));
  first->release("a");
  EXPECT_EQ(a, values(first->tensor("a", {9, 7}).value()))
      << "released, so another shape may be made; the index alone counts";
  EXPECT_FALSE(first->tensor("a", {7, 9}).ok());
}

// The bytes are a promise: a run with --load-format dummy gives the same tokens in every version.
TEST(DummyCheckpoint, KeepsItsValues) {
  const auto checkpoint = make_dummy_checkpoint(0, DType::bfloat16);
  const auto view = checkpoint->tensor("lm_head.weight", {2, 3}).value();
  std::vector<std::uint16_t> bits(6);
  std::memcpy(bits.data(), view.data, 12);
  EXPECT_THAT(bits, ::testing::ElementsAre(15556, 48281, 48370, 48375, 15368, 15604));
}

TEST(DummyCheckpoint, AnyPartIsTheSameAsTheWhole) {
  for (const DType dtype : {DType::float32, DType::bfloat16, DType::float16}) {
    std::vector<std::byte> whole(101 * bytes_of(dtype)), part(whole.size());
    fill_dummy(3, "w", dtype, 0, 101, whole.data());
    for (std::uint64_t first = 0; first < 9; ++first) {
      for (std::uint64_t count = 0; first + count <= 101; count += 3) {
        fill_dummy(3, "w", dtype, first, count, part.data());
        ASSERT_EQ(std::memcmp(part.data(), whole.data() + first * bytes_of(dtype), count * bytes_of(dtype)), 0);
      }
    }
  }
}

// Large enough for several threads, and no multiple of their parts.
TEST(DummyCheckpoint, ManyThreadsGiveWhatOneGives) {
  constexpr std::int64_t count = (5 << 20) + 3;
  const auto checkpoint = make_dummy_checkpoint(4, DType::bfloat16);
  const auto view = checkpoint->tensor("w", {count}).value();
  std::vector<std::byte> whole(count * bytes_of(DType::bfloat16));
  fill_dummy(4, "w", DType::bfloat16, 0, count, whole.data());
  EXPECT_EQ(std::memcmp(view.data, whole.data(), whole.size()), 0);
}

TEST(DummyCheckpoint, DtypesAgreeUpToTheirRounding) {
  std::vector<std::byte> exact(4 * 65536), upper(2 * 65536), half(2 * 65536);
  fill_dummy(5, "w", DType::float32, 0, 65536, exact.data());
  fill_dummy(5, "w", DType::bfloat16, 0, 65536, upper.data());
  fill_dummy(5, "w", DType::float16, 0, 65536, half.data());
  for (std::size_t i = 0; i < 65536; ++i) {
    const float value = load_as_float(exact.data(), DType::float32, i);
    ASSERT_EQ(load_as_float(upper.data(), DType::bfloat16, i), to_float(to_bfloat16(value)));
    // binary16: 11 significant bits; below 2^-14 the step is 2^-24.
    const float bound = std::fmax(std::fabs(value) * 0x1.0p-11F, 0x1.0p-25F);
    ASSERT_LE(std::fabs(load_as_float(half.data(), DType::float16, i) - value), bound) << value;
  }
}

TEST(DummyCheckpoint, NormsAreOneAndBiasesZero) {
  for (const DType dtype : {DType::float32, DType::bfloat16, DType::float16}) {
    const auto checkpoint = make_dummy_checkpoint(1, dtype);
    EXPECT_EQ(values(checkpoint->tensor("model.layers.0.input_layernorm.weight", {3}).value()),
              std::vector<float>(3, 1.0F));
    EXPECT_EQ(values(checkpoint->tensor("model.layers.0.input_layernorm.bias", {3}).value()),
              std::vector<float>(3, 0.0F));
    EXPECT_EQ(values(checkpoint->tensor("model.layers.0.self_attn.q_proj.bias", {3}).value()),
              std::vector<float>(3, 0.0F));
  }
}

TEST(DummyCheckpoint, RefusesShapesThatDoNotFit) {
  const auto checkpoint = make_dummy_checkpoint(1, DType::float32);
  EXPECT_FALSE(checkpoint->tensor("a", {std::int64_t{1} << 40, std::int64_t{1} << 40}).ok());
  EXPECT_FALSE(checkpoint->tensor("a", {-1}).ok());
  EXPECT_EQ(checkpoint->tensor("a", {std::int64_t{1} << 45}).error().code, ErrorCode::resource_exhausted);
  EXPECT_TRUE(checkpoint->tensor("a", {4}).ok()) << "a failure leaves nothing behind";
}

TEST(DummyCheckpoint, ThreadsMayAskForTheSameAndForOtherTensors) {
  const auto checkpoint = make_dummy_checkpoint(1, DType::bfloat16);
  const auto expected = values(make_dummy_checkpoint(1, DType::bfloat16)->tensor("shared", {64, 64}).value());
  std::vector<std::thread> threads;
  std::vector<int> equal(4, 0);
  for (std::size_t thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      for (int round = 0; round < 20; ++round) {
        const std::string own = fmt::format("own.{}.{}", thread, round);
        if (!checkpoint->tensor(own, {8, 8}).ok()) return;
        checkpoint->release(own);
      }
      equal[thread] = values(checkpoint->tensor("shared", {64, 64}).value()) == expected ? 1 : 0;
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(equal, std::vector<int>(4, 1));
}

}  // namespace
}  // namespace chorus
