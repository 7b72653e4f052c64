#include "kernels/attention_cuda.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/attention.h"
#include "kernels/attention_split_cuda_impl.h"
#include "kernels/cuda_test_device.h"
#include "kernels/linear_test_util.h"

namespace chorus {
namespace {

struct Heads {
  std::int32_t kv_heads, group, head_dim, window;
  std::int32_t heads() const { return kv_heads * group; }
};

// A sequence of `length` tokens whose keys and values lie in a KV memory that is NaN elsewhere, in blocks in a random
// order.
class SequenceInMemory {
 public:
  static constexpr std::int32_t block_size = 16;

  SequenceInMemory(Heads heads, std::int32_t length, std::uint32_t seed)
      : heads_(heads),
        length_(length),
        q_(random_bfloat16(std::int64_t{length} * heads.heads() * heads.head_dim, seed)),
        k_(random_bfloat16(std::int64_t{length} * heads.kv_heads * heads.head_dim, seed + 1)),
        v_(random_bfloat16(std::int64_t{length} * heads.kv_heads * heads.head_dim, seed + 2)) {
    const std::int32_t blocks = (length + block_size - 1) / block_size + 2;
    table_.resize(static_cast<std::size_t>(blocks));
    std::iota(table_.begin(), table_.end(), 0);
    std::shuffle(table_.begin(), table_.end(), std::mt19937(seed));
    memory_.assign(static_cast<std::size_t>(blocks) * 2 * block_size * width_of_kv(), 0x7fff);
    for (std::int32_t token = 0; token < length; ++token) write(token);
  }

  // Results of rows [start, start + count), [count, heads * head_dim]. `processors` chooses among the kernels,
  // of a prefill as of a decode.
  std::vector<Bfloat16> attend(std::int32_t start, std::int32_t count, std::uint64_t seed, int processors = 100) const {
    TestDevice device(seed);
    const std::size_t width = static_cast<std::size_t>(heads_.heads() * heads_.head_dim);
    const auto first = q_.begin() + static_cast<std::ptrdiff_t>(width) * start;
    CudaAttention call;
    call.q = device.put(std::vector<Bfloat16>(first, first + static_cast<std::ptrdiff_t>(width) * count));
    Bfloat16* out = device.put(std::vector<Bfloat16>(width * static_cast<std::size_t>(count), 0x7fff));
    call.out = out;
    call.ldq = call.ldo = static_cast<std::int64_t>(width);
    call.cache = device.put(memory_);
    call.tables = device.put(table_);
    call.sequences = device.put(std::vector<CudaSequence>{{0, start, count, 0}});
    call.sequence_count = 1;
    call.rows_max = count;
    call.positions_max = start + count;
    call.heads = heads_.heads();
    call.kv_heads = heads_.kv_heads;
    call.head_dim = heads_.head_dim;
    call.window = heads_.window;
    call.scale = scale();
    if (count == 1) {
      const std::vector<float> states(static_cast<std::size_t>(attention_cuda_state_floats(call)),
                                      std::numeric_limits<float>::quiet_NaN());
      call.states = device.put(states);
    }
    cuda::launch_attention(device, call, processors);
    return device.get(out, width * static_cast<std::size_t>(count));
  }

  // Whether `out` is the softmax attention of row `position` within its roundings: the weights' to bfloat16 and the
  // result's (2^-8 each), those of the scores' and values' sums, and of e^x.
  testing::AssertionResult is_attention(std::int32_t position, const Bfloat16* out) const {
    for (std::int32_t head = 0; head < heads_.heads(); ++head) {
      const auto d_max = static_cast<std::size_t>(heads_.head_dim);
      std::vector<double> values(d_max), magnitude(d_max);
      double sum = 0, score_error = 0;
      const std::int32_t first = heads_.window > 0 ? std::max(0, position + 1 - heads_.window) : 0;
      for (std::int32_t key = first; key <= position; ++key) {
        double score = 0, absolute = 0;
        for (std::size_t d = 0; d < d_max; ++d) {
          const double product = double{at(q_, position, head, heads_.heads(), d)} *
                                 double{at(k_, key, head / heads_.group, heads_.kv_heads, d)};
          score += product, absolute += std::abs(product);
        }
        score_error = std::max(score_error, absolute * double{scale()} * sum_error(heads_.head_dim));
        const double weight = std::exp(score * double{scale()});
        sum += weight;
        for (std::size_t d = 0; d < d_max; ++d) {
          const double value = double{at(v_, key, head / heads_.group, heads_.kv_heads, d)};
          values[d] += weight * value, magnitude[d] += weight * std::abs(value);
        }
      }
      const double relative = 0x1p-8 + 2 * score_error + 2 * sum_error(position) + 64 * 0x1p-24;
      for (std::size_t d = 0; d < d_max; ++d) {
        const double got = double{to_float(out[static_cast<std::size_t>(head) * d_max + d])},
                     expected = values[d] / sum;
        if (!(std::abs(got - expected) <= relative * magnitude[d] / sum + 0x1p-8 * std::abs(expected))) {
          return testing::AssertionFailure() << "position " << position << " head " << head << " dimension " << d
                                             << ": " << got << ", expected " << expected;
        }
      }
    }
    return testing::AssertionSuccess();
  }

