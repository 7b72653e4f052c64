// Where the layers of a worker keep their keys and values.
//
// The KV memory of a worker is one array of blocks a slot, and a slot serves one layer of each block table of a
// sequence (sched/kv_shape.h): the layers that see all keys are in slots 0, 1, ... of table 0, and those with a sliding
// window fill the slots of the further tables one after the other. A block id stands for that block of every slot, so
// any table may use it. With 5 windowed layers to one that sees all keys, as in Gemma 3, there are 5 windowed tables
// and a block is of a sixth of the layers.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "config/engine_config.h"
#include "config/model_config.h"
#include "layers/kv_cache_spec.h"
#include "sched/kv_shape.h"

namespace chorus {

// The windowed tables of a replica's sequences: the same on all stages. None where no layer has a window or all have
// one (a prefix is found by blocks of layers that see all keys), where context ranks share the keys, and where a
// stage's layers do not make tables of about one size: short sequences would take over a fifth more than without
// windows. Layers with different windows are kept as far back as the widest reaches.
KvWindow kv_window(const ModelConfig& model, const ParallelConfig& parallel);

struct KvPlace {
  int table = 0;
  int slot = 0;
};

class KvPlaces {
 public:
  // `layers`: of one worker.
  KvPlaces(std::span<const KvCacheSpec> layers, const KvWindow& window, int block_size, KvDType dtype);

  const KvPlace& of(std::size_t layer) const { return places_[layer]; }
  // Of one block in one slot: what the largest of its layers takes.
  std::size_t slot_bytes(int slot) const { return slot_bytes_[static_cast<std::size_t>(slot)]; }
  std::size_t block_bytes() const;  // in all slots
  int slots() const { return static_cast<int>(slot_bytes_.size()); }

 private:
  std::vector<KvPlace> places_;  // by layer
  std::vector<std::size_t> slot_bytes_;
};

}  // namespace chorus
