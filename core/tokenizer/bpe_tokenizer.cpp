#include "core/tokenizer/bpe_tokenizer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/common/error.h"
#include "core/tokenizer/byte_alphabet.h"
#include "core/tokenizer/gguf_vocabulary.h"
#include "core/tokenizer/hf_writer.h"
#include "core/tokenizer/unicode.h"

namespace crumb::tokenizer {
namespace {

// Symbols of a word are token ids; what is not in the vocabulary (a byte of byte-level BPE, a character of
// SentencePiece) gets a negative number that still says what it is.
constexpr Symbol kNoSymbol = -1;
Symbol unknown_symbol(uint32_t value) { return -static_cast<Symbol>(value) - 2; }
uint32_t value_of_unknown(Symbol symbol) { return static_cast<uint32_t>(-(symbol + 2)); }

size_t num_chars(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return !is_continuation(c); }));
}

std::string with_spaces(std::string_view piece) {
  std::string out;
  for (size_t i = 0; i < piece.size();) {
    if (piece.substr(i).starts_with(kSpaceMark)) {
      out += ' ';
      i += kSpaceMark.size();
    } else {
      out += piece[i++];
    }
  }
  return out;
}

/// Whether a space mark stands after another character.
bool has_inner_mark(std::string_view piece) {
  size_t first = 0;
  while (piece.substr(first).starts_with(kSpaceMark)) first += kSpaceMark.size();
  return piece.find(kSpaceMark, first) != std::string_view::npos;
}

std::vector<AddedToken> added_where(const Description& description, bool normalized) {
  std::vector<AddedToken> out;
  for (AddedToken token : description.added) {
    if (token.normalized != normalized) continue;
    std::string storage;
    if (normalized) token.content = std::string(description.normalizer.apply(token.content, storage));
    out.push_back(std::move(token));
  }
  return out;
}

}  // namespace

/// What a call needs; its caches and buffers are used again by later calls.
struct BpeTokenizer::Scratch {
  WordCache cache;
  std::string valid;
  std::vector<Symbol> symbols;
  std::vector<TokenId> ids;  // the result
};

class BpeTokenizer::ScratchLoan {
 public:
  explicit ScratchLoan(const BpeTokenizer& owner) : owner_(owner) {
    const std::lock_guard lock(owner_.mutex_);
    if (owner_.idle_.empty()) {
      scratch_ = std::make_unique<Scratch>();
    } else {
      scratch_ = std::move(owner_.idle_.back());
      owner_.idle_.pop_back();
    }
  }
  ~ScratchLoan() {
    scratch_->valid = {};
    const std::lock_guard lock(owner_.mutex_);
    owner_.idle_.push_back(std::move(scratch_));
  }
  ScratchLoan(const ScratchLoan&) = delete;
  ScratchLoan& operator=(const ScratchLoan&) = delete;
  Scratch& operator*() { return *scratch_; }

 private:
  const BpeTokenizer& owner_;
  std::unique_ptr<Scratch> scratch_;
};

BpeTokenizer::BpeTokenizer(Description description, bool use_scanners)
    : description_(std::move(description)),
      splitter_(description_.split, use_scanners),
      raw_added_(added_where(description_, false), description_.rules),
      normalized_added_(added_where(description_, true), description_.rules) {
  index_pieces();
  index_symbols();
  if (description_.priority == Description::Priority::scores)
    add_score_merges();
  else
    add_rank_merges();
  find_word_cuts();
}

BpeTokenizer::~BpeTokenizer() = default;

std::string BpeTokenizer::make_bytes(const Token& token) const {
  const bool literal =
      token.type == TokenType::control || token.type == TokenType::user_defined || token.type == TokenType::unknown;
  if (description_.kind == Description::Kind::byte_level) {
    if (literal) return token.piece;
    return bytes_of_piece(token.piece).value_or(token.piece);
  }
  if (token.type == TokenType::byte) return std::string(1, static_cast<char>(byte_of_piece(token.piece)));
  return with_spaces(token.piece);
}

