// A tokenizer of bytes, texts made of it, and a decoder small enough for a test.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/arch/tensor_table.h"
#include "core/common/thread_pool.h"
#include "core/text/token_cache.h"
#include "model/decoder.h"
#include "tests/testing/fake_tokenizer.h"
#include "tests/testing/testing.h"
#include "train/sampler.h"

namespace crumb::train {

using text::TokenFile;
using text::TokenRuns;

/// Byte b is id b; 256 ends a document, and is shown as "|".
class ByteTokenizer : public testing::FakeTokenizer {
 public:
  ByteTokenizer() {
    specials.bos.reset();
    specials.eos = kEos;
  }
  std::string decode(const std::vector<tokenizer::TokenId>& ids, bool = false) const override {
    std::string out;
    for (const auto id : ids) out += id < kEos ? std::string(1, static_cast<char>(id)) : "|";
    return out;
  }
  int64_t vocab_size() const override { return kEos + 1; }

  static constexpr tokenizer::TokenId kEos = 256;
};

/// The token file of one text, written in `dir`.
inline std::shared_ptr<const TokenFile> tokens_of(const std::string& text, const testing::TempDir& dir,
                                                  const std::string& separator = "\n\n\n") {
  static const ByteTokenizer tokenizer;
  static int counter = 0;
  const auto path = dir / ("text" + std::to_string(counter++) + ".txt");
  testing::write_file(path, text);
  return std::make_shared<const TokenFile>(
      text::open_token_file({path}, separator, {&tokenizer, 1}, dir.path(), serial_for));
}

/// A document of a token file: its bytes, and which of them are supervised ('1'), as many letters.
struct MarkedDocument {
  std::string text, marks;
};
/// The token file of documents as a reader of chats would write it, without EOS.
inline std::shared_ptr<const TokenFile> marked_tokens(const std::vector<MarkedDocument>& documents,
                                                      const testing::TempDir& dir) {
  static int counter = 0;
  const auto path = dir / ("marked" + std::to_string(counter++) + ".tokens2");
  text::TokenFileWriter writer(path, 1, ByteTokenizer::kEos + 1);
  for (const auto& document : documents) {
    std::vector<uint8_t> supervised;
    for (const char mark : document.marks) supervised.push_back(mark == '1' ? 1 : 0);
    writer.add(ByteTokenizer().encode(document.text), supervised);
  }
  writer.commit();
  return std::make_shared<const TokenFile>(path, 1, ByteTokenizer::kEos + 1);
}

inline TokenRuns whole(const std::shared_ptr<const TokenFile>& file) {
  return TokenRuns(file, {{0, file->num_tokens()}});
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
