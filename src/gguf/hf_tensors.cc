// From a file's tensors to those of Hugging Face's names.
#include <fmt/ranges.h>

#include <algorithm>
#include <optional>

#include "base/text_values.h"
#include "gguf/architecture.h"

namespace chorus {
namespace {

constexpr std::int64_t experts_max = 1024;

constexpr PartName whole_names[] = {
    {"token_embd", "model.embed_tokens"}, {"output_norm", "model.norm"}, {"output", "lm_head"}};

constexpr PartName layer_names[] = {
    {"attn_norm", "input_layernorm"},
    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},
    {"attn_v", "self_attn.v_proj"},
    {"attn_qkv", "self_attn.qkv_proj"},
    {"attn_output", "self_attn.o_proj"},
    {"attn_q_norm", "self_attn.q_norm"},
    {"attn_k_norm", "self_attn.k_norm"},
    {"post_attention_norm", "post_attention_layernorm"},
    {"ffn_norm", "post_attention_layernorm"},
    {"post_ffw_norm", "post_feedforward_layernorm"},
    {"ffn_gate", "mlp.gate_proj"},
    {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},
    {"ffn_gate_shexp", "mlp.shared_expert.gate_proj"},
    {"ffn_up_shexp", "mlp.shared_expert.up_proj"},
    {"ffn_down_shexp", "mlp.shared_expert.down_proj"},
    {"ffn_gate_inp_shexp", "mlp.shared_expert_gate"},
    {"ffn_gate_inp", "mlp.gate"},
    {"ffn_gate_exps", "mlp.experts.*.gate_proj"},
    {"ffn_up_exps", "mlp.experts.*.up_proj"},
    {"ffn_down_exps", "mlp.experts.*.down_proj"},
};

// A tensor's name: "blk.3.attn_q.weight" is the part "attn_q" and the kind ".weight" of the layer "3".
struct NameParts {
  std::optional<std::string_view> layer;
  std::string_view rest;  // "attn_q.weight"; without a layer the whole name
  std::string_view part;
  std::string_view kind;  // with its dot; may be empty
};

NameParts parts_of(std::string_view name) {
  constexpr std::string_view start = "blk.";
  NameParts parts;
  parts.rest = name;
  if (name.starts_with(start)) {
    const std::string_view behind = name.substr(start.size());
    const std::string_view digits = behind.substr(0, std::min(behind.find_first_not_of("0123456789"), behind.size()));
    if (!digits.empty() && behind.size() > digits.size() + 1 && behind[digits.size()] == '.') {
      parts.layer = digits;
      parts.rest = behind.substr(digits.size() + 1);
    }
  }
  const std::size_t dot = parts.rest.rfind('.');
  parts.part = parts.rest.substr(0, dot);
  parts.kind = dot == std::string_view::npos ? "" : parts.rest.substr(dot);
  return parts;
}

const PartName* find_name(std::span<const PartName> names, std::string_view part) {
  const auto found = std::ranges::find(names, part, &PartName::gguf);
  return found == names.end() ? nullptr : &*found;
}

std::int64_t product_of(std::span<const std::int64_t> sizes) {
  std::int64_t product = 1;
  for (const std::int64_t size : sizes) product *= size;
  return product;
}

// `rows` rows of a tensor, from one on, under a name of their own.
HfTensor rows_of(std::string name, const GgufTensor& source, std::int64_t first_row, std::vector<std::int64_t> shape) {
  HfTensor tensor;
  tensor.name = std::move(name);
  tensor.columns = shape.size() < 2 ? 1 : shape.back();
  tensor.pieces = {{&source, first_row, product_of(shape) / tensor.columns}};
  tensor.shape = std::move(shape);
  return tensor;
}

class Renamer {
 public:
  Renamer(const GgufFile& file, const GgufArchitecture& architecture, std::vector<HfTensor>* out)
      : file_(file), architecture_(architecture), out_(out) {
    if (integer("nextn_predict_layers") > 0) layers_ = computed_layers(file, architecture);
    heads_ = integer("attention.head_count");
    key_heads_ = file.integer(std::string(architecture.name) + ".attention.head_count_kv").value_or(heads_);
  }

