// Tokenizers in GGUF metadata (tokenizer.ggml.*): read, and written so that llama.cpp tokenizes the same.
// Source: llama.cpp's llama-vocab.cpp; docs/formats.md, section 6.3.
#pragma once

#include "core/formats/gguf.h"
#include "core/tokenizer/description.h"

namespace crumb::tokenizer {

/// tokenizer.ggml.model "gpt2" (byte-level BPE with a split that named_splits() knows) and "llama" (SentencePiece).
/// Throws UserError. "qwen2": the text is normalized (NFC) as the family's own tokenizer does; llama.cpp does not.
/// Tokens that are no UTF-8 get U+FFFD for what is broken.
Description read_gguf_vocabulary(const formats::GgufReader& gguf);

/// Sets tokenizer.ggml.* and tokenizer.chat_template. `rows`: rows of the embedding, the length of the token list; ids
/// beyond the vocabulary become [PADn]. Throws UserError where the vocabulary has more tokens than rows, or where
/// llama.cpp has no name for the split. Warns about what llama.cpp does not do (normalizers, white space around added
/// tokens), and where the name of the split says another NFC than the tokenizer's.
void write_gguf_vocabulary(const Description& description, int64_t rows, formats::GgufWriter& writer);

}  // namespace crumb::tokenizer
