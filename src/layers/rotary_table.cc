#include "layers/rotary_table.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace chorus {
namespace {

struct Frequencies {
  std::vector<double> inverse;  // radians a position, rotary_dim / 2
  double attention_factor = 1.0;
};

void scale_llama3(const RopeConfig& rope, std::vector<double>& inverse) {
  const double low_wavelength = rope.original_max_position_embeddings / rope.low_freq_factor;
  const double high_wavelength = rope.original_max_position_embeddings / rope.high_freq_factor;
  for (double& frequency : inverse) {
    const double wavelength = 2 * std::numbers::pi / frequency;
    if (wavelength > low_wavelength) {
      frequency /= rope.factor;
    } else if (wavelength >= high_wavelength) {
      const double smooth = (rope.original_max_position_embeddings / wavelength - rope.low_freq_factor) /
                            (rope.high_freq_factor - rope.low_freq_factor);
      frequency = (1 - smooth) * frequency / rope.factor + smooth * frequency;
    }
  }
}

double yarn_correction_dim(double rotations, int rotary_dim, const RopeConfig& rope, int original) {
  return rotary_dim * std::log(original / (rotations * 2 * std::numbers::pi)) / (2 * std::log(rope.theta));
}

void scale_yarn(const RopeConfig& rope, int rotary_dim, int max_position_embeddings, Frequencies& frequencies) {
  const int original =
      rope.original_max_position_embeddings > 0 ? rope.original_max_position_embeddings : max_position_embeddings;
  double low = yarn_correction_dim(rope.beta_fast, rotary_dim, rope, original);
  double high = yarn_correction_dim(rope.beta_slow, rotary_dim, rope, original);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, rotary_dim - 1.0);
  if (low == high) high += 0.001;
  for (std::size_t i = 0; i < frequencies.inverse.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    frequencies.inverse[i] = frequencies.inverse[i] / rope.factor * ramp + frequencies.inverse[i] * (1 - ramp);
  }
  frequencies.attention_factor =
      rope.attention_factor.value_or(rope.factor <= 1 ? 1.0 : 0.1 * std::log(rope.factor) + 1.0);
}

// The model's own length decides between the long and the short factors, never the configured one or the request's:
// otherwise the same request would turn with --max-model-len, and cached keys of two lengths could not be shared
// (docs/decisions/004).
void scale_longrope(const RopeConfig& rope, int max_position_embeddings, Frequencies& frequencies) {
  const int original =
      rope.original_max_position_embeddings > 0 ? rope.original_max_position_embeddings : max_position_embeddings;
  const bool is_long = max_position_embeddings > original;
  const std::vector<double>& divisors = is_long ? rope.long_factor : rope.short_factor;
  for (std::size_t i = 0; i < frequencies.inverse.size() && i < divisors.size(); ++i)
    frequencies.inverse[i] /= divisors[i];
  const double mscale = is_long ? rope.long_mscale : rope.short_mscale;
  const double factor = static_cast<double>(max_position_embeddings) / original;
  const double derived = factor <= 1 ? 1.0 : std::sqrt(1 + std::log(factor) / std::log(static_cast<double>(original)));
  frequencies.attention_factor = mscale > 0 ? mscale : rope.attention_factor.value_or(derived);
}

Frequencies frequencies_of(const RopeConfig& rope, int rotary_dim, int max_position_embeddings) {
  Frequencies frequencies;
  for (int i = 0; i < rotary_dim / 2; ++i)
    frequencies.inverse.push_back(1.0 / std::pow(rope.theta, 2.0 * i / rotary_dim));
  switch (rope.type) {
    case RopeType::standard:
      break;
    case RopeType::linear:
      for (double& frequency : frequencies.inverse) frequency /= rope.factor;
      break;
    case RopeType::llama3:
      scale_llama3(rope, frequencies.inverse);
      break;
    case RopeType::yarn:
      scale_yarn(rope, rotary_dim, max_position_embeddings, frequencies);
      break;
    case RopeType::longrope:
      scale_longrope(rope, max_position_embeddings, frequencies);
      break;
  }
  return frequencies;
}

}  // namespace

RotaryTable::RotaryTable(const RopeConfig& rope, int rotary_dim, int max_position_embeddings, int positions)
    : rotary_dim_(rotary_dim), positions_(positions) {
  const Frequencies frequencies = frequencies_of(rope, rotary_dim, max_position_embeddings);
  // The reference implementation rounds frequency and angle to float32; at position 30,000 that is a visible turn, and
  // the models were trained with it.
  const auto angle = [](int position, double frequency) {
    return static_cast<double>(static_cast<float>(position) * static_cast<float>(frequency));
  };
  values_.resize(static_cast<std::size_t>(positions) * static_cast<std::size_t>(rotary_dim));
  float* out = values_.data();
  for (int position = 0; position < positions; ++position) {
    for (const double frequency : frequencies.inverse) {
      *out++ = static_cast<float>(std::cos(angle(position, frequency)) * frequencies.attention_factor);
    }
    for (const double frequency : frequencies.inverse) {
      *out++ = static_cast<float>(std::sin(angle(position, frequency)) * frequencies.attention_factor);
    }
  }
}

std::vector<RotaryTable> make_rotary_tables(const ModelConfig& model, int positions) {
  std::vector<RotaryTable> tables;
  tables.emplace_back(model.rope, model.rotary_dim(), model.max_position_embeddings, positions);
  if (model.window_rope) {
    tables.emplace_back(*model.window_rope, model.rotary_dim(), model.max_position_embeddings, positions);
  }
  return tables;
}

Result<void> RotaryTable::move_to(Device& device) {
  if (device.kind() == DeviceKind::cpu) return {};
  const std::size_t bytes = values_.size() * sizeof(float);
  if (bytes == 0) return {};
  CHORUS_TRY(std::byte * memory, device.allocate(bytes));
  device.copy_in(memory, reinterpret_cast<const std::byte*>(values_.data()), bytes);
  on_device_ = reinterpret_cast<const float*>(memory);
  return device.finish();
}

}  // namespace chorus
