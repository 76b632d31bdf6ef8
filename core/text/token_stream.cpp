#include "core/text/token_stream.h"

#include <algorithm>

#include "core/common/error.h"
#include "core/text/text_file.h"

namespace crumb::text {

int64_t TokenStream::text_of(int64_t index) const {
  return std::upper_bound(text_begin.begin(), text_begin.end(), index) - text_begin.begin() - 1;
}

TextDocuments read_documents(const Path& path, const std::string& separator) {
  TextDocuments text{path, {}};
  TextFile(path).for_each_document(separator,
                                   [&](std::string_view document) { text.documents.emplace_back(document); });
  return text;
}

TokenStream make_token_stream(const tokenizer::Tokenizer& tokenizer, std::span<const TextDocuments> texts, bool bos,
                              const ParallelFor& parallel_for) {
  const Frame frame = document_frame(tokenizer, bos);
  TokenStream stream;
  stream.has_bos = frame.before.has_value();
  stream.has_eos = frame.after.has_value();
  stream.text_begin.push_back(0);
  DocumentEncoder encoder(tokenizer, frame, parallel_for, [&](std::span<const TokenId> ids, std::span<const uint8_t>) {
    stream.document_begin.push_back(stream.size());
    stream.ids.insert(stream.ids.end(), ids.begin(), ids.end());
  });
  for (const auto& text : texts) {
    for (const auto& document : text.documents) encoder.add(document);
    encoder.finish();
    stream.text_begin.push_back(stream.size());
  }
  return stream;
}

void require_equal_streams(const TokenStream& model, const TokenStream& baseline,
                           std::span<const TextDocuments> texts) {
  const auto [a, b] = std::mismatch(model.ids.begin(), model.ids.end(), baseline.ids.begin(), baseline.ids.end());
  if (a == model.ids.end() && b == baseline.ids.end()) return;
  const int64_t index = a - model.ids.begin();
  const int64_t text = std::min(model.text_of(index), model.num_texts() - 1);
  const auto show = [](auto at, auto end) { return at == end ? std::string("the end") : std::to_string(*at); };
  user_error(
      "{}: the tokenizers of model and baseline differ: token {} is {} for the model, {} for the baseline; they cannot "
      "be compared",
      texts[static_cast<size_t>(text)].path.string(), index - model.text_begin[static_cast<size_t>(text)],
      show(a, model.ids.end()), show(b, baseline.ids.end()));
}

}  // namespace crumb::text
