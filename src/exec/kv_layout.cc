#include "exec/kv_layout.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"
#include "config/pipeline_partition.h"

namespace chorus {
namespace {

// Each costs the scheduler and every plan a list of blocks.
constexpr int window_tables_max = 8;

int divided_up(int total, int by) {
  return (total + by - 1) / by;
}

// The layers of a stage.
struct StageLayers {
  int whole = 0, windowed = 0;
  int slots(int tables) const { return std::max(whole, divided_up(windowed, tables)); }
};

std::vector<StageLayers> count_layers(const std::vector<int>& windows, const std::vector<int>& stages) {
  std::vector<StageLayers> counts;
  auto layer = windows.begin();
  for (const int layers : stages) {
    const auto windowed = static_cast<int>(std::count_if(layer, layer + layers, [](int keys) { return keys > 0; }));
    counts.push_back({layers - windowed, windowed});
    layer += layers;
  }
  return counts;
}

// Slots that a table leaves empty cost short sequences memory, which no window gives back.
bool wastes_memory(const StageLayers& stage, int tables) {
  return 5 * stage.slots(tables) * (1 + tables) > 6 * (stage.whole + stage.windowed);
}

}  // namespace

KvWindow kv_window(const ModelConfig& model, const ParallelConfig& parallel) {
  const std::vector<int>& windows = model.layer_window;
  const auto has_window = [](int keys) { return keys > 0; };
  if (parallel.decode_context_parallel_size > 1 || std::ranges::none_of(windows, has_window) ||
      std::ranges::all_of(windows, has_window)) {
    return {};
  }
  const auto partition =
      pipeline_partition(model.num_hidden_layers, parallel.pipeline_parallel_size, parallel.pipeline_layer_partition);
  CHECK(partition.ok(), "the partition was validated before: {}", partition.error().message);
  const std::vector<StageLayers> stages = count_layers(windows, *partition);
  int tables = 1;
  for (const StageLayers& stage : stages)
    tables = std::max(tables, divided_up(stage.windowed, std::max(1, stage.whole)));
  tables = std::min(tables, window_tables_max);
  if (std::ranges::any_of(stages, [&](const StageLayers& stage) { return wastes_memory(stage, tables); })) return {};
  return {tables, std::ranges::max(windows)};
}

KvPlaces::KvPlaces(std::span<const KvCacheSpec> layers, const KvWindow& window, int block_size, KvDType dtype) {
  const auto is_windowed = [&](const KvCacheSpec& spec) { return window.tables > 0 && spec.window > 0; };
  const auto windowed = static_cast<int>(std::ranges::count_if(layers, is_windowed));
  const int in_table = std::max(1, divided_up(windowed, std::max(1, window.tables)));
  int whole = 0, seen = 0;
  for (const KvCacheSpec& spec : layers) {
    const int number = is_windowed(spec) ? seen++ : whole++;
    places_.push_back(is_windowed(spec) ? KvPlace{1 + number / in_table, number % in_table} : KvPlace{0, number});
    const auto slot = static_cast<std::size_t>(places_.back().slot);
    slot_bytes_.resize(std::max(slot_bytes_.size(), slot + 1));
    slot_bytes_[slot] = std::max(slot_bytes_[slot], spec.block_bytes(block_size, dtype));
  }
}

std::size_t KvPlaces::block_bytes() const {
  return std::accumulate(slot_bytes_.begin(), slot_bytes_.end(), std::size_t{0});
}

}  // namespace chorus
