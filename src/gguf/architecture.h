// The architectures that GGUF files name, and what Hugging Face's files call the same things. A row here is what a
// family needs to be read from GGUF; its own file in models/ does not know the format.
// Source: https://github.com/ggml-org/llama.cpp, gguf-py/gguf/{constants,tensor_mapping}.py and convert_hf_to_gguf.py
// (later conversion/*.py).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "gguf/gguf_file.h"

namespace chorus {

// What of Hugging Face's tensor a tensor of the file is.
enum class PartRows : std::uint8_t {
  all,           // as they are
  turned,        // its matrices are [inputs, outputs] at Hugging Face, and [outputs, inputs] in the file
  alternating,   // turned, and each row of it is followed by one of `with`
  of_heads,      // of each head the columns of it, then the rows of `with`
  of_key_heads,  // of each key head its q, k and v (in the file first all q, then all k, then all v), then of `with`
                 // the gates
  q_k_v,         // three tensors: "qkv" of the name is q, k and v
  elsewhere,     // it is the `with` of another
};

// A part of a layer, or what stands around the layers, under its two names.
struct PartName {
  std::string_view gguf;  // "attn_q", of blk.3.attn_q.weight; or with the last part, which then is Hugging Face's own
  std::string_view hf;    // "self_attn.q_proj"; "self_attn.sinks" for attn_sinks.weight
  PartRows rows = PartRows::all;
  std::string_view with = {};
};

struct GgufArchitecture {
  std::string_view name;     // general.architecture, which is also in front of its keys
  std::string_view hf_name;  // as in config.json's architectures[0]
  std::string_view model_type;
  // llama.cpp turns neighbours where Hugging Face turns halves, and reorders the rows of q and k to that end.
  bool reorders_q_and_k = false;
  // Where its names differ from the common ones.
  std::span<const PartName> names = {};
  std::string_view layers = "model.layers";
  // expert_gating_func, which tells apart what llama.cpp gives one name: 1 is softmax, 2 sigmoid. 0: not looked at. A
  // file without it is of the first row of its name, or of sigmoid's if its experts have corrections.
  std::int64_t expert_gating = 0;
  // Keys of the file that it cannot do without, less their first part: Hugging Face's class has another model's values
  // where they are missing.
  std::span<const std::string_view> needs = {};
  // The converter writes feed_forward_length as four times embedding_length, and as many key heads as heads, whatever
  // the model has: the tensors tell.
  bool has_guessed_sizes = false;
};

// Errors: no general.architecture, or one without a row here: then with all that have one; a gating of experts that no
// row has; a key that the row needs.
Result<const GgufArchitecture*> architecture_of(const GgufFile& file);

// Rows of one tensor of the file. Those of several pieces make up a tensor in turn: `rows` of the first, of the second,
// and so on, which is one group of so many as there are.
struct RowPiece {
  const GgufTensor* source = nullptr;
  std::int64_t first_row = 0;  // in the source, whose leading dimensions are taken as rows
  std::int64_t rows = 0;       // of each group
  bool is_turned = false;      // the source is [groups, columns, rows]: a row here is a column of a group's matrix
};

// A tensor as a model of Hugging Face's names has it.
struct HfTensor {
  std::string name;
  std::vector<std::int64_t> shape;
  std::vector<RowPiece> pieces;  // one or more
  std::int64_t columns = 1;      // of a row of the pieces; of a vector, whose elements are its rows, 1
  bool is_transposed = false;    // the shape is [.., columns, rows]; its first dimension, if it has 3, goes over all
  // Not 0: the rows are those of so many heads, reordered as above.
  std::int64_t reordered_heads = 0;

  const GgufTensor& source() const { return *pieces.front().source; }
  std::int64_t rows() const;
  // Whether its rows are what a product sums over.
  bool is_matrix() const { return columns > 1 && (shape.size() == 2 || is_transposed); }
  // One piece, whose elements lie in the file as the shape has them.
  bool lies_as_it_is() const { return pieces.size() == 1 && !is_transposed && reordered_heads == 0; }
  // In which groups its rows can be packed; plain: none, or not all pieces have the same.
  LinearFormat::Kind kind() const;
};

// A size among the metadata that can be added to and taken from others, 0 where there is none; `key` without the
// architecture's name in front.
std::int64_t size_in(const GgufFile& file, const GgufArchitecture& architecture, std::string_view key);

// Those in front of the ones that predict further tokens, which are not computed.
std::int64_t computed_layers(const GgufFile& file, const GgufArchitecture& architecture);

// All tensors of these layers and of none, in the file's order; one that has no such name keeps its own. An expert is a
// tensor, unless Hugging Face has all experts in one. Errors: parts that do not fit each other or the metadata, by
// name.
Result<std::vector<HfTensor>> hf_tensors(const GgufFile& file);

// "model.layers.0.mlp.experts.7.up_proj.weight" with * for 7; other names as they are.
std::string name_of_all_experts(const std::string& name);

// Where row `row` of such a tensor lies.
struct SourceRow {
  const GgufTensor* source = nullptr;
  std::int64_t row = 0;      // of the source
  std::int64_t column = -1;  // of a piece that is turned: element i of the row is this column of row `row` + i
};
SourceRow source_row(const HfTensor& tensor, std::int64_t row);

}  // namespace chorus
