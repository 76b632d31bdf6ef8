// A tokenizer of bytes.
#pragma once

#include "core/tokenizer/tokenizer.h"

namespace crumb::testing {

class FakeTokenizer : public tokenizer::Tokenizer {
 public:
  static constexpr tokenizer::TokenId kBos = 256, kEos = 257;
  FakeTokenizer() {
    specials.bos = kBos;
    specials.eos = kEos;
  }
  std::vector<tokenizer::TokenId> encode(std::string_view text, bool = false, bool = true) const override {
    std::vector<tokenizer::TokenId> ids;
    for (const char c : text)
      ids.push_back(static_cast<unsigned char>(c) + (static_cast<unsigned char>(c) >= shift ? 1 : 0));
    return ids;
  }
  std::string decode(const std::vector<tokenizer::TokenId>& ids, bool = false) const override {
    return {ids.begin(), ids.end()};
  }
  std::string token_bytes(tokenizer::TokenId id) const override { return {static_cast<char>(id)}; }
  std::string piece(tokenizer::TokenId id) const override { return token_bytes(id); }
  std::optional<tokenizer::TokenId> find_piece(std::string_view) const override { return std::nullopt; }
  int64_t vocab_size() const override { return 258; }
  const tokenizer::SpecialIds& special() const override { return specials; }
  bool is_special(tokenizer::TokenId id) const override { return id >= 256; }
  std::string chat_template() const override { return ""; }
  void set_gguf_metadata(int64_t, formats::GgufWriter&) const override {}
  void write_hf_files(const Path&) const override {}

  tokenizer::SpecialIds specials;
  int shift = 1000;
};

}  // namespace crumb::testing
