#include "exec/model_runner.h"

#include <algorithm>
#include <atomic>

#include "base/check.h"
#include "exec/plan_codec.h"
#include "models/registry.h"

namespace chorus {
namespace {

// Logits are computed for at most so many rows at a time: 64 rows of a vocabulary of 152,000 are 39 MB. A GPU reads the
// head again for each chunk, and has more memory.
constexpr std::int64_t logits_rows_max(Isa isa) {
  return isa == Isa::cuda_sm90 ? 256 : 64;
}

Decoder make_decoder(Parameters& parameters, const ModelShard& shard, const ModelConfig& model) {
  const auto family = find_family(model);
  CHECK(family.ok(), "the architecture was checked before");
  return (*family)->make({parameters, shard, model});
}

// A config.json is input: sizes that are each allowed may together be more than any machine has, or than 64 bits hold.
Result<void> check_size(const ModelConfig& model) {
  constexpr double parameters_max = 4e12;
  constexpr double matrices_max = 1e6;
  const double layers = model.num_hidden_layers, hidden = model.hidden_size;
  const double experts = std::max(1, model.num_experts);
  const double width = std::max(model.intermediate_size, model.moe_intermediate_size);
  const double heads = model.num_attention_heads + 2.0 * model.num_key_value_heads;
  const double parameters =
      layers * hidden * (3 * experts * width + 2 * heads * model.head_dim) + 2.0 * model.vocab_size * hidden;
  if (parameters > parameters_max || layers * experts > matrices_max) {
    return fail(
        ErrorCode::invalid_argument,
        "{}/config.json describes {:.3g} parameters in {:.3g} experts or layers; at most {:.3g} in {:.3g} are taken",
        model.directory, parameters, layers * experts, parameters_max, matrices_max);
  }
  return {};
}

// What a GPU's kernels take.
Result<void> check_gpu(const ModelConfig& model, const Decoder& decoder) {
  constexpr int unit = 8, head_dim_max = 128, group_max = 16;
  if (const std::string need = decoder.needs_cpu(); !need.empty()) {
    return fail(ErrorCode::invalid_argument, "{}: {} are not computed on GPUs; use --device cpu", model.directory,
                need);
  }
  if (model.hidden_size % unit != 0 || model.head_dim % unit != 0 || model.head_dim > head_dim_max ||
      model.num_attention_heads / model.num_key_value_heads > group_max) {
    return fail(
        ErrorCode::invalid_argument,
        "{}: hidden size {}, {} query heads a KV head of dimension {}; on GPUs multiples of {}, at most {} heads "
        "of at most {} are computed; use --device cpu",
        model.directory, model.hidden_size, model.num_attention_heads / model.num_key_value_heads, model.head_dim, unit,
        group_max, head_dim_max);
  }
  return {};
}

// An upper bound of a step's intermediate results on a GPU, so that none is allocated later.
std::size_t scratch_bytes(const ModelConfig& model, Isa isa, std::int64_t rows) {
  const std::int64_t heads = model.num_attention_heads + 2 * std::int64_t{model.num_key_value_heads};
  const std::int64_t row = 16 * std::int64_t{model.hidden_size} + 8 * heads * model.head_dim +
                           4 * (std::int64_t{model.intermediate_size} + 64);
  const std::int64_t logits =
      logits_rows_max(isa) * (4 * std::int64_t{model.vocab_size} + 8 * std::int64_t{model.hidden_size} + 64);
  return static_cast<std::size_t>(rows * row + logits) + (std::size_t{64} << 20);
}

std::optional<ExpertSlots> make_slots(Isa isa, DType dtype, const std::optional<EplbConfig>& balancing,
                                      const LinearFormats& formats) {
  std::optional<ExpertSlots> slots;
  if (balancing) slots.emplace(isa, dtype, balancing->num_redundant_experts, formats);
  return slots;
}

void copy_top(const std::vector<SampledLogprob>& from, std::vector<TokenLogprob>* to) {
  to->clear();
  for (const SampledLogprob& entry : from) to->push_back({entry.token, entry.logprob});
}

}  // namespace

Result<DeclaredModel> declare_model(const ModelConfig& model, Isa isa, DType dtype, const ModelShard& shard,
                                    Quantization quantization) {
  CHORUS_TRY(const Family* family, find_family(model));
  CHORUS_TRY_VOID(check_size(model));
  Parameters parameters(isa, dtype, LinearFormats(quantization, model));
  Decoder decoder = family->make({parameters, shard, model});
  if (isa == Isa::cuda_sm90) CHORUS_TRY_VOID(check_gpu(model, decoder));
  return DeclaredModel{std::move(parameters), std::move(decoder)};
}

Result<DeclaredModel> declare_shard(const EngineConfig& config, const ModelConfig& model, Isa isa, int shard) {
  CHORUS_TRY(std::optional<EplbConfig> balancing, parse_eplb_config(config.parallel.expert_balancing_config));
  if (!config.parallel.enable_expert_balancing) balancing.reset();
  const DType dtype = compute_dtype(config, model);
  const Quantization quantization = compute_quantization(config, model);
  auto slots = make_slots(isa, dtype, balancing, LinearFormats(quantization, model));
  return declare_model(model, isa, dtype, model_shard(model, config.parallel, shard, slots ? &*slots : nullptr),
                       quantization);
}

ModelRunner::ModelRunner(const ModelConfig& model, const Options& options, const ParallelConfig& parallel, int shard,
                         WorkerGroups groups)
    : model_(model),
      options_(options),
      groups_(std::move(groups)),
      pool_(options.threads, options.cpus),
      parameters_(options.isa, options.dtype, LinearFormats(options.quantization, model)),
      slots_(make_slots(options.isa, options.dtype, options.balancing, LinearFormats(options.quantization, model))),
      decoder_(make_decoder(parameters_, model_shard(model, parallel, shard, slots_ ? &*slots_ : nullptr), model)),
      rotary_tables_(make_rotary_tables(model, options.max_model_len)),
      kv_window_(chorus::kv_window(model, parallel)),
      window_sequences_(static_cast<std::size_t>(kv_window_.tables)),
      other_tables_(window_sequences_.size()) {
  for (int i = 0; i < pool_.size(); ++i) samplers_.emplace_back(host_isa(options.isa), model.vocab_size);
  tops_.resize(static_cast<std::size_t>(pool_.size()));
}

Result<void> ModelRunner::open_device(std::span<const std::byte> arena) {
  CHORUS_TRY(device_, make_device(options_.isa, pool_, options_.gpu));
  if (device_->kind() == DeviceKind::cuda)
    device_->scratch().reserve(scratch_bytes(model_, options_.isa, options_.rows_max));
  CHORUS_TRY_VOID(parameters_.bind(arena.data(), arena.size()));
  CHORUS_TRY_VOID(parameters_.move_to(*device_));
  for (RotaryTable& table : rotary_tables_) CHORUS_TRY_VOID(table.move_to(*device_));
  return {};
}

Result<std::unique_ptr<ModelRunner>> ModelRunner::create(const ModelConfig& model, const Options& options,
                                                         const ParallelConfig& parallel, int shard,
                                                         std::span<const std::byte> arena, const Checkpoint* checkpoint,
                                                         WorkerGroups groups) {
  CHORUS_TRY([[maybe_unused]] const Family* family, find_family(model));
  std::unique_ptr<ModelRunner> runner(new ModelRunner(model, options, parallel, shard, std::move(groups)));
  CHORUS_TRY_VOID(runner->open_device(arena));
  if (runner->slots_) {
    CHORUS_TRY_VOID(runner->slots_->load(*checkpoint, runner->pool_));
    runner->balancer_.emplace(*options.balancing, ExpertBalancer::Site{}, *runner->slots_);
  }
  CHORUS_TRY_VOID(runner->allocate_kv());
  return runner;
}

// Stages differ in layers, so in how many blocks their memory holds; a block is one on all of them.
Result<std::int32_t> ModelRunner::agree_on_blocks(std::uint64_t own) {
  const std::uint64_t blocks_max = kv_blocks_max / static_cast<std::uint64_t>(groups_.cp_size);
  auto blocks = static_cast<std::int32_t>(std::min(own, blocks_max));
  std::vector<std::int32_t> all(static_cast<std::size_t>(groups_.replica.size()));
  CHORUS_TRY_VOID(
      groups_.replica.all_gather_bytes(std::as_bytes(std::span(&blocks, 1)), std::as_writable_bytes(std::span(all))));
  return std::ranges::min(all);
}

Result<void> ModelRunner::allocate_kv() {
  const KvPlaces places(decoder_.kv(), kv_window_, options_.block_size, options_.kv_dtype);
  const std::size_t block_bytes = places.block_bytes();
  CHORUS_TRY(kv_blocks_, agree_on_blocks(options_.kv_cache_bytes / block_bytes));
  if (kv_blocks_ < 1) {
    return fail(ErrorCode::invalid_argument,
                "--kv-cache-memory of {} bytes holds no block: one of {} tokens takes {} bytes in this model; give at "
                "least that",
                options_.kv_cache_bytes, options_.block_size, block_bytes);
  }
  const auto memory = device_->allocate(static_cast<std::size_t>(kv_blocks_) * block_bytes);
  if (!memory.ok()) {
    return fail(memory.error().code, "no memory for a KV cache of {}: lower --kv-cache-memory", memory.error().message);
  }
  std::vector<std::byte*> slots = {*memory};
  for (int slot = 0; slot < places.slots(); ++slot)
    slots.push_back(slots.back() + places.slot_bytes(slot) * static_cast<std::size_t>(kv_blocks_));
  for (const KvCacheSpec& spec : decoder_.kv()) {
    const KvPlace& place = places.of(caches_.size());
    caches_.push_back({spec.layout(options_.block_size, options_.kv_dtype),
                       slots[static_cast<std::size_t>(place.slot)],
                       {groups_.at.cp, groups_.cp_size},
                       place.table});
  }
  return {};
}

// With context parallelism block b of a plan is block b / cp_size of the worker with cp = b % cp_size (ExecutorInfo).
// Entries of other workers' blocks stand for nothing here.
void ModelRunner::lay_out_block_tables(const StepPlan& plan) {
  block_tables_.clear();
  for (const SequencePlan& sequence : plan.sequences) {
    for (const std::int32_t block : sequence.block_table) block_tables_.push_back(block / groups_.cp_size);
  }
  std::span<const std::int32_t> rest = block_tables_;
  for (AttentionSequence& sequence : sequences_) {
    const std::size_t blocks = sequence.block_table.size();
    sequence.block_table = rest.first(blocks);
    rest = rest.subspan(blocks);
  }
}

void ModelRunner::lay_out(const StepPlan& plan) {
  tokens_.clear();
  positions_.clear();
  sequences_.clear();
  wanted_.clear();
  for (std::size_t i = 0; i < plan.sequences.size(); ++i) {
    const SequencePlan& sequence = plan.sequences[i];
    const auto first_row = static_cast<std::int32_t>(tokens_.size());
    sequences_.push_back({first_row, sequence.start, sequence.count, sequence.block_table});
    std::int32_t slot = 0;
    for (std::int32_t r = 0; r < sequence.count; ++r) {
      const std::int32_t position = sequence.start + r;
      tokens_.push_back(sequence.history[static_cast<std::size_t>(position)]);
      positions_.push_back(position);
      if (sequence.prompt_logprobs && position + 1 < sequence.prompt_length) {
        wanted_.push_back({first_row + r, static_cast<std::int32_t>(i),
                           sequence.history[static_cast<std::size_t>(position) + 1], slot++});
      }
    }
    if (sequence.sample) wanted_.push_back({first_row + sequence.count - 1, static_cast<std::int32_t>(i), -1, 0});
  }
  if (groups_.cp_size > 1) lay_out_block_tables(plan);
  wanted_rows_.clear();
  for (const WantedRow& wanted : wanted_) wanted_rows_.push_back(wanted.row);
  lay_out_window_tables(plan);
  step_ = {tokens_, positions_, sequences_, wanted_rows_, {}, other_tables_};
}

// The same rows, through the further tables.
void ModelRunner::lay_out_window_tables(const StepPlan& plan) {
  for (std::size_t table = 0; table < window_sequences_.size(); ++table) {
    std::vector<AttentionSequence>& sequences = window_sequences_[table];
    sequences.assign(sequences_.begin(), sequences_.end());
    for (std::size_t i = 0; i < sequences.size(); ++i)
      sequences[i].block_table = plan.sequences[i].window_tables[table];
    other_tables_[table] = {tokens_, positions_, sequences, wanted_rows_};
  }
}

Result<void> ModelRunner::execute(const StepPlan& plan, StepResult* result) {
  lay_out(plan);
  result->sequences.resize(plan.sequences.size());
  for (SequenceResult& one : result->sequences) {
    one.token = -1;
    one.not_a_number = false;
    one.logprobs.top.clear();
    one.prompt_logprobs.clear();
  }
  if (tokens_.empty() && groups_.ep.size() == 1) return {};

  const Scratch::Scope scope(device_->scratch());
  upload(*device_, &step_, options_.block_size);
  const View hidden = device_->take(DType::float32, step_.rows(), model_.hidden_size);
  CHORUS_TRY_VOID(pass_through_layers(hidden));
  if (balancer_) CHORUS_TRY_VOID(balancer_->finish_step(groups_.ep, options_.progress));
  // Context ranks hold the same hidden rows: one of them is enough for what follows.
  if (groups_.last_stage() && groups_.at.cp == 0) CHORUS_TRY_VOID(sample_rows(plan, hidden, result));
  return device_->finish();
}

// What the stage before left comes in, what this stage leaves goes out: to the worker of the same tp and cp.
Result<void> ModelRunner::pass_through_layers(const View& hidden) {
  Group* ep = groups_.ep.size() > 1 ? &groups_.ep : nullptr;
  Group* cp = groups_.cp_size > 1 ? &groups_.cp : nullptr;
  const LayerContext context{*device_, groups_.tp, ep, slots_ ? &*slots_ : nullptr, cp, options_.progress};
  const std::span<float> rows(hidden.floats(), tokens_.size() * static_cast<std::size_t>(model_.hidden_size));
  if (!groups_.first_stage()) CHORUS_TRY_VOID(groups_.pp.receive(std::as_writable_bytes(rows), groups_.at.pp - 1));
  CHORUS_TRY_VOID(decoder_.forward(context, parameters_, rotary_tables_, caches_, step_, hidden));
  if (groups_.last_stage()) return {};
  return groups_.pp.send(std::as_bytes(rows), groups_.at.pp + 1);
}

Result<void> ModelRunner::sample_rows(const StepPlan& plan, const View& hidden, StepResult* result) {
  for (const WantedRow& wanted : wanted_) {
    auto& scored = result->sequences[static_cast<std::size_t>(wanted.sequence)].prompt_logprobs;
    if (wanted.target >= 0) scored.resize(static_cast<std::size_t>(wanted.slot) + 1);
  }
  const LayerContext context{*device_, groups_.tp};
  const auto total = static_cast<std::int64_t>(wanted_.size());
  const std::int64_t chunk = logits_rows_max(options_.isa);
  for (std::int64_t first = 0; first < total; first += chunk) {
    const Scratch::Scope scope(device_->scratch());
    const std::int64_t count = std::min(chunk, total - first);
    // Of this rank's share of the rows.
    CHORUS_TRY(const View logits, decoder_.logits(context, parameters_, hidden, step_, first, count));
    if (want_greedy_alone(plan, first, count)) {
      take_greedy(logits, first, result);
    } else {
      const auto size = static_cast<std::size_t>(logits.rows * logits.stride);
      const auto* values = reinterpret_cast<const float*>(device_->read(logits.data, size * sizeof(float)));
      sample_chunk(plan, {values, size}, first, count, result);
    }
    options_.progress.moved();
  }
  return gather_samples(result);
}

bool ModelRunner::want_greedy_alone(const StepPlan& plan, std::int64_t first, std::int64_t count) const {
  if (device_->kind() == DeviceKind::cpu) return false;  // the sampler is as good
  return std::ranges::all_of(
      std::span(wanted_).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count)),
      [&](const WantedRow& wanted) {
        const SequencePlan& sequence = plan.sequences[static_cast<std::size_t>(wanted.sequence)];
        const SamplingParams& params = *sequence.params;
        return wanted.target < 0 && params.temperature == 0 && !params.logprobs && params.presence_penalty == 0 &&
               params.frequency_penalty == 0 && params.repetition_penalty == 1 && params.logit_bias.empty() &&
               sequence.banned.empty();
      });
}

