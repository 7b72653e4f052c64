#include "tokenizer/post_processor.h"

#include "tokenizer/json_fields.h"

namespace chorus {
namespace {

constexpr std::size_t ids_max = 1024;  // that are put around a text

Result<std::int32_t> read_id(const Json& value, std::int32_t id_end) {
  if (value.is_number_unsigned() && value.get<std::uint64_t>() < static_cast<std::uint64_t>(id_end)) {
    return value.get<std::int32_t>();
  }
  if (value.is_number_integer() && value.get<std::int64_t>() >= 0 && value.get<std::int64_t>() < id_end) {
    return value.get<std::int32_t>();
  }
  return fail(ErrorCode::invalid_argument, "{} is no id below {}", value.dump(), id_end);
}

// ["[CLS]", 101]
Result<std::int32_t> read_named_id(const Json& config, std::string_view key, std::int32_t id_end) {
  CHORUS_TRY(const Json* const pair, read_array(config, key));
  if (pair->size() != 2) return fail(ErrorCode::invalid_argument, "{}: must be [token, id]", key);
  return read_id((*pair)[1], id_end);
}

Result<std::vector<std::int32_t>> special_ids(const Json& config, const Json& item, std::int32_t id_end) {
  CHORUS_TRY(const std::string name, read_string(item, "id"));
  const Json* const table = find_field(config, "special_tokens");
  const Json* const entry = table == nullptr ? nullptr : find_field(*table, name);
  if (entry == nullptr) return fail(ErrorCode::invalid_argument, "\"{}\" is not in special_tokens", name);
  CHORUS_TRY(const Json* const list, read_array(*entry, "ids"));
  if (list->size() > ids_max) return fail(ErrorCode::invalid_argument, "ids: over {}", ids_max);
  std::vector<std::int32_t> ids;
  for (const Json& value : *list) {
    CHORUS_TRY(const std::int32_t id, read_id(value, id_end));
    ids.push_back(id);
  }
  return ids;
}

Result<void> check_size(const PostProcessor& post) {
  if (post.prefix.size() + post.suffix.size() <= ids_max) return {};
  return fail(ErrorCode::invalid_argument, "over {} ids are put around a text", ids_max);
}

Result<PostProcessor> load_template(const Json& config, std::int32_t id_end) {
  CHORUS_TRY(const Json* const items, read_array(config, "single"));
  if (items->size() > ids_max) return fail(ErrorCode::invalid_argument, "single: over {} items", ids_max);
  PostProcessor post;
  int sequences = 0;
  for (const Json& item : *items) {
    if (const Json* const special = find_field(item, "SpecialToken")) {
      CHORUS_TRY(const std::vector<std::int32_t> ids, special_ids(config, *special, id_end));
      auto& side = sequences == 0 ? post.prefix : post.suffix;
      side.insert(side.end(), ids.begin(), ids.end());
      CHORUS_TRY_VOID(check_size(post));
    } else if (find_field(item, "Sequence") != nullptr) {
      ++sequences;
    } else {
      return fail(ErrorCode::invalid_argument, "single: an item must be a SpecialToken or a Sequence");
    }
  }
  if (sequences == 1) return post;
  return fail(ErrorCode::invalid_argument, "single: the Sequence must be there exactly once, not {} times", sequences);
}

Result<PostProcessor> load(const Json& config, std::int32_t id_end, PipelineSteps& steps, int nesting) {
  if (config.is_null()) return PostProcessor{};
  CHORUS_TRY_VOID(steps.take(nesting));
  CHORUS_TRY(const std::string type, read_string(config, "type"));
  if (type == "ByteLevel") return PostProcessor{};  // it trims offsets only
  if (type == "TemplateProcessing") return load_template(config, id_end);
  if (type == "BertProcessing" || type == "RobertaProcessing") {
    CHORUS_TRY(const std::int32_t first, read_named_id(config, "cls", id_end));
    CHORUS_TRY(const std::int32_t last, read_named_id(config, "sep", id_end));
    return PostProcessor{{first}, {last}};
  }
  if (type != "Sequence") return fail(ErrorCode::invalid_argument, "type \"{}\" is not supported", type);
  CHORUS_TRY(const Json* const list, read_array(config, "processors"));
  PostProcessor all;
  for (const Json& entry : *list) {
    CHORUS_TRY(const PostProcessor part, load(entry, id_end, steps, nesting + 1));
    all.prefix.insert(all.prefix.begin(), part.prefix.begin(), part.prefix.end());
    all.suffix.insert(all.suffix.end(), part.suffix.begin(), part.suffix.end());
    CHORUS_TRY_VOID(check_size(all));
  }
  return all;
}

}  // namespace

Result<PostProcessor> load_post_processor(const Json& config, std::int32_t id_end) {
  PipelineSteps steps;
  return load(config, id_end, steps, 0);
}

}  // namespace chorus