  // attention() of the CPU for one row, in float32.
  std::vector<float> attend_on_cpu(std::int32_t position) const {
    ThreadPool pool(1);
    Scratch scratch;
    const KvLayout layout{heads_.kv_heads, heads_.head_dim, block_size, KvDType::bfloat16};
    AlignedBytes memory(layout.block_bytes() * table_.size());
    const KvCacheLayer cache{layout, memory.data()};
    const AttentionSequence all{0, 0, length_, table_};
    const std::vector<float> k = floats(k_), v = floats(v_), q = floats(q_);
    kv_write(pool, Isa::scalar, cache, {&all, 1}, k.data(), width_of_kv(), v.data(), width_of_kv());
    const std::int64_t width = heads_.heads() * heads_.head_dim;
    const AttentionSequence row{0, position, 1, table_};
    std::vector<float> out(static_cast<std::size_t>(width));
    attention(pool, scratch, Isa::scalar, cache, {&row, 1}, {heads_.heads(), scale(), heads_.window},
              q.data() + position * width, width, out.data(), width);
    return out;
  }

 private:
  std::int32_t width_of_kv() const { return heads_.kv_heads * heads_.head_dim; }
  float scale() const { return 1.0F / std::sqrt(static_cast<float>(heads_.head_dim)); }
  float at(const std::vector<Bfloat16>& values, std::int32_t token, std::int32_t head, std::int32_t heads,
           std::size_t d) const {
    return to_float(
        values[(static_cast<std::size_t>(token) * static_cast<std::size_t>(heads) + static_cast<std::size_t>(head)) *
                   static_cast<std::size_t>(heads_.head_dim) +
               d]);
  }
  static std::vector<float> floats(const std::vector<Bfloat16>& values) {
    std::vector<float> wide;
    for (const Bfloat16 value : values) wide.push_back(to_float(value));
    return wide;
  }
  void write(std::int32_t token) {
    const std::int64_t block = table_[static_cast<std::size_t>(token / block_size)];
    for (std::int64_t head = 0; head < heads_.kv_heads; ++head) {
      for (int part = 0; part < 2; ++part) {
        const auto& from = part == 0 ? k_ : v_;
        const std::int64_t to =
            (((block * heads_.kv_heads + head) * 2 + part) * block_size + token % block_size) * heads_.head_dim;
        std::copy_n(from.begin() + (token * heads_.kv_heads + head) * heads_.head_dim, heads_.head_dim,
                    memory_.begin() + to);
      }
    }
  }

  Heads heads_;
  std::int32_t length_;
  std::vector<Bfloat16> q_, k_, v_, memory_;
  std::vector<std::int32_t> table_;
};

const std::vector<Heads> all_heads = {{2, 4, 128, 0}, {1, 7, 64, 0}, {1, 1, 128, 0}, {2, 2, 64, 100},
                                      {1, 16, 64, 0}, {2, 2, 8, 0},  {1, 3, 80, 0}};

// Goal: the attention of a row, at and around the ends of steps and partitions. Method: a double reference.
TEST(AttentionCuda, IsTheSoftmaxOfItsKeys) {
  for (const Heads& heads : all_heads) {
    const SequenceInMemory sequence(heads, 300, 3);
    const std::int64_t width = heads.heads() * heads.head_dim;
    for (const std::int32_t position : {0, 31, 32, 255, 256, 299}) {
      EXPECT_TRUE(sequence.is_attention(position, sequence.attend(position, 1, 2, position % 2 == 0 ? 100 : 0).data()));
    }
    const std::vector<Bfloat16> out = sequence.attend(250, 50, 3);
    for (std::int32_t row = 0; row < 50; row += 7)
      EXPECT_TRUE(sequence.is_attention(250 + row, out.data() + row * width));
  }
}

// Goal: the promise. Method: each row alone (a decode, split by partition) gives the bits; a prefill in any chunks,
// under any order of warps and copies, must give them again.
TEST(AttentionCuda, BitsOfARowDependOnThatRowAlone) {
  for (const Heads& heads : all_heads) {
    const std::int32_t length = 300;  // two partitions
    const SequenceInMemory sequence(heads, length, 5);
    const std::size_t width = static_cast<std::size_t>(heads.heads() * heads.head_dim);
    std::uint64_t seed = 0;
    for (const std::int32_t count : {2, 45, 140}) {
      const std::int32_t start = length - count;
      const std::vector<Bfloat16> chunk = sequence.attend(start, count, seed++);
      ASSERT_EQ(sequence.attend(start, count, seed++, 1), chunk);  // most by blocks of 12 warps, not of 8
      for (std::int32_t row = 0; row < count; row += 1 + count / 4) {
        const std::vector<Bfloat16> alone = sequence.attend(start + row, 1, seed++, row % 2 == 0 ? 100 : 0);
        ASSERT_EQ(std::memcmp(alone.data(), chunk.data() + width * static_cast<std::size_t>(row), width * 2), 0)
            << "row " << row << " of " << count << ", group " << heads.group << " window " << heads.window;
      }
    }
  }
}

// Goal: the emulation has the bits of a GPU. Method: the same test on both, against one number.
TEST(AttentionCuda, BitsAreHoppers) {
  if (!sums_as_hopper()) GTEST_SKIP() << "the expected bits are Hopper's, and this GPU sums otherwise (docs/cuda.md)";
  EXPECT_EQ(hash_of(SequenceInMemory(all_heads[0], 290, 9).attend(270, 20, 2)), 0xc08f2a1b39bb2aabU);
}

// The CPU's result of the same stored values obeys the same bound.
TEST(AttentionCuda, AgreesWithTheCpu) {
  const SequenceInMemory sequence(all_heads[0], 280, 8);
  std::vector<Bfloat16> rounded;
  for (const float value : sequence.attend_on_cpu(279)) rounded.push_back(to_bfloat16(value));
  EXPECT_TRUE(sequence.is_attention(279, rounded.data()));
  const std::vector<Bfloat16> out = sequence.attend(279, 1, 3);
  for (std::size_t i = 0; i < out.size(); ++i) EXPECT_NEAR(to_float(out[i]), to_float(rounded[i]), 0x1p-6);
}

}  // namespace
}  // namespace chorus
