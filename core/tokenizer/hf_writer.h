// A tokenizer as the files of an HF folder, so that `tokenizers` and transformers give the same ids.
#pragma once

#include <string>

#include "core/common/file.h"
#include "core/tokenizer/description.h"

namespace crumb::tokenizer {

/// tokenizer.json. Every token stands in the model's vocabulary, added ones too, so that ids keep their places whatever
/// is missing between them; tokens named [PADn] of type unused, which only fill an embedding, are left out.
/// Vocabularies with scores get the merges that the scores stand for: of every piece, each cut into two others of the
/// vocabulary, highest score first (as transformers converts SentencePiece models). UserError: two tokens with the same
/// text. Warns where the file cannot say what the vocabulary does: equal scores.
std::string to_tokenizer_json(const Description& description);

/// tokenizer.json, tokenizer_config.json (special tokens, chat template) and generation_config.json (end tokens). A
/// special token that texts cannot spell in this vocabulary is not named, with a warning: who reads the folder would
/// make it one that they can. Warns, too, where added tokens overlap, which llama.cpp and `tokenizers` read
/// differently.
void write_hf_tokenizer(const Description& description, const Path& folder);

}  // namespace crumb::tokenizer
