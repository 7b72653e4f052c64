#include "tokenizer/tokenizer.h"

#include <simdjson.h>

#include <new>
#include <nlohmann/json.hpp>
#include <set>
#include <variant>

#include "gguf/model_text.h"
#include "json/python_json.h"
#include "json/utf8.h"
#include "tokenizer/added_tokens.h"
#include "tokenizer/bpe.h"
#include "tokenizer/folder_tokens.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/post_processor.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/token_decoder.h"
#include "tokenizer/unigram.h"

namespace chorus {
namespace {

namespace dom = simdjson::dom;
constexpr std::size_t part_bytes_max = 256U << 20;
constexpr std::size_t depth_max = 1001;  // Python's json nests about as deep; the document itself is a level

// What turns a piece of text into ids.
class Model {
 public:
  Model() = default;
  explicit Model(Bpe bpe) : model_(std::move(bpe)) {}
  explicit Model(Unigram unigram) : model_(std::move(unigram)) {}

  void encode(std::string_view piece, std::vector<std::int32_t>& ids) const {
    std::visit([&](const auto& model) { model.encode(piece, ids); }, model_);
  }
  const StringTable& vocabulary() const {
    return std::visit([](const auto& model) -> const StringTable& { return model.vocabulary(); }, model_);
  }
  bool takes_raw_bytes() const { return std::holds_alternative<Bpe>(model_) && std::get<Bpe>(model_).raw_bytes(); }

 private:
  std::variant<Bpe, Unigram> model_;
};

struct Parts {
  Model model;
  std::unique_ptr<const Normalizer> normalizer;
  std::unique_ptr<const PreTokenizer> pre_tokenizer;
  AddedTokens added;
  PostProcessor post;
  std::unique_ptr<const TokenDecoder> decoder;
  TokenizerLimits limits;
};

// The end of the chain: each piece's ids go to the caller's list.
class ModelSink : public PieceSink {
 public:
  ModelSink(const Model& model, std::vector<std::int32_t>& ids) : model_(model), ids_(ids) {}
  void take(const Piece& piece) override { model_.encode(piece.text, ids_); }
  void refuse(Error error) override {
    if (!error_) error_ = std::move(error);
  }
  const std::optional<Error>& error() const { return error_; }

 private:
  const Model& model_;
  std::vector<std::int32_t>& ids_;
  std::optional<Error> error_;
};

class LoadedTokenizer : public Tokenizer, private TokenText {
 public:
  explicit LoadedTokenizer(Parts parts) : parts_(std::move(parts)) {
    const StringTable& vocabulary = parts_.model.vocabulary();
    roles_.assign(static_cast<std::size_t>(std::max(vocabulary.id_end(), parts_.added.id_end())), Role::none);
    for (std::int32_t id = 0; id < vocabulary.id_end(); ++id) {
      if (vocabulary.has(id)) roles_[static_cast<std::size_t>(id)] = Role::plain;
    }
    for (const auto& [id, token] : parts_.added.all()) {
      roles_[static_cast<std::size_t>(id)] = token.special ? Role::special : Role::added;
    }
  }

  Result<std::vector<std::int32_t>> encode(std::string_view text, bool add_special_tokens) const override try {
    if (text.size() > parts_.limits.text_bytes_max) {
      return fail(ErrorCode::invalid_argument, "text of {} bytes is over the limit of {} bytes", text.size(),
                  parts_.limits.text_bytes_max);
    }
    if (const auto byte = find_invalid_utf8(text)) {
      return fail(ErrorCode::invalid_argument, "text is not UTF-8 at byte {}", *byte);
    }
    std::vector<std::int32_t> ids;
    ids.reserve(text.size() / 3 + 16);
    if (add_special_tokens) ids = parts_.post.prefix;
    ModelSink sink(parts_.model, ids);
    parts_.added.cut_raw(text, [&](const Section& section) {
      if (section.id) {
        ids.push_back(*section.id);
      } else {
        encode_raw(section, sink, ids);
      }
    });
    if (sink.error()) return *sink.error();
    if (add_special_tokens) ids.insert(ids.end(), parts_.post.suffix.begin(), parts_.post.suffix.end());
    return ids;
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::resource_exhausted, "no memory to encode a text of {} bytes", text.size());
  }

  Result<std::string> decode(std::span<const std::int32_t> ids, bool skip_special_tokens) const override try {
    for (const std::int32_t id : ids) {
      if (id >= 0 && id < vocab_size()) continue;
      return fail(ErrorCode::invalid_argument, "token id {} is outside the vocabulary of {} ids", id, vocab_size());
    }
    return parts_.decoder->decode(*this, ids, skip_special_tokens);
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::resource_exhausted, "no memory to decode {} tokens", ids.size());
  }

