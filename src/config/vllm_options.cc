#include "config/vllm_options.h"

#include <algorithm>
#include <array>

#include "base/ascii.h"

namespace chorus {
namespace {

using Value = const std::string&;

Result<void> only(bool accepted, Value value, const char* what) {
  if (accepted) return {};
  return fail(ErrorCode::invalid_argument, "\"{}\"; accepted: {}", value.substr(0, 100), what);
}

template <std::size_t count>
bool is_one_of(Value value, const std::array<const char*, count>& names) {
  const std::string text = ascii_lower(value);
  return std::any_of(names.begin(), names.end(), [&text](const char* name) { return text == name; });
}

Result<void> ignore(Value) {
  return {};
}
Result<void> ignore_flag(Value value) {
  constexpr std::array<const char*, 11> names = {"",   "true", "false", "1",    "0",   "yes",
                                                 "no", "on",   "off",   "none", "null"};
  return only(is_one_of(value, names), value, "true or false");
}
// What would change the model or its output is accepted only as what Chorus does.
Result<void> only_empty(Value value) {
  return only(is_one_of(value, std::array<const char*, 5>{"", "{}", "[]", "none", "null"}), value,
              "nothing (it would change the model's output)");
}
Result<void> only_one(Value value) {
  return only(is_one_of(value, std::array<const char*, 3>{"1", "none", "null"}), value, "1");
}
Result<void> only_generate(Value value) {
  return only(is_one_of(value, std::array<const char*, 4>{"auto", "generate", "none", "null"}), value,
              "auto, generate, none (Chorus generates text)");
}
Result<void> only_hugging_face(Value value) {
  return only(is_one_of(value, std::array<const char*, 2>{"auto", "hf"}), value, "auto, hf");
}
Result<void> only_raw_logprobs(Value value) {
  return only(is_one_of(value, std::array<const char*, 1>{"raw_logprobs"}), value, "raw_logprobs");
}

constexpr EngineOption value(const char* name, Result<void> (*accept)(Value) = ignore) {
  return {.name = name, .value_hint = "VALUE", .help = no_effect_help, .accept = accept};
}
constexpr EngineOption flag(const char* name) {
  return {.name = name, .help = no_effect_help, .accept = ignore_flag};
}

// The fields of EngineArgs and AsyncEngineArgs in vLLM 0.32 (vllm/engine/arg_utils.py) that engine_options.cc does not
// have, in their order, and those of older releases.
// clang-format off
constexpr EngineOption options[] = {
    flag("enable-return-routed-experts"),
    flag("return-sampling-mask"),
    value("model-weights", only_empty),
    value("served-model-name"),
    value("hf-config-path", only_empty),
    value("runner", only_generate),
    value("convert", only_generate),
    flag("skip-tokenizer-init"),
    flag("enable-prompt-embeds"),
    value("allowed-local-media-path"),
    value("allowed-media-domains"),
    value("safetensors-load-strategy"),
    value("safetensors-prefetch-num-threads"),
    value("safetensors-prefetch-block-size"),
    value("config-format", only_hugging_face),
    value("cudagraph-capture-sizes"),
    value("max-cudagraph-capture-size"),
    value("ir-op-priority"),
    value("master-addr"),
    value("master-port"),
    value("nnodes", only_one),
    value("distributed-timeout-seconds"),
    value("cpu-distributed-timeout-seconds"),
    flag("numa-bind"),
    value("numa-bind-nodes"),
    value("numa-bind-cpus"),
    value("device-ids"),
    value("prefill-context-parallel-size", only_one),
    value("dcp-comm-backend"),
    flag("dcp-q-replicate"),
    value("dcp-kv-cache-interleave-size"),
    value("cp-kv-cache-interleave-size"),
    flag("enable-hc-sp"),
    flag("enable-batch-sharded-sampling"),
    flag("enable-ep-weight-filter"),
    value("moe-backend"),
    value("linear-backend"),
    value("sparse-indexer-topk-backend"),
    value("all2all-backend"),
    flag("enable-elastic-ep"),
    value("elastic-ep-max-dp-size"),
    flag("enable-dbo"),
    value("ubatch-size"),
    value("dbo-decode-token-threshold"),
    value("dp-sync-interval"),
    value("dbo-prefill-token-threshold"),
    flag("disable-nccl-for-dp-synchronization"),
    value("expert-placement-strategy"),
    value("prefix-caching-hash-algo"),
    value("prefix-cache-retention-interval"),
    flag("disable-cascade-attn"),
    value("offload-backend"),
    value("cpu-offload-params"),
    value("offload-group-size"),
    value("offload-num-in-group"),
    value("offload-prefetch-step"),
    value("offload-params"),
    value("max-num-scheduled-tokens"),
    value("long-prefill-token-threshold"),
    flag("long-prefill-token-threshold-adaptive"),
    value("max-num-active-seqs"),
    value("max-num-queued-reqs"),
    value("max-num-queued-tokens"),
    value("max-logprobs"),
    value("logprobs-mode", only_raw_logprobs),
    flag("use-fp64-gumbel"),
    flag("enable-trace-replay"),
    flag("aggregate-engine-logging"),
    value("hf-token"),
    value("hf-overrides", only_empty),
    value("model-class-overrides", only_empty),
    value("quantization-config", only_empty),
    flag("allow-deprecated-quantization"),
    flag("enable-shm-tensor-arena"),
    flag("language-model-only"),
    value("limit-mm-per-prompt"),
    flag("enable-mm-embeds"),
    flag("interleave-mm-strings"),
    value("media-io-kwargs"),
    value("mm-processor-kwargs"),
    value("mm-processor-cache-gb"),
    value("mm-processor-cache-type"),
    value("mm-hasher-algorithm"),
    value("mm-shm-cache-max-object-size-mb"),
    flag("mm-encoder-only"),
    value("mm-encoder-tp-mode"),
    value("mm-encoder-attn-backend"),
    value("mm-encoder-attn-dtype"),
    value("mm-encoder-fp8-scale-path"),
    value("mm-encoder-fp8-scale-save-path"),
    value("mm-encoder-fp8-scale-save-margin"),
    value("io-processor-plugin"),
    value("renderer-num-workers"),
    flag("skip-mm-profiling"),
    value("video-pruning-rate"),
    value("video-pruning-method"),
    value("mm-tensor-ipc"),
    value("mm-processor-device"),
    value("mm-ipc-gpu-memory-gb"),
    flag("mm-device-do-normalize"),
    flag("enable-lora"),
    value("max-loras"),
    value("max-lora-rank"),
    value("default-mm-loras", only_empty),
    flag("fully-sharded-loras"),
    value("max-cpu-loras"),
    value("lora-dtype"),
    value("lora-target-modules"),
    flag("enable-tower-connector-lora"),
    flag("specialize-active-lora"),
    flag("enable-mixed-moe-lora-format"),
    flag("enable-moe-shared-loras"),
    value("max-lora-cls-labels"),
    flag("ray-workers-use-nsight"),
    value("num-gpu-blocks-override"),
    value("model-loader-extra-config"),
    value("ignore-patterns"),
    flag("disable-chunked-mm-input"),
    flag("scheduler-reserve-full-isl"),
    value("prefill-schedule-interval"),
    value("watermark"),
    flag("disable-hybrid-kv-cache-manager"),
    value("structured-outputs-config"),
    value("aux-output-config"),
    value("reasoning-parser"),
    value("reasoning-parser-plugin"),
    value("speculative-config"),
    value("spec-method"),
    value("spec-model"),
    value("spec-tokens"),
    value("watermark-config", only_empty),
    value("diffusion-config", only_empty),
    value("show-hidden-metrics-for-version"),
    value("otlp-traces-endpoint"),
    value("collect-detailed-traces"),
    value("per-request-spec-decode-metrics"),
    flag("kv-cache-metrics"),
    value("kv-cache-metrics-sample"),
    value("custom-histogram-buckets"),
    flag("cudagraph-metrics"),
    flag("enable-layerwise-nvtx-tracing"),
    flag("enable-mfu-metrics"),
    flag("enable-logging-iteration-details"),
    value("jit-monitor-mode"),
    flag("jit-monitor-verbose"),
    flag("enable-mm-processor-stats"),
    value("scheduler-cls"),
    value("pooler-config"),
    value("attention-config"),
    value("engram-config"),
    value("mamba-config"),
    value("kernel-config"),
    flag("enable-flashinfer-autotune"),
    value("worker-cls"),
    value("worker-extension-cls"),
    value("profiler-config"),
    value("logging-config"),
    value("log-level"),
    value("log-config-file"),
    value("kv-transfer-config"),
    value("kv-events-config"),
    value("ec-transfer-config"),
    value("ec-manager-config"),
    value("reasoning-config"),
    flag("enable-sleep-mode"),
    flag("sleep-mode-offload-cudagraph"),
    value("sleep-preserve-parameter-names"),
    flag("enable-cumem-allocator"),
    flag("enable-nccl-comm-suspend"),
    value("override-generation-config", only_empty),
    value("model-impl"),
    value("attention-backend"),
    value("kv-cache-dtype-skip-layers"),
    value("mamba-cache-dtype"),
    value("mamba-ssm-cache-dtype"),
    value("mamba-block-size"),
    value("prefix-match-unit"),
    value("mamba-cache-mode"),
    flag("enable-mamba-shared-prefix-checkpoint"),
    value("replayssm-buffer-len"),
    flag("use-replayssm"),
    value("mamba-backend"),
    value("mamba-ssu-algorithm"),
    flag("enable-mamba-cache-stochastic-rounding"),
    value("mamba-cache-philox-rounds"),
    value("additional-config"),
    flag("use-tqdm-on-load"),
    value("pt-load-map-location"),
    value("logits-processors", only_empty),
    value("stream-interval"),
    flag("kv-sharing-fast-prefill"),
    flag("swa-bounded-replay"),
    value("optimization-level"),
    value("performance-mode"),
    value("fault-tolerance-config"),
    flag("enable-fault-tolerance"),
    value("kv-offloading-size"),
    value("kv-offloading-backend"),
    flag("tokens-only"),
    value("shutdown-timeout"),
    value("weight-transfer-config"),
    flag("fail-on-environ-validation"),
    value("gdn-prefill-backend"),
    value("kda-prefill-backend"),
    value("kda-decode-backend"),
    flag("enable-log-requests"),
    // Of older releases
    value("task", only_generate),
    value("rope-scaling", only_empty),
    value("rope-theta", only_empty),
    value("override-pooler-config", only_empty),
    value("override-attention-dtype", only_empty),
    value("guided-decoding-backend"),
    value("num-lookahead-slots"),
    value("tokenizer-pool-size"),
    value("tokenizer-pool-type"),
    value("tokenizer-pool-extra-config"),
    value("preemption-mode"),
    value("scheduler-delay-factor"),
    value("max-num-partial-prefills"),
    value("max-long-partial-prefills"),
    value("max-context-len-to-capture"),
    value("max-prompt-adapters"),
    value("max-prompt-adapter-token"),
    value("long-lora-scaling-factors"),
    value("lora-extra-vocab-size"),
    value("speculative-model"),
    value("num-speculative-tokens"),
    value("speculative-draft-tensor-parallel-size"),
    value("speculative-max-model-len"),
    value("speculative-disable-by-batch-size"),
    value("ngram-prompt-lookup-max"),
    value("ngram-prompt-lookup-min"),
    value("spec-decoding-acceptance-method"),
    value("cuda-graph-sizes"),
    value("override-neuron-config"),
    value("logits-processor-pattern"),
    value("qlora-adapter-name-or-path"),
    value("mm-cache-preprocessor"),
    value("swap-space-bytes"),
    value("max-log-len"),
    flag("disable-async-output-proc"),
    flag("multi-step-stream-outputs"),
    flag("worker-use-ray"),
    flag("engine-use-ray"),
    flag("enable-lora-bias"),
    flag("enable-prompt-adapter"),
    flag("disable-mm-preprocessor-cache"),
    flag("enable-reasoning"),
    flag("guided-decoding-disable-fallback"),
    flag("guided-decoding-disable-any-whitespace"),
    flag("guided-decoding-disable-additional-properties"),
    flag("enable-multimodal-encoder-data-parallel"),
    flag("calculate-kv-scales"),
    flag("disable-logprobs-during-spec-decoding"),
    flag("enable-delta"),
};
// clang-format on

}  // namespace

std::span<const EngineOption> options_without_effect() {
  return options;
}

}  // namespace chorus
