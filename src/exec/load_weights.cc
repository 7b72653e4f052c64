#include "exec/load_weights.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "config/eplb_config.h"
#include "exec/model_runner.h"
#include "weights/tied_head.h"

namespace chorus {
namespace {

constexpr std::size_t shard_alignment = 64;  // of packed matrices; a shard's length is a multiple of it

// A tensor that nobody reads may mean that config.json does not tell all of the model: biases, say, that it has.
void warn_of_unread_tensors(const Checkpoint& checkpoint, const std::vector<DeclaredModel>& shards,
                            const ModelConfig& model) {
  constexpr std::size_t named_max = 5;
  std::set<std::string> read;
  for (const DeclaredModel& shard : shards) {
    for (const NamedParameter& parameter : shard.parameters.named_parameters()) read.insert(parameter.name);
  }
  std::vector<std::string> unread = checkpoint.names();
  std::erase_if(unread, [&](const std::string& name) {
    // Old checkpoints keep the rotary table, and tied ones the head beside the embedding.
    const bool is_known = name.ends_with("rotary_emb.inv_freq") ||
                          (model.tie_word_embeddings && (name == head_name || name == embedding_name));
    const bool is_mask = name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias");  // GPT-2's
    // A model that was saved without its head has names without their first part.
    const bool is_short = read.contains("model." + name) || read.contains("transformer." + name);
    return is_known || is_mask || is_short || read.contains(name);
  });
  if (unread.empty()) return;
  const std::size_t count = unread.size();
  unread.resize(std::min(count, named_max));
  log(LogLevel::warning, "{}: {} tensors of the checkpoint are not read by {}: {}{}", model.directory, count,
      model.architecture, fmt::join(unread, ", "), count > named_max ? ", .." : "");
}

// How many matrices, and the bytes that they are packed in.
struct PackedCount {
  int matrices = 0;
  std::size_t bytes = 0;
};

// What became of the matrices that the checkpoint has quantised, on this node.
void tell_of_quantized(const std::vector<DeclaredModel>& shards, const std::vector<std::uint64_t>& offsets,
                       const ModelConfig& model, DType dtype) {
  const LinearFormats formats(Quantization::automatic, model);
  std::map<std::string, PackedCount> counts;
  for (std::size_t shard = 0; shard < shards.size(); ++shard) {
    if (offsets[shard] == offsets[shard + 1]) continue;
    for (const ParameterSpec& spec : shards[shard].parameters.specs()) {
      if (!formats.is_quantized(spec.sources)) continue;
      PackedCount& count =
          counts[spec.format.in_groups() ? name_of(spec.format) : fmt::format("de-quantised into {}", name_of(dtype))];
      ++count.matrices;
      count.bytes += spec.bytes;
    }
  }
  std::vector<std::string> parts;
  for (const auto& [what, count] : counts) {
    parts.push_back(fmt::format("{} {} ({:.1f} MiB)", count.matrices, what, static_cast<double>(count.bytes) / 0x1p20));
  }
  if (parts.empty()) return;
  log(LogLevel::info, "{}: matrices quantised by {} are packed as: {}{}", model.directory,
      name_of(model.quantization.method), fmt::join(parts, ", "),
      model.quantization.rounds_activations ? "; activations are not rounded as its own kernels would" : "");
}

// Of a load that a person waits for: from time to time how far it is. What was loaded the caller says.
class LoadingLog {
 public:
  // `bytes`: packed, of `shards` shards.
  LoadingLog(const std::string& model, std::size_t bytes, std::size_t shards, std::size_t files)
      : model_(model), bytes_(bytes), shards_(shards), files_(files), next_line_(monotonic_now() + first_line_after) {}
  void at(std::size_t bytes) {
    const Nanoseconds now = monotonic_now();
    if (now < next_line_) return;
    next_line_ = now + line_interval;
    log(LogLevel::info, "Loading {}: {:.1f} of {:.1f} MiB ({} %), {} of weights from {}", model_,
        static_cast<double>(bytes) / 0x1p20, static_cast<double>(bytes_) / 0x1p20, bytes * 100 / bytes_,
        plural(shards_, "shard"), plural(files_, "file"));
  }

 private:
  static constexpr Nanoseconds first_line_after = 1'000'000'000, line_interval = 3'000'000'000;
  static std::string plural(std::size_t count, const char* what) {
    return fmt::format("{} {}{}", count, what, count == 1 ? "" : "s");
  }

