#include <algorithm>

#include "base/check.h"
#include "targets.h"
#include "tokenizer/regex.h"
#include "tokenizer/tokenizer.h"

namespace chorus::fuzz {
namespace {

// A text through one tokenizer, each way that there is.
void round_trip(const std::shared_ptr<const Tokenizer>& tokenizer, std::string_view text, const std::string& stop) {
  const auto ids = tokenizer->encode(text, true);
  if (!ids.ok()) return;
  (void)tokenizer->decode(*ids, true);
  const auto decoded = tokenizer->decode(*ids, false);
  CHECK(decoded.ok(), "{}", decoded.error().message);
  Detokenizer::Options options;
  options.skip_special_tokens = false;
  Detokenizer plain(tokenizer, {}, options);
  std::string streamed;
  for (const std::int32_t id : *ids) streamed += plain.push(id);
  streamed += plain.finish();
  options.stop = {stop, "stop"};
  Detokenizer stopping(tokenizer, std::span(*ids).first(ids->size() / 2), options);
  for (const std::int32_t id : *ids) stopping.push(id);
  stopping.finish();
}

}  // namespace

void run_tokenizer_load(std::string_view input) {
  static const Folder folder;
  // tokenizer.json, and behind a 0 byte a text.
  const std::size_t cut = std::min(input.find('\0'), input.size());
  folder.write("tokenizer.json", input.substr(0, cut));
  const auto tokenizer = load_tokenizer(folder.path());
  if (!tokenizer.ok()) return;
  round_trip(*tokenizer, "Hello  world 123\n<s>\xc3\xa9\xe4\xb8\x96 aaaaaaaaaaaa", "wor");
  if (cut < input.size()) round_trip(*tokenizer, input.substr(cut + 1), "a");
}

void run_tokenize(std::string_view input) {
  static const auto tokenizer = load_tokenizer(CHORUS_FUZZ_TOKENIZER);
  CHECK(tokenizer.ok(), "{}", tokenizer.error().message);
  const std::size_t cut = std::min(input.find('\n'), input.size());
  round_trip(*tokenizer, input, std::string(input.substr(0, cut)));
}

void run_pattern(std::string_view input) {
  // A line with the pattern, then the text.
  const std::size_t cut = std::min(input.find('\n'), input.size());
  const auto regex = Regex::compile(input.substr(0, cut));
  if (!regex.ok()) return;
  const std::string_view text = cut < input.size() ? input.substr(cut + 1) : "Hello world 123 aaaaaaaaaaaaaaaaaaaaaaaa";
  std::string ascii(text);  // find_all wants UTF-8
  for (char& c : ascii) c = static_cast<char>(c & 0x7f);
  const auto matches = regex->find_all(ascii);
  if (!matches.ok()) return;
  std::size_t done = 0;
  for (const Span& match : *matches) {
    CHECK(match.begin >= done && match.begin <= match.end && match.end <= ascii.size());
    done = match.end;
  }
}

}  // namespace chorus::fuzz
