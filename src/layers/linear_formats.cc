#include "layers/linear_formats.h"

#include <algorithm>
#include <optional>

#include "gguf/architecture.h"
#include "layers/parameters.h"
#include "weights/tied_head.h"

namespace chorus {
LinearFormats::LinearFormats(Quantization quantization, const ModelConfig& model) : quantization_(quantization) {
  for (const StoredFormat& stored : model.stored_formats) stored_.emplace(stored.tensor, stored.kind);
  if (!model.tie_word_embeddings) return;
  // A tied file may have either.
  for (const char* const name : {embedding_name, head_name}) {
    if (const auto found = stored_.find(name); found != stored_.end()) {
      const LinearFormat::Kind kind = found->second;
      stored_.emplace(embedding_name, kind);
      stored_.emplace(head_name, kind);
    }
  }
}

LinearFormat LinearFormats::of(const LinearShape& shape, const std::vector<ParameterSource>& sources,
                               DType dtype) const {
  switch (quantization_) {
    case Quantization::none:
      return dtype;
    case Quantization::int8:
      return LinearFormat::int8;
    case Quantization::int4:
      return LinearFormat::int4;
    case Quantization::automatic:
      break;
  }
  return shape.columns / shape.segments % group_columns == 0 ? stored(sources, dtype) : LinearFormat(dtype);
}

LinearFormat LinearFormats::of_output(const LinearShape& shape, const std::vector<ParameterSource>& sources,
                                      DType dtype) const {
  return quantization_ == Quantization::int4 ? LinearFormat(LinearFormat::int8) : of(shape, sources, dtype);
}

bool LinearFormats::is_quantized(const std::vector<ParameterSource>& sources) const {
  return std::ranges::any_of(
      sources, [this](const ParameterSource& source) { return stored_.contains(name_of_all_experts(source.tensor)); });
}

LinearFormat LinearFormats::stored(const std::vector<ParameterSource>& sources, DType dtype) const {
  std::optional<LinearFormat::Kind> common;
  for (const ParameterSource& source : sources) {
    const auto found = stored_.find(name_of_all_experts(source.tensor));
    if (found == stored_.end() || found->second == LinearFormat::plain) return dtype;
    const LinearFormat::Kind kind = found->second;
    if (!common || holds_groups_of(kind, *common)) {
      common = kind;
    } else if (!holds_groups_of(*common, kind)) {
      return dtype;
    }
  }
  return common ? LinearFormat(*common) : LinearFormat(dtype);
}

}  // namespace chorus
