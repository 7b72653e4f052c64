// How busy an engine is: what it reports to those that send it requests. A plain value that crosses the wire.
#pragma once

#include <cstdint>

namespace chorus {

// What a load report tells.
struct EngineLoad {
  std::uint32_t waiting = 0;  // requests (sequences) queued, not in the batch
  std::uint32_t running = 0;
  std::uint64_t kv_blocks_free = 0;
  std::uint64_t kv_blocks_total = 0;
  std::uint64_t preemptions = 0;                                  // since start
  std::uint64_t prefix_cache_queries = 0, prefix_cache_hits = 0;  // tokens since start
  std::uint64_t steps = 0;                                        // since start: the progress heartbeat
  std::uint64_t prompt_tokens = 0, output_tokens = 0;             // computed since start
  bool operator==(const EngineLoad&) const = default;
  static constexpr auto fields(auto& self, auto&& visit) {
    return visit(self.waiting, self.running, self.kv_blocks_free, self.kv_blocks_total, self.preemptions,
                 self.prefix_cache_queries, self.prefix_cache_hits, self.steps, self.prompt_tokens, self.output_tokens);
  }
};

}  // namespace chorus