void ModelRunner::take_greedy(const View& logits, std::int64_t first, StepResult* result) {
  const std::int32_t* chosen = argmax(*device_, logits);
  for (std::int64_t i = 0; i < logits.rows; ++i) {
    const WantedRow& wanted = wanted_[static_cast<std::size_t>(first + i)];
    SequenceResult& one = result->sequences[static_cast<std::size_t>(wanted.sequence)];
    one.token = chosen[i];
    one.not_a_number = chosen[i] < 0;
  }
}

void ModelRunner::sample_chunk(const StepPlan& plan, std::span<const float> logits, std::int64_t first,
                               std::int64_t count, StepResult* result) {
  const RowShare share = logits_share(count, groups_.at.tp, groups_.tp_size);
  const auto vocab = static_cast<std::size_t>(model_.vocab_size);
  // A GPU's rows are filled up.
  const std::size_t stride = share.count == 0 ? vocab : logits.size() / static_cast<std::size_t>(share.count);
  std::atomic<std::int64_t> next{0};
  pool_.run([&](int thread, int) {
    for (std::int64_t i = next.fetch_add(1); i < share.count; i = next.fetch_add(1)) {
      const WantedRow& wanted = wanted_[static_cast<std::size_t>(first + share.first + i)];
      const std::span<const float> row = logits.subspan(static_cast<std::size_t>(i) * stride, vocab);
      const SequencePlan& sequence = plan.sequences[static_cast<std::size_t>(wanted.sequence)];
      SequenceResult& one = result->sequences[static_cast<std::size_t>(wanted.sequence)];
      if (wanted.target < 0) {
        sample_one(thread, sequence, row, &one);
        continue;
      }
      PositionLogprobs& scored = one.prompt_logprobs[static_cast<std::size_t>(wanted.slot)];
      auto& top = tops_[static_cast<std::size_t>(thread)];
      const std::uint32_t k = sequence.params->prompt_logprobs.value_or(0);
      scored.chosen = {wanted.target,
                       samplers_[static_cast<std::size_t>(thread)].logprobs(row, wanted.target, k, &top)};
      copy_top(top, &scored.top);
    }
  });
}

