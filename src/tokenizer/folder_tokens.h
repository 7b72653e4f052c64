// The tokens that a model's folder names beside tokenizer.json: tokenizer_config.json, and where that has no
// added_tokens_decoder special_tokens_map.json and added_tokens.json. As transformers 5's AutoTokenizer reads them
// (tokenization_utils_base.py, _from_pretrained; tokenization_utils_tokenizers.py, __init__).
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/result.h"
#include "json/json.h"
#include "tokenizer/added_tokens.h"

namespace chorus {

struct FolderTokens {
  Json config;                               // tokenizer_config.json; an empty object if it is not there
  std::map<std::string, std::string> named;  // "bos_token" -> "<s>"; names of the model's own (image_token) too
  // In the order in which they are added to a tokenizer that lacks them. Their ids come from that order; those that the
  // files give are not read.
  std::vector<AddedToken> added;
};

// Files that are not there name nothing. Errors name the file and the token.
Result<FolderTokens> read_folder_tokens(const std::string& directory);

}  // namespace chorus
