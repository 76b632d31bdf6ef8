// Tokenizers: byte-level BPE (GPT-2, Llama-3, Qwen2, DeepSeek-LLM, Hunyuan-dense splits) and SentencePiece-style BPE.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/common/file.h"
#include "core/formats/gguf.h"

namespace crumb::tokenizer {

using TokenId = int32_t;

struct SpecialIds {
  std::optional<TokenId> bos, eos, unk, pad;
  bool add_bos =
      false;  // whether encode(..., add_special = true) puts BOS first (tokenizer_config.json / post-processor / GGUF)
  bool add_eos = false;
  /// Every token that ends a generation, sorted: EOS, what the configuration adds to it (a list in
  /// generation_config.json; eot_token_id, eom_token_id of a GGUF), and in a GGUF the tokens that llama.cpp knows by
  /// their text.
  std::vector<TokenId> end;
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  /// Ids of a text. parse_special: added tokens written out in the text ("<|endoftext|>") become their ids, as in
  /// transformers; false: they are plain text. Thread-safe.
  virtual std::vector<TokenId> encode(std::string_view text, bool add_special = false,
                                      bool parse_special = true) const = 0;
  /// Bytes of the ids, special tokens left out unless asked for. Undoes the space that SentencePiece puts first.
  virtual std::string decode(const std::vector<TokenId>& ids, bool with_special = false) const = 0;
  /// Bytes one id stands for, as they appear inside a text (SentencePiece: with its leading space).
  virtual std::string token_bytes(TokenId id) const = 0;
  /// The vocabulary's own spelling of a token ("Ġthe", "▁the", "<0x0A>").
  virtual std::string piece(TokenId id) const = 0;
  virtual std::optional<TokenId> find_piece(std::string_view piece) const = 0;
  /// Highest id + 1, added tokens included.
  virtual int64_t vocab_size() const = 0;
  virtual const SpecialIds& special() const = 0;
  virtual bool is_special(TokenId id) const = 0;
  /// The model's own template for conversations (core/jinja/chat_template.h); "" where it has none.
  virtual std::string chat_template() const = 0;
  /// Sets every tokenizer.ggml.* key so that stock llama.cpp tokenizes the same. `rows`: rows of the embedding; missing
  /// ids become [PADn] of type unused. UserError for a split that llama.cpp has no name for.
  virtual void set_gguf_metadata(int64_t rows, formats::GgufWriter& writer) const = 0;
  /// For vocabularies that come without these files: tokenizer.json, tokenizer_config.json with the chat template,
  /// generation_config.json. UserError for a vocabulary that tokenizer.json cannot hold.
  virtual void write_hf_files(const Path& folder) const = 0;
};

/// From an HF folder (tokenizer.json, tokenizer_config.json, generation_config.json, config.json), a tokenizer.json, a
/// GGUF file, or llama2.c's tokenizer.bin. UserError names what is missing or not supported.
std::unique_ptr<Tokenizer> load_tokenizer(const Path& path);
std::unique_ptr<Tokenizer> load_tokenizer(const formats::GgufReader& gguf);

/// The first id that is spelled otherwise in two vocabularies of one size; nothing where they are the same.
std::optional<TokenId> first_difference(const Tokenizer& a, const Tokenizer& b);

/// Gathers token bytes and gives them out at UTF-8 boundaries, for printing while generating.
class StreamingDecoder {
 public:
  explicit StreamingDecoder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  /// Text that is complete after this token ("" while inside a character).
  std::string push(TokenId id);
  /// What is left, incomplete characters replaced by U+FFFD.
  std::string finish();

 private:
  const Tokenizer& tokenizer_;
  std::string pending_;
  bool first_ = true;
};

}  // namespace crumb::tokenizer
