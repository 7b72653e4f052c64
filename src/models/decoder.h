// The decoder-only transformer that every family here is a variation of: embedding, layers of attention and a (mixture
// of) gated feed-forward, norm, output matrix. What differs between families is data: a DecoderSpec, made in the
// family's file.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "config/model_config.h"
#include "layers/attention.h"
#include "layers/embedding.h"
#include "layers/mlp.h"
#include "layers/moe.h"
#include "layers/norm.h"
#include "layers/rotary_table.h"

namespace chorus {

// A layer's norms, by the names behind its prefix; empty: there is none. One before a half of the layer is of its
// input, one after it of what it adds to the residual.
struct LayerNorms {
  std::string before_attention = "input_layernorm", after_attention;
  std::string before_mlp = "post_attention_layernorm", after_mlp;
};

// What a family says about itself beyond the sizes in ModelConfig.
struct DecoderSpec {
  LayerNorms norms;
  bool layer_norm = false;  // layer norm with bias instead of RMS norm
  HeadNorms head_norms;
  bool fused_qkv = false;                                                         // in the checkpoint: qkv_proj
  GatedMlp::Names mlp_names = {"mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"};  // of the dense layers
  // Mixture of experts.
  std::string moe_prefix = "mlp";  // PREFIX.gate, PREFIX.experts.E.NAME
  GatedMlp::Names expert_names = {"gate_proj", "up_proj", "down_proj"};
  MoeRouting routing = MoeRouting::softmax_top_k_normalized;
};

// The part of a model that one worker computes: layers [first_layer, last_layer) of one pipeline stage, cut over a
// tensor-parallel group.
struct ModelShard {
  TensorParallel tp;
  int first_layer = 0, last_layer = 0;
  bool first_stage = true, last_stage = true;  // the embedding, the output matrix
  ExpertParallel ep = {};
};
// All layers, cut over `tp`.
ModelShard whole_model(const ModelConfig& config, TensorParallel tp = {});

class Decoder {
 public:
  Decoder(Parameters& parameters, const ModelShard& shard, const ModelConfig& config, const DecoderSpec& spec);

  int kv_heads() const;                                            // of this rank
  int layers() const { return static_cast<int>(layers_.size()); }  // of this stage
  // hidden: [rows, hidden_size]: what the stage before left (the first stage ignores it) becomes what this stage
  // leaves, before the final norm. `caches`: one per layer of this stage. Writes K and V of these rows. With expert
  // parallelism a rank without rows calls it with an empty batch: it then takes part in the collectives of the experts
  // alone.
  Result<void> forward(const LayerContext& context, const Parameters& parameters, const RotaryTable& rotary_table,
                       std::span<const KvCacheLayer> caches, const StepInput& step, const View& hidden) const;
  // On the last stage: logits of the hidden rows step.wanted[first, first + count), of this tensor-parallel rank's
  // logits_share(count): [its count, vocab_size], in memory of the scratch's scope around the call.
  Result<View> logits(const LayerContext& context, const Parameters& parameters, const View& hidden,
                      const StepInput& step, std::int64_t first, std::int64_t count) const;

 private:
  struct Layer {
    std::optional<Norm> before_attention, after_attention;
    Attention attention;
    std::optional<Norm> before_mlp, after_mlp;
    std::variant<GatedMlp, MoeLayer> mlp;
  };
  Layer make_layer(Parameters& parameters, TensorParallel tp, const ExpertParallel& ep, const DecoderSpec& spec,
                   int index) const;
  Attention::Shape attention_shape(const DecoderSpec& spec, int index) const;
  // residual += residual_multiplier * after(add(before(residual))), where `add` adds to its second argument.
  template <typename Add>
  Result<void> add_half(const LayerContext& context, const Parameters& parameters, const std::optional<Norm>& before,
                        const std::optional<Norm>& after, const View& residual, Add&& add) const;

  ModelConfig config_;
  std::optional<ParallelLmHead> head_;
  std::optional<VocabParallelEmbedding> embedding_;
  std::vector<Layer> layers_;
  std::optional<Norm> norm_;
};

}  // namespace chorus
