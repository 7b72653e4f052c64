#include "frontend/tokenizer_eos.h"

#include <algorithm>

#include "tokenizer/folder_tokens.h"

namespace chorus {

Result<void> add_tokenizer_eos(const Tokenizer& tokenizer, ModelConfig* model) {
  CHORUS_TRY(const FolderTokens tokens, read_folder_tokens(model->directory));
  const auto named = tokens.named.find("eos_token");
  const auto own = named == tokens.named.end() ? std::nullopt : tokenizer.token_to_id(named->second);
  if (!own) return {};
  model->eos_token_id = own;
  auto& ids = model->eos_token_ids;
  const auto place = std::ranges::lower_bound(ids, *own);
  if (place == ids.end() || *place != *own) ids.insert(place, *own);
  return {};
}

}  // namespace chorus
