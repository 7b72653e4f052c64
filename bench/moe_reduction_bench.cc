// What the reduction of a mixture of experts costs over two tensor-parallel ranks as threads of this process, and what
// other ways would (docs/decisions/007-moe-reduction.md). Microseconds per layer, the best of many.
//   cmake --preset release -DCHORUS_BENCH=ON && ninja -C build moe_reduction_bench && build/bench/moe_reduction_bench
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <thread>
#include <vector>

#include "base/check.h"
#include "parallel/group.h"

namespace chorus {
namespace {

constexpr std::size_t hidden = 2048, experts = 64;
constexpr int ranks = 2, rounds = 200;

// One rank's outputs of k experts for each row.
struct Layer {
  std::size_t rows, k;
  std::vector<float> outputs = std::vector<float>(rows * k * hidden, 0.5F);
  std::vector<float> sums = std::vector<float>(rows * hidden);

  void combine(std::size_t first, std::size_t count) {
    for (std::size_t row = first; row < first + count; ++row) {
      for (std::size_t i = 0; i < hidden; ++i) {
        float sum = 0;
        for (std::size_t c = 0; c < k; ++c) sum += 0.5F * outputs[(row * k + c) * hidden + i];
        sums[row * hidden + i] = sum;
      }
    }
  }
};

using Way = std::function<void(Group&, Layer&)>;

void must(const Result<void>& result) {
  CHECK(result.ok(), "{}", result.error().message);
}

void each_expert(Group& group, Layer& layer) {
  const std::size_t chosen = std::min(experts, layer.rows * layer.k), each = layer.outputs.size() / chosen;
  for (std::size_t e = 0; e < chosen; ++e)
    must(group.all_reduce_tree(std::span(layer.outputs).subspan(e * each, each)));
  layer.combine(0, layer.rows);
}

void all_experts_at_once(Group& group, Layer& layer) {
  must(group.all_reduce_tree(layer.outputs));
  layer.combine(0, layer.rows);
}

// Each rank gets the finished outputs of its share of the rows, sums them, and gives the sums to all.
void scattered_by_row(Group& group, Layer& layer) {
  const std::size_t half = layer.rows / 2, own_rows = group.rank() == 0 ? half : layer.rows - half;
  const std::size_t first = group.rank() == 0 ? 0 : half, row = layer.k * hidden;
  const std::size_t counts[] = {half * row, (layer.rows - half) * row};
  must(group.reduce_scatter_tree(layer.outputs, counts, std::span(layer.outputs).subspan(first * row, own_rows * row)));
  layer.combine(first, own_rows);
  const std::size_t bytes[] = {half * hidden * 4, (layer.rows - half) * hidden * 4};
  must(group.all_gather_v(std::as_bytes(std::span(layer.sums).subspan(first * hidden, own_rows * hidden)), bytes,
                          std::as_writable_bytes(std::span(layer.sums))));
}

// Not the promise: the sum over experts would depend on the number of ranks.
void summed_first(Group& group, Layer& layer) {
  layer.combine(0, layer.rows);
  must(group.all_reduce_tree(layer.sums));
}

double best_us(std::size_t rows, std::size_t k, const Way& way) {
  auto groups = make_thread_groups(ranks, 60000);
  std::vector<double> times;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([&, rank] {
      Group& group = groups[static_cast<std::size_t>(rank)];
      Layer layer{rows, k};
      for (int round = 0; round < rounds; ++round) {
        must(group.barrier());
        const auto begin = std::chrono::steady_clock::now();
        way(group, layer);
        const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - begin;
        if (rank == 0) times.push_back(took.count());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return *std::ranges::min_element(times);
}

}  // namespace
}  // namespace chorus

int main() {
  using namespace chorus;
  fmt::print("{:>5} {:>3} {:>14} {:>14} {:>14} {:>14}\n", "rows", "k", "each expert", "all at once", "by row",
             "summed first");
  for (const std::size_t k : {2U, 8U}) {
    for (const std::size_t rows : {1U, 8U, 64U, 512U}) {
      fmt::print("{:>5} {:>3} {:>14.0f} {:>14.0f} {:>14.0f} {:>14.0f}\n", rows, k, best_us(rows, k, each_expert),
                 best_us(rows, k, all_experts_at_once), best_us(rows, k, scattered_by_row),
                 best_us(rows, k, summed_first));
    }
  }
}
