// How busy an engine is: what it reports to those that send it requests. A plain value that crosses the wire.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace chorus {

// Bounds of EngineLoad::steps_by_rows: vLLM's for the tokens of an iteration. One count more: steps of more rows.
inline constexpr std::uint32_t step_rows_bounds[] = {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};

// What a load report tells.
struct EngineLoad {
  std::uint32_t waiting = 0;  // requests (sequences) queued, not in the batch
  std::uint32_t running = 0;
  std::uint64_t kv_blocks_free = 0;
  std::uint64_t kv_blocks_total = 0;
  std::uint64_t preemptions = 0;                                  // since start
  std::uint64_t prefix_cache_queries = 0, prefix_cache_hits = 0;  // tokens since start
  std::uint64_t prefix_cache_resets = 0;                          // since start
  std::uint64_t steps = 0;                                        // since start: the progress heartbeat
  std::uint64_t prompt_tokens = 0, output_tokens = 0;             // computed since start
  std::uint64_t rows = 0;                                         // of all steps since start: tokens computed
  std::vector<std::uint64_t> steps_by_rows;                       // since start; empty or one more than the bounds
  bool operator==(const EngineLoad&) const = default;
  static constexpr auto fields(auto& self, auto&& visit) {
    return visit(self.waiting, self.running, self.kv_blocks_free, self.kv_blocks_total, self.preemptions,
                 self.prefix_cache_queries, self.prefix_cache_hits, self.prefix_cache_resets, self.steps,
                 self.prompt_tokens, self.output_tokens, self.rows, self.steps_by_rows);
  }
};

}  // namespace chorus
