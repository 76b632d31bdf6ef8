// A tokenizer of bytes, texts made of it, and a decoder small enough for a test.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/arch/tensor_table.h"
#include "core/common/thread_pool.h"
#include "model/decoder.h"
#include "tests/testing/testing.h"
#include "train/sampler.h"
#include "train/token_file.h"

namespace crumb::train {

/// Byte b is id b; 256 ends a document.
class ByteTokenizer : public tokenizer::Tokenizer {
 public:
  ByteTokenizer() { special_.eos = kEos; }
  std::vector<tokenizer::TokenId> encode(std::string_view text, bool = false, bool = true) const override {
    std::vector<tokenizer::TokenId> ids;
    for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
    return ids;
  }
  std::string decode(const std::vector<tokenizer::TokenId>& ids, bool = false) const override {
    std::string out;
    for (const auto id : ids) out += id < 256 ? std::string(1, static_cast<char>(id)) : "|";
    return out;
  }
  std::string token_bytes(tokenizer::TokenId id) const override { return decode({id}); }
  std::string piece(tokenizer::TokenId id) const override { return decode({id}); }
  std::optional<tokenizer::TokenId> find_piece(std::string_view) const override { return std::nullopt; }
  int64_t vocab_size() const override { return 257; }
  const tokenizer::SpecialIds& special() const override { return special_; }
  bool is_special(tokenizer::TokenId id) const override { return id == kEos; }
  void set_gguf_metadata(int64_t, formats::GgufWriter&) const override {}
  void write_hf_files(const Path&) const override {}

  static constexpr tokenizer::TokenId kEos = 256;

 private:
  tokenizer::SpecialIds special_;
};

/// The token file of one text, written in `dir`.
inline std::shared_ptr<const TokenFile> tokens_of(const std::string& text, const testing::TempDir& dir,
                                                  const std::string& separator = "\n\n\n") {
  static const ByteTokenizer tokenizer;
  static int counter = 0;
  const auto path = dir / ("text" + std::to_string(counter++) + ".txt");
  testing::write_file(path, text);
  return std::make_shared<const TokenFile>(open_token_file({path}, separator, {&tokenizer, 1}, dir.path(), serial_for));
}

inline TokenStream whole(const std::shared_ptr<const TokenFile>& file) {
  return TokenStream(file, {{0, file->num_tokens()}});
}

inline std::string text_of(const torch::Tensor& ids) {
  std::vector<tokenizer::TokenId> list;
  for (int64_t i = 0; i < ids.numel(); ++i)
    list.push_back(static_cast<tokenizer::TokenId>(ids.flatten()[i].item<int64_t>()));
  return ByteTokenizer().decode(list);
}

/// `count` documents "document 17: ...", different from each other.
inline std::string many_documents(int count) {
  std::string text;
  for (int i = 0; i < count; ++i)
    text += fmt::format("{}document {}: the {} of {}", i == 0 ? "" : "\n\n\n", i, i * 7919 % 1000, i * 104729 % 1000);
  return text;
}

inline arch::DecoderSpec tiny_spec(int64_t vocab = 257) {
  arch::DecoderSpec spec;
  spec.vocab_size = vocab;
  spec.hidden_size = 16;
  spec.context_length = 64;
  spec.tied_head = true;
  arch::LayerSpec layer;
  layer.attention = arch::GqaSpec{.heads = 2, .kv_heads = 1, .head_dim = 8};
  layer.feed_forward = arch::MlpSpec{.intermediate = 24};
  layer.rope = {.dim = 8, .base = 10000.0, .divisors = std::vector<double>(4, 1.0)};
  spec.layers = {layer, layer};
  return spec;
}

}  // namespace crumb::train
