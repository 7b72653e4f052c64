#include "kernels/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <span>
#include <vector>

#include "kernels/scratch.h"

namespace chorus {
namespace {

struct Shape {
  int kv_heads = 1, group = 1, head_dim = 8, block_size = 16, window = 0;
  DType dtype = DType::float32;
  int heads() const { return kv_heads * group; }
};

// A KV cache whose unwritten slots are NaN, and random tokens of some sequences in shuffled blocks.
class Fixture {
 public:
  Fixture(const Shape& shape, const std::vector<int>& lengths, std::uint32_t seed) : shape_(shape), random_(seed) {
    std::vector<std::int32_t> blocks;
    for (int length : lengths)
      blocks.resize(blocks.size() + static_cast<std::size_t>((length + shape.block_size - 1) / shape.block_size));
    std::iota(blocks.begin(), blocks.end(), 0);
    std::shuffle(blocks.begin(), blocks.end(), random_);
    cache_.layout = {shape.kv_heads, shape.head_dim, shape.block_size, shape.dtype};
    memory_.assign(blocks.size() * cache_.layout.block_bytes() / 64 + 2, {});
    // 0xffff.. is a NaN in float32 and in bfloat16.
    std::memset(memory_.data(), 0xff, memory_.size() * 64);
    cache_.data = reinterpret_cast<std::byte*>((reinterpret_cast<std::uintptr_t>(memory_.data()) + 63) / 64 * 64);
    auto next = blocks.begin();
    for (int length : lengths) {
      const int count = (length + shape.block_size - 1) / shape.block_size;
      tables_.emplace_back(next, next + count);
      next += count;
      k_.push_back(normal(length, shape.kv_heads));
      v_.push_back(normal(length, shape.kv_heads));
      q_.push_back(normal(length, shape.heads()));
    }
  }

  struct Slice {
    std::size_t sequence = 0;
    int start = 0, count = 0;
  };

  // One step: writes and attends the slices; the rows of the answer slice after slice.
  std::vector<float> step(const std::vector<Slice>& slices, int threads, Isa isa) {
    std::vector<AttentionSequence> sequences;
    std::vector<float> q, k, v;
    std::int64_t row = 0;
    for (const Slice& slice : slices) {
      sequences.push_back({row, slice.start, slice.count, tables_[slice.sequence]});
      append(q_[slice.sequence], slice, shape_.heads(), &q);
      append(k_[slice.sequence], slice, shape_.kv_heads, &k);
      append(v_[slice.sequence], slice, shape_.kv_heads, &v);
      row += slice.count;
    }
    ThreadPool pool(threads);
    const int width = shape_.heads() * shape_.head_dim, kv_width = shape_.kv_heads * shape_.head_dim;
    kv_write(pool, isa, cache_, sequences, k.data(), kv_width, v.data(), kv_width);
    std::vector<float> out(q.size(), -1.0F);
    attention(pool, scratch_, isa, cache_, sequences, {shape_.heads(), scale(), shape_.window}, q.data(), width,
              out.data(), width);
    return out;
  }

  float scale() const { return 1.0F / std::sqrt(static_cast<float>(shape_.head_dim)); }

