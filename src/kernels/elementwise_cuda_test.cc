#include "kernels/elementwise_cuda.h"

#include <gtest/gtest.h>

#include <limits>

#include "kernels/cuda_test_device.h"
#include "kernels/elementwise.h"
#include "kernels/elementwise_cuda_impl.h"
#include "kernels/linear_test_util.h"
#include "kernels/sample.h"

namespace chorus {
namespace {

std::vector<Bfloat16> normed(const std::vector<float>& x, std::int32_t m, std::int32_t width,
                             const std::vector<float>& weight, std::uint64_t seed) {
  TestDevice device(seed);
  Bfloat16* out = device.put(std::vector<Bfloat16>(x.size()));
  cuda::launch_norm(device, {device.put(x), width, m, width, device.put(weight), 1e-5F, out, width});
  return device.get(out, x.size());
}

// Goal: the CPU's result but for the order of one sum and the rounding to bfloat16 (2^-8).
TEST(RmsNormCuda, AgreesWithTheCpu) {
  ThreadPool pool(1);
  for (const std::int32_t width : {8, 100, 896, 4096}) {
    const std::vector<float> x = random_floats(3 * width, 1), weight = random_floats(width, 2);
    std::vector<float> expected(x.size());
    rms_norm(pool, Isa::scalar, x.data(), 3, width, width, weight.data(), 1e-5F, expected.data(), width);
    const auto out = normed(x, 3, width, weight, 3);
    for (std::size_t i = 0; i < out.size(); ++i) {
      const double relative = 0x1p-8 + (width / 16 + 20) * 0x1p-24;
      ASSERT_NEAR(to_float(out[i]), expected[i], relative * std::abs(expected[i])) << width << " " << i;
    }
  }
}

// The norm with its sum in the order that elementwise_cuda.h states.
std::vector<Bfloat16> normed_in_order(const std::vector<float>& x, const std::vector<float>& weight) {
  std::vector<float> sums(256);
  for (std::size_t i = 0; i < x.size(); ++i) sums[i % 256] = std::fma(x[i], x[i], sums[i % 256]);
  const auto halve = [&](std::size_t count, std::size_t stride) {  // each `count` sums that lie `stride` apart
    for (std::size_t half = count / 2 * stride; half >= stride; half /= 2)
      for (std::size_t i = 0; i < 256; ++i)
        if (i % (2 * half) < half) sums[i] += sums[i + half];
  };
  halve(32, 1);
  halve(8, 32);
  const float factor = 1.0F / std::sqrt(sums[0] / static_cast<float>(x.size()) + 1e-5F);
  std::vector<Bfloat16> out;
  for (std::size_t i = 0; i < x.size(); ++i) out.push_back(to_bfloat16(x[i] * factor * weight[i]));
  return out;
}

// Goal: the stated order, so the same bits whatever a thread holds of a row. Method: widths of each kernel, and of
// none.
TEST(RmsNormCuda, SumsInTheStatedOrder) {
  for (const std::int32_t width : {5, 128, 300, 1024, 1027, 4096, 5000, 8192, 9001}) {
    const std::vector<float> x = random_floats(width, 3), weight = random_floats(width, 4);
    EXPECT_EQ(normed(x, 1, width, weight, 6), normed_in_order(x, weight)) << width;
  }
}

TEST(RmsNormCuda, BitsOfARowDependOnThatRowAlone) {
  const std::vector<float> x = random_floats(5 * 700, 1), weight = random_floats(700, 2);
  const auto all = normed(x, 5, 700, weight, 0);
  for (std::int32_t row = 0; row < 5; ++row) {
    const auto alone = normed({x.begin() + row * 700, x.begin() + (row + 1) * 700}, 1, 700, weight, 7);
    EXPECT_TRUE(std::equal(alone.begin(), alone.end(), all.begin() + row * 700));
  }
}

// Goal: the bits of rotary() and of rounding, at the right places of the KV memory, and nothing else written.
void expect_rotary_write(std::int32_t heads, std::int32_t head_dim, std::int32_t rotary_dim) {
  constexpr std::int32_t m = 3, kv_heads = 2, block_size = 16, blocks = 3;
  const std::int32_t width = (heads + 2 * kv_heads) * head_dim;
  const std::vector<float> qkv = random_floats(m * width, 1), cos_sin = random_floats(40 * rotary_dim, 2);
  const std::vector<std::int32_t> positions = {5, 39, 0};
  const std::vector<std::int64_t> slots = {21, -1, 47};
  TestDevice device(4);
  const std::vector<Bfloat16> unwritten(static_cast<std::size_t>(blocks) * kv_heads * 2 * block_size * head_dim,
                                        0x7fff);
  Bfloat16* cache = device.put(unwritten);
  Bfloat16* q = device.put(std::vector<Bfloat16>(static_cast<std::size_t>(m * heads * head_dim)));
  cuda::launch_rotary_write(device,
                            {device.put(qkv), width, m, heads, kv_heads, head_dim, rotary_dim, device.put(positions),
                             device.put(cos_sin), q, cache, device.put(slots), block_size});
  const auto q_out = device.get(q, static_cast<std::size_t>(m * heads * head_dim));
  const auto written = device.get(cache, unwritten.size());

  ThreadPool pool(1);
  std::vector<float> turned = qkv;
  rotary(pool, Isa::scalar, turned.data(), m, heads + kv_heads, head_dim, rotary_dim, width, positions.data(),
         cos_sin.data());
  std::vector<Bfloat16> expected = unwritten;
  for (std::int64_t row = 0; row < m; ++row) {
    for (std::int64_t i = 0; i < width; ++i) {
      const Bfloat16 value = to_bfloat16(turned[static_cast<std::size_t>(row * width + i)]);
      const std::int64_t head = i / head_dim - heads, d = i % head_dim;
      if (head < 0) {
        EXPECT_EQ(q_out[static_cast<std::size_t>(row * heads * head_dim + i)], value);
      } else if (slots[static_cast<std::size_t>(row)] >= 0) {
        const std::int64_t slot = slots[static_cast<std::size_t>(row)];
        const std::int64_t part = (slot / block_size * kv_heads + head % kv_heads) * 2 + head / kv_heads;
        expected[static_cast<std::size_t>((part * block_size + slot % block_size) * head_dim + d)] = value;
      }
    }
  }
  EXPECT_EQ(written, expected);
}

TEST(RotaryWriteCuda, GivesTheBitsOfTheCpuWhereTheyBelong) {
  expect_rotary_write(6, 64, 48);
  expect_rotary_write(3, 128, 128);
  expect_rotary_write(24, 64, 36);  // no multiple of 8: one number at a time; more units than a thread reads at once
}

void expect_the_samplers_choice(std::int32_t width) {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  constexpr std::int32_t m = 7;
  std::vector<float> logits = random_floats(m * width, 1);
  const auto at = [&](std::int32_t row, std::int32_t i) -> float& {
    return logits[static_cast<std::size_t>(row * width + i)];
  };
  at(1, 700) = at(1, 900) = 2;
  at(2, 999) = std::numeric_limits<float>::quiet_NaN();
  std::fill_n(logits.begin() + 3 * width, width, -infinity);
  std::fill_n(logits.begin() + 4 * width, width, -infinity);
  at(4, 300) = -std::numeric_limits<float>::max();
  std::fill_n(logits.begin() + 5 * width, width, 0.0F);
  at(6, 512) = infinity;
  TestDevice device(9);
  std::int32_t* out = device.put(std::vector<std::int32_t>(m));
  cuda::launch_argmax(device, {device.put(logits), width, m, width, out});
  const auto tokens = device.get(out, m);
  Sampler sampler(Isa::scalar, width);
  const auto columns = static_cast<std::size_t>(width);
  for (std::size_t row = 0; row < m; ++row) {
    SampleInput input;
    input.logits = std::span(logits).subspan(row * columns, columns);
    input.temperature = 0;
    const SampleOutput expected = sampler.sample(input);
    EXPECT_EQ(tokens[row], expected.not_a_number ? -1 : expected.token) << row;
  }
}

TEST(ArgmaxCuda, TakesWhatTheSamplerTakes) {
  expect_the_samplers_choice(1000);
  expect_the_samplers_choice(1001);   // one number at a time
  expect_the_samplers_choice(20000);  // more than the threads read at once
}

}  // namespace
}  // namespace chorus
