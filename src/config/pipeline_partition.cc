#include "config/pipeline_partition.h"

#include <charconv>
#include <numeric>
#include <string_view>

namespace chorus {
namespace {

Result<std::vector<int>> parse(int layers, int stages, const std::string& given) {
  const Error error = fail(ErrorCode::invalid_argument,
                           "--pp-layer-partition is \"{}\"; accepted: {} numbers of layers above 0 with commas "
                           "between, {} in all (the model's)",
                           given.substr(0, 200), stages, layers);
  std::vector<int> counts;
  std::string_view rest = given;
  while (true) {
    int count = 0;
    const auto parsed = std::from_chars(rest.data(), rest.data() + rest.size(), count);
    if (parsed.ec != std::errc() || count < 1 || count > layers) return error;
    counts.push_back(count);
    rest.remove_prefix(static_cast<std::size_t>(parsed.ptr - rest.data()));
    if (rest.empty()) break;
    if (!rest.starts_with(',')) return error;
    rest.remove_prefix(1);
  }
  const bool fits =
      static_cast<int>(counts.size()) == stages && std::accumulate(counts.begin(), counts.end(), 0L) == layers;
  if (!fits) return error;
  return counts;
}

}  // namespace

Result<std::vector<int>> pipeline_partition(int layers, int stages, const std::string& given) {
  if (stages > layers) {
    return fail(ErrorCode::invalid_argument,
                "--pipeline-parallel-size {} is more than the {} layers of the model: at most {}", stages, layers,
                layers);
  }
  if (!given.empty()) return parse(layers, stages, given);
  std::vector<int> counts(static_cast<std::size_t>(stages), layers / stages);
  // Extra layers from the last but one stage downwards: stage 0 and then the last one come after all others.
  for (int i = 0; i < layers % stages; ++i) ++counts[static_cast<std::size_t>(stages - 2 - i)];
  return counts;
}

}  // namespace chorus