void BpeTokenizer::index_pieces() {
  const auto& tokens = description_.tokens;
  const auto size = static_cast<TokenId>(tokens.size());
  CRUMB_CHECK(size > 0, "{}: the vocabulary is empty", description_.source);
  bytes_.reserve(tokens.size());
  for (const Token& token : tokens) bytes_.push_back(make_bytes(token));
  for (const bool in_model : {true, false}) {
    for (TokenId id = 0; id < size; ++id) {
      const Token& token = tokens[static_cast<size_t>(id)];
      if (token.in_model == in_model && !token.piece.empty()) by_piece_.emplace(token.piece, id);
    }
  }
  const auto check = [&](std::optional<TokenId> id, const char* name) {
    CRUMB_CHECK(!id || (*id >= 0 && *id < size), "{}: {} is {}, the vocabulary has {} tokens", description_.source,
                name, *id, size);
  };
  check(description_.special.bos, "bos_token_id");
  check(description_.special.eos, "eos_token_id");
  check(description_.special.unk, "the id of the unknown token");
  check(description_.special.pad, "pad_token_id");
  for (const TokenId id : description_.prefix) check(id, "an id put before every text");
  for (const TokenId id : description_.suffix) check(id, "an id put after every text");
}

void BpeTokenizer::index_symbols() {
  byte_tokens_.fill(-1);
  for (size_t i = 0; i < 256; ++i) byte_symbols_[i] = unknown_symbol(static_cast<uint32_t>(i));
  for (size_t i = 0; i < description_.tokens.size(); ++i) {
    const Token& token = description_.tokens[i];
    const auto id = static_cast<TokenId>(i);
    if (!token.in_model || token.piece.empty()) continue;
    const int byte = byte_of_piece(token.piece);
    if (byte >= 0) byte_tokens_[static_cast<size_t>(byte)] = id;
    const auto spelled = bytes_of_piece(token.piece);
    if (description_.ignore_merges) {
      if (description_.kind == Description::Kind::sentencepiece)
        whole_words_.emplace(token.piece, id);
      else if (spelled && *spelled == bytes_[i])
        whole_words_.emplace(bytes_[i], id);
    }
    if (num_chars(token.piece) != 1) continue;
    if (spelled) byte_symbols_[static_cast<unsigned char>((*spelled)[0])] = id;
    char_symbols_.emplace(decode_utf8(token.piece.data()).value, id);
  }
}

Symbol BpeTokenizer::symbol_of_char(uint32_t code_point) const {
  const auto it = char_symbols_.find(code_point);
  return it != char_symbols_.end() ? it->second : unknown_symbol(code_point);
}

std::optional<Symbol> BpeTokenizer::symbol_of_piece(std::string_view piece) const {
  const auto it = by_piece_.find(piece);
  if (it != by_piece_.end()) return it->second;
  if (num_chars(piece) == 1) return unknown_symbol(decode_utf8(piece.data()).value);
  return std::nullopt;
}

void BpeTokenizer::add_rank_merges() {
  merges_ = MergeTable(description_.merges.size());
  int32_t rank = 0;
  for (const auto& [left, right] : description_.merges) {
    const std::string whole = token(left).piece + token(right).piece;
    const auto it = by_piece_.find(whole);
    CRUMB_CHECK(it != by_piece_.end(), "{}: merge {} makes \"{}\", which is not in the vocabulary", description_.source,
                rank, whole);
    const bool is_known = merges_.find(left, right).rank != MergeTable::kNone;
    if (!is_known || description_.rules == Description::Rules::tokenizers)
      merges_.insert(left, right, rank, it->second);
    ++rank;
  }
}

/// SentencePiece merges any pair whose concatenation is in the vocabulary, highest score first.
void BpeTokenizer::add_score_merges() {
  std::vector<TokenId> order;
  for (size_t i = 0; i < description_.tokens.size(); ++i) {
    const Token& token = description_.tokens[i];
    CRUMB_CHECK(std::isfinite(token.score), "{}: the score of token {} is {}", description_.source, i, token.score);
    if (token.in_model && num_chars(token.piece) > 1) order.push_back(static_cast<TokenId>(i));
  }
  const auto score = [&](TokenId id) { return description_.tokens[static_cast<size_t>(id)].score; };
  std::stable_sort(order.begin(), order.end(), [&](TokenId a, TokenId b) { return score(a) > score(b); });
  merges_ = MergeTable(2 * order.size());
  int32_t rank = -1;
  for (size_t i = 0; i < order.size(); ++i) {
    if (i == 0 || score(order[i]) != score(order[i - 1])) ++rank;  // equal scores: the leftmost pair first
    add_score_merges_of(order[i], rank);
  }
}

