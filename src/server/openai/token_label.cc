#include "server/openai/token_label.h"

#include <fmt/format.h>

namespace chorus {

std::string TokenLabel::operator()(TokenId token) const {
  if (!as_ids_) {
    if (auto text = tokenizer_->decode({&token, 1}, false); text.ok()) return std::move(*text);
  }
  return fmt::format("token_id:{}", token);
}

}  // namespace chorus
