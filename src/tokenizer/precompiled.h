// SentencePiece's normalizer as the `tokenizers` package runs it: a table from short texts to others, made when the
// vocabulary was. Format: sentencepiece's normalizer.cc (DecodePrecompiledCharsMap) and the crate spm_precompiled.
#pragma once

#include <memory>
#include <string_view>

#include "base/result.h"
#include "tokenizer/normalizer.h"

namespace chorus {

// `base64`: 4 bytes, how long the trie is (little endian); the trie, a double array of 4-byte units (Aoe, "An efficient
// digital search algorithm", 1989, as darts-clone packs it); the texts that it points to, each ended by a zero byte.
Result<std::unique_ptr<const Normalizer>> load_precompiled(std::string_view base64);

}  // namespace chorus