void BpeTokenizer::add_score_merges_of(TokenId id, int32_t rank) {
  const std::string_view piece = description_.tokens[static_cast<size_t>(id)].piece;
  if (by_piece_.at(piece) != id) return;  // a second token with the same text
  for (size_t cut = 1; cut < piece.size(); ++cut) {
    if (is_continuation(piece[cut])) continue;
    const auto left = symbol_of_piece(piece.substr(0, cut)), right = symbol_of_piece(piece.substr(cut));
    if (left && right) merges_.insert(*left, *right, rank, id);
  }
}

void BpeTokenizer::find_word_cuts() {
  if (description_.kind != Description::Kind::sentencepiece || !by_piece_.contains(kSpaceMark)) return;
  cuts_words_ = std::none_of(description_.tokens.begin(), description_.tokens.end(),
                             [](const Token& token) { return token.in_model && has_inner_mark(token.piece); });
}

const Token& BpeTokenizer::token(TokenId id) const {
  CRUMB_CHECK(id >= 0 && id < vocab_size(), "{}: token id {} is outside the vocabulary of {}", description_.source, id,
              vocab_size());
  return description_.tokens[static_cast<size_t>(id)];
}

std::vector<TokenId> BpeTokenizer::encode(std::string_view text, bool add_special, bool parse_special) const {
  ScratchLoan loan(*this);
  Scratch& scratch = *loan;
  scratch.ids.clear();
  if (add_special) scratch.ids = description_.prefix;
  text = valid_utf8(text, scratch.valid);
  std::vector<AddedTokens::Found> found;
  raw_added_.find_all(text, parse_special, found);
  size_t from = 0;
  for (const auto& [span, id] : found) {
    if (span.begin > from) encode_segment(text.substr(from, span.begin - from), from == 0, parse_special, scratch);
    scratch.ids.push_back(id);
    from = span.end;
  }
  if (from < text.size()) encode_segment(text.substr(from), from == 0, parse_special, scratch);
  if (add_special) scratch.ids.insert(scratch.ids.end(), description_.suffix.begin(), description_.suffix.end());
  return std::move(scratch.ids);
}

void BpeTokenizer::encode_segment(std::string_view text, bool at_start, bool parse_special, Scratch& scratch) const {
  std::string storage;
  text = description_.normalizer.apply(text, storage);
  std::vector<AddedTokens::Found> found;
  normalized_added_.find_all(text, parse_special, found);
  size_t from = 0;
  for (const auto& [span, id] : found) {
    if (span.begin > from) encode_normalized(text.substr(from, span.begin - from), at_start && from == 0, scratch);
    scratch.ids.push_back(id);
    from = span.end;
  }
  if (from < text.size()) encode_normalized(text.substr(from), at_start && from == 0, scratch);
}

void BpeTokenizer::encode_normalized(std::string_view text, bool at_start, Scratch& scratch) const {
  splitter_.split(text, at_start, [&](std::string_view split_text, std::span<const Span> pieces) {
    for (const Span& piece : pieces) encode_piece(split_text.substr(piece.begin, piece.end - piece.begin), scratch);
  });
}

/// A piece is one word, or a run of text whose words begin with space marks.
void BpeTokenizer::encode_piece(std::string_view piece, Scratch& scratch) const {
  if (!cuts_words_) return encode_word(piece, scratch);
  size_t begin = 0;
  bool after_mark = true;
  for (size_t i = 0; i < piece.size();) {
    const bool mark = piece[i] == kSpaceMark[0] && piece.compare(i, kSpaceMark.size(), kSpaceMark) == 0;
    if (mark && !after_mark) {
      encode_word(piece.substr(begin, i - begin), scratch);
      begin = i;
    }
    after_mark = mark;
    i += mark ? kSpaceMark.size() : 1;
  }
  encode_word(piece.substr(begin), scratch);
}

void BpeTokenizer::encode_word(std::string_view word, Scratch& scratch) const {
  if (word.empty()) return;
  if (word.size() > WordCache::kMaxWordBytes) return merge_word(word, scratch);
  const uint64_t hash = WordCache::hash(word);
  if (scratch.cache.append(word, hash, scratch.ids)) return;
  const size_t before = scratch.ids.size();
  merge_word(word, scratch);
  scratch.cache.insert(word, hash, scratch.ids.data() + before, scratch.ids.size() - before);
}