  const std::string& model_;
  std::size_t bytes_, shards_, files_;
  Nanoseconds next_line_;
};

}  // namespace

std::string numerics_profile(Isa isa, DType dtype, Quantization quantization, KvDType kv_dtype) {
  std::string profile = fmt::format("{}/{}", name_of(isa), name_of(dtype));
  if (quantization != Quantization::none) {
    profile += fmt::format("/{}", quantization == Quantization::automatic ? "stored" : name_of(quantization));
  }
  if (kv_dtype != kv_dtype_of(dtype)) profile += fmt::format("/kv-{}", name_of(kv_dtype));
  return profile;
}

std::string numerics_profile(Isa isa, DType dtype) {
  return numerics_profile(isa, dtype, Quantization::none, kv_dtype_of(dtype));
}

std::string numerics_profile(Isa isa, const EngineConfig& config, const ModelConfig& model) {
  const DType dtype = compute_dtype(config, model);
  return numerics_profile(isa, dtype, compute_quantization(config, model), compute_kv_dtype(config, dtype));
}

Result<std::unique_ptr<Checkpoint>> open_weights_of(const EngineConfig& config, const ModelConfig& model, DType dtype) {
  if (config.load_format == LoadFormat::dummy) return make_dummy_checkpoint(config.seed, dtype);
  return open_checkpoint(config.model, model.tie_word_embeddings, model.quantization);
}

std::vector<int> local_weight_shards(const ParallelConfig& parallel) {
  const auto topology = Topology::create(parallel, parallel.world_size());
  CHECK(topology.ok(), "{}", topology.error().message);
  std::set<int> shards;
  for (int replica = 0; replica < parallel.local_replicas(); ++replica) {
    const int first =
        (parallel.data_parallel_start_rank + replica) * parallel.replica_size() + parallel.first_local_worker();
    for (int worker = 0; worker < parallel.workers_per_node(); ++worker) {
      shards.insert(weight_shard_of(parallel, topology->coordinates_of(first + worker)));
    }
  }
  return {shards.begin(), shards.end()};
}

Result<LoadedWeights> load_weights(const EngineConfig& config, const ModelConfig& model, const std::vector<int>& shards,
                                   int threads, const std::function<bool()>& interrupted) {
  CHORUS_TRY(const Isa isa, choose_isa(config.device, config.cpu_isa));
  const DType dtype = compute_dtype(config, model);
  CHORUS_TRY(const EplbConfig balancing, parse_eplb_config(config.parallel.expert_balancing_config));
  if (config.parallel.enable_expert_balancing) {
    CHORUS_TRY_VOID(check_expert_balancing(model.num_experts, config.parallel.expert_parallel_size(),
                                           balancing.num_redundant_experts));
  }
  std::vector<DeclaredModel> declared;
  std::vector<std::uint64_t> offsets = {0};
  for (int shard = 0; shard < weight_shards(config.parallel); ++shard) {
    CHORUS_TRY(DeclaredModel part, declare_shard(config, model, isa, shard));
    const bool wanted = std::ranges::find(shards, shard) != shards.end();
    const std::size_t bytes = part.parameters.arena_bytes();
    CHECK(bytes % shard_alignment == 0, "a shard of {} bytes", bytes);
    offsets.push_back(offsets.back() + (wanted ? bytes : 0));
    declared.push_back(std::move(part));
  }
  CHORUS_TRY(const auto checkpoint, open_weights_of(config, model, dtype));
  if (!config.parallel.enable_expert_balancing) warn_of_unread_tensors(*checkpoint, declared, model);
  LoadedWeights weights;
  weights.isa = isa;
  weights.dtype = dtype;
  weights.quantization = compute_quantization(config, model);
  weights.digest = checkpoint->digest();
  if (offsets.back() > 0) {
    CHORUS_TRY(weights.arena, WeightArena::create(offsets.back()));
  }
  LoadingLog loading(model.directory, offsets.back(), shards.size(), checkpoint->files());
  ThreadPool pool(std::max(1, threads));
  for (std::size_t shard = 0; shard < declared.size(); ++shard) {
    if (offsets[shard] == offsets[shard + 1]) continue;
    const auto goes_on = [&](std::size_t packed) {
      loading.at(offsets[shard] + packed);
      return !interrupted || !interrupted();
    };
    CHORUS_TRY_VOID(
        declared[shard].parameters.pack(*checkpoint, pool, weights.arena.writable_data() + offsets[shard], goes_on));
  }
  tell_of_quantized(declared, offsets, model, dtype);
  if (offsets.back() > 0) CHORUS_TRY_VOID(weights.arena.seal());
  weights.shard_offsets = std::move(offsets);
  return weights;
}

}  // namespace chorus