// The rows whose logits rank `rank` of the tensor-parallel group got, in order.
template <typename Visit>
void ModelRunner::for_rows_of(int rank, const Visit& visit) const {
  const auto total = static_cast<std::int64_t>(wanted_.size());
  const std::int64_t chunk = logits_rows_max(options_.isa);
  for (std::int64_t first = 0; first < total; first += chunk) {
    const RowShare share = logits_share(std::min(chunk, total - first), rank, groups_.tp_size);
    for (std::int64_t i = 0; i < share.count; ++i) visit(wanted_[static_cast<std::size_t>(first + share.first + i)]);
  }
}

// The result of a row moves between the step's result and a result of that row alone.
void ModelRunner::swap_sample(const WantedRow& wanted, StepResult* step, SequenceResult* row) {
  SequenceResult& sequence = step->sequences[static_cast<std::size_t>(wanted.sequence)];
  if (wanted.target < 0) {
    std::swap(row->token, sequence.token);
    std::swap(row->not_a_number, sequence.not_a_number);
    std::swap(row->logprobs, sequence.logprobs);
  } else {
    row->prompt_logprobs.resize(1);
    std::swap(row->prompt_logprobs.front(), sequence.prompt_logprobs[static_cast<std::size_t>(wanted.slot)]);
  }
}

