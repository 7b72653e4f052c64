#include "config/outer_balancer.h"

namespace chorus {
namespace {

constexpr const char* external = "--data-parallel-external-lb";
constexpr const char* hybrid = "--data-parallel-hybrid-lb";
constexpr const char* multi_port = "--data-parallel-multi-port-external-lb";

// The option that asks for a mode; nullptr: none does.
Result<const char*> asked_mode(const ParallelConfig& parallel) {
  const char* asked = nullptr;
  const auto ask = [&asked](bool given, const char* option) -> Result<void> {
    if (!given) return {};
    if (asked != nullptr) {
      return fail(ErrorCode::invalid_argument, "{} and {} are two ways to stand behind a load balancer: leave one out",
                  asked, option);
    }
    asked = option;
    return {};
  };
  CHORUS_TRY_VOID(ask(parallel.data_parallel_multi_port_external_lb, multi_port));
  CHORUS_TRY_VOID(ask(parallel.data_parallel_rank >= 0, "--data-parallel-rank"));
  CHORUS_TRY_VOID(ask(parallel.data_parallel_external_lb && parallel.data_parallel_rank < 0, external));
  CHORUS_TRY_VOID(ask(parallel.data_parallel_hybrid_lb, hybrid));
  return asked;
}

// What no server has that stands behind an outer balancer.
Result<void> check_surroundings(const EngineConfig& config, const char* asked) {
  const ParallelConfig& parallel = config.parallel;
  if (config.headless) {
    return fail(ErrorCode::invalid_argument,
                "{} is about a server's door, and a node with --headless has none: leave "
                "one of them out",
                asked);
  }
  if (config.on_ray()) {
    return fail(ErrorCode::invalid_argument, "{}: Ray brings all replicas behind one door; leave one of them out",
                asked);
  }
  if (parallel.nodes_per_replica > 1) {
    return fail(ErrorCode::invalid_argument,
                "{} and --nodes-per-replica {}: a server behind an outer load balancer has "
                "whole replicas; leave one of them out",
                asked, parallel.nodes_per_replica);
  }
  if (parallel.data_parallel_size == 1) {
    return fail(ErrorCode::invalid_argument,
                "{} and --data-parallel-size 1: give the number of the replicas of all "
                "servers behind the load balancer, or leave {} out",
                asked, asked);
  }
  return {};
}

Result<void> settle_external(ParallelConfig* parallel) {
  const int rank = parallel->data_parallel_rank;
  if (rank < 0) {
    return fail(ErrorCode::invalid_argument, "{} needs --data-parallel-rank: which replica this server has, 0 to {}",
                external, parallel->data_parallel_size - 1);
  }
  if (rank >= parallel->data_parallel_size) {
    return fail(ErrorCode::invalid_argument, "--data-parallel-rank is {}; accepted: 0 to {} (--data-parallel-size {})",
                rank, parallel->data_parallel_size - 1, parallel->data_parallel_size);
  }
  if (parallel->data_parallel_size_local > 1) {
    return fail(ErrorCode::invalid_argument,
                "--data-parallel-rank {} is one replica and --data-parallel-size-local is "
                "{}: for several behind one door give {} and --data-parallel-start-rank",
                rank, parallel->data_parallel_size_local, hybrid);
  }
  if (parallel->data_parallel_start_rank > 0 && parallel->data_parallel_start_rank != rank) {
    return fail(ErrorCode::invalid_argument,
                "--data-parallel-rank is {} and --data-parallel-start-rank {}: leave one of "
                "them out",
                rank, parallel->data_parallel_start_rank);
  }
  parallel->data_parallel_external_lb = true;
  parallel->data_parallel_start_rank = rank;
  parallel->data_parallel_size_local = 1;
  return {};
}

Result<void> settle_hybrid(ParallelConfig* parallel) {
  if (parallel->data_parallel_size_local == 0 && parallel->data_parallel_start_rank == 0) {
    return fail(ErrorCode::invalid_argument,
                "{} needs --data-parallel-size-local: how many of the {} replicas this "
                "node has",
                hybrid, parallel->data_parallel_size);
  }
  const int local = parallel->local_replicas();
  parallel->data_parallel_hybrid_lb = local > 1 && local < parallel->data_parallel_size;
  parallel->data_parallel_external_lb = local == 1;
  if (local == parallel->data_parallel_size) {  // no mode: nobody else is there to be met
    parallel->data_parallel_address.clear();
    parallel->data_parallel_rpc_port = 0;
  }
  return {};
}

}  // namespace

Result<void> settle_outer_balancer(EngineConfig* config) {
  ParallelConfig& parallel = config->parallel;
  CHORUS_TRY(const char* asked, asked_mode(parallel));
  if (asked == nullptr && parallel.data_parallel_start_rank > 0 && !config->headless && !config->on_ray()) {
    asked = "--data-parallel-start-rank";
    parallel.data_parallel_hybrid_lb = true;
  }
  if (asked == nullptr) return {};
  CHORUS_TRY_VOID(check_surroundings(*config, asked));
  if (parallel.data_parallel_multi_port_external_lb) {
    if (config->api_server_count == 1) return {};
    return fail(ErrorCode::invalid_argument,
                "--api-server-count is {}, and with {} each replica has a front end of its "
                "own: leave one of them out",
                config->api_server_count, multi_port);
  }
  return parallel.data_parallel_hybrid_lb ? settle_hybrid(&parallel) : settle_external(&parallel);
}

}  // namespace chorus
