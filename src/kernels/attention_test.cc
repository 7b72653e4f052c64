#include "kernels/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>
#include <limits>
#include <list>
#include <numeric>
#include <random>
#include <span>
#include <vector>

#include "kernels/attention_split.h"
#include "tensor/scratch.h"

namespace chorus {
namespace {

struct Shape {
  int kv_heads = 1, group = 1, head_dim = 8, block_size = 16, window = 0;
  KvDType dtype = KvDType::float32;
  float softcap = 0;
  bool has_sinks = false;
  int heads() const { return kv_heads * group; }
};

// KV caches, one a share, whose unwritten slots are NaN, and random tokens of some sequences in shuffled blocks.
class Fixture {
 public:
  Fixture(const Shape& shape, const std::vector<int>& lengths, std::uint32_t seed, int shares = 1)
      : shape_(shape), random_(seed) {
    std::vector<std::int32_t> blocks;
    for (int length : lengths)
      blocks.resize(blocks.size() + static_cast<std::size_t>((length + shape.block_size - 1) / shape.block_size));
    std::iota(blocks.begin(), blocks.end(), 0);
    std::shuffle(blocks.begin(), blocks.end(), random_);
    for (int share = 0; share < shares; ++share) add_cache(blocks.size(), {share, shares});
    auto next = blocks.begin();
    for (int length : lengths) {
      const int count = (length + shape.block_size - 1) / shape.block_size;
      tables_.emplace_back(next, next + count);
      next += count;
      k_.push_back(normal(length, shape.kv_heads));
      v_.push_back(normal(length, shape.kv_heads));
      kept_k_.push_back(kept(k_.back()));
      kept_v_.push_back(kept(v_.back()));
      q_.push_back(normal(length, shape.heads()));
    }
  }

  struct Slice {
    std::size_t sequence = 0;
    int start = 0, count = 0;
  };

  // One step: writes and attends the slices; the rows of the answer slice after slice.
  std::vector<float> step(const std::vector<Slice>& slices, int threads, Isa isa) {
    write(slices, isa);
    std::vector<float> q;
    for (const Slice& slice : slices) append(q_[slice.sequence], slice, shape_.heads(), &q);
    ThreadPool pool(threads);
    if (caches_.size() > 1) return split(pool, isa, sequences_of(slices), q);
    const int width = shape_.heads() * shape_.head_dim;
    std::vector<float> out(q.size(), -1.0F);
    attention(pool, scratch_, isa, caches_[0], sequences_of(slices), params(), q.data(), width, out.data(), width);
    return out;
  }

  void write(const std::vector<Slice>& slices, Isa isa) {
    std::vector<float> k, v;
    for (const Slice& slice : slices) {
      append(k_[slice.sequence], slice, shape_.kv_heads, &k);
      append(v_[slice.sequence], slice, shape_.kv_heads, &v);
    }
    ThreadPool pool(2);
    const int width = shape_.kv_heads * shape_.head_dim;
    for (const KvCacheLayer& cache : caches_) {
      kv_write(pool, isa, cache, sequences_of(slices), k.data(), width, v.data(), width);
    }
  }

  // The same rows computed by all shares of the keys, which hand their states to each other; each has the same answer.
  std::vector<float> split(ThreadPool& pool, Isa isa, const std::vector<AttentionSequence>& sequences,
                           const std::vector<float>& q) {
    const int width = shape_.heads() * shape_.head_dim;
    std::vector<std::vector<float>> outs(caches_.size(), std::vector<float>(q.size(), -1.0F));
    std::list<Scratch> scratches(caches_.size());
    std::list<SplitAttention> parts;
    auto scratch = scratches.begin();
    for (std::size_t share = 0; share < caches_.size(); ++share) {
      parts.emplace_back(pool, *scratch++, isa, caches_[share], sequences, params(), q.data(), width,
                         outs[share].data(), width, chunk_floats_max);
    }
    for (chunks = 0; next_of_all(parts); ++chunks) {
      for (SplitAttention& part : parts) part.compute();
      exchange(parts);
      for (SplitAttention& part : parts) part.finish();
    }
    for (const std::vector<float>& out : outs) EXPECT_EQ(std::memcmp(out.data(), outs[0].data(), q.size() * 4), 0);
    return outs[0];
  }
  std::int64_t chunk_floats_max = attention_chunk_floats_max;
  int chunks = 0;  // of the last split()

