// A tokenizer as plain data: what the loaders read from a file, what BpeTokenizer runs, and what is written into GGUF
// metadata.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/tokenizer/normalizer.h"
#include "core/tokenizer/pre_split.h"
#include "core/tokenizer/tokenizer.h"

namespace crumb::tokenizer {

/// tokenizer.ggml.token_type, by its number in the file.
enum class TokenType : int32_t { normal = 1, unknown, control, user_defined, unused, byte };

struct Token {
  std::string piece;
  TokenType type = TokenType::unused;
  float score = 0;        // SentencePiece vocabularies with scores
  bool in_model = false;  // part of the model's vocabulary; false: an added token only, out of the reach of merges
};

struct Merge {
  TokenId left = 0, right = 0;
};

/// Text that becomes one id before anything else happens.
struct AddedToken {
  std::string content;
  TokenId id = 0;
  bool special = false;
  bool normalized = false;   // looked for in the normalized text
  bool single_word = false;  // not inside a word
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // takes the white space after it
};

struct Description {
  enum class Kind { byte_level, sentencepiece };
  enum class Priority { merges, scores };  // what decides which pair is merged first
  /// By whose rules, where they differ. What the vocabulary cannot spell: tokenizers drops it, or puts bytes or the
  /// unknown token there, before merging, llama.cpp after. A pair merged twice: the later or the first rank. Added
  /// tokens that overlap: the leftmost, or the longest of the text first.
  enum class Rules { tokenizers, llamacpp };

  std::string source;  // for messages
  Kind kind = Kind::byte_level;
  Priority priority = Priority::merges;
  Rules rules = Rules::tokenizers;
  std::vector<Token> tokens;  // by id
  std::vector<Merge> merges;  // in order of rank
  std::vector<AddedToken> added;
  Normalizer normalizer;
  PreSplit split;
  std::string split_name;  // tokenizer.ggml.pre of the file it came from
  bool ignore_merges = false;
  bool byte_fallback = false;      // sentencepiece: characters outside the vocabulary become <0xHH> tokens
  std::optional<TokenId> unknown;  // the model's token for what it cannot spell; without it such text is dropped
  bool fuse_unknown = false;
  bool strip_leading_space = false;     // when decoding
  std::vector<TokenId> prefix, suffix;  // added to a text by encode(add_special)
  SpecialIds special;
  std::string chat_template;
};

inline constexpr std::string_view kSpaceMark = "\xe2\x96\x81";  // U+2581, a space in SentencePiece vocabularies

/// The byte of "<0x0A>", or -1.
int byte_of_piece(std::string_view piece);
/// "<0x0A>"
std::string piece_of_byte(uint8_t byte);

}  // namespace crumb::tokenizer
