#include "fleet/messages.h"

#include <concepts>
#include <type_traits>
#include <utility>

#include "net/wire.h"

namespace chorus {
namespace {

// One function lists the fields of a struct, in their order on the wire, for both directions: visit(archive, value). So
// an encoder and its decoder cannot come to differ. The archive is an Encoder (value is const) or a Decoder.
template <typename T, typename U>
concept IsA = std::same_as<std::remove_cvref_t<T>, U>;

class Encoder {
 public:
  static constexpr bool decodes = false;
  WireWriter wire;

  void field(bool value) { wire.boolean(value); }
  void field(std::int32_t value) { wire.i32(value); }
  void field(std::uint32_t value) { wire.u32(value); }
  void field(std::uint64_t value) { wire.u64(value); }
  void field(float value) { wire.f32(value); }
  void field(double value) { wire.f64(value); }
  void field(const std::string& value) { wire.text(value); }
  template <typename E>
  void enumerator(E value, E /*last*/, const char* /*what*/) {
    wire.u8(static_cast<std::uint8_t>(value));
  }
};

class Decoder {
 public:
  static constexpr bool decodes = true;
  explicit Decoder(std::string_view payload) : wire(payload) {}
  WireReader wire;

  void field(bool& value) { value = wire.boolean(); }
  void field(std::int32_t& value) { value = wire.i32(); }
  void field(std::uint32_t& value) { value = wire.u32(); }
  void field(std::uint64_t& value) { value = wire.u64(); }
  void field(float& value) { value = wire.f32(); }
  void field(double& value) { value = wire.f64(); }
  void field(std::string& value) { value = wire.text(); }
  template <typename E>
  void enumerator(E& value, E last, const char* what) {
    value = static_cast<E>(wire.u8_at_most(static_cast<std::uint8_t>(last), what));
  }
};

template <typename Archive, typename T>
requires requires(Archive& archive, T& value) {
  archive.field(value);
}
void visit(Archive& archive, T& value) {
  archive.field(value);
}

// Declared before the container templates below, which call them.
template <typename Archive>
void visit(Archive& archive, IsA<TokenLogprob> auto& value);
template <typename Archive>
void visit(Archive& archive, IsA<PositionLogprobs> auto& value);
template <typename Archive>
void visit(Archive& archive, IsA<ChoiceState> auto& value);
template <typename Archive>
void visit(Archive& archive, IsA<TokenEvent> auto& value);
template <typename Archive, typename First, typename Second>
void visit(Archive& archive, std::pair<First, Second>& value);
template <typename Archive, typename First, typename Second>
void visit(Archive& archive, const std::pair<First, Second>& value);

template <typename T>
void visit(Encoder& archive, const std::optional<T>& value) {
  archive.field(value.has_value());
  if (value.has_value()) visit(archive, *value);
}

template <typename T>
void visit(Decoder& archive, std::optional<T>& value) {
  value.reset();
  if (archive.wire.boolean()) visit(archive, value.emplace());
}

template <typename T>
void visit(Encoder& archive, const std::vector<T>& values) {
  archive.wire.count(values.size());
  for (const auto& value : values) visit(archive, value);
}

template <typename T>
void visit(Decoder& archive, std::vector<T>& values) {
  values.clear();
  // Grows element by element: the first malformed one ends it, so a count alone cannot make the list large.
  for (std::size_t left = archive.wire.count(1); left > 0 && !archive.wire.failed(); --left) {
    visit(archive, values.emplace_back());
  }
}

void visit(Encoder& archive, const std::vector<bool>& values) {
  archive.wire.count(values.size());
  for (const bool value : values) archive.wire.boolean(value);
}

void visit(Decoder& archive, std::vector<bool>& values) {
  values.clear();
  for (std::size_t left = archive.wire.count(1); left > 0 && !archive.wire.failed(); --left) {
    values.push_back(archive.wire.boolean());
  }
}

template <typename Archive, typename First, typename Second>
void visit(Archive& archive, std::pair<First, Second>& value) {
  visit(archive, value.first);
  visit(archive, value.second);
}

template <typename Archive, typename First, typename Second>
void visit(Archive& archive, const std::pair<First, Second>& value) {
  visit(archive, value.first);
  visit(archive, value.second);
}

template <typename Archive, typename... Fields>
void visit_all(Archive& archive, Fields&... fields) {
  (visit(archive, fields), ...);
}

template <typename Archive>
void visit(Archive& archive, IsA<TokenLogprob> auto& value) {
  visit_all(archive, value.token, value.logprob);
}

template <typename Archive>
void visit(Archive& archive, IsA<PositionLogprobs> auto& value) {
  visit_all(archive, value.chosen, value.top);
}

template <typename Archive>
void visit(Archive& archive, IsA<ChoiceState> auto& value) {
  visit_all(archive, value.index, value.emitted);
}

template <typename Archive>
void visit(Archive& archive, IsA<TokenEvent> auto& value) {
  visit_all(archive, value.request, value.choice, value.position, value.token, value.logprobs, value.prompt_logprobs);
  archive.enumerator(value.finish, FinishReason::error, "a finish reason");
  visit_all(archive, value.stop_token, value.error);
}

template <typename Archive>
void visit(Archive& archive, IsA<SamplingParams> auto& value) {
  visit_all(archive, value.n, value.temperature, value.top_p, value.top_k, value.min_p, value.presence_penalty,
            value.frequency_penalty, value.repetition_penalty, value.seed, value.max_tokens, value.min_tokens,
            value.ignore_eos, value.stop_token_ids, value.logprobs, value.prompt_logprobs, value.logit_bias);
}

template <typename Archive>
void visit(Archive& archive, IsA<Request> auto& value) {
  visit_all(archive, value.id, value.prompt, value.params, value.priority, value.choices, value.skip_prompt_logprobs);
}

template <typename Archive>
void visit(Archive& archive, IsA<ParallelConfig> auto& value) {
  visit_all(archive, value.data_parallel_size, value.tensor_parallel_size, value.pipeline_parallel_size,
            value.decode_context_parallel_size, value.enable_expert_parallel);
}

template <typename Archive>
void visit(Archive& archive, IsA<EngineConfig> auto& value) {
  visit_all(archive, value.model, value.dtype, value.device, value.cpu_isa, value.threads, value.cpu_threads_bind,
            value.max_model_len, value.block_size, value.kv_cache_bytes, value.max_num_seqs,
            value.max_num_batched_tokens, value.enable_prefix_caching);
  archive.enumerator(value.scheduling_policy, SchedulingPolicy::priority, "a scheduling policy");
  visit(archive, value.seed);
  archive.enumerator(value.load_format, LoadFormat::dummy, "a load format");
  visit_all(archive, value.generation_config, value.trust_remote_code, value.distributed_executor_backend,
            value.data_parallel_backend);
  archive.enumerator(value.load_balancer, LoadBalancerName::least_loaded, "a load balancer");
  archive.enumerator(value.assignment, AssignmentName::dynamic, "an assignment");
  visit_all(archive, value.parallel, value.engine_start_timeout_ms, value.engine_heartbeat_timeout_ms);
}

template <typename Archive>
void visit(Archive& archive, IsA<RopeConfig> auto& value) {
  archive.enumerator(value.type, RopeType::longrope, "a rope type");
  visit_all(archive, value.theta, value.factor, value.low_freq_factor, value.high_freq_factor,
            value.original_max_position_embeddings, value.beta_fast, value.beta_slow, value.attention_factor,
            value.truncate, value.short_factor, value.long_factor, value.short_mscale, value.long_mscale);
}

template <typename Archive>
void visit(Archive& archive, IsA<ModelConfig> auto& value) {
  visit_all(archive, value.directory, value.architecture, value.model_type, value.vocab_size, value.hidden_size,
            value.intermediate_size, value.num_hidden_layers, value.num_attention_heads, value.num_key_value_heads,
            value.head_dim, value.max_position_embeddings, value.rms_norm_eps, value.rope, value.tie_word_embeddings,
            value.attention_bias, value.mlp_bias, value.lm_head_bias, value.layer_window, value.num_experts,
            value.num_experts_per_tok, value.moe_intermediate_size, value.norm_topk_prob, value.router_jitter_noise,
            value.layer_is_moe);
  archive.enumerator(value.dtype, DType::float16, "a dtype");
  visit_all(archive, value.bos_token_ids, value.eos_token_ids, value.default_temperature, value.default_top_p,
            value.default_min_p, value.default_repetition_penalty, value.default_top_k);
}

template <typename Archive>
void visit(Archive& archive, IsA<EngineLoad> auto& value) {
  visit_all(archive, value.waiting, value.running, value.kv_blocks_free, value.kv_blocks_total, value.preemptions,
            value.prefix_cache_queries, value.prefix_cache_hits, value.steps, value.prompt_tokens, value.output_tokens);
}

template <typename Archive>
void visit(Archive& archive, IsA<HelloMessage> auto& value) {
  visit_all(archive, value.version, value.pid, value.best_isa);
}

template <typename Archive>
void visit(Archive& archive, IsA<EngineStart> auto& value) {
  visit_all(archive, value.config, value.model, value.dp_rank, value.epoch, value.kv_cache_bytes, value.threads,
            value.cpus);
  archive.enumerator(value.isa, Isa::amx_bf16, "an instruction set");
  archive.enumerator(value.dtype, DType::float16, "a dtype");
}

template <typename Archive>
void visit(Archive& archive, IsA<ReadyMessage> auto& value) {
  visit_all(archive, value.kv_blocks, value.profile);
}

template <typename Archive>
void visit(Archive& archive, IsA<AbortMessage> auto& value) {
  visit_all(archive, value.request, value.choice);
}

template <typename Archive>
void visit(Archive& archive, IsA<LoadMessage> auto& value) {
  visit_all(archive, value.load, value.submissions_received);
}

template <typename Archive>
void visit(Archive& archive, IsA<FatalMessage> auto& value) {
  archive.enumerator(value.code, ErrorCode::internal, "an error code");
  visit(archive, value.message);
}

template <typename T>
std::string encode_value(const T& value) {
  Encoder archive;
  visit(archive, value);
  return archive.wire.take();
}

template <typename T>
Result<T> decode_value(std::string_view payload, const char* name) {
  Decoder archive(payload);
  T value{};
  visit(archive, value);
  if (auto read = archive.wire.finish(); !read.ok()) return with_context(read.error(), name);
  return value;
}

}  // namespace

std::string encode(const HelloMessage& message) {
  return encode_value(message);
}
std::string encode(const EngineStart& message) {
  return encode_value(message);
}
std::string encode(const ReadyMessage& message) {
  return encode_value(message);
}
std::string encode(const Request& message) {
  return encode_value(message);
}
std::string encode(const AbortMessage& message) {
  return encode_value(message);
}
std::string encode(const LoadMessage& message) {
  return encode_value(message);
}
std::string encode(const FatalMessage& message) {
  return encode_value(message);
}

std::vector<std::string> encode_events(std::span<const TokenEvent> events, std::size_t payload_bytes_max) {
  std::vector<std::string> payloads;
  std::size_t count = 0;
  WireWriter body;
  const auto finish_payload = [&] {
    WireWriter payload;
    payload.count(count);
    payload.append(body.bytes());
    payloads.push_back(payload.take());
    count = 0;
    body = WireWriter();
  };
  for (const TokenEvent& event : events) {
    const std::string encoded = encode_value(event);
    if (count > 0 && body.size() + encoded.size() + sizeof(std::uint32_t) > payload_bytes_max) finish_payload();
    body.append(encoded);
    ++count;
  }
  if (count > 0) finish_payload();
  return payloads;
}

std::vector<std::size_t> refuse_oversized(std::span<TokenEvent> events, std::size_t payload_bytes_max) {
  std::vector<std::size_t> refused;
  for (std::size_t i = 0; i < events.size(); ++i) {
    const std::size_t bytes = encode_value(events[i]).size() + sizeof(std::uint32_t);
    if (bytes <= payload_bytes_max) continue;
    TokenEvent end;
    end.request = events[i].request;
    end.choice = events[i].choice;
    end.position = events[i].position;
    end.finish = FinishReason::error;
    end.error = fmt::format("the logprobs of one step take {} bytes, at most {} can be sent: ask for fewer prompt_logprobs",
                            bytes, payload_bytes_max);
    events[i] = std::move(end);
    refused.push_back(i);
  }
  return refused;
}

Result<HelloMessage> decode_hello(std::string_view payload) {
  return decode_value<HelloMessage>(payload, "HELLO");
}
Result<EngineStart> decode_engine_start(std::string_view payload) {
  return decode_value<EngineStart>(payload, "CONFIG");
}
Result<ReadyMessage> decode_ready(std::string_view payload) {
  return decode_value<ReadyMessage>(payload, "READY");
}
Result<Request> decode_request(std::string_view payload) {
  return decode_value<Request>(payload, "ADD");
}
Result<AbortMessage> decode_abort(std::string_view payload) {
  return decode_value<AbortMessage>(payload, "ABORT");
}
Result<LoadMessage> decode_load(std::string_view payload) {
  return decode_value<LoadMessage>(payload, "LOAD");
}
Result<FatalMessage> decode_fatal(std::string_view payload) {
  return decode_value<FatalMessage>(payload, "FATAL");
}
Result<std::vector<TokenEvent>> decode_events(std::string_view payload) {
  return decode_value<std::vector<TokenEvent>>(payload, "EVENTS");
}

}  // namespace chorus
