// A tokenizer.json for the vocabulary in a GGUF file. The pre-tokenizers by llama.cpp's names for them
// (src/llama-vocab.cpp), each as the tokenizer.json that the name was given for has it.
#include <fmt/ranges.h>

#include <algorithm>
#include <span>
#include <unordered_map>

#include "gguf/documents.h"
#include "json/json.h"

namespace chorus {
namespace {

// Of a token, as in the file.
enum class TokenType : int { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };

struct Vocabulary {
  std::vector<std::string_view> tokens;
  std::vector<double> types;   // empty: all normal
  std::vector<double> scores;  // of SentencePiece's pieces
  TokenType type_of(std::size_t id) const {
    return types.empty() ? TokenType::normal : static_cast<TokenType>(types[id]);
  }
};

Result<Vocabulary> read_vocabulary(const GgufFile& file) {
  Vocabulary vocabulary;
  vocabulary.tokens = file.texts("tokenizer.ggml.tokens");
  vocabulary.types = file.numbers("tokenizer.ggml.token_type");
  vocabulary.scores = file.numbers("tokenizer.ggml.scores");
  const std::size_t count = vocabulary.tokens.size();
  if (count == 0) return fail(ErrorCode::invalid_argument, "{}: no tokenizer.ggml.tokens", file.path());
  for (const auto* list : {&vocabulary.types, &vocabulary.scores}) {
    if (list->empty() || list->size() == count) continue;
    return fail(ErrorCode::invalid_argument, "{}: {} tokens, but {} types or scores of them", file.path(), count,
                list->size());
  }
  return vocabulary;
}

// How a text is cut before the merges: first by patterns, one after the other; then into bytes, where the last pattern
// may be the one that ByteLevel itself has (GPT-2's).
struct PreTokenizer {
  std::span<const std::string_view> names;
  std::span<const std::string_view> patterns = {};
  bool has_gpt2_pattern = false;
  bool single_digits = false;
  bool ignores_merges = false;  // a whole word that is a token stays one
  bool adds_bos = false;        // where the file does not say
  bool composes = false;        // Unicode NFC first
};

constexpr std::string_view llama3_pattern[] = {
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"};
constexpr std::string_view qwen2_pattern[] = {
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"};
constexpr std::string_view tekken_pattern[] = {
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)"};
constexpr std::string_view gpt4o_pattern[] = {
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)"};
constexpr std::string_view deepseek_coder_patterns[] = {"[\r\n]", R"(\s?\p{L}+)", R"(\s?\p{P}+)",
                                                        "[一-龥ࠀ-一가-퟿]+", R"(\p{N})"};
// Letters with a case, of the Unicode that its tokenizer.json was written by.
constexpr std::string_view deepseek_llm_patterns[] = {
    "[\r\n]",
    "\\s?["
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373"
    "\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f"
    "\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77"
    "\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d"
    "\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec"
    "\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d"
    "\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee"
    "\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06"
    "\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb"
    "\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
    "]+",
    "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
    "\\s+$",
    "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+",
    R"(\p{N})"};
constexpr std::string_view deepseek_v3_patterns[] = {
    R"(\p{N}{1,3})", "[一-龥぀-ゟ゠-ヿ]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| "
    "?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"};

constexpr std::string_view llama3_names[] = {"llama3", "llama-v3", "llama-bpe", "falcon3", "smaug-bpe", "dbrx"};
constexpr std::string_view chatglm_names[] = {"chatglm-bpe", "glm4"};
constexpr std::string_view qwen2_names[] = {"qwen2", "deepseek-r1-qwen", "megrez"};
constexpr std::string_view stablelm_names[] = {"stablelm2", "hunyuan"};
constexpr std::string_view gpt2_names[] = {"gpt-2", "phi-2", "mpt", "olmo", "default", "granite-docling"};
constexpr std::string_view digit_names[] = {"smollm", "starcoder", "refact",    "command-r",
                                            "exaone", "codeshell", "minerva-7b"};
constexpr std::string_view tekken_names[] = {"tekken"};
constexpr std::string_view gpt4o_names[] = {"gpt-4o"};
constexpr std::string_view deepseek_coder_names[] = {"deepseek-coder"};
constexpr std::string_view deepseek_llm_names[] = {"deepseek-llm"};
constexpr std::string_view deepseek_v3_names[] = {"deepseek-v3", "hunyuan-dense"};

constexpr PreTokenizer pre_tokenizers[] = {
    {.names = llama3_names, .patterns = llama3_pattern, .ignores_merges = true, .adds_bos = true},
    {.names = chatglm_names, .patterns = llama3_pattern},
    {.names = qwen2_names, .patterns = qwen2_pattern, .composes = true},
    {.names = stablelm_names, .patterns = qwen2_pattern, .composes = true},
    {.names = gpt2_names, .has_gpt2_pattern = true},
    {.names = digit_names, .has_gpt2_pattern = true, .single_digits = true},
    {.names = tekken_names, .patterns = tekken_pattern, .ignores_merges = true, .adds_bos = true},
    {.names = gpt4o_names, .patterns = gpt4o_pattern},
    {.names = deepseek_coder_names, .patterns = deepseek_coder_patterns},
    {.names = deepseek_llm_names, .patterns = deepseek_llm_patterns},
    {.names = deepseek_v3_names, .patterns = deepseek_v3_patterns},
};

Result<const PreTokenizer*> pre_tokenizer_of(const GgufFile& file) {
  const std::string_view name = file.text("tokenizer.ggml.pre").value_or("default");
  std::vector<std::string_view> known;
  for (const PreTokenizer& one : pre_tokenizers) {
    if (std::ranges::find(one.names, name) != one.names.end()) return &one;
    known.insert(known.end(), one.names.begin(), one.names.end());
  }
  return fail(ErrorCode::invalid_argument, "{}: tokenizer.ggml.pre is \"{}\"; known are {}", file.path(),
              name.substr(0, 60), fmt::join(known, ", "));
}

// Tokens that are looked for in a text before it is cut.
void write_added_tokens(const Vocabulary& vocabulary, JsonWriter* json) {
  json->key("added_tokens").begin_array();
  for (std::size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const TokenType type = vocabulary.type_of(id);
    const bool special = type == TokenType::control || type == TokenType::unknown;
    if (!special && type != TokenType::user_defined) continue;
    json->begin_object().key("id").value(static_cast<std::uint64_t>(id)).key("content").value(vocabulary.tokens[id]);
    for (const char* const flag : {"single_word", "lstrip", "rstrip", "normalized"}) json->key(flag).value(false);
    json->key("special").value(special).end_object();
  }
  json->end_array();
}

void write_vocab(const Vocabulary& vocabulary, JsonWriter* json) {
  json->key("vocab").begin_object();
  for (std::size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    json->key(vocabulary.tokens[id]).value(static_cast<std::uint64_t>(id));
  }
  json->end_object();
}

void write_special_token(std::string_view content, std::int64_t id, JsonWriter* json) {
  json->key(content).begin_object().key("id").value(content);
  json->key("ids").begin_array().value(id).end_array();
  json->key("tokens").begin_array().value(content).end_array().end_object();
}

// What stands before and behind each text.
void write_post_processor(const GgufFile& file, const Vocabulary& vocabulary, bool adds_bos, JsonWriter* json) {
  const auto token = [&](const char* flag, bool otherwise, const char* key) -> std::optional<std::int64_t> {
    const auto id = file.integer(key);
    const bool there = id && *id >= 0 && *id < static_cast<std::int64_t>(vocabulary.tokens.size());
    return there && file.flag(flag).value_or(otherwise) ? id : std::nullopt;
  };
  const auto bos = token("tokenizer.ggml.add_bos_token", adds_bos, "tokenizer.ggml.bos_token_id");
  const auto eos = token("tokenizer.ggml.add_eos_token", false, "tokenizer.ggml.eos_token_id");
  json->key("post_processor");
  if (!bos && !eos) {
    json->null();
    return;
  }
  const auto content = [&](std::int64_t id) { return vocabulary.tokens[static_cast<std::size_t>(id)]; };
  const auto part = [&](const char* kind, std::string_view id) {
    json->begin_object().key(kind).begin_object().key("id").value(id).key("type_id").value(0).end_object().end_object();
  };
  json->begin_object().key("type").value("TemplateProcessing").key("single").begin_array();
  if (bos) part("SpecialToken", content(*bos));
  part("Sequence", "A");
  if (eos) part("SpecialToken", content(*eos));
  json->end_array().key("pair").begin_array().end_array().key("special_tokens").begin_object();
  if (bos) write_special_token(content(*bos), *bos, json);
  if (eos && eos != bos) write_special_token(content(*eos), *eos, json);
  json->end_object().end_object();
}

void write_byte_level(bool has_pattern, JsonWriter* json) {
  json->begin_object().key("type").value("ByteLevel").key("add_prefix_space").value(false);
  json->key("trim_offsets").value(true).key("use_regex").value(has_pattern).end_object();
}

void write_pre_tokenizer(const PreTokenizer& pre, JsonWriter* json) {
  json->key("pre_tokenizer").begin_object().key("type").value("Sequence").key("pretokenizers").begin_array();
  if (pre.single_digits) {
    json->begin_object().key("type").value("Digits").key("individual_digits").value(true).end_object();
  }
  for (const std::string_view pattern : pre.patterns) {
    json->begin_object().key("type").value("Split").key("pattern").begin_object().key("Regex").value(pattern);
    json->end_object().key("behavior").value("Isolated").key("invert").value(false).end_object();
  }
  write_byte_level(pre.has_gpt2_pattern, json);
  json->end_array().end_object();
}

// "gpt2": BPE over bytes written as characters, with its merges in their order.
Result<std::string> byte_level_bpe(const GgufFile& file, const Vocabulary& vocabulary) {
  CHORUS_TRY(const PreTokenizer* const pre, pre_tokenizer_of(file));
  std::string text;
  JsonWriter json(&text);
  json.begin_object();
  write_added_tokens(vocabulary, &json);
  json.key("normalizer");
  if (pre->composes) {
    json.begin_object().key("type").value("NFC").end_object();
  } else {
    json.null();
  }
  write_pre_tokenizer(*pre, &json);
  write_post_processor(file, vocabulary, pre->adds_bos, &json);
  json.key("decoder");
  write_byte_level(true, &json);
  json.key("model").begin_object().key("type").value("BPE").key("ignore_merges").value(pre->ignores_merges);
  write_vocab(vocabulary, &json);
  json.key("merges").begin_array();
  for (const std::string_view merge : file.texts("tokenizer.ggml.merges")) json.value(merge);
  json.end_array().end_object().end_object();
  return text;
}

struct Merge {
  std::string_view left, right;
  double score;  // of the piece that they make
};

// SentencePiece has no list of merges: any two neighbours that make a piece merge, the best score first. As
// transformers' generate_merges() (tokenization_utils_sentencepiece.py): of equals the longer left part, then the
// longer right one.
std::vector<Merge> merges_of(const Vocabulary& vocabulary) {
  std::unordered_map<std::string_view, std::size_t> ids;
  for (std::size_t id = 0; id < vocabulary.tokens.size(); ++id) ids.emplace(vocabulary.tokens[id], id);
  std::vector<Merge> merges;
  for (std::size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const std::string_view piece = vocabulary.tokens[id];
    if (vocabulary.type_of(id) != TokenType::normal) continue;
    std::vector<std::pair<std::pair<std::size_t, std::size_t>, Merge>> own;
    for (std::size_t cut = 1; cut < piece.size(); ++cut) {
      const auto left = ids.find(piece.substr(0, cut)), right = ids.find(piece.substr(cut));
      if (left == ids.end() || right == ids.end()) continue;
      own.push_back({{left->second, right->second}, {left->first, right->first, vocabulary.scores[id]}});
    }
    std::ranges::sort(own, {}, [](const auto& entry) { return entry.first; });
    for (const auto& [order, merge] : own) merges.push_back(merge);
  }
  std::ranges::stable_sort(merges, [](const Merge& a, const Merge& b) {
    if (a.score != b.score) return a.score > b.score;
    if (a.left.size() != b.left.size()) return a.left.size() > b.left.size();
    return a.right.size() > b.right.size();
  });
  return merges;
}

// merges_of() looks at each piece once for each of its bytes.
Result<void> check_pieces(const GgufFile& file, const Vocabulary& vocabulary) {
  constexpr std::size_t work_max = std::size_t{1} << 30;
  std::size_t work = 0;
  for (const std::string_view piece : vocabulary.tokens) {
    work += std::min(piece.size(), work_max) * std::min(piece.size(), work_max);
    if (work < work_max) continue;
    return fail(ErrorCode::invalid_argument, "{}: the tokens are too long: their squared lengths pass {}", file.path(),
                work_max);
  }
  return {};
}

void write_replace(std::string_view from, std::string_view to, JsonWriter* json) {
  json->begin_object()
      .key("type")
      .value("Replace")
      .key("pattern")
      .begin_object()
      .key("String")
      .value(from)
      .end_object();
  json->key("content").value(to).end_object();
}

// "llama": SentencePiece's BPE, blanks written as U+2581, what has no piece as its bytes.
Result<std::string> sentencepiece_bpe(const GgufFile& file, const Vocabulary& vocabulary) {
  constexpr std::string_view blank = "\xE2\x96\x81";
  if (vocabulary.scores.empty()) {
    return fail(ErrorCode::invalid_argument, "{}: no tokenizer.ggml.scores, which pieces are merged by", file.path());
  }
  CHORUS_TRY_VOID(check_pieces(file, vocabulary));
  const bool prefix = file.flag("tokenizer.ggml.add_space_prefix").value_or(true);
  std::string text;
  JsonWriter json(&text);
  json.begin_object();
  write_added_tokens(vocabulary, &json);
  json.key("normalizer").begin_object().key("type").value("Sequence").key("normalizers").begin_array();
  if (prefix) json.begin_object().key("type").value("Prepend").key("prepend").value(blank).end_object();
  write_replace(" ", blank, &json);
  json.end_array().end_object().key("pre_tokenizer").null();
  write_post_processor(file, vocabulary, true, &json);
  json.key("decoder").begin_object().key("type").value("Sequence").key("decoders").begin_array();
  write_replace(blank, " ", &json);
  for (const char* const step : {"ByteFallback", "Fuse"}) json.begin_object().key("type").value(step).end_object();
  if (prefix) {
    json.begin_object().key("type").value("Strip").key("content").value(" ").key("start").value(1);
    json.key("stop").value(0).end_object();
  }
  json.end_array().end_object();
  json.key("model").begin_object().key("type").value("BPE").key("byte_fallback").value(true);
  json.key("fuse_unk").value(true);
  const auto unknown = file.integer("tokenizer.ggml.unknown_token_id").value_or(-1);
  if (unknown >= 0 && unknown < static_cast<std::int64_t>(vocabulary.tokens.size())) {
    json.key("unk_token").value(vocabulary.tokens[static_cast<std::size_t>(unknown)]);
  }
  write_vocab(vocabulary, &json);
  json.key("merges").begin_array();
  for (const Merge& merge : merges_of(vocabulary)) json.begin_array().value(merge.left).value(merge.right).end_array();
  json.end_array().end_object().end_object();
  return text;
}

void write_templates(const GgufFile& file, JsonWriter* json) {
  const auto usual = file.text("tokenizer.chat_template");
  const auto names = file.texts("tokenizer.chat_templates");
  if (names.empty()) {
    if (usual) json->key("chat_template").value(*usual);
    return;
  }
  const auto write = [json](std::string_view name, std::string_view source) {
    json->begin_object().key("name").value(name).key("template").value(source).end_object();
  };
  json->key("chat_template").begin_array();
  if (usual) write("default", *usual);
  for (const std::string_view name : names) {
    const auto source = file.text("tokenizer.chat_template." + std::string(name));
    if (source) write(name, *source);
  }
  json->end_array();
}

}  // namespace

Result<std::string> gguf_tokenizer_json(const GgufFile& file) {
  const auto model = file.text("tokenizer.ggml.model");
  if (!model) return fail(ErrorCode::not_found, "{}: no tokenizer in the file", file.path());
  CHORUS_TRY(const Vocabulary vocabulary, read_vocabulary(file));
  if (*model == "gpt2") return byte_level_bpe(file, vocabulary);
  if (*model == "llama") return sentencepiece_bpe(file, vocabulary);
  return fail(ErrorCode::invalid_argument, "{}: tokenizer.ggml.model is \"{}\"; accepted: gpt2, llama", file.path(),
              model->substr(0, 60));
}

Result<std::string> gguf_tokenizer_config_json(const GgufFile& file) {
  std::string text;
  JsonWriter json(&text);
  json.begin_object();
  const auto tokens = file.texts("tokenizer.ggml.tokens");
  constexpr std::pair<const char*, const char*> named[] = {
      {"bos_token", "bos"}, {"eos_token", "eos"}, {"unk_token", "unknown"}, {"pad_token", "padding"}};
  for (const auto& [name, key] : named) {
    const auto id = file.integer(fmt::format("tokenizer.ggml.{}_token_id", key)).value_or(-1);
    if (id >= 0 && id < static_cast<std::int64_t>(tokens.size())) {
      json.key(name).value(tokens[static_cast<std::size_t>(id)]);
    }
  }
  write_templates(file, &json);
  json.end_object();
  return text;
}

}  // namespace chorus
