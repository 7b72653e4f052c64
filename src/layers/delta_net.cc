#include "layers/delta_net.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "kernels/ops.h"

namespace chorus {
namespace {

float sigmoid(float x) {
  return 1.0F / (1.0F + std::exp(-x));
}

float softplus(float x) {
  return x > 20.0F ? x : std::log1p(std::exp(x));
}

// x / |x|, times `scale`.
void normalize(const float* x, std::int64_t width, float scale, float* out) {
  float squares = 0;
  for (std::int64_t i = 0; i < width; ++i) squares += x[i] * x[i];
  const float factor = scale / std::sqrt(squares + 1e-6F);
  for (std::int64_t i = 0; i < width; ++i) out[i] = x[i] * factor;
}

}  // namespace

// Key head j of the checkpoint has the rows q, k, then the values and their gates z of its value heads.
struct DeltaNet::Slices {
  int first_key = 0, first_value = 0;  // heads of this rank
  int group = 0;                       // value heads of a key head
};

// The projections of a step's rows. Channels of a row: q of the rank's key heads, k, v of its value heads.
struct DeltaNet::Rows {
  View qkvz, ba;
  View mixed;   // [rows, channels]: as projected
  View turned;  // [rows, channels]: behind the convolution
  View out;     // [rows, value heads * value_dim]
};

DeltaNet::DeltaNet(Parameters& parameters, TensorParallel tp, const std::string& prefix, const Shape& shape)
    : shape_(shape),
      keys_(std::max(1, shape.key_heads / tp.size)),
      values_(shape.value_heads / tp.size),
      output_(parameters, tp, {prefix + ".out_proj", shape.hidden_size},
              std::int64_t{shape.value_heads} * shape.value_dim, shape.value_heads) {
  Slices slices;
  slices.group = shape.value_heads / shape.key_heads;
  slices.first_value = tp.rank * values_;
  slices.first_key = slices.first_value / slices.group;
  declare_inputs(parameters, prefix, slices);
  declare_convolution(parameters, prefix, slices);
  const std::int64_t first = slices.first_value, count = values_, all = shape.value_heads;
  a_log_ = parameters.add_vector(count, {{prefix + ".A_log", {all}, first, count, 0}});
  dt_bias_ = parameters.add_vector(count, {{prefix + ".dt_bias", {all}, first, count, 0}});
  norm_ = parameters.add_vector(shape.value_dim, {{prefix + ".norm.weight", {shape.value_dim}, 0, shape.value_dim, 0}});
}

void DeltaNet::declare_inputs(Parameters& parameters, const std::string& prefix, const Slices& slices) {
  const std::int64_t key = shape_.key_dim, value = shape_.value_dim, group = slices.group;
  const std::int64_t of_key = 2 * key + 2 * group * value, hidden = shape_.hidden_size;
  const std::int64_t own = values_ / keys_;  // value heads of a key head that are this rank's
  const std::int64_t skipped = slices.first_value % group;
  std::vector<ParameterSource> qkvz, ba;
  const auto take = [&](std::vector<ParameterSource>* to, const char* name, std::int64_t rows, std::int64_t first,
                        std::int64_t count) {
    to->push_back({prefix + name, {rows, hidden}, first, count, 0});
  };
  for (std::int64_t j = slices.first_key; j < slices.first_key + keys_; ++j) {
    const std::int64_t base = j * of_key, rows = shape_.key_heads * of_key;
    take(&qkvz, ".in_proj_qkvz.weight", rows, base, 2 * key);
    take(&qkvz, ".in_proj_qkvz.weight", rows, base + 2 * key + skipped * value, own * value);
    take(&qkvz, ".in_proj_qkvz.weight", rows, base + 2 * key + (group + skipped) * value, own * value);
    for (const std::int64_t part : {0, 1}) {
      take(&ba, ".in_proj_ba.weight", std::int64_t{2} * shape_.value_heads, (2 * j + part) * group + skipped, own);
    }
  }
  qkvz_ = parameters.add_linear({keys_ * (2 * key + 2 * own * value), hidden, 1}, std::move(qkvz));
  ba_ = parameters.add_linear({std::int64_t{2} * values_, hidden, 1}, std::move(ba));
}

void DeltaNet::declare_convolution(Parameters& parameters, const std::string& prefix, const Slices& slices) {
  const std::int64_t key = shape_.key_dim, value = shape_.value_dim, kernel = shape_.kernel;
  const std::int64_t all_keys = shape_.key_heads * key, rows = 2 * all_keys + shape_.value_heads * value;
  // A vector: its elements are the rows of [channels, 1, kernel] taken as [channels * kernel].
  const auto part = [&](std::int64_t first, std::int64_t count) {
    return ParameterSource{prefix + ".conv1d.weight", {rows, 1, kernel}, first * kernel, count * kernel, 0, {}, true};
  };
  convolution_ =
      parameters.add_vector(channels() * kernel, {part(slices.first_key * key, keys_ * key),
                                                  part(all_keys + slices.first_key * key, keys_ * key),
                                                  part(2 * all_keys + slices.first_value * value, values_ * value)});
}

float* DeltaNet::state_in(const KvCacheLayer& cache, const AttentionSequence& sequence, std::int32_t position) const {
  const std::int32_t block = sequence.block_table[static_cast<std::size_t>(position / cache.layout.block_size)];
  return reinterpret_cast<float*>(cache.data + static_cast<std::size_t>(block) * kv().block_bytes(0, KvDType::float32));
}

// One channel: out = silu(sum of w[j] x[position - kernel + 1 + j]). The state has the last kernel - 1 inputs.
void DeltaNet::convolve(const Parameters& parameters, const Rows& rows, const KvCacheLayer& cache,
                        const AttentionSequence& sequence, std::int64_t channel) const {
  const int kernel = shape_.kernel, past = kernel - 1;
  const float* weight = parameters.vector(convolution_) + channel * kernel;
  float window[16] = {};
  if (sequence.start > 0) std::copy_n(state_in(cache, sequence, sequence.start - 1) + channel * past, past, window);
  for (std::int32_t i = 0; i < sequence.count; ++i) {
    const std::int64_t row = sequence.row + i;
    window[past] = rows.mixed.floats()[row * rows.mixed.stride + channel];
    float sum = 0;
    for (int j = 0; j < kernel; ++j) sum += weight[j] * window[j];
    rows.turned.floats()[row * rows.turned.stride + channel] = sum * sigmoid(sum);
    std::copy(window + 1, window + kernel, window);
    const std::int32_t position = sequence.start + i;
    if (i + 1 == sequence.count || (position + 1) % cache.layout.block_size == 0) {
      std::copy_n(window, past, state_in(cache, sequence, position) + channel * past);
    }
  }
}

// One value head over the rows of a sequence: S = e^g S; S += k (beta (v - k S)); out = q S, normed and gated by z.
void DeltaNet::run_head(const Parameters& parameters, const Rows& rows, const KvCacheLayer& cache,
                        const AttentionSequence& sequence, int head) const {
  const std::int64_t key = shape_.key_dim, value = shape_.value_dim, keys = keys_;
  const std::int64_t group = values_ / keys_, key_head = head / group;
  const std::int64_t offset = convolution_floats() + head * key * value;
  constexpr int dim_max = 512;
  float q[dim_max], k[dim_max], delta[dim_max];
  const float a_log = parameters.vector(a_log_)[head], bias = parameters.vector(dt_bias_)[head];
  const float decay = shape_.has_final_decays ? a_log : -std::exp(a_log);
  const float* before = sequence.start > 0 ? state_in(cache, sequence, sequence.start - 1) + offset : nullptr;
  for (std::int32_t i = 0; i < sequence.count; ++i) {
    const std::int64_t row = sequence.row + i;
    float* state = state_in(cache, sequence, sequence.start + i) + offset;
    if (before == nullptr) std::fill_n(state, key * value, 0.0F);
    if (before != nullptr && before != state) std::copy_n(before, key * value, state);
    before = state;
    const float* turned = rows.turned.floats() + row * rows.turned.stride;
    normalize(turned + key_head * key, key, 1.0F / std::sqrt(static_cast<float>(key)), q);
    normalize(turned + (keys + key_head) * key, key, 1.0F, k);
    const float* v = turned + 2 * keys * key + head * value;
    const float* ba = rows.ba.floats() + row * rows.ba.stride + 2 * key_head * group + head % group;
    const float beta = sigmoid(ba[0]), forget = std::exp(decay * softplus(ba[group] + bias));
    std::fill_n(delta, value, 0.0F);
    for (std::int64_t d = 0; d < key; ++d) {
      for (std::int64_t e = 0; e < value; ++e) {
        state[d * value + e] *= forget;
        delta[e] += k[d] * state[d * value + e];
      }
    }
    for (std::int64_t e = 0; e < value; ++e) delta[e] = (v[e] - delta[e]) * beta;
    float* out = rows.out.floats() + row * rows.out.stride + head * value;
    std::fill_n(out, value, 0.0F);
    for (std::int64_t d = 0; d < key; ++d) {
      for (std::int64_t e = 0; e < value; ++e) {
        state[d * value + e] += k[d] * delta[e];
        out[e] += q[d] * state[d * value + e];
      }
    }
    finish_row(parameters, rows, row, head, out);
  }
}

// RMS norm of the head's row, times silu of its gate.
void DeltaNet::finish_row(const Parameters& parameters, const Rows& rows, std::int64_t row, int head,
                          float* out) const {
  const std::int64_t key = shape_.key_dim, value = shape_.value_dim, group = values_ / keys_;
  const std::int64_t of_key = 2 * key + 2 * group * value;
  const float* z =
      rows.qkvz.floats() + row * rows.qkvz.stride + head / group * of_key + 2 * key + (group + head % group) * value;
  const float* weight = parameters.vector(norm_);
  float squares = 0;
  for (std::int64_t e = 0; e < value; ++e) squares += out[e] * out[e];
  const float factor = 1.0F / std::sqrt(squares / static_cast<float>(value) + static_cast<float>(shape_.norm_eps));
  for (std::int64_t e = 0; e < value; ++e) out[e] = out[e] * factor * weight[e] * (z[e] * sigmoid(z[e]));
}

// q, k and v of the key heads side by side.
void DeltaNet::gather_channels(const Rows& rows) const {
  const std::int64_t key = shape_.key_dim, keys = keys_, values = values_ / keys * shape_.value_dim;
  for (std::int64_t row = 0; row < rows.mixed.rows; ++row) {
    const float* from = rows.qkvz.floats() + row * rows.qkvz.stride;
    float* to = rows.mixed.floats() + row * rows.mixed.stride;
    for (std::int64_t j = 0; j < keys; ++j, from += 2 * key + 2 * values) {
      std::copy_n(from, key, to + j * key);
      std::copy_n(from + key, key, to + (keys + j) * key);
      std::copy_n(from + 2 * key, values, to + 2 * keys * key + j * values);
    }
  }
}

Result<void> DeltaNet::add_to(const LayerContext& context, const Parameters& parameters, std::span<const RotaryTable>,
                              const KvCacheLayer& cache, const StepInput& step, const ProductInput& x,
                              const View& residual) const {
  CHECK(cache.share.count == 1, "a state is whole on each worker");
  CpuDevice& cpu = context.cpu();
  const Scratch::Scope scope(cpu.scratch());
  const std::int64_t m = x.rows.rows;
  const Rows rows{take_product(cpu, parameters.linear(qkvz_), m), take_product(cpu, parameters.linear(ba_), m),
                  cpu.take(DType::float32, m, channels()), cpu.take(DType::float32, m, channels()),
                  cpu.take(DType::float32, m, std::int64_t{values_} * shape_.value_dim)};
  linear(cpu, parameters.linear(qkvz_), x, rows.qkvz);
  linear(cpu, parameters.linear(ba_), x, rows.ba);
  gather_channels(rows);
  for (const AttentionSequence& sequence : step.sequences) {
    cpu.pool().for_range(channels(), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t channel = begin; channel < end; ++channel) convolve(parameters, rows, cache, sequence, channel);
    });
    cpu.pool().for_range(values_, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t head = begin; head < end; ++head)
        run_head(parameters, rows, cache, sequence, static_cast<int>(head));
    });
  }
  return output_.add_to(context, parameters, {rows.out}, residual);
}

}  // namespace chorus
