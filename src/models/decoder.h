// A decoder-only transformer: embedding, blocks, norm, output matrix. A family's file builds it out of layers
// (models/family.h); what differs between families is which layers stand in a block, and how.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "config/model_config.h"
#include "layers/attention.h"
#include "layers/delta_net.h"
#include "layers/embedding.h"
#include "layers/latent_attention.h"
#include "layers/mlp.h"
#include "layers/moe.h"
#include "layers/norm.h"
#include "layers/rotary_table.h"
#include "layers/shared_expert.h"

namespace chorus {

using Mixer = std::variant<Attention, LatentAttention, DeltaNet>;
using FeedForward = std::variant<GatedMlp, PlainMlp, MoeLayer, SharedMoe>;

// Two halves one after the other, each added to the residual: residual += after(half(before(residual))).
struct SequentialBlock {
  std::optional<Norm> before_attention = {};
  Mixer attention;
  std::optional<Norm> after_attention = {};
  std::optional<Norm> before_mlp = {};
  FeedForward mlp;
  std::optional<Norm> after_mlp = {};
  float residual_multiplier = 1.0F;  // of what a half adds
};
// Two halves side by side: residual += attention(norm(residual)) + mlp(norm(residual)).
struct ParallelBlock {
  Norm norm;
  Mixer attention;
  FeedForward mlp;
};
using Block = std::variant<SequentialBlock, ParallelBlock>;

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

// Where a decoder is declared.
struct ModelPart {
  Parameters& parameters;
  const ModelShard& shard;
  const ModelConfig& config;
};

// Of families whose norms' weights are kept less 1: read_norm_weight_offset() of config/model_fields.h.
NormKind norm_about_one(const ModelConfig& config);

// What stands around the blocks: names without .weight and .bias.
struct DecoderEnds {
  std::string embedding = "model.embed_tokens", layers = "model.layers", norm = "model.norm", head = "lm_head";
  NormKind norm_kind = NormKind::rms;
  std::string positions = {};  // of a PositionEmbedding; empty: none
  double embedding_multiplier = 1.0, logits_multiplier = 1.0;
  double logits_cap = 0;  // 0: none
};

// Declares the layers of one block, PREFIX being "model.layers.3.". What is declared first comes first in the arena, so
// the members of a block are written in their order.
class LayerBuilder {
 public:
  LayerBuilder(const ModelPart& part, std::string prefix, int index)
      : config(part.config), part_(part), prefix_(std::move(prefix)), index_(index) {}

  const ModelConfig& config;

  int index() const { return index_; }
  Norm norm(const std::string& name, NormKind kind = NormKind::rms) const;
  // As the configuration has them: sizes, biases, scale, and of this layer window and rotary embedding.
  Attention::Shape attention_shape() const;
  Attention attention(const Attention::Shape& shape, const std::string& name = "self_attn") const;
  Attention attention() const { return attention(attention_shape()); }
  DeltaNet delta_net(DeltaNet::Shape shape) const;
  LatentAttention latent_attention(const LatentAttention::Shape& shape) const;
  // Of mlp.gate_proj, mlp.up_proj and mlp.down_proj, or other names.
  GatedMlp gated_mlp(Activation activation = Activation::silu,
                     const GatedMlp::Names& names = {"mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}) const;
  PlainMlp plain_mlp(const std::string& up, const std::string& down, bool transposed = false) const;
  bool is_moe() const;
  // Sizes and numbers of the configuration.
  MoeLayer::Shape moe_shape(const MoeRouter& router) const;
  MoeLayer moe(const MoeLayer::Shape& shape, const std::string& name = "mlp",
               const GatedMlp::Names& names = {"gate_proj", "up_proj", "down_proj"}) const;
  SharedMoe shared_moe(const MoeLayer::Shape& shape, const SharedMoe::Shared& shared) const;
  // A dense layer, experts, or experts beside shared ones, by read_deepseek_experts().
  FeedForward deepseek_mlp(MoeRouting routing) const;

 private:
  ModelPart part_;
  std::string prefix_;
  int index_;
};

// Softmax over all experts, the weights of the chosen divided by their sum as norm_topk_prob says.
MoeRouting softmax_routing(const ModelConfig& config);

// Llama's block: norms before the halves, attention, a gated feed-forward layer.
SequentialBlock llama_block(const LayerBuilder& layer, const Attention::Shape& shape);
// The same with any feed-forward layer, declared by mlp().
template <typename Mlp>
SequentialBlock pre_norm_block(const LayerBuilder& layer, const Attention::Shape& shape, const Mlp& mlp,
                               NormKind kind = NormKind::rms) {
  return {.before_attention = layer.norm("input_layernorm", kind),
          .attention = layer.attention(shape),
          .before_mlp = layer.norm("post_attention_layernorm", kind),
          .mlp = mlp()};
}

class Decoder {
 public:
  Decoder(const ModelPart& part, const DecoderEnds& ends, const std::function<Block(const LayerBuilder&)>& make_block);

  const std::vector<KvCacheSpec>& kv() const { return kv_; }       // of this rank, by layer of this stage
  int layers() const { return static_cast<int>(blocks_.size()); }  // of this stage
  std::string needs_cpu() const;                                   // what of it no GPU computes; empty: it does
  // hidden: [rows, hidden_size]: what the stage before left (the first stage ignores it) becomes what this stage
  // leaves, before the final norm. `caches`: one per layer of this stage. Writes K and V of these rows. With expert
  // parallelism a rank without rows calls it with an empty batch: it then takes part in the collectives of the experts
  // alone.
  Result<void> forward(const LayerContext& context, const Parameters& parameters,
                       std::span<const RotaryTable> rotary_tables, std::span<const KvCacheLayer> caches,
                       const StepInput& step, const View& hidden) const;
  // On the last stage: logits of the hidden rows step.wanted[first, first + count), of this tensor-parallel rank's
  // logits_share(count): [its count, vocab_size], in memory of the scratch's scope around the call.
  Result<View> logits(const LayerContext& context, const Parameters& parameters, const View& hidden,
                      const StepInput& step, std::int64_t first, std::int64_t count) const;

 private:
  int hidden_size_;
  float embedding_multiplier_, logits_multiplier_, logits_cap_;
  std::optional<ParallelLmHead> head_;
  std::optional<VocabParallelEmbedding> embedding_;
  std::optional<PositionEmbedding> positions_;
  std::vector<Block> blocks_;
  std::vector<KvCacheSpec> kv_;
  std::optional<Norm> norm_;
};

}  // namespace chorus
