// The single steps that a "decoder" is made of. Each maps a list of strings, one per token at first, to another list.
// A replacement that would make more than `bytes_max` of all strings is left out.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "json/json.h"

namespace chorus {

class DecoderStep {
 public:
  enum class Kind { byte_level, byte_fallback, fuse, strip, per_token, other };

  virtual ~DecoderStep() = default;
  virtual Kind kind() const = 0;
  virtual void run(std::vector<std::string>& tokens, std::size_t bytes_max) const = 0;
  // Kinds strip and per_token: the same for one token. `first`: it is the first of the sequence.
  virtual void run_token(std::string& /*token*/, bool /*first*/, std::size_t /*bytes_max*/) const {}
};

// For a chain of steps, from the bytes that it begins with.
inline constexpr std::size_t decoder_growth_max = 16;
inline constexpr std::size_t decoder_growth_bytes_min = 4 << 10;  // a short text may grow by more
constexpr std::size_t decoded_bytes_max(std::size_t bytes) {
  return decoder_growth_bytes_min + decoder_growth_max * bytes;
}

// Strip's parameters: up to `start` and `stop` times `content` are taken off the two ends.
struct StripRule {
  std::string content;
  std::size_t start = 0, stop = 0;
};
// nullptr unless the step's kind is strip.
const StripRule* strip_rule_of(const DecoderStep& step);

// The byte of "<0xNN>".
std::optional<unsigned char> byte_of_token(std::string_view token);
// A byte-level token's bytes; a token with a character that stands for no byte is taken as it is.
void append_byte_level(std::string_view token, std::string& bytes);
// Moves complete characters from the front of `bytes` to `text`, ill-formed sequences as U+FFFD. What the end cuts off
// stays in `bytes`, unless `all`.
void move_utf8(std::string& bytes, std::string& text, bool all);

// A Sequence gives several steps, null one that joins by spaces.
Result<std::vector<std::unique_ptr<const DecoderStep>>> load_decoder_steps(const Json& config);

}  // namespace chorus