  std::unique_ptr<TokenStream> start_decoding(bool skip_special_tokens) const override {
    return parts_.decoder->start(*this, skip_special_tokens);
  }

  std::int32_t vocab_size() const override { return static_cast<std::int32_t>(roles_.size()); }

  std::optional<std::int32_t> token_to_id(std::string_view token) const override {
    if (const AddedToken* const added = parts_.added.find(token)) return added->id;
    const std::int32_t id = parts_.model.vocabulary().find(token);
    if (id == StringTable::none) return std::nullopt;
    return id;
  }

  std::optional<std::string> id_to_token(std::int32_t id) const override {
    const auto text = text_of(id, false);
    if (!text) return std::nullopt;
    return std::string(*text);
  }

  bool is_special(std::int32_t id) const override { return role_of(id) == Role::special; }

 private:
  enum class Role : std::uint8_t { none, plain, added, special };

  Role role_of(std::int32_t id) const {
    return id >= 0 && id < vocab_size() ? roles_[static_cast<std::size_t>(id)] : Role::none;
  }

  std::optional<std::string_view> text_of(std::int32_t id, bool skip_special_tokens) const override {
    const Role role = role_of(id);
    if (role == Role::none || (skip_special_tokens && role == Role::special)) return std::nullopt;
    if (role == Role::plain) return parts_.model.vocabulary().at(id);
    return parts_.added.find(id)->content;
  }

  void encode_raw(const Section& section, ModelSink& sink, std::vector<std::int32_t>& ids) const {
    std::string normal;
    std::string_view text = section.text;
    if (parts_.normalizer != nullptr) {
      normal.reserve(text.size() + text.size() / 2);
      normal = text;
      if (auto done = parts_.normalizer->normalize(normal); !done) return sink.refuse(done.error());
      text = normal;
    }
    parts_.added.cut_normalized(text, section.at_start, [&](const Section& part) {
      if (part.id) {
        ids.push_back(*part.id);
      } else if (parts_.pre_tokenizer != nullptr) {
        parts_.pre_tokenizer->split({part.text, part.at_start}, sink);
      } else {
        sink.take({part.text, part.at_start});
      }
    });
  }

  Parts parts_;
  std::vector<Role> roles_;  // by id
};

// The small parts, as values; null when missing. Of equal keys the last counts, as in Python.
Result<Json> part_of(dom::object root, const char* key) {
  std::optional<dom::element> value;
  for (const auto& field : root) {
    if (field.key == key) value = field.value;
  }
  if (!value) return Json(nullptr);
  auto part = parse_python_json(simdjson::minify(*value), part_bytes_max);
  if (!part) return with_context(part.error(), key);
  return part;
}

struct ModelPart {
  dom::element model;
  bool is_unigram = false;
};
Result<ModelPart> model_of(dom::object root) {
  dom::element model;
  for (const auto& field : root) {
    if (field.key == "model") model = field.value;
  }
  if (root["model"].error() != simdjson::SUCCESS || !model.is_object()) {
    return fail(ErrorCode::invalid_argument, "model: must be an object");
  }
  std::string_view type;
  if (model["type"].get(type) != simdjson::SUCCESS) {
    // Old files have no type: BPE is the one with merges.
    dom::element merges;
    type = model["merges"].get(merges) == simdjson::SUCCESS ? "BPE" : "(none)";
  }
  if (type == "BPE" || type == "Unigram") return ModelPart{model, type == "Unigram"};
  return fail(ErrorCode::invalid_argument, "model: type \"{}\" is not supported, only BPE and Unigram are", type);
}

Result<Model> load_model(const ModelPart& part, bool raw_bytes) {
  if (part.is_unigram) {
    CHORUS_TRY(Unigram unigram, Unigram::load(part.model));
    return Model(std::move(unigram));
  }
  CHORUS_TRY(Bpe bpe, Bpe::load(part.model, {.raw_bytes = raw_bytes}));
  return Model(std::move(bpe));
}

// Tokens that the folder names and `added`, the list in tokenizer.json, lacks. One that the model's vocabulary has
// keeps its id there, the others follow all others (tokenizers' AddedVocabulary::add_tokens).
Json with_folder_tokens(Json added, const std::vector<AddedToken>& tokens, const StringTable& vocabulary) {
  if (added.is_null()) added = Json::array();
  if (!added.is_array()) return added;  // refused by whoever reads it
  std::set<std::string> known;
  std::int32_t next = vocabulary.id_end();
  for (const Json& entry : added) {
    if (!entry.is_object() || !entry.contains("content") || !entry["content"].is_string()) return added;
    known.insert(entry["content"].get<std::string>());
    const bool has_id = entry.contains("id") && entry["id"].is_number_integer();
    if (has_id && entry["id"].get<std::int64_t>() < (1 << 24))
      next = std::max(next, entry["id"].get<std::int32_t>() + 1);
  }
  for (const AddedToken& token : tokens) {
    if (!known.insert(token.content).second) continue;
    const std::int32_t in_vocabulary = vocabulary.find(token.content);
    added.push_back({{"id", in_vocabulary == StringTable::none ? next++ : in_vocabulary},
                     {"content", token.content},
                     {"single_word", token.single_word},
                     {"lstrip", token.lstrip},
                     {"rstrip", token.rstrip},
                     {"normalized", token.normalized},
                     {"special", token.special}});
  }
  return added;
}