  // Softmax attention of one row in double, from the values as stored; `bound` for the float32 result beside it.
  std::vector<double> naive(std::size_t sequence, int position, std::vector<double>* bound) const {
    const int d = shape_.head_dim;
    std::vector<double> out;
    const int first = shape_.window > 0 ? std::max(0, position + 1 - shape_.window) : 0;
    for (int head = 0; head < shape_.heads(); ++head) {
      std::vector<double> scores, values(static_cast<std::size_t>(d)), magnitude(static_cast<std::size_t>(d));
      double largest = -std::numeric_limits<double>::infinity(), score_error = 0;
      for (int key = first; key <= position; ++key) {
        double score = 0, absolute = 0;
        for (int i = 0; i < d; ++i) {
          const double product = double{at(q_[sequence], position, head, shape_.heads(), i)} *
                                 double{kept(at(k_[sequence], key, head / shape_.group, shape_.kv_heads, i))};
          score += product, absolute += std::abs(product);
        }
        scores.push_back(score * double{scale()});
        score_error = std::max(score_error, absolute * double{scale()} * (d + 2) * 0x1p-24);
        largest = std::max(largest, scores.back());
      }
      double sum = 0;
      for (std::size_t n = 0; n < scores.size(); ++n) {
        const double weight = std::exp(scores[n] - largest);
        sum += weight;
        for (int i = 0; i < d; ++i) {
          const double value =
              kept(at(v_[sequence], first + static_cast<int>(n), head / shape_.group, shape_.kv_heads, i));
          values[static_cast<std::size_t>(i)] += weight * value;
          magnitude[static_cast<std::size_t>(i)] += weight * std::abs(value);
        }
      }
      // Each weight: e^(score error), rounding of score - maximum (|x| <= 88) and 2 ulp of exp, in values and sum:
      // twice; sums of n terms: n / 2^24 at most (Higham, "Accuracy and Stability", 4.2), and a few roundings of merge
      // and divide.
      const double terms = static_cast<double>(std::min<std::size_t>(scores.size(), 256));
      const double partitions = static_cast<double>(scores.size()) / 256 + 2;
      const double relative =
          2 * (2 * score_error + 88 * 0x1p-24 + 4 * 0x1p-24) + (2 * terms + 12 * partitions) * 0x1p-24;
      for (int i = 0; i < d; ++i) {
        out.push_back(values[static_cast<std::size_t>(i)] / sum);
        bound->push_back(relative * magnitude[static_cast<std::size_t>(i)] / sum + 1e-30);
      }
    }
    return out;
  }

  int length(std::size_t sequence) const {
    return static_cast<int>(q_[sequence].size()) / (shape_.heads() * shape_.head_dim);
  }

 private:
  std::vector<float> normal(int rows, int heads) {
    std::normal_distribution<float> distribution;
    std::vector<float> values(static_cast<std::size_t>(rows * heads * shape_.head_dim));
    for (float& value : values) value = distribution(random_);
    return values;
  }
  void append(const std::vector<float>& all, const Slice& slice, int heads, std::vector<float>* out) const {
    const std::ptrdiff_t width = heads * shape_.head_dim;
    out->insert(out->end(), all.begin() + slice.start * width, all.begin() + (slice.start + slice.count) * width);
  }
  float at(const std::vector<float>& all, int row, int head, int heads, int i) const {
    return all[static_cast<std::size_t>((row * heads + head) * shape_.head_dim + i)];
  }
  float kept(float value) const { return shape_.dtype == DType::float32 ? value : to_float(to_bfloat16(value)); }