  Result<void> add(const GgufTensor& tensor) {
    const NameParts parts = parts_of(tensor.name);
    if (is_of_no_computed_layer(parts)) return {};
    const PartName* const name = find(parts);
    if (name == nullptr) {
      out_->push_back(rows_of(std::string(tensor.name), tensor, 0, tensor.shape));
      return {};
    }
    const std::string full = full_name(*name, parts);
    switch (name->rows) {
      case PartRows::all:
        return full.find('*') != std::string::npos ? add_experts(tensor, full) : add_as_it_is(tensor, parts, full);
      case PartRows::turned:
        return add_turned(tensor, full);
      case PartRows::alternating:
        return add_alternating(tensor, *name, full);
      case PartRows::of_heads:
        return add_of_heads(tensor, *name, full);
      case PartRows::of_key_heads:
        return add_of_key_heads(tensor, *name, full);
      case PartRows::q_k_v:
        return add_q_k_v(tensor, full);
      case PartRows::elsewhere:
        break;
    }
    return {};
  }

 private:
  std::int64_t integer(const char* key) const {
    return file_.integer(fmt::format("{}.{}", architecture_.name, key)).value_or(0);
  }

  // Of one that predicts further tokens.
  bool is_of_no_computed_layer(const NameParts& parts) const {
    return layers_ && parts.layer && number_in<std::int64_t>(*parts.layer).value_or(0) >= *layers_;
  }

  const PartName* find(const NameParts& parts) const {
    if (const PartName* const own = find_name(architecture_.names, parts.rest)) return own;
    if (const PartName* const own = find_name(architecture_.names, parts.part)) return own;
    return parts.layer ? find_name(layer_names, parts.part) : find_name(whole_names, parts.part);
  }

  std::string full_name(const PartName& name, const NameParts& parts) const {
    const std::string kind(name.gguf == parts.part ? parts.kind : "");
    if (!parts.layer) return std::string(name.hf) + kind;
    return fmt::format("{}.{}.{}{}", architecture_.layers, *parts.layer, name.hf, kind);
  }

  Result<void> add_as_it_is(const GgufTensor& tensor, const NameParts& parts, const std::string& name) {
    std::vector<std::int64_t> shape = tensor.shape;
    // Dimensions of 1, which the converter leaves out.
    if (parts.part == "ffn_gate_inp_shexp" && shape.size() == 1) shape.insert(shape.begin(), 1);
    if (parts.part == "ssm_conv1d" && shape.size() == 2) shape.insert(shape.begin() + 1, 1);
    out_->push_back(rows_of(name, tensor, 0, std::move(shape)));
    return parts.layer ? reorder(parts.part, &out_->back()) : Result<void>();
  }

  Result<void> add_experts(const GgufTensor& tensor, const std::string& pattern) {
    const std::size_t star = pattern.find('*');
    if (tensor.shape.size() != 3 || tensor.shape[0] > experts_max) {
      return wrong(tensor, fmt::format("of experts 3 dimensions, the first up to {}", experts_max));
    }
    for (std::int64_t expert = 0; expert < tensor.shape[0]; ++expert) {
      out_->push_back(rows_of(fmt::format("{}{}{}", pattern.substr(0, star), expert, pattern.substr(star + 1)), tensor,
                              expert * tensor.shape[1], {tensor.shape[1], tensor.shape[2]}));
    }
    return {};
  }

  // [.., outputs, inputs], of which the model knows [.., inputs, outputs]; a vector is none.
  Result<void> add_turned(const GgufTensor& tensor, const std::string& name) {
    out_->push_back(rows_of(name, tensor, 0, tensor.shape));
    const std::size_t count = tensor.shape.size();
    if (count < 2) return {};
    if (count > 3) return wrong(tensor, "up to 3 dimensions");
    out_->back().is_transposed = true;
    std::swap(out_->back().shape[count - 1], out_->back().shape[count - 2]);
    return {};
  }