// The tensor-parallel ranks give what they sampled to the first. Both sides know which rows are whose.
Result<void> ModelRunner::gather_samples(StepResult* result) {
  const int own = groups_.at.tp;
  for (int rank = std::max(own, 1); rank < (own == 0 ? groups_.tp_size : own + 1); ++rank) {
    std::size_t rows = 0;
    for_rows_of(rank, [&](const WantedRow&) { ++rows; });
    if (rows == 0) continue;
    if (own == rank) {
      samples_.sequences.clear();
      for_rows_of(rank,
                  [&](const WantedRow& wanted) { swap_sample(wanted, result, &samples_.sequences.emplace_back()); });
      return groups_.tp.send_message(encode_result(samples_), 0);
    }
    CHORUS_TRY_VOID(groups_.tp.receive_message(&message_, rank, plan_bytes_max));
    CHORUS_TRY_VOID(decode_result(message_, &samples_));
    CHECK(samples_.sequences.size() == rows, "{} samples of {} rows", samples_.sequences.size(), rows);
    auto sample = samples_.sequences.begin();
    for_rows_of(rank, [&](const WantedRow& wanted) { swap_sample(wanted, result, &*sample++); });
  }
  return {};
}

void ModelRunner::sample_one(int thread, const SequencePlan& sequence, std::span<const float> logits,
                             SequenceResult* result) {
  const SamplingParams& params = *sequence.params;
  const auto prompt_length = static_cast<std::size_t>(sequence.prompt_length);
  SampleInput input;
  input.logits = logits;
  input.temperature = params.temperature;
  input.top_p = params.top_p;
  input.top_k = params.top_k;
  input.min_p = params.min_p;
  input.presence_penalty = params.presence_penalty;
  input.frequency_penalty = params.frequency_penalty;
  input.repetition_penalty = params.repetition_penalty;
  input.logit_bias = params.logit_bias;
  input.allowed = params.allowed_token_ids;
  input.bad_words = params.bad_words;
  input.prompt = sequence.history.first(prompt_length);
  input.output = sequence.history.subspan(prompt_length);
  input.banned = sequence.banned;
  input.seed = params.seed;
  input.choice = sequence.choice;
  Sampler& sampler = samplers_[static_cast<std::size_t>(thread)];
  const SampleOutput sampled = sampler.sample(input);
  result->token = sampled.token;
  result->not_a_number = sampled.not_a_number;
  if (sampled.not_a_number || !params.logprobs) return;
  auto& top = tops_[static_cast<std::size_t>(thread)];
  const float logprob = params.logprob_token_ids.empty()
                            ? sampler.logprobs(logits, sampled.token, *params.logprobs, &top)
                            : sampler.logprobs_of(logits, sampled.token, params.logprob_token_ids, &top);
  result->logprobs.chosen = {sampled.token, logprob};
  copy_top(top, &result->logprobs.top);
}

}  // namespace chorus
