// The "post_processor" part of tokenizer.json, for one sequence: ids in front of it and behind it.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "json/json.h"

namespace chorus {

struct PostProcessor {
  std::vector<std::int32_t> prefix, suffix;
};

// `config`: the JSON value; null adds nothing. Ids must be below `id_end`.
Result<PostProcessor> load_post_processor(const Json& config, std::int32_t id_end);

}  // namespace chorus
