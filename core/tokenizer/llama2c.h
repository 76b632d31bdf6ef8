// Reads tokenizer.bin of llama2.c: a SentencePiece vocabulary with scores.
#pragma once

#include "core/common/file.h"
#include "core/tokenizer/description.h"

namespace crumb::tokenizer {

/// int32 longest piece; for each token float32 score, int32 size, the bytes; little-endian. Ids 0 unknown, 1 BOS, 2
/// EOS, 3..258 bytes. Spaces are spelled as U+2581 and the first three tokens as <unk>, <s>, </s>, as SentencePiece
/// does. encode adds BOS, as llama2.c. Throws UserError for a file that is truncated or has other first tokens. Source:
/// karpathy/llama2.c, tokenizer.py.
Description read_llama2c(const Path& file);

}  // namespace crumb::tokenizer
