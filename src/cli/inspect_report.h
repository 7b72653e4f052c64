// What `chorus inspect` found, and how it is said.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "config/engine_config.h"
#include "layers/parameters.h"
#include "models/decoder.h"
#include "parallel/topology.h"

namespace chorus {

// A part of the model that some workers have, all of them the same.
struct InspectedShard {
  Coordinates at;                // of the first of them
  std::vector<int> world_ranks;  // ascending
  ModelShard part;
  int tensors = 0;
  std::int64_t elements = 0;
  std::uint64_t bytes = 0;  // packed: one copy a node
};

// Rows [first, end) of a tensor.
struct RowRange {
  std::int64_t first = 0, end = 0;
};

// What a shard has of a tensor: of one that the checkpoint keeps for several matrices (qkv_proj) it may be several
// ranges of rows; ascending, none touches the next.
struct InspectedSlice {
  NamedParameter first;  // columns and packing are those of all
  std::vector<RowRange> rows;

  std::int64_t elements() const;
};

struct InspectedTensor {
  std::string name;
  std::vector<std::int64_t> shape;
  std::string dtype;                                  // in the checkpoint: of its elements, or how it is quantised
  std::vector<std::optional<InspectedSlice>> slices;  // one per shard; nullopt: it has nothing of it
};

struct Inspection {
  std::string model, architecture;
  ParallelConfig parallel;
  Isa isa = Isa::scalar;
  DType dtype = DType::float32;  // of the computation
  Quantization quantization = Quantization::none;
  std::optional<std::string> no_checkpoint;  // why dtypes are those of the computation
  std::vector<InspectedShard> shards;
  std::vector<InspectedTensor> tensors;
  std::vector<std::string> unused;  // tensors of the checkpoint that the model does not have
};

// A table for people. Equal slices are told once: "tp=0,1: [0:8, :]".
std::string text_of(const Inspection& inspection);
// One JSON object, one line per parameter. Slice i of a parameter is that of entry i of "shards".
std::string json_of(const Inspection& inspection);

}  // namespace chorus