void BpeTokenizer::merge_word(std::string_view word, Scratch& scratch) const {
  if (description_.ignore_merges) {
    const auto it = whole_words_.find(word);
    if (it != whole_words_.end()) return scratch.ids.push_back(it->second);
  }
  start_symbols(word, scratch.symbols);
  merges_.merge(scratch.symbols);
  bool follows_unknown = false;
  for (const Symbol symbol : scratch.symbols) {
    if (symbol >= 0) scratch.ids.push_back(symbol);
    follows_unknown = symbol < 0 && append_unknown(symbol, follows_unknown, scratch.ids);
  }
}

void BpeTokenizer::start_symbols(std::string_view word, std::vector<Symbol>& symbols) const {
  symbols.clear();
  Symbol pending = kNoSymbol;  // the unknown token that comes next
  for (size_t i = 0; i < word.size();) {
    Symbol symbol;
    if (description_.kind == Description::Kind::byte_level) {
      symbol = byte_symbols_[static_cast<unsigned char>(word[i++])];
    } else {
      const CodePoint c = decode_utf8(word.data() + i);
      symbol = symbol_of_char(c.value);
      i += c.size;
    }
    if (symbol < 0 && description_.rules == Description::Rules::tokenizers) {
      resolve_unknown(symbol, symbols, pending);
    } else {
      if (pending != kNoSymbol) symbols.push_back(std::exchange(pending, kNoSymbol));
      symbols.push_back(symbol);
    }
  }
  if (pending != kNoSymbol) symbols.push_back(pending);
}

/// Bytes at once, an unknown token when the next known character comes (one for a run of them with fuse_unk), as
/// `tokenizers` does; so bytes may overtake it.
void BpeTokenizer::resolve_unknown(Symbol symbol, std::vector<Symbol>& symbols, Symbol& pending) const {
  if (append_bytes(symbol, symbols) || !description_.unknown) return;
  if (pending != kNoSymbol && !description_.fuse_unknown) symbols.push_back(pending);
  pending = *description_.unknown;
}

/// The byte tokens of a character, if the vocabulary has them all.
bool BpeTokenizer::append_bytes(Symbol symbol, std::vector<Symbol>& out) const {
  if (!description_.byte_fallback) return false;
  std::string character;
  if (description_.kind == Description::Kind::byte_level)
    character = char_of_byte(static_cast<uint8_t>(value_of_unknown(symbol)));
  else
    append_utf8(value_of_unknown(symbol), character);
  const auto byte_token = [&](char c) { return byte_tokens_[static_cast<unsigned char>(c)]; };
  if (!std::all_of(character.begin(), character.end(), [&](char c) { return byte_token(c) >= 0; })) return false;
  for (const char c : character) out.push_back(byte_token(c));
  return true;
}

/// After merging: bytes if the vocabulary has them, else the unknown token, else nothing. Returns whether it stands for
/// an unknown token.
bool BpeTokenizer::append_unknown(Symbol symbol, bool follows_unknown, std::vector<TokenId>& ids) const {
  if (append_bytes(symbol, ids)) return false;
  if (!description_.unknown) return false;
  if (!(follows_unknown && description_.fuse_unknown)) ids.push_back(*description_.unknown);
  return true;
}

std::string BpeTokenizer::decode(const std::vector<TokenId>& ids, bool with_special) const {
  std::string out;
  for (const TokenId id : ids) {
    if (with_special || !is_special(id)) out += token_bytes(id);
  }
  if (description_.strip_leading_space && out.starts_with(' ')) out.erase(0, 1);
  return out;
}

std::string BpeTokenizer::token_bytes(TokenId id) const {
  token(id);
  return bytes_[static_cast<size_t>(id)];
}

std::string BpeTokenizer::piece(TokenId id) const { return token(id).piece; }

std::optional<TokenId> BpeTokenizer::find_piece(std::string_view piece) const {
  const auto it = by_piece_.find(piece);
  if (it == by_piece_.end()) return std::nullopt;
  return it->second;
}

bool BpeTokenizer::is_special(TokenId id) const {
  const TokenType type = token(id).type;
  return type == TokenType::control || type == TokenType::unknown;
}

void BpeTokenizer::set_gguf_metadata(int64_t rows, formats::GgufWriter& writer) const {
  write_gguf_vocabulary(description_, rows, writer);
}

void BpeTokenizer::write_hf_files(const Path& folder) const { write_hf_tokenizer(description_, folder); }

}  // namespace crumb::tokenizer