  // The tensor of the same layer that the part `with` names.
  Result<const GgufTensor*> other_of(const GgufTensor& tensor, const PartName& name) const {
    const std::size_t layer_size = tensor.name.size() - parts_of(tensor.name).rest.size();
    const std::string other = fmt::format("{}{}", tensor.name.substr(0, layer_size), name.with);
    const GgufTensor* const found = file_.tensor(other);
    if (found != nullptr) return found;
    return fail(ErrorCode::invalid_argument, "tensor {} is there without {}: parts of one", tensor.name, other);
  }

  // [experts, outputs, inputs] of the matrices, [experts, outputs] of their biases.
  Result<void> add_alternating(const GgufTensor& tensor, const PartName& name, const std::string& full) {
    CHORUS_TRY(const GgufTensor* const other, other_of(tensor, name));
    const std::size_t count = tensor.shape.size();
    if ((count != 2 && count != 3) || other->shape != tensor.shape) return unlike(tensor, *other);
    HfTensor both = rows_of(full, tensor, 0, tensor.shape);
    if (count == 2) both.columns = 1;
    both.pieces = {{&tensor, 0, 1}, {other, 0, 1}};
    both.is_transposed = count == 3;
    both.shape[1] *= 2;
    if (count == 3) std::swap(both.shape[1], both.shape[2]);
    out_->push_back(std::move(both));
    return {};
  }

  // [heads, columns, rows of a head] and [heads, rows of a head, columns].
  Result<void> add_of_heads(const GgufTensor& tensor, const PartName& name, const std::string& full) {
    CHORUS_TRY(const GgufTensor* const other, other_of(tensor, name));
    const auto &first = tensor.shape, &second = other->shape;
    if (first.size() != 3 || second.size() != 3 || first[0] != second[0] || first[1] != second[2]) {
      return unlike(tensor, *other);
    }
    HfTensor both;
    both.name = full;
    both.columns = first[1];
    both.pieces = {{&tensor, 0, first[2], true}, {other, 0, second[1]}};
    both.shape = {first[0] * (first[2] + second[1]), first[1]};
    out_->push_back(std::move(both));
    return {};
  }

  Result<void> add_of_key_heads(const GgufTensor& tensor, const PartName& name, const std::string& full) {
    CHORUS_TRY(const GgufTensor* const gates, other_of(tensor, name));
    if (tensor.shape.size() != 2 || gates->shape.size() != 2 || tensor.shape[1] != gates->shape[1]) {
      return unlike(tensor, *gates);
    }
    const std::int64_t heads = integer("ssm.group_count"), size = integer("ssm.state_size");
    const std::int64_t rows = tensor.shape[0], values = gates->shape[0];
    const bool fits =
        heads > 0 && size > 0 && values % heads == 0 && size <= rows / heads && rows == 2 * heads * size + values;
    if (!fits)
      return wrong(tensor, fmt::format("q, k and v of {} key heads of {}, with the {} rows of {}", heads, size, values,
                                       gates->name));
    HfTensor both = rows_of(full, tensor, 0, {rows + values, tensor.shape[1]});
    const std::int64_t keys = heads * size, own = values / heads;
    both.pieces = {{&tensor, 0, size}, {&tensor, keys, size}, {&tensor, 2 * keys, own}, {gates, 0, own}};
    out_->push_back(std::move(both));
    return {};
  }

  // Rows of q, k and v, one behind the other.
  Result<void> add_q_k_v(const GgufTensor& tensor, const std::string& name) {
    const std::size_t at = name.rfind("qkv");
    const std::int64_t rows = tensor.shape.empty() ? 0 : tensor.shape[0], queries = integer("embedding_length");
    if (tensor.shape.size() > 2 || queries <= 0 || queries >= rows || (rows - queries) % 2 != 0) {
      return wrong(tensor, fmt::format("{} rows of q, and as many of k as of v", queries));
    }
    const std::int64_t keys = (rows - queries) / 2, firsts[] = {0, queries, queries + keys};
    for (const int i : {0, 1, 2}) {
      std::vector<std::int64_t> shape = tensor.shape;
      shape[0] = i == 0 ? queries : keys;
      out_->push_back(rows_of(name.substr(0, at) + "qkv"[i] + name.substr(at + 3), tensor, firsts[i], shape));
    }
    return {};
  }

