#include "weights/tied_head.h"

#include <cstring>

namespace chorus {

Result<bool> has_own_head(const Checkpoint& checkpoint, std::int64_t vocab_size, std::int64_t hidden_size) {
  if (!checkpoint.has(head_name) || !checkpoint.has(embedding_name)) return false;
  CHORUS_TRY(const TensorView head, checkpoint.tensor(head_name, {vocab_size, hidden_size}));
  CHORUS_TRY(const TensorView embedding, checkpoint.tensor(embedding_name, {vocab_size, hidden_size}));
  if (head.data == embedding.data) return false;
  if (head.dtype != embedding.dtype) return true;
  const auto bytes = static_cast<std::size_t>(vocab_size * hidden_size) * bytes_of(head.dtype);
  return std::memcmp(head.data, embedding.data, bytes) != 0;
}

}  // namespace chorus
