#include "launch/node_command.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace chorus {
namespace {

// The configuration that a command line gives.
EngineConfig read(const std::vector<std::string>& command) {
  EngineConfig config;
  config.model = command.at(2);
  for (std::size_t i = 3; i < command.size(); ++i) {
    const std::size_t equals = command[i].find('=');
    const std::string value = equals == std::string::npos ? "true" : command[i].substr(equals + 1);
    const auto applied = apply_engine_option(&config, command[i].substr(0, equals), value);
    EXPECT_TRUE(applied.ok()) << command[i] << ": " << (applied.ok() ? "" : applied.error().message);
  }
  return config;
}

// Goal: a node reads from its command line what the head was given. Method: every option that shapes a node differs
// from its default, and the line is read back.
TEST(NodeCommand, CarriesTheHeadsConfiguration) {
  EngineConfig head;
  head.model = "models/some";
  head.data_parallel_backend = "ray";
  head.dtype = "float32";
  head.cpu_isa = "scalar";
  head.load_format = LoadFormat::dummy;
  head.generation_config = "models/other";
  head.seed = 18'000'000'000'000'000'000u;
  head.enable_prefix_caching = false;
  head.scheduling_policy = SchedulingPolicy::priority;
  head.threads = 3;
  head.cpu_threads_bind = "none";
  head.max_model_len = 99;
  head.block_size = 32;
  head.kv_cache_bytes = 123'456'789'012;
  head.max_num_seqs = 7;
  head.max_num_batched_tokens = 11;
  head.engine_start_timeout_ms = 1234;
  head.engine_heartbeat_timeout_ms = 4321;
  head.engine_restarts_max = 9;
  head.cluster_key_file = "cluster.key";
  head.parallel.data_parallel_size = 4;
  head.parallel.tensor_parallel_size = 2;
  head.parallel.pipeline_parallel_size = 2;
  head.parallel.decode_context_parallel_size = 2;
  head.parallel.pipeline_layer_partition = "2,3";
  head.parallel.data_parallel_address = "127.0.0.1";
  head.parallel.data_parallel_rpc_port = 29550;

  const std::vector<std::string> command = node_command("/opt/chorus", head, 0, 0);
  EXPECT_EQ(command[0], "/opt/chorus");
  EXPECT_EQ(command[1], "serve");
  const EngineConfig node = read(command);
  const auto valid = validate(node);
  EXPECT_TRUE(valid.ok()) << (valid.ok() ? "" : valid.error().message);
  EXPECT_TRUE(node.headless);
  EXPECT_TRUE(node.on_ray());
  EXPECT_EQ(node.parallel.local_replicas(), 1);
  EXPECT_EQ(node.parallel.data_parallel_start_rank, 0);
  for (const std::string& path : {node.model, node.generation_config, node.cluster_key_file})
    EXPECT_EQ(path.front(), '/');
  EXPECT_EQ(node.dtype, head.dtype);
  EXPECT_EQ(node.cpu_isa, head.cpu_isa);
  EXPECT_EQ(node.load_format, head.load_format);
  EXPECT_EQ(node.seed, head.seed);
  EXPECT_EQ(node.enable_prefix_caching, head.enable_prefix_caching);
  EXPECT_EQ(node.scheduling_policy, head.scheduling_policy);
  EXPECT_EQ(node.threads, head.threads);
  EXPECT_EQ(node.cpu_threads_bind, head.cpu_threads_bind);
  EXPECT_EQ(node.max_model_len, head.max_model_len);
  EXPECT_EQ(node.block_size, head.block_size);
  EXPECT_EQ(node.kv_cache_bytes, head.kv_cache_bytes);
  EXPECT_EQ(node.max_num_seqs, head.max_num_seqs);
  EXPECT_EQ(node.max_num_batched_tokens, head.max_num_batched_tokens);
  EXPECT_EQ(node.engine_start_timeout_ms, head.engine_start_timeout_ms);
  EXPECT_EQ(node.engine_heartbeat_timeout_ms, head.engine_heartbeat_timeout_ms);
  EXPECT_EQ(node.engine_restarts_max, head.engine_restarts_max);
  EXPECT_EQ(node.parallel.data_parallel_size, head.parallel.data_parallel_size);
  EXPECT_EQ(node.parallel.replica_size(), head.parallel.replica_size());
  EXPECT_EQ(node.parallel.pipeline_layer_partition, head.parallel.pipeline_layer_partition);
  EXPECT_EQ(node.parallel.data_parallel_address, head.parallel.data_parallel_address);
  EXPECT_EQ(node.parallel.data_parallel_rpc_port, head.parallel.data_parallel_rpc_port);
}

TEST(NodeCommand, NamesThePartOfARankThatIsOnSeveralNodes) {
  EngineConfig head;
  head.model = "models/some";
  head.data_parallel_backend = "ray";
  head.parallel.data_parallel_size = 2;
  head.parallel.tensor_parallel_size = 4;
  head.parallel.data_parallel_rpc_port = 1;
  const EngineConfig whole = read(node_command("chorus", head, 1, 0));
  EXPECT_EQ(whole.parallel.nodes_per_replica, 1);
  EXPECT_EQ(whole.parallel.workers_per_node(), 4);
  head.parallel.nodes_per_replica = 4;
  for (int part = 0; part < 4; ++part) {
    const EngineConfig node = read(node_command("chorus", head, 1, part));
    EXPECT_EQ(node.parallel.nodes_per_replica, 4);
    EXPECT_EQ(node.parallel.node_rank, part);
    EXPECT_EQ(node.parallel.workers_per_node(), 1);
    EXPECT_EQ(node.parallel.data_parallel_start_rank, 1);
    EXPECT_TRUE(node.parallel.workers_join_singly());
  }
}

TEST(NodeCommand, CarriesExpertParallelism) {
  EngineConfig head;
  head.model = "models/some";
  head.parallel.tensor_parallel_size = 2;
  head.parallel.enable_expert_parallel = head.parallel.enable_expert_balancing = true;
  head.parallel.expert_balancing_config = R"({"window_size": 5})";
  head.parallel.data_parallel_rpc_port = 1;
  const EngineConfig node = read(node_command("chorus", head, 0, 0));
  EXPECT_TRUE(validate(node).ok());
  EXPECT_TRUE(node.parallel.enable_expert_parallel && node.parallel.enable_expert_balancing);
  EXPECT_EQ(node.parallel.expert_balancing_config, head.parallel.expert_balancing_config);
}

}  // namespace
}  // namespace chorus
