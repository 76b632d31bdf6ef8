// Several texts as one stream of tokens in memory, with the places where each begins.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "core/common/file.h"
#include "core/text/encode.h"

namespace crumb::text {

struct TextDocuments {
  Path path;
  std::vector<std::string> documents;
};
/// UserError as TextFile has them.
TextDocuments read_documents(const Path& path, const std::string& separator);

struct TokenStream {
  std::vector<TokenId> ids;
  std::vector<int64_t> text_begin;  // [texts + 1]: text i is ids[text_begin[i] .. text_begin[i + 1])
  bool has_bos = false, has_eos = false;
  std::vector<int64_t> document_begin = {};  // the first token of each document; empty: documents are not known

  int64_t size() const { return static_cast<int64_t>(ids.size()); }
  int64_t num_texts() const { return static_cast<int64_t>(text_begin.size()) - 1; }
  /// The text that token `index` belongs to.
  int64_t text_of(int64_t index) const;
};

/// Documents in order, each in its document_frame().
TokenStream make_token_stream(const tokenizer::Tokenizer& tokenizer, std::span<const TextDocuments> texts, bool bos,
                              const ParallelFor& parallel_for);

/// UserError at the first token where two models' streams of the same texts part: they cannot be compared token by
/// token.
void require_equal_streams(const TokenStream& model, const TokenStream& baseline, std::span<const TextDocuments> texts);

}  // namespace crumb::text