  struct Line {
    std::byte bytes[64];
  };
  Shape shape_;
  std::mt19937 random_;
  std::vector<Line> memory_;
  KvCacheLayer cache_;
  std::vector<std::vector<std::int32_t>> tables_;
  std::vector<std::vector<float>> q_, k_, v_;
  Scratch scratch_;
};

void expect_near_naive(const Fixture& fixture, std::size_t sequence, int position, std::span<const float> row) {
  std::vector<double> bound;
  const std::vector<double> expected = fixture.naive(sequence, position, &bound);
  ASSERT_EQ(expected.size(), row.size());
  for (std::size_t i = 0; i < row.size(); ++i) {
    ASSERT_NEAR(static_cast<double>(row[i]), expected[i], bound[i]) << "position " << position << " element " << i;
  }
}

const std::vector<Shape>& shapes() {
  static const std::vector<Shape> all = {
      {1, 1, 8, 16, 0, DType::float32},    {2, 2, 16, 16, 0, DType::bfloat16},   {1, 4, 24, 32, 0, DType::float32},
      {2, 7, 64, 16, 0, DType::bfloat16},  {2, 7, 32, 16, 40, DType::float32},   {1, 2, 80, 48, 300, DType::bfloat16},
      {1, 1, 128, 16, 0, DType::bfloat16}, {3, 3, 96, 16, 17, DType::bfloat16},  {1, 5, 12, 16, 1, DType::float32},
      {4, 1, 64, 16, 0, DType::float32},   {1, 14, 64, 32, 256, DType::bfloat16}};
  return all;
}

// Goal: right within the error bound of float32, whatever the shape. Method: double, at random rows of a whole prefill.
TEST(Attention, AgreesWithDoublePrecision) {
  for (Isa isa : available_isas()) {
    for (const Shape& shape : shapes()) {
      SCOPED_TRACE(testing::Message() << name_of(isa) << " group " << shape.group << " head_dim " << shape.head_dim);
      Fixture fixture(shape, {600, 1, 37}, 1);
      const std::vector<float> out = fixture.step({{0, 0, 600}, {1, 0, 1}, {2, 0, 37}}, 2, isa);
      const auto width = static_cast<std::size_t>(shape.heads() * shape.head_dim);
      for (int position : {0, 1, 15, 16, 63, 255, 256, 257, 511, 512, 599}) {
        expect_near_naive(fixture, 0, position,
                          std::span(out).subspan(static_cast<std::size_t>(position) * width, width));
      }
      expect_near_naive(fixture, 1, 0, std::span(out).subspan(600 * width, width));
      expect_near_naive(fixture, 2, 36, std::span(out).subspan(637 * width, width));
    }
  }
}

// Goal: the promise. A row's bits do not depend on chunks, on other sequences of the step, or on the number of threads.
TEST(Attention, RowsKeepTheirBitsUnderChunksBatchesAndThreads) {
  for (Isa isa : available_isas()) {
    for (const Shape& shape : shapes()) {
      SCOPED_TRACE(testing::Message() << name_of(isa) << " group " << shape.group << " head_dim " << shape.head_dim);
      // Two or three partitions; more would only cost time.
      const int length = shape.group == 7 ? 530 : 290;
      const std::vector<int> lengths = {length, 21};
      Fixture whole(shape, lengths, 2);
      const std::vector<float> expected = whole.step({{0, 0, length}}, 1, isa);
      const std::size_t width = expected.size() / static_cast<std::size_t>(length);
      for (const int chunk : {1, 7, 100}) {
        Fixture chunked(shape, lengths, 2);
        // One by one only the last rows, after a prefill.
        int start = chunk == 1 ? length - 50 : 0;
        if (start > 0) (void)chunked.step({{0, 0, start}}, 2, isa);
        for (int step = 0; start < length; start += chunk, ++step) {
          const int count = std::min(chunk, length - start);
          std::vector<Fixture::Slice> slices = {{0, start, count}};
          if (step % 3 == 1) slices.insert(slices.begin(), {1, 0, 21});
          const std::vector<float> out = chunked.step(slices, 1 + step % 3, isa);
          const std::size_t skip = slices.size() == 2 ? 21 * width : 0;
          ASSERT_EQ(std::memcmp(out.data() + skip, expected.data() + static_cast<std::size_t>(start) * width,
                                static_cast<std::size_t>(count) * width * sizeof(float)),
                    0)
              << "chunk " << chunk << " at " << start;
        }
      }
    }
  }
}

// Goal: AVX2 and AVX-512 do the same operations in the same order, so that either can be checked against the other.
TEST(Attention, VectorInstructionSetsAgreeInEveryBit) {
  const auto& isas = available_isas();
  const auto has = [&](Isa isa) { return std::find(isas.begin(), isas.end(), isa) != isas.end(); };
  if (!has(Isa::avx512_bf16) || !has(Isa::avx2_f32)) GTEST_SKIP() << "needs AVX-512";
  for (const Shape& shape : shapes()) {
    Fixture fixture(shape, {530}, 3);
    EXPECT_EQ(fixture.step({{0, 0, 530}}, 2, Isa::avx512_bf16), fixture.step({{0, 0, 530}}, 2, Isa::avx2_f32));
  }
}

// Goal: a NaN that a row does see is not hidden: the request must fail.
TEST(Attention, NanReachesTheOutput) {
  for (Isa isa : available_isas()) {
    ThreadPool pool(1);
    Scratch scratch;
    std::vector<float> memory(2 * 16 * 16 + 16, 0.5F);
    float* data = memory.data();
    while (reinterpret_cast<std::uintptr_t>(data) % 64 != 0) ++data;
    const KvCacheLayer cache = {{1, 16, 16, DType::float32}, reinterpret_cast<std::byte*>(data)};
    const std::vector<std::int32_t> table = {0};
    const AttentionSequence sequence = {0, 4, 1, table};
    std::vector<float> q(32, 1.0F), out(32);
    q[20] = std::numeric_limits<float>::quiet_NaN();
    attention(pool, scratch, isa, cache, {&sequence, 1}, {2, 1.0F, 0}, q.data(), 32, out.data(), 32);
    EXPECT_FLOAT_EQ(out[3], 0.5F);
    EXPECT_TRUE(std::isnan(out[16 + 3])) << name_of(isa);
  }
}

}  // namespace
}  // namespace chorus