  Result<void> reorder(std::string_view part, HfTensor* tensor) const {
    if (!architecture_.reorders_q_and_k || (part != "attn_q" && part != "attn_k")) return {};
    const std::int64_t heads = part == "attn_q" ? heads_ : key_heads_;
    const bool has_rows = heads > 0 && !tensor->shape.empty() && heads <= tensor->shape[0];
    if (!has_rows || tensor->shape[0] % (2 * heads) != 0) {
      return fail(ErrorCode::invalid_argument, "tensor {} has {} rows, which {} heads do not share evenly by twos",
                  tensor->source().name, tensor->shape.empty() ? 0 : tensor->shape[0], heads);
    }
    tensor->reordered_heads = heads;
    return {};
  }

  static Error wrong(const GgufTensor& tensor, const std::string& accepted) {
    return fail(ErrorCode::invalid_argument, "tensor {} has the shape [{}]; accepted: {}", tensor.name,
                fmt::join(tensor.shape, ", "), accepted);
  }
  static Error unlike(const GgufTensor& tensor, const GgufTensor& other) {
    return fail(ErrorCode::invalid_argument, "tensors {} [{}] and {} [{}] are not two parts of one", tensor.name,
                fmt::join(tensor.shape, ", "), other.name, fmt::join(other.shape, ", "));
  }

  const GgufFile& file_;
  const GgufArchitecture& architecture_;
  std::vector<HfTensor>* out_;
  std::optional<std::int64_t> layers_;  // none: all are computed
  std::int64_t heads_ = 0, key_heads_ = 0;
};

}  // namespace

Result<std::vector<HfTensor>> hf_tensors(const GgufFile& file) {
  CHORUS_TRY(const GgufArchitecture* const architecture, architecture_of(file));
  std::vector<HfTensor> tensors;
  Renamer renamer(file, *architecture, &tensors);
  for (const GgufTensor& tensor : file.tensors()) {
    const auto added = renamer.add(tensor);
    if (!added) return with_context(added.error(), file.path_of(tensor));
  }
  return tensors;
}

std::int64_t HfTensor::rows() const {
  return product_of(shape) / columns;
}

LinearFormat::Kind HfTensor::kind() const {
  const LinearFormat::Kind kind = source().type->kind;
  const bool alike = std::ranges::all_of(
      pieces, [this](const RowPiece& piece) { return piece.source->type == source().type && !piece.is_turned; });
  return alike ? kind : LinearFormat::plain;
}

std::string name_of_all_experts(const std::string& name) {
  constexpr std::string_view part = ".experts.";
  const std::size_t at = name.find(part);
  if (at == std::string::npos) return name;
  const std::size_t begin = at + part.size(), end = std::min(name.find_first_not_of("0123456789", begin), name.size());
  if (end == begin || (end < name.size() && name[end] != '.')) return name;  // of all experts already
  return name.substr(0, begin) + "*" + name.substr(end);
}

// A head of d rows: the file has row i of the first half at 2 i and row i of the second at 2 i + 1.
SourceRow source_row(const HfTensor& tensor, std::int64_t row) {
  if (tensor.reordered_heads != 0) {
    const std::int64_t rows = tensor.rows() / tensor.reordered_heads, half = rows / 2;
    const std::int64_t head = row / rows, within = row % rows;
    row = head * rows + within % half * 2 + within / half;
  }
  std::int64_t of_group = 0;
  for (const RowPiece& piece : tensor.pieces) of_group += piece.rows;
  const std::int64_t group = row / of_group;
  std::int64_t within = row % of_group;
  auto piece = tensor.pieces.begin();
  for (; within >= piece->rows; ++piece) within -= piece->rows;
  if (piece->is_turned) return {piece->source, group * tensor.columns, within};
  return {piece->source, piece->first_row + group * piece->rows + within};
}

}  // namespace chorus