  // Whether every written slot of the sequence is in the share it belongs to, and in no other.
  bool each_key_lies_in_its_share(std::size_t sequence) const {
    const std::size_t block_bytes = caches_[0].layout.block_bytes();
    const std::vector<std::byte> unwritten(block_bytes, std::byte{0xff});
    for (const KvCacheLayer& cache : caches_) {
      for (std::size_t i = 0; i < tables_[sequence].size(); ++i) {
        const std::byte* block = cache.data + static_cast<std::size_t>(tables_[sequence][i]) * block_bytes;
        const bool here = i * static_cast<std::size_t>(shape_.block_size) / attention_partition_keys % caches_.size() ==
                          static_cast<std::size_t>(cache.share.index);
        if ((std::memcmp(block, unwritten.data(), block_bytes) != 0) != here) return false;
      }
    }
    return true;
  }

  AttentionParams params() const {
    return {shape_.heads(), scale(), shape_.window, shape_.softcap, shape_.has_sinks ? sinks : nullptr};
  }
  static constexpr float sinks[] = {0.5F, -3.0F, 2.0F, 40.0F, -60.0F, 1.0F, 0.0F, 4.0F};

  float scale() const { return 1.0F / std::sqrt(static_cast<float>(shape_.head_dim)); }

  // Softmax attention of one row in double, from the values as stored; `bound` for the float32 result beside it.
  std::vector<double> naive(std::size_t sequence, int position, std::vector<double>* bound) const {
    const int d = shape_.head_dim;
    const double scales = shape_.dtype == KvDType::int8 ? 1 : 0;  // a product more, of a score and of a weight
    std::vector<double> out;
    const int first = shape_.window > 0 ? std::max(0, position + 1 - shape_.window) : 0;
    for (int head = 0; head < shape_.heads(); ++head) {
      std::vector<double> scores, values(static_cast<std::size_t>(d)), magnitude(static_cast<std::size_t>(d));
      double largest = -std::numeric_limits<double>::infinity(), score_error = 0;
      for (int key = first; key <= position; ++key) {
        double score = 0, absolute = 0;
        for (int i = 0; i < d; ++i) {
          const double product = at(q_[sequence], position, head, shape_.heads(), i) *
                                 at(kept_k_[sequence], key, head / shape_.group, shape_.kv_heads, i);
          score += product, absolute += std::abs(product);
        }
        scores.push_back(score * double{scale()});
        score_error = std::max(score_error, absolute * double{scale()} * (d + 2 + scales) * 0x1p-24);
        if (const double cap = shape_.softcap; cap > 0) {
          scores.back() = cap * std::tanh(scores.back() / cap);
          score_error += cap * 0x1p-22;
        }
        largest = std::max(largest, scores.back());
      }
      if (shape_.has_sinks) largest = std::max(largest, double{sinks[head]});
      double sum = shape_.has_sinks ? std::exp(double{sinks[head]} - largest) : 0;
      for (std::size_t n = 0; n < scores.size(); ++n) {
        const double weight = std::exp(scores[n] - largest);
        sum += weight;
        for (int i = 0; i < d; ++i) {
          const double value =
              at(kept_v_[sequence], first + static_cast<int>(n), head / shape_.group, shape_.kv_heads, i);
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
          2 * (2 * score_error + 88 * 0x1p-24 + 4 * 0x1p-24) + (2 * terms + 12 * partitions + scales) * 0x1p-24;
      for (int i = 0; i < d; ++i) {
        out.push_back(values[static_cast<std::size_t>(i)] / sum);
        bound->push_back(relative * magnitude[static_cast<std::size_t>(i)] / sum + 1e-30);
      }
    }
    return out;
  }

  float largest_value(std::size_t sequence) const { return largest_of(v_[sequence]); }
  // By how much rounding keys to codes moves a score: half a step of the largest under the magnitudes of q.
  double score_rounding(std::size_t sequence) const {
    double magnitude = 0;
    for (auto row = q_[sequence].begin(); row != q_[sequence].end(); row += shape_.head_dim) {
      const double sum = std::accumulate(row, row + shape_.head_dim, 0.0,
                                         [](double total, float x) { return total + std::abs(double{x}); });
      magnitude = std::max(magnitude, sum);
    }
    return double{scale()} * magnitude * double{largest_of(k_[sequence])} / 254;
  }

  int length(std::size_t sequence) const {
    return static_cast<int>(q_[sequence].size()) / (shape_.heads() * shape_.head_dim);
  }

 private:
  std::vector<AttentionSequence> sequences_of(const std::vector<Slice>& slices) const {
    std::vector<AttentionSequence> sequences;
    std::int64_t row = 0;
    for (const Slice& slice : slices) {
      sequences.push_back({row, slice.start, slice.count, tables_[slice.sequence]});
      row += slice.count;
    }
    return sequences;
  }
  void add_cache(std::size_t blocks, KvShare share) {
    KvCacheLayer cache = {{shape_.kv_heads, shape_.head_dim, shape_.block_size, shape_.dtype}, nullptr, share};
    auto& memory = memory_.emplace_back(blocks * cache.layout.block_bytes() / 64 + 2);
    // 0xffff.. is a NaN in float32 and in bfloat16, so a scale of codes that is none.
    std::memset(memory.data(), 0xff, memory.size() * 64);
    cache.data = reinterpret_cast<std::byte*>((reinterpret_cast<std::uintptr_t>(memory.data()) + 63) / 64 * 64);
    caches_.push_back(cache);
  }
  static bool next_of_all(std::list<SplitAttention>& parts) {
    const bool more = parts.front().next();
    for (auto part = std::next(parts.begin()); part != parts.end(); ++part) EXPECT_EQ(part->next(), more);
    return more;
  }
  // What the ranks of a group do by all_gather_v().
  static void exchange(std::list<SplitAttention>& parts) {
    for (SplitAttention& to : parts) {
      std::size_t offset = 0, share = 0;
      for (const SplitAttention& from : parts) {
        ASSERT_EQ(from.own().size_bytes(), to.bytes_of_shares()[share++]);
        ASSERT_LE(offset + from.own().size(), to.all().size());
        if (&from != &to) std::ranges::copy(from.own(), to.all().begin() + static_cast<std::ptrdiff_t>(offset));
        offset += from.own().size();
      }
      ASSERT_EQ(offset, to.all().size());
    }
  }
  std::vector<float> normal(int rows, int heads) {
    std::normal_distribution<float> distribution;
    std::vector<float> values(static_cast<std::size_t>(rows * heads * shape_.head_dim));
    for (float& value : values) value = distribution(random_);
    return values;
  }
  static float largest_of(std::span<const float> values) {
    float largest = 0;
    for (const float value : values) largest = std::max(largest, std::abs(value));
    return largest;
  }
  void append(const std::vector<float>& all, const Slice& slice, int heads, std::vector<float>* out) const {
    const std::ptrdiff_t width = heads * shape_.head_dim;
    out->insert(out->end(), all.begin() + slice.start * width, all.begin() + (slice.start + slice.count) * width);
  }
  double at(const auto& all, int row, int head, int heads, int i) const {
    return double{all[static_cast<std::size_t>((row * heads + head) * shape_.head_dim + i)]};
  }
  // What rows of heads stand for once they are stored: exact, for a code and a scale have 31 bits together.
  std::vector<double> kept(const std::vector<float>& rows) const {
    std::vector<double> stored;
    for (auto row = rows.begin(); row != rows.end(); row += shape_.head_dim) {
      const float largest = largest_of({row, row + shape_.head_dim});
      std::transform(row, row + shape_.head_dim, std::back_inserter(stored), [&](float value) {
        if (shape_.dtype == KvDType::float32) return double{value};
        if (shape_.dtype == KvDType::bfloat16) return double{to_float(to_bfloat16(value))};
        return double{std::nearbyint(value * (127 / largest))} * double{largest / 127};
      });
    }
    return stored;
  }

  struct Line {
    std::byte bytes[64];
  };
  Shape shape_;
  std::mt19937 random_;
  std::list<std::vector<Line>> memory_;
  std::vector<KvCacheLayer> caches_;
  std::vector<std::vector<std::int32_t>> tables_;
  std::vector<std::vector<float>> q_, k_, v_;
  std::vector<std::vector<double>> kept_k_, kept_v_;
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
  static const std::vector<Shape> all = {{1, 1, 8, 16, 0, KvDType::float32},
                                         {2, 2, 16, 16, 0, KvDType::bfloat16},
                                         {1, 4, 24, 32, 0, KvDType::float32},
                                         {2, 7, 64, 16, 0, KvDType::bfloat16},
                                         {2, 7, 32, 16, 40, KvDType::float32},
                                         {1, 2, 80, 48, 300, KvDType::bfloat16},
                                         {1, 1, 128, 16, 0, KvDType::bfloat16},
                                         {3, 3, 96, 16, 17, KvDType::bfloat16},
                                         {1, 5, 12, 16, 1, KvDType::float32},
                                         {4, 1, 64, 16, 0, KvDType::float32},
                                         {1, 14, 64, 32, 256, KvDType::bfloat16},
                                         {2, 2, 16, 16, 0, KvDType::float32, 2.0F},
                                         {2, 4, 32, 16, 40, KvDType::bfloat16, 0, true},
                                         {1, 8, 24, 16, 0, KvDType::float32, 3.0F, true},
                                         {2, 7, 64, 16, 0, KvDType::int8},
                                         {1, 2, 80, 48, 300, KvDType::int8},
                                         {1, 5, 12, 16, 1, KvDType::int8},
                                         {3, 1, 20, 32, 40, KvDType::int8, 2.0F, true}};
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

// Goal: the promise under context parallelism: no bit depends on how many share the keys, nor on how the work is cut in
// chunks of states. Method: a share's memory is NaN where another's keys are, so that looking there shows.
TEST(Attention, SharesOfTheKeysGiveTheBitsOfOne) {
  for (Isa isa : available_isas()) {
    for (Shape shape : shapes()) {
      SCOPED_TRACE(testing::Message() << name_of(isa) << " group " << shape.group << " head_dim " << shape.head_dim);
      if (attention_partition_keys % shape.block_size != 0) shape.block_size = 64;
      const std::vector<int> lengths = {600, 21, 300};
      const std::vector<Fixture::Slice> prefill = {{0, 0, 550}, {1, 0, 20}, {2, 0, 299}};
      const std::vector<Fixture::Slice> mixed = {{1, 20, 1}, {0, 550, 50}, {2, 299, 1}};
      Fixture whole(shape, lengths, 4);
      const std::vector<float> expected_prefill = whole.step(prefill, 1, isa), expected = whole.step(mixed, 2, isa);
      for (const int shares : {2, 3, 4}) {
        Fixture shared(shape, lengths, 4, shares);
        // So small in turn that a tile takes several chunks, and the last tile of a chunk is often not complete.
        shared.chunk_floats_max = shares == 2 ? attention_chunk_floats_max : 300 * shape.head_dim / shares;
        ASSERT_EQ(shared.step(prefill, 1 + shares % 2, isa), expected_prefill) << shares << " shares";
        ASSERT_EQ(shared.chunks > 2, shares > 2);
        ASSERT_EQ(shared.step(mixed, 1 + shares % 3, isa), expected) << shares << " shares";
        for (std::size_t sequence = 0; sequence < lengths.size(); ++sequence) {
          ASSERT_TRUE(shared.each_key_lies_in_its_share(sequence)) << shares << " shares";
        }
      }
    }
  }
}

// Goal: the same for a long context, where shares have several partitions each: decode, a chunk of prefill, a window.
TEST(Attention, SharesOfALongContextGiveTheBitsOfOne) {
  for (Isa isa : available_isas()) {
    for (const int window : {0, 700}) {
      for (const KvDType dtype : {KvDType::float32, KvDType::bfloat16, KvDType::int8}) {
        const Shape shape = {2, 3, 16, 32, window, dtype};
        Fixture whole(shape, {4200}, 5);
        whole.write({{0, 0, 4100}}, isa);
        const std::vector<float> chunk = whole.step({{0, 4100, 99}}, 1, isa),
                                 decode = whole.step({{0, 4199, 1}}, 1, isa);
        for (const int shares : {2, 3, 4}) {
          Fixture shared(shape, {4200}, 5, shares);
          shared.write({{0, 0, 4100}}, isa);
          ASSERT_EQ(shared.step({{0, 4100, 99}}, 2, isa), chunk) << name_of(isa) << " " << shares << " shares";
          for (const std::int64_t floats : {std::int64_t{1}, std::int64_t{500}, attention_chunk_floats_max}) {
            shared.chunk_floats_max = floats;
            ASSERT_EQ(shared.step({{0, 4199, 1}}, shares % 2 + 1, isa), decode) << name_of(isa) << " " << shares;
          }
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
    const KvCacheLayer cache = {{1, 16, 16, KvDType::float32}, reinterpret_cast<std::byte*>(data)};
    const std::vector<std::int32_t> table = {0};
    const AttentionSequence sequence = {0, 4, 1, table};
    std::vector<float> q(32, 1.0F), out(32);
    q[20] = std::numeric_limits<float>::quiet_NaN();
    attention(pool, scratch, isa, cache, {&sequence, 1}, {2, 1.0F, 0}, q.data(), 32, out.data(), 32);
    EXPECT_FLOAT_EQ(out[3], 0.5F);
    EXPECT_TRUE(std::isnan(out[16 + 3])) << name_of(isa);
  }
}

// Rows of 5 elements in a block of codes of two heads, the second of which is looked at: slot by slot.
class Codes {
 public:
  explicit Codes(const std::vector<std::vector<float>>& rows) {
    std::vector<float> keys, values;
    for (const std::vector<float>& row : rows) {
      keys.insert(keys.end(), {1, 2, 3, 4, 5});
      keys.insert(keys.end(), row.begin(), row.end());
      values.insert(values.end(), {5, 4, 3, 2, 1});
      values.insert(values.end(), row.rbegin(), row.rend());
    }
    ThreadPool pool(2);
    const std::vector<std::int32_t> table = {0};
    const AttentionSequence sequence = {0, 0, static_cast<std::int32_t>(rows.size()), table};
    kv_write(pool, Isa::scalar, cache_, {&sequence, 1}, keys.data(), 10, values.data(), 10);
  }
  std::vector<int> keys(int slot) const {
    std::vector<int> codes;
    for (int d = 0; d < 5; ++d) codes.push_back(head_[d * 16 + slot]);
    return codes;
  }
  std::vector<int> values(int slot) const {
    const std::int8_t* first = head_ + cache_.layout.head_bytes() + 5 * std::ptrdiff_t{slot};
    return {first, first + 5};
  }
  float key_scale(int slot) const { return reinterpret_cast<const float*>(head_ + 80)[slot]; }
  float value_scale(int slot) const {
    return reinterpret_cast<const float*>(head_ + cache_.layout.head_bytes() + 80)[slot];
  }

 private:
  alignas(64) std::byte memory_[1024] = {};
  KvCacheLayer cache_ = {{2, 5, 16, KvDType::int8}, memory_};
  const std::int8_t* head_ = reinterpret_cast<const std::int8_t*>(memory_) + 2 * cache_.layout.head_bytes();
};

TEST(KvWrite, RoundsARowToCodesByItsLargest) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  const Codes codes({{0.5F, 1.5F, 2.5F, -1.5F, -127},
                     {0, 0, 0, 0, 0},
                     {0.1F, -0.2F, 0.3F, 0.05F, 0.001F},
                     {1e-31F, 0, -1e-31F, 0, 0},
                     {1, nan, 2, 3, 4},
                     {1, 2, -infinity, 3, 4}});
  const std::vector<int> even = {0, 2, 2, -2, -127}, zeros(5, 0);
  EXPECT_EQ(codes.keys(0), even) << "ties to even";
  EXPECT_EQ(codes.values(0), std::vector<int>(even.rbegin(), even.rend()));
  EXPECT_EQ(codes.key_scale(0), 1);
  EXPECT_EQ(codes.value_scale(0), 1);
  EXPECT_EQ(codes.keys(2), (std::vector<int>{42, -85, 127, 21, 0}));
  EXPECT_EQ(codes.key_scale(2), 0.3F / 127);
  for (const int slot : {1, 3}) {
    EXPECT_EQ(codes.keys(slot), zeros);
    EXPECT_EQ(codes.values(slot), zeros);
    EXPECT_EQ(codes.key_scale(slot), 0);
    EXPECT_EQ(codes.value_scale(slot), 0);
  }
  for (const int slot : {4, 5}) {
    EXPECT_TRUE(std::isnan(codes.key_scale(slot)));
    EXPECT_TRUE(std::isnan(codes.value_scale(slot)));
  }
}

// Goal: 8 bits cost no more than their rounding. Method: scores are within e of a float cache's, half a step of a key
// under the magnitudes of q, so weights within a factor e^2e; values within half a step of theirs.
TEST(Attention, OfCodesIsWithinTheirRoundingOfThatOfFloats) {
  for (Isa isa : available_isas()) {
    for (Shape shape : shapes()) {
      if (shape.dtype != KvDType::int8 || shape.has_sinks) continue;
      Fixture codes(shape, {300}, 6);
      shape.dtype = KvDType::float32;
      Fixture floats(shape, {300}, 6);
      const std::vector<float> rounded = codes.step({{0, 0, 300}}, 2, isa), exact = floats.step({{0, 0, 300}}, 2, isa);
      EXPECT_NE(rounded, exact);
      const double error = codes.score_rounding(0), largest = codes.largest_value(0);
      const double bound = std::expm1(2 * error) * largest + largest / 254 + 1e-5;
      for (std::size_t i = 0; i < exact.size(); ++i) {
        ASSERT_NEAR(double{rounded[i]}, double{exact[i]}, bound) << name_of(isa) << " element " << i;
      }
    }
  }
}

TEST(Attention, NanInCodesReachesTheOutputOfThoseWhoSeeIt) {
  for (Isa isa : available_isas()) {
    for (const bool in_keys : {true, false}) {
      alignas(64) std::byte memory[2048] = {};
      const KvCacheLayer cache = {{1, 16, 16, KvDType::int8}, memory};
      const std::vector<std::int32_t> table = {0};
      const AttentionSequence sequence = {0, 0, 3, table};
      std::vector<float> plain(48, 0.5F), spoilt = plain, out(48);
      spoilt[16 + 7] = std::numeric_limits<float>::quiet_NaN();
      ThreadPool pool(1);
      Scratch scratch;
      kv_write(pool, isa, cache, {&sequence, 1}, (in_keys ? spoilt : plain).data(), 16,
               (in_keys ? plain : spoilt).data(), 16);
      attention(pool, scratch, isa, cache, {&sequence, 1}, {1, 1.0F, 0}, plain.data(), 16, out.data(), 16);
      EXPECT_FLOAT_EQ(out[7], 0.5F);
      for (const int row : {1, 2}) EXPECT_TRUE(std::isnan(out[static_cast<std::size_t>(16 * row + 7)])) << name_of(isa);
    }
  }
}

TEST(KvLayout, CountsAScaleForEachRowOfCodes) {
  EXPECT_EQ((KvLayout{2, 64, 16, KvDType::bfloat16}.block_bytes()), 2U * 2 * 16 * 64 * 2);
  EXPECT_EQ((KvLayout{2, 64, 16, KvDType::int8}.block_bytes()), 2U * 2 * 16 * (64 + 4));
  EXPECT_EQ((KvLayout{1, 5, 16, KvDType::int8}.block_bytes()), 320U) << "288, to whole cache lines";
}

}  // namespace
}  // namespace chorus