Result<Parts> load_parts(dom::object root, const std::vector<AddedToken>& folder_tokens,
                         const TokenizerLimits& limits) {
  const auto within = [](const char* part, auto result) {
    if (result.ok()) return result;
    return decltype(result)(with_context(result.error(), part));
  };
  CHORUS_TRY(const ModelPart model, model_of(root));
  CHORUS_TRY(const Json normalizer, part_of(root, "normalizer"));
  CHORUS_TRY(const Json pre_tokenizer, part_of(root, "pre_tokenizer"));
  CHORUS_TRY(Json added_tokens, part_of(root, "added_tokens"));
  CHORUS_TRY(const Json post_processor, part_of(root, "post_processor"));
  CHORUS_TRY(const Json decoder, part_of(root, "decoder"));
  Parts parts;
  parts.limits = limits;
  CHORUS_TRY(parts.model, load_model(model, ends_in_byte_level(pre_tokenizer)));
  const StringTable& vocabulary = parts.model.vocabulary();
  added_tokens = with_folder_tokens(std::move(added_tokens), folder_tokens, vocabulary);
  CHORUS_TRY(parts.normalizer, within("normalizer", load_normalizer(normalizer)));
  PreTokenizerOptions options;
  options.raw_bytes = parts.model.takes_raw_bytes();
  CHORUS_TRY(parts.pre_tokenizer, within("pre_tokenizer", load_pre_tokenizer(pre_tokenizer, options)));
  CHORUS_TRY(parts.added, within("added_tokens", AddedTokens::load(added_tokens, vocabulary, parts.normalizer.get(),
                                                                   limits.added_tokens_max)));
  const std::int32_t id_end = std::max(vocabulary.id_end(), parts.added.id_end());
  CHORUS_TRY(parts.post, within("post_processor", load_post_processor(post_processor, id_end)));
  CHORUS_TRY(parts.decoder, within("decoder", load_token_decoder(decoder)));
  return parts;
}

Result<Parts> load_text(const std::string& text, const std::string& path, const std::vector<AddedToken>& folder_tokens,
                        const TokenizerLimits& limits, bool is_strict = false) {
  dom::parser parser;
  dom::element root;
  auto code = parser.allocate(std::max<std::size_t>(text.size(), 1), depth_max);
  const bool padded = text.capacity() >= text.size() + simdjson::SIMDJSON_PADDING;
  if (code == simdjson::SUCCESS) code = parser.parse(text.data(), text.size(), !padded).get(root);
  if (code != simdjson::SUCCESS) {
    // JSON of Python's alone is read by the slower parser and written again as everybody's; else that says where.
    const auto python = parse_python_json(text, limits.file_bytes_max);
    if (!python) return with_context(python.error(), path);
    if (!is_strict) return load_text(python->dump(), path, folder_tokens, limits, true);
    return fail(ErrorCode::invalid_argument, "{}: {}", path, simdjson::error_message(code));
  }
  dom::object object;
  if (root.get(object) != simdjson::SUCCESS) return fail(ErrorCode::invalid_argument, "{}: must be an object", path);
  auto parts = load_parts(object, folder_tokens, limits);
  if (!parts) return with_context(parts.error(), path);
  return parts;
}

}  // namespace

Result<std::shared_ptr<const Tokenizer>> load_tokenizer(const std::string& directory,
                                                        const TokenizerLimits& limits) try {
  const std::string path = model_text_path(directory, "tokenizer.json");
  CHORUS_TRY(const auto text, read_model_text(directory, "tokenizer.json", limits.file_bytes_max));
  if (!text) return fail(ErrorCode::not_found, "no {}", path);
  CHORUS_TRY(const FolderTokens folder, read_folder_tokens(directory));
  CHORUS_TRY(Parts parts, load_text(*text, path, folder.added, limits));
  return std::shared_ptr<const Tokenizer>(std::make_shared<LoadedTokenizer>(std::move(parts)));
} catch (const std::bad_alloc&) {
  return fail(ErrorCode::resource_exhausted, "{}/tokenizer.json: no memory to load it", directory);
}

}  // namespace chorus
