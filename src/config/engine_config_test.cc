#include "config/engine_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

namespace chorus {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string message(const Result<void>& result) {
  return result.ok() ? "" : result.error().message;
}

EngineConfig config_with(const std::string& name, const std::string& value) {
  EngineConfig config;
  EXPECT_EQ(message(apply_engine_option(&config, name, value)), "");
  return config;
}

std::string error_of(const std::string& name, const std::string& value) {
  EngineConfig config;
  return message(apply_engine_option(&config, name, value));
}

// What validate() says to a command line, and to what the environment says of Ray.
std::string message_of(const std::vector<std::pair<const char*, const char*>>& options,
                       const std::string& strategy = "strict", const std::string& address = "") {
  EngineConfig config;
  for (const auto& [name, value] : options) EXPECT_TRUE(apply_engine_option(&config, name, value).ok()) << name;
  config.ray_pack_strategy = strategy;
  config.ray_address = address;
  return message(validate(config));
}

TEST(ParseBytes, ReadsUnits) {
  const std::pair<const char*, std::uint64_t> cases[] = {{"0", 0},
                                                         {"1000000", 1000000},
                                                         {"1B", 1},
                                                         {"4GiB", 4ULL << 30},
                                                         {"512MiB", 512U << 20},
                                                         {"512 MiB", 512U << 20},
                                                         {"2K", 2048},
                                                         {"2KB", 2000},
                                                         {"1.5G", 3ULL << 29},
                                                         {"1TiB", 1ULL << 40}};
  for (const auto& [text, bytes] : cases) {
    const auto parsed = parse_bytes(text);
    ASSERT_TRUE(parsed.ok()) << text;
    EXPECT_EQ(*parsed, bytes) << text;
  }
  for (const char* text :
       {"", "GiB", "-1", "4XiB", "4 GiB!", "nan", "inf", "1e3", "0x10", "9999999999TiB", "4GiBGiB"}) {
    EXPECT_FALSE(parse_bytes(text).ok()) << text;
  }
}

TEST(EngineOptions, SetTheirFieldInEverySpelling) {
  for (const char* name : {"max-model-len", "max_model_len", "--max-model-len", "Max_Model_Len"}) {
    EXPECT_EQ(config_with(name, "512").max_model_len, 512) << name;
  }
  for (const char* name : {"-dp", "dp", "dp-size", "dp_size", "--data-parallel-size"}) {
    EXPECT_EQ(config_with(name, "4").parallel.data_parallel_size, 4) << name;
  }
  EXPECT_EQ(config_with("--tp-size", "2").parallel.tensor_parallel_size, 2);
  EXPECT_EQ(config_with("--pp-size", "2").parallel.pipeline_parallel_size, 2);
  EXPECT_TRUE(config_with("--enable-ep", "true").parallel.enable_expert_parallel);
  EXPECT_EQ(config_with("kv-cache-memory", "4GiB").kv_cache_bytes, 4ULL << 30);
  EXPECT_EQ(config_with("load_format", "dummy").load_format, LoadFormat::dummy);
  EXPECT_EQ(config_with("scheduling-policy", "priority").scheduling_policy, SchedulingPolicy::priority);
  EXPECT_EQ(config_with("seed", "18446744073709551615").seed, UINT64_MAX);
  EXPECT_EQ(config_with("assignment", "modulo").assignment, AssignmentName::modulo);
  EXPECT_EQ(config_with("load-balancer", "round_robin").load_balancer, LoadBalancerName::round_robin);
}

TEST(EngineOptions, FlagsTakeNegationAndValues) {
  EXPECT_FALSE(config_with("no-enable-prefix-caching", "true").enable_prefix_caching);
  EXPECT_FALSE(config_with("--no_enable_prefix_caching", "").enable_prefix_caching);
  EXPECT_FALSE(config_with("enable-prefix-caching", "False").enable_prefix_caching);
  EXPECT_TRUE(config_with("no-enable-prefix-caching", "false").enable_prefix_caching);
  EXPECT_THAT(error_of("enable-prefix-caching", "maybe"),
              AllOf(HasSubstr("--enable-prefix-caching"), HasSubstr("maybe"), HasSubstr("true")));
  EXPECT_THAT(error_of("no-max-model-len", "1"), HasSubstr("unknown engine option"));
}

TEST(EngineOptions, AcceptWhatVllmHasWithoutEffect) {
  const std::pair<const char*, const char*> cases[] = {{"gpu_memory_utilization", "0.9"},
                                                       {"enforce_eager", "true"},
                                                       {"swap_space", "4"},
                                                       {"tokenizer_mode", "auto"},
                                                       {"revision", "main"},
                                                       {"disable_log_stats", ""},
                                                       {"max_seq_len_to_capture", "8192"},
                                                       {"disable_custom_all_reduce", "true"},
                                                       {"quantization", "None"},
                                                       {"seed", "None"},
                                                       {"max_model_len", "null"},
                                                       {"distributed_executor_backend", "None"},
                                                       {"trust_remote_code", "true"}};
  for (const auto& [name, value] : cases) {
    const EngineConfig config = config_with(name, value);
    EXPECT_EQ(message(validate(config)), "") << name;
  }
  EXPECT_THAT(error_of("quantization", "awq"), AllOf(HasSubstr("quantization"), HasSubstr("awq"), HasSubstr("none")));
  EXPECT_THAT(error_of("kv-cache-dtype", "fp8"), AllOf(HasSubstr("fp8"), HasSubstr("auto, bfloat16, float32, int8")));
}

TEST(EngineOptions, UnknownNamesAndValuesSayWhatIsMeant) {
  EXPECT_THAT(error_of("max_model_length", "1"),
              AllOf(HasSubstr("max_model_length"), HasSubstr("did you mean max-model-len?")));
  EXPECT_THAT(error_of("tensor-paralel-size", "1"), HasSubstr("did you mean tensor-parallel-size?"));
  EXPECT_THAT(error_of("xyzzy", "1"),
              AllOf(HasSubstr("unknown engine option"), ::testing::Not(HasSubstr("did you mean"))));
  EXPECT_THAT(error_of("", ""), HasSubstr("unknown engine option"));
  EXPECT_THAT(error_of("load-format", "pt"),
              AllOf(HasSubstr("--load-format"), HasSubstr("pt"), HasSubstr("gguf, dummy")));
  for (const char* value : {"", "x", "1.5", "1x", " 1", "99999999999", "0x10"}) {
    EXPECT_THAT(error_of("data-parallel-size", value), HasSubstr("an integer")) << value;
  }
  EXPECT_THAT(error_of("seed", "-1"), HasSubstr("from 0 on"));
}

TEST(EngineOptions, NamesAreUniqueAndComplete) {
  std::set<std::string> names;
  for (const EngineOption& option : engine_options()) {
    EXPECT_TRUE(names.insert(option.name).second) << option.name;
    if (option.alias != nullptr) {
      EXPECT_TRUE(names.insert(option.alias).second) << option.alias;
    }
    if (option.short_name != nullptr) {
      EXPECT_EQ(option.short_name[0], '-');
      EXPECT_TRUE(names.insert(option.short_name + 1).second) << option.short_name;
    }
    EXPECT_NE(std::string(option.help), "");
  }
  for (const char* name : {"dp", "tp", "pp", "dcp", "ep", "dpl", "dpr", "dpn", "dpa", "dpp", "dph", "dpe", "asc"}) {
    EXPECT_TRUE(names.contains(name)) << name;
  }
}

TEST(Validate, AcceptsTheDefaults) {
  EXPECT_EQ(message(validate(EngineConfig{})), "");
}

TEST(Validate, NamesOptionValueAndBound) {
  const struct {
    const char* name;
    const char* value;
    const char* expected;
  } cases[] = {
      {"dtype", "float16", "auto, bfloat16, float32"},
      {"device", "tpu", "auto, cpu, cuda"},
      {"gpu-memory-utilization", "1.5", "up to 1"},
      {"gpu-memory-utilization", "much", "up to 1"},
      {"cpu-isa", "avx", "avx2-f32"},
      {"threads", "-1", "0 to 4096"},
      {"max-model-len", "-5", "-5"},
      {"block-size", "24", "multiple of 16"},
      {"block-size", "0", "16 to 1024"},
      {"max-num-seqs", "0", "1 to"},
      {"max-num-batched-tokens", "0", "1 to"},
      {"data-parallel-size", "0", "1 to"},
      {"data-parallel-size", "-2147483648", "1 to"},
      {"data-parallel-rpc-port", "65536", "65535"},
      {"cpu-threads-bind", "0-", "core list"},
      {"cpu-threads-bind", "3-1", "goes down"},
      {"generation-config", "", "auto, chorus"},
      {"tokenizer", "elsewhere", "own directory"},
      {"distributed-executor-backend", "mpi", "external_launcher"},
  };
  for (const auto& test : cases) {
    const std::string text = message(validate(config_with(test.name, test.value)));
    EXPECT_THAT(text, AllOf(HasSubstr(test.name), HasSubstr(test.expected))) << test.name << "=" << test.value;
  }
}

TEST(Validate, RefusesWhatThisVersionDoesNotRun) {
  EXPECT_THAT(message_of({{"device", "cuda"}, {"-tp", "2"}}), HasSubstr("one GPU a replica"));
  EXPECT_THAT(message_of({{"device", "cuda"}, {"dtype", "float32"}}), HasSubstr("bfloat16"));
  EXPECT_THAT(message_of({{"device", "cuda"}, {"kv-cache-dtype", "int8"}}),
              AllOf(HasSubstr("--kv-cache-dtype"), HasSubstr("--device cpu")));
  EXPECT_EQ(message_of({{"device", "cuda"}, {"kv-cache-dtype", "auto"}, {"-dp", "2"}}), "");
  EXPECT_EQ(message(validate(config_with("data-parallel-address", "127.0.0.1"))), "");
}

TEST(Validate, OnRay) {
  EXPECT_EQ(message_of({{"-dpb", "ray"}, {"-dp", "4"}, {"-dpl", "2"}}), "");
  EXPECT_EQ(message_of({{"distributed-executor-backend", "ray"}}, "fill", "auto"), "");
  EXPECT_EQ(message_of({{"-dpb", "ray"}, {"headless", "true"}, {"-dpl", "1"}, {"-dpp", "29550"}}), "");
  EXPECT_EQ(message_of({{"-dpb", "ray"}, {"-tp", "2"}}, "span"), "");
  EXPECT_EQ(message_of({{"-dpb", "ray"}, {"-dp", "2"}, {"-ep", "true"}}), "");
  EXPECT_THAT(message_of({{"-dpb", "ray"}}, "pack"), HasSubstr("accepted: strict, fill, span"));
  for (const char* strategy : {"fill", "span"}) {
    EXPECT_THAT(message_of({{"-dpb", "ray"}, {"-tp", "2"}, {"nodes-per-replica", "2"}}, strategy),
                AllOf(HasSubstr("Ray places the workers"), HasSubstr("STRATEGY=span")));
    EXPECT_THAT(message_of({{"-dpb", "ray"}, {"-tp", "2"}, {"nodes-per-replica", "2"}, {"node-rank", "1"}}, strategy),
                HasSubstr("Ray places the workers"));
  }
  EXPECT_THAT(message_of({{"-dpb", "ray"}}, "fill", "ray://host:10001"), HasSubstr("no client mode"));
  EXPECT_THAT(message_of({{"-dpb", "ray"}, {"-dp", "2"}, {"-dpr", "1"}}), HasSubstr("--data-parallel-start-rank"));
  EXPECT_THAT(message_of({{"-dpb", "ray"}, {"cpu-threads-bind", "0-1"}}), HasSubstr("--cpu-threads-bind"));
  EXPECT_THAT(message_of({{"-dpb", "ray"}, {"distributed-executor-backend", "external_launcher"}}),
              HasSubstr("one of them"));
}

TEST(Validate, ContextParallelWorkersHoldWholeBlocks) {
  EngineConfig config = config_with("decode-context-parallel-size", "2");
  for (const int good : {16, 32, 64, 128, 256}) {
    config.block_size = good;
    EXPECT_EQ(message(validate(config)), "");
  }
  for (const int bad : {48, 512}) {
    config.block_size = bad;
    EXPECT_THAT(message(validate(config)), AllOf(HasSubstr("--block-size"), HasSubstr("16, 32, 64, 128, 256")));
  }
}

TEST(Validate, TheNodesRanksMustFit) {
  EXPECT_EQ(message_of({{"-dp", "4"}, {"-dpl", "2"}}), "");
  EXPECT_EQ(message_of({{"-dp", "4"}, {"-dpl", "2"}, {"-dpa", "10.0.0.1"}, {"cluster-key-file", "k"}}), "");
  EXPECT_EQ(message_of({{"-dp", "4"}, {"-dpr", "2"}, {"headless", "true"}, {"-dpp", "29550"}}), "");
  EXPECT_THAT(message_of({{"-dpa", "10.0.0.1"}}), HasSubstr("--data-parallel-size-local"));
  EXPECT_THAT(message_of({{"-dp", "4"}, {"-dpl", "2"}, {"-dpa", "10.0.0.1"}}), HasSubstr("openssl rand"));
  EXPECT_THAT(message_of({{"-dp", "4"}, {"-dpl", "3"}, {"-dpr", "2"}, {"headless", "true"}}), HasSubstr("go beyond"));
  EXPECT_THAT(message_of({{"-dp", "4"}, {"headless", "true"}}), HasSubstr("--data-parallel-start-rank"));
  EXPECT_THAT(message_of({{"-dp", "4"}, {"-dpr", "2"}}), HasSubstr("--headless"));
  EXPECT_THAT(message_of({{"-dp", "4"}, {"-dpr", "2"}, {"headless", "true"}}), HasSubstr("--data-parallel-rpc-port"));
  EXPECT_EQ(message_of({{"-dp", "4"}, {"-dpl", "2"}, {"-ep", "true"}}), "");
}

TEST(Validate, APartOfAReplicaIsOneOfItsNodes) {
  EXPECT_THAT(message_of({{"-tp", "4"}, {"nodes-per-replica", "3"}}), HasSubstr("does not divide the 4 workers"));
  EXPECT_THAT(message_of({{"-tp", "2"}, {"nodes-per-replica", "2"}, {"node-rank", "1"}}), HasSubstr("--headless"));
  EXPECT_THAT(message_of({{"-tp", "2"}, {"nodes-per-replica", "2"}, {"headless", "true"}}), HasSubstr("--node-rank 1"));
  EXPECT_THAT(message_of({{"-tp", "2"}, {"nodes-per-replica", "2"}, {"node-rank", "2"}}), HasSubstr("0 to 1"));
}

TEST(Validate, WorkersThatComputeTogetherNeedAnAddressAndABound) {
  EXPECT_THAT(message_of({{"-tp", "2"}, {"nodes-per-replica", "2"}, {"-dpa", "0.0.0.0"}, {"cluster-key-file", "k"}}),
              HasSubstr("need the address"));
  EXPECT_EQ(message_of({{"-dp", "2048"}, {"-dpl", "1"}}), "");
  EXPECT_THAT(message_of({{"-dp", "2048"}, {"-dpl", "1"}, {"-ep", "true"}}), HasSubstr("at most 1024"));
}

TEST(ParallelConfig, WorkersJoinSinglyWhereNodesComputeTogether) {
  ParallelConfig parallel;
  parallel.data_parallel_size = 4;
  parallel.tensor_parallel_size = 2;
  parallel.data_parallel_size_local = 2;
  EXPECT_FALSE(parallel.workers_join_singly());
  parallel.enable_expert_parallel = true;
  EXPECT_TRUE(parallel.workers_join_singly());
  EXPECT_EQ(parallel.workers_per_node(), 2);
  parallel.enable_expert_parallel = false;
  parallel.nodes_per_replica = 2;
  EXPECT_TRUE(parallel.workers_join_singly());
  EXPECT_EQ(parallel.workers_per_node(), 1);
}

TEST(ParallelConfig, KnowsTheRanksOfThisNode) {
  ParallelConfig parallel;
  parallel.data_parallel_size = 5;
  EXPECT_EQ(parallel.local_replicas(), 5);
  EXPECT_FALSE(parallel.several_nodes());
  parallel.data_parallel_start_rank = 3;
  EXPECT_EQ(parallel.local_replicas(), 2);
  EXPECT_TRUE(parallel.several_nodes());
  EXPECT_TRUE(parallel.is_local(3) && parallel.is_local(4) && !parallel.is_local(2));
  parallel.data_parallel_size_local = 1;
  EXPECT_TRUE(parallel.is_local(3) && !parallel.is_local(4));
}

TEST(Validate, TheWorldMustNotOverflow) {
  EngineConfig config;
  config.parallel = {.data_parallel_size = 4096,
                     .tensor_parallel_size = 4096,
                     .pipeline_parallel_size = 4096,
                     .decode_context_parallel_size = 4096};
  EXPECT_THAT(message(validate(config)), HasSubstr("more than 65536 workers"));
}

TEST(Validate, TheModelBoundsLengthAndTensorParallelSize) {
  ModelConfig model;
  model.directory = "m";
  model.num_hidden_layers = 4;
  model.num_attention_heads = 12;
  model.num_key_value_heads = 4;
  model.max_position_embeddings = 512;
  EngineConfig config;
  config.max_model_len = 512;
  EXPECT_EQ(message(validate(config, model)), "");
  config.max_model_len = 513;
  EXPECT_THAT(message(validate(config, model)), AllOf(HasSubstr("513"), HasSubstr("512")));
  model.rope.type = RopeType::yarn;
  model.rope.factor = 4;
  EXPECT_EQ(message(validate(config, model)), "") << "YaRN stretches the positions";
  config.parallel.tensor_parallel_size = 8;
  EXPECT_THAT(message(validate(config, model)), AllOf(HasSubstr("12 attention heads"), HasSubstr("these do: 1, 2, 4")));
}

TEST(ComputeDtype, AutoTakesTheCheckpointsOwn) {
  EngineConfig config;
  ModelConfig model;
  model.dtype = DType::bfloat16;
  EXPECT_EQ(compute_dtype(config, model), DType::bfloat16);
  model.dtype = DType::float16;
  EXPECT_EQ(compute_dtype(config, model), DType::float32);
  config.dtype = "bfloat16";
  EXPECT_EQ(compute_dtype(config, model), DType::bfloat16);
}

TEST(NearestName, FindsSlipsButNotStrangers) {
  const std::vector<std::string> known = {"tensor-parallel-size", "threads", "seed"};
  EXPECT_EQ(nearest_name("thraeds", known), "threads");  // a swap is one edit
  EXPECT_EQ(nearest_name("Tensor_Parallel_Size", known), "tensor-parallel-size");
  EXPECT_EQ(nearest_name("sed", known), "seed");
  EXPECT_EQ(nearest_name("banana", known), std::nullopt);
  EXPECT_EQ(nearest_name("", known), std::nullopt);
  EXPECT_EQ(nearest_name(std::string(100000, 'x'), known), std::nullopt);
}

}  // namespace
}  // namespace chorus
