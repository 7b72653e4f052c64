// The architectures that GGUF files name, and what Hugging Face's files call the same things. A row here is what a
// family needs to be read from GGUF; its own file in models/ does not know the format.
// Source: https://github.com/ggml-org/llama.cpp, gguf-py/gguf/{constants,tensor_mapping}.py and convert_hf_to_gguf.py.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "gguf/gguf_file.h"

namespace chorus {

// A part of a layer under its two names.
struct PartName {
  std::string_view gguf;  // "attn_q", of blk.3.attn_q.weight
  std::string_view hf;    // "self_attn.q_proj"
};

struct GgufArchitecture {
  std::string_view name;     // general.architecture, which is also in front of its keys
  std::string_view hf_name;  // as in config.json's architectures[0]
  std::string_view model_type;
  // llama.cpp turns neighbours where Hugging Face turns halves, and reorders the rows of q and k to that end.
  bool reorders_q_and_k = false;
  // Where its names differ from the common ones.
  std::span<const PartName> names = {};
};

// Errors: no general.architecture, or one without a row here: then with all that have one.
Result<const GgufArchitecture*> architecture_of(const GgufFile& file);

// A tensor as a model of Hugging Face's names has it.
struct HfTensor {
  std::string name;
  const GgufTensor* source = nullptr;
  std::vector<std::int64_t> shape;
  std::int64_t first_row = 0;  // in the source, whose leading dimensions are taken as rows: of an expert its own
  // Not 0: the rows are those of so many heads, reordered as above.
  std::int64_t reordered_heads = 0;
};

// All tensors, in the file's order; one that has no such name keeps its own. An expert is a tensor.
Result<std::vector<HfTensor>> hf_tensors(const GgufFile& file);

// "model.layers.0.mlp.experts.7.up_proj.weight" with * for 7; other names as they are.
std::string name_of_all_experts(const std::string& name);

// The row of the source that has row `row` of such a tensor.
std::int64_t source_row(const HfTensor& tensor, std::int64_t row);

}  // namespace chorus
