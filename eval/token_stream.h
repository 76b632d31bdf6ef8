// Several texts as one stream of tokens, with the places where each begins.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "core/common/file.h"
#include "core/common/thread_pool.h"
#include "core/tokenizer/tokenizer.h"

namespace crumb::eval {

struct TextDocuments {
  Path path;
  std::vector<std::string> documents;
};

struct TokenStream {
  std::vector<tokenizer::TokenId> ids;
  std::vector<int64_t> text_begin;  // [texts + 1]: text i is ids[text_begin[i] .. text_begin[i + 1])
  bool has_bos = false, has_eos = false;

  int64_t size() const { return static_cast<int64_t>(ids.size()); }
  int64_t num_texts() const { return static_cast<int64_t>(text_begin.size()) - 1; }
  /// The text that token `index` belongs to.
  int64_t text_of(int64_t index) const;
};

/// Documents in order, each (BOS,) its ids, EOS. A tokenizer without EOS leaves it out. UserError: BOS asked for and
/// the tokenizer has none.
TokenStream make_token_stream(const tokenizer::Tokenizer& tokenizer, std::span<const TextDocuments> texts, bool bos,
                              const ParallelFor& parallel_for);

/// UserError at the first token where two models' streams of the same texts part: they cannot be compared token by
/// token.
void require_equal_streams(const TokenStream& model, const TokenStream& baseline, std::span<const TextDocuments> texts);

}  // namespace crumb::eval
