// The tokenizer itself: added tokens, normalizer, split, byte-pair merging, and back.
#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/tokenizer/added_tokens.h"
#include "core/tokenizer/description.h"
#include "core/tokenizer/merge_table.h"
#include "core/tokenizer/word_cache.h"

namespace crumb::tokenizer {

/// Input that is not valid UTF-8 is read with U+FFFD in place of every maximal ill-formed part (as Python's
/// errors="replace").
class BpeTokenizer final : public Tokenizer {
 public:
  /// Throws UserError (naming description.source) for merges or special ids that do not fit the vocabulary.
  explicit BpeTokenizer(Description description, bool use_scanners = true);
  ~BpeTokenizer() override;

  std::vector<TokenId> encode(std::string_view text, bool add_special, bool parse_special) const override;
  std::string decode(const std::vector<TokenId>& ids, bool with_special) const override;
  std::string token_bytes(TokenId id) const override;
  std::string piece(TokenId id) const override;
  std::optional<TokenId> find_piece(std::string_view piece) const override;
  int64_t vocab_size() const override { return static_cast<int64_t>(description_.tokens.size()); }
  const SpecialIds& special() const override { return description_.special; }
  std::string chat_template() const override { return description_.chat_template; }
  bool is_special(TokenId id) const override;
  void set_gguf_metadata(int64_t rows, formats::GgufWriter& writer) const override;
  void write_hf_files(const Path& folder) const override;

  const Description& description() const { return description_; }

 private:
  struct Scratch;
  class ScratchLoan;

  void index_pieces();
  void index_symbols();
  void add_rank_merges();
  void add_score_merges();
  void add_score_merges_of(TokenId id, int32_t rank);
  void find_word_cuts();
  Symbol symbol_of_char(uint32_t code_point) const;
  std::optional<Symbol> symbol_of_piece(std::string_view piece) const;
  const Token& token(TokenId id) const;
  std::string make_bytes(const Token& token) const;

  void encode_segment(std::string_view text, bool at_start, bool parse_special, Scratch& scratch) const;
  void encode_normalized(std::string_view text, bool at_start, Scratch& scratch) const;
  void encode_piece(std::string_view piece, Scratch& scratch) const;
  void encode_word(std::string_view word, Scratch& scratch) const;
  void merge_word(std::string_view word, Scratch& scratch) const;
  void start_symbols(std::string_view word, std::vector<Symbol>& symbols) const;
  void resolve_unknown(Symbol symbol, std::vector<Symbol>& symbols, Symbol& pending) const;
  bool append_bytes(Symbol symbol, std::vector<Symbol>& out) const;
  bool append_unknown(Symbol symbol, bool follows_unknown, std::vector<TokenId>& ids) const;

  Description description_;
  PreSplitter splitter_;
  AddedTokens raw_added_, normalized_added_;
  std::vector<std::string> bytes_;                             // by id
  std::unordered_map<std::string_view, TokenId> by_piece_;     // the model's tokens, then the added ones
  std::unordered_map<std::string_view, TokenId> whole_words_;  // ignore_merges: as they appear in the text
  std::array<Symbol, 256> byte_symbols_{};                     // byte_level; -1: not in the vocabulary
  std::array<TokenId, 256> byte_tokens_{};                     // <0xHH>; -1: not in the vocabulary
  std::unordered_map<uint32_t, Symbol> char_symbols_;          // sentencepiece: ids of one-character pieces
  MergeTable merges_;
  bool cuts_words_ = false;  // no piece holds a space mark after another character: words can be merged one by one

  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<Scratch>> idle_;  // word caches that outlive a call
};

}  // namespace crumb::tokenizer
