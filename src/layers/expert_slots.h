// The experts of one rank that move while serving: private writable memory, unlike the sealed arena of the other
// weights. Each slot is one contiguous blob (gate_up, then down, packed); moving an expert copies its bytes, so its
// outputs keep their bits.
//
// Life: made empty; every MoeLayer declares its slots (in a packer nothing more happens: the arena has no experts);
// load() packs them from the checkpoint; then layers read the weights and count their choices, and rearrange() moves
// experts between two steps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "layers/expert_placement.h"
#include "layers/moe_routing.h"
#include "layers/parameters.h"
#include "parallel/group.h"

namespace chorus {

class ExpertSlots {
 public:
  // `redundant`: replicas of experts over all ranks, see check_expert_balancing().
  ExpertSlots(Isa isa, DType dtype, int redundant, LinearFormats formats = {})
      : redundant_(redundant), parameters_(isa, dtype, std::move(formats)) {}

  int redundant() const { return redundant_; }
  Parameters& parameters() { return parameters_; }
  const Parameters& parameters() const { return parameters_; }
  // A layer that declared its slots on `rank`, alike and in order, from parameters().arena_bytes() == `begin` on.
  // Returns its index. All layers have equally many experts.
  int add_layer(ExpertPlacement placement, int rank, std::size_t begin);

  // Takes the memory and packs the slots of the first placement. Errors: as Parameters::pack; memory is short.
  Result<void> load(const Checkpoint& checkpoint, ThreadPool& pool);
  std::size_t bytes() const { return parameters_.arena_bytes(); }

  int layers() const { return static_cast<int>(layers_.size()); }
  int experts() const { return layers_.empty() ? 0 : layers_.front().placement.experts(); }
  const ExpertPlacement& placement(int layer) const { return at(layer).placement; }

  // Counts the choices of this rank's home rows.
  void count(int layer, std::span<const ExpertChoice> choices);
  // [layers, experts]: choices since the last clear_loads().
  std::span<const std::uint32_t> loads() const { return loads_; }
  void clear_loads();

  // Moves the experts of one layer so that slots hold what `next` says. All ranks of the group call it with the same
  // arguments, between steps. `next` has as many slots on each rank as before. Takes memory for the blobs that come,
  // and one or a few of those that go.
  Result<void> rearrange(Group& ep, int layer, const ExpertPlacement& next);

 private:
  struct Layer {
    ExpertPlacement placement;
    int rank = 0;
    std::size_t begin = 0, blob_bytes = 0;  // of the first slot, in memory_
  };
  struct Unmap {
    std::size_t bytes;
    void operator()(std::byte* memory) const;
  };
  const Layer& at(int layer) const { return layers_[static_cast<std::size_t>(layer)]; }
  std::span<std::byte> blob(const Layer& layer, int slot);

  int redundant_;
  Parameters parameters_;
  std::vector<Layer> layers_;
  std::vector<std::uint32_t> loads_;
  std::unique_ptr<std::byte, Unmap> memory_{nullptr, Unmap{0}};
};

}  // namespace chorus
