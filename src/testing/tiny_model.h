// A model of a few layers with its weights loaded, and the same model called directly, which is what tests hold a
// runner or an engine against. The directory is given: where the test data lies is told to *_test.cc files alone.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/philox.h"
#include "exec/load_weights.h"
#include "exec/model_runner.h"
#include "models/registry.h"

namespace chorus {

struct TinyModel {
  EngineConfig engine;
  ModelConfig config;
  LoadedWeights weights;  // of all shards of engine.parallel
};

inline TinyModel load_tiny_model(const std::string& directory, const std::string& dtype = "float32",
                                 const ParallelConfig& parallel = {}, const std::string& isa = "auto",
                                 const std::string& device = "auto") {
  TinyModel model;
  model.engine.model = directory;
  model.engine.dtype = dtype;
  model.engine.cpu_isa = isa;
  model.engine.device = device;
  model.engine.parallel = parallel;
  model.config = read_model_config(directory, "auto").value();
  std::vector<int> shards(static_cast<std::size_t>(weight_shards(parallel)));
  std::iota(shards.begin(), shards.end(), 0);
  model.weights = load_weights(model.engine, model.config, shards, 1).value();
  return model;
}

// Logits of each position of `history`, a row of the vocabulary each: the decoder of a model that is not cut, called
// once for all of it, with a KV cache of a single block.
inline std::vector<std::vector<float>> naive_logits(const TinyModel& model, std::span<const TokenId> history) {
  const ModelConfig& config = model.config;
  DeclaredModel declared = declare_model(config, model.weights.isa, model.weights.dtype, whole_model(config)).value();
  CHECK(declared.parameters.bind(model.weights.shard(0), model.weights.shard_bytes(0)).ok());
  ThreadPool pool(1);
  CpuDevice device(pool, model.weights.isa);
  Group alone = Group::of_one();
  const LayerContext context{device, alone};
  const std::vector<RotaryTable> rotary = make_rotary_tables(config, config.max_position_embeddings);
  const auto tokens = static_cast<std::int32_t>(history.size());
  const KvLayout layout =
      declared.decoder.kv().front().layout((tokens + 15) / 16 * 16, kv_dtype_of(model.weights.dtype));
  struct alignas(64) Line {
    std::byte bytes[64];
  };
  const std::size_t lines = layout.block_bytes() / sizeof(Line) + 1;
  std::vector<Line> memory(lines * static_cast<std::size_t>(config.num_hidden_layers));
  std::vector<KvCacheLayer> caches;
  for (std::size_t layer = 0; layer < static_cast<std::size_t>(config.num_hidden_layers); ++layer)
    caches.push_back({layout, memory[layer * lines].bytes});
  std::vector<std::int32_t> positions(history.size());
  std::iota(positions.begin(), positions.end(), 0);
  const std::vector<std::int32_t> blocks = {0};
  const std::vector<AttentionSequence> sequences = {{0, 0, tokens, blocks}};
  std::vector<float> hidden(history.size() * static_cast<std::size_t>(config.hidden_size));
  const View rows = view_of(hidden.data(), tokens, config.hidden_size);
  const StepInput step{history, positions, sequences, positions};
  CHECK(declared.decoder.forward(context, declared.parameters, rotary, caches, step, rows).ok());
  const Scratch::Scope scope(device.scratch());
  const View logits = declared.decoder.logits(context, declared.parameters, rows, step, 0, tokens).value();
  std::vector<std::vector<float>> result;
  for (std::int64_t row = 0; row < tokens; ++row) {
    const float* first = logits.floats() + row * logits.stride;
    result.emplace_back(first, first + config.vocab_size);
  }
  return result;
}

inline TokenId argmax(const std::vector<float>& logits) {
  return static_cast<TokenId>(std::ranges::max_element(logits) - logits.begin());
}

// In double precision.
inline std::vector<double> naive_logprobs(const std::vector<float>& logits) {
  const double largest = std::ranges::max(logits);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - largest);
  std::vector<double> logprobs;
  for (const float logit : logits) logprobs.push_back(logit - largest - std::log(sum));
  return logprobs;
}

// The inverse CDF of the whole distribution at temperature 1, in ascending token id.
inline TokenId naive_draw(const std::vector<float>& logits, std::uint64_t seed, std::uint32_t choice,
                          std::uint64_t position) {
  double left = philox_uniform(seed, choice, position);
  const std::vector<double> logprobs = naive_logprobs(logits);
  for (std::size_t token = 0; token < logprobs.size(); ++token) {
    left -= std::exp(logprobs[token]);
    if (left < 0) return static_cast<TokenId>(token);
  }
  return static_cast<TokenId>(logits.size()) - 1;
}

}  // namespace chorus
