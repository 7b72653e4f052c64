#include "protocol/messages.h"

#include <utility>

#include "net/archive.h"
#include "request/request_archive.h"

namespace chorus::archive {

template <typename Archive>
void visit(Archive& archive, IsA<ParallelConfig> auto& value) {
  visit_all(archive, value.data_parallel_size, value.tensor_parallel_size, value.pipeline_parallel_size,
            value.decode_context_parallel_size, value.pipeline_layer_partition, value.enable_expert_parallel,
            value.enable_expert_balancing, value.expert_balancing_config);
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
  visit_all(archive, value.parallel, value.fault_point, value.engine_start_timeout_ms,
            value.engine_heartbeat_timeout_ms);
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
  visit_all(archive, value.bos_token_ids, value.eos_token_ids, value.eos_token_id, value.default_temperature, value.default_top_p,
            value.default_min_p, value.default_repetition_penalty, value.default_top_k);
}

template <typename Archive>
void visit(Archive& archive, IsA<HelloMessage> auto& value) {
  visit_all(archive, value.version, value.pid, value.best_isa);
}

template <typename Archive>
void visit(Archive& archive, IsA<EngineStart> auto& value) {
  visit_all(archive, value.config, value.model, value.dp_rank, value.epoch, value.kv_cache_bytes, value.threads,
            value.worker_cpus, value.shard_offsets);
  archive.enumerator(value.isa, Isa::amx_bf16, "an instruction set");
  archive.enumerator(value.dtype, DType::float16, "a dtype");
  visit_all(archive, value.world_address, value.world_key_file, value.world_neighbours);
}

template <typename Archive>
void visit(Archive& archive, IsA<WorkerStart> auto& value) {
  visit_all(archive, value.start, value.world_rank);
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
void visit(Archive& archive, IsA<JoinMessage> auto& value) {
  visit_all(archive, value.dp_rank, value.worker, value.node, value.fingerprint);
}

template <typename Archive>
void visit(Archive& archive, IsA<LoadMessage> auto& value) {
  visit_all(archive, value.load, value.submissions_received);
}

template <typename Archive>
void visit(Archive& archive, IsA<WaveMessage> auto& value) {
  visit(archive, value.wave);
}

template <typename Archive>
void visit(Archive& archive, IsA<WelcomeMessage> auto& value) {
  visit(archive, value.world);
}

template <typename Archive>
void visit(Archive& archive, IsA<ContactMessage> auto& value) {
  visit(archive, value.contact);
}

template <typename Archive>
void visit(Archive& archive, IsA<WorldMessage> auto& value) {
  visit(archive, value.contacts);
}

template <typename Archive>
void visit(Archive& archive, IsA<FatalMessage> auto& value) {
  archive.enumerator(value.code, ErrorCode::internal, "an error code");
  visit(archive, value.message);
}

}  // namespace chorus::archive

namespace chorus {

using archive::decode_value;
using archive::encode_value;

std::string encode(const ModelConfig& message) {
  return encode_value(message);
}
std::string encode(const HelloMessage& message) {
  return encode_value(message);
}
std::string encode(const EngineStart& message) {
  return encode_value(message);
}
std::string encode(const WorkerStart& message) {
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
std::string encode(const JoinMessage& message) {
  return encode_value(message);
}
std::string encode(const LoadMessage& message) {
  return encode_value(message);
}
std::string encode(const WaveMessage& message) {
  return encode_value(message);
}
std::string encode(const WelcomeMessage& message) {
  return encode_value(message);
}
std::string encode(const ContactMessage& message) {
  return encode_value(message);
}
std::string encode(const WorldMessage& message) {
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
    end.error =
        fmt::format("the logprobs of one step take {} bytes, at most {} can be sent: ask for fewer prompt_logprobs",
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
Result<WorkerStart> decode_worker_start(std::string_view payload) {
  return decode_value<WorkerStart>(payload, "CONFIG");
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
Result<JoinMessage> decode_join(std::string_view payload) {
  return decode_value<JoinMessage>(payload, "JOIN");
}
Result<LoadMessage> decode_load(std::string_view payload) {
  return decode_value<LoadMessage>(payload, "LOAD");
}
Result<WaveMessage> decode_wave(std::string_view payload) {
  return decode_value<WaveMessage>(payload, "WAVE");
}
Result<WelcomeMessage> decode_welcome(std::string_view payload) {
  return decode_value<WelcomeMessage>(payload, "WELCOME");
}
Result<ContactMessage> decode_contact(std::string_view payload) {
  return decode_value<ContactMessage>(payload, "CONTACT");
}
Result<WorldMessage> decode_world(std::string_view payload) {
  return decode_value<WorldMessage>(payload, "WORLD");
}
Result<FatalMessage> decode_fatal(std::string_view payload) {
  return decode_value<FatalMessage>(payload, "FATAL");
}
Result<std::vector<TokenEvent>> decode_events(std::string_view payload) {
  return decode_value<std::vector<TokenEvent>>(payload, "EVENTS");
}

}  // namespace chorus
