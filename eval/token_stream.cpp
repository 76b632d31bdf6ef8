#include "eval/token_stream.h"

#include <algorithm>
#include <utility>

#include "core/common/error.h"

namespace crumb::eval {

int64_t TokenStream::text_of(int64_t index) const {
  return std::upper_bound(text_begin.begin(), text_begin.end(), index) - text_begin.begin() - 1;
}

TokenStream make_token_stream(const tokenizer::Tokenizer& tokenizer, std::span<const TextDocuments> texts, bool bos,
                              const ParallelFor& parallel_for) {
  const auto& special = tokenizer.special();
  CRUMB_CHECK(!bos || special.bos, "bos: the tokenizer has no BOS token");
  TokenStream stream;
  stream.has_bos = bos;
  stream.has_eos = special.eos.has_value();
  stream.text_begin.push_back(0);
  for (const auto& text : texts) {
    std::vector<std::vector<tokenizer::TokenId>> encoded(text.documents.size());
    parallel_for(static_cast<int64_t>(encoded.size()), 1, [&](int64_t begin, int64_t end) {
      for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i)
        encoded[i] = tokenizer.encode(text.documents[i]);
    });
    for (const auto& ids : encoded) {
      if (bos) stream.ids.push_back(*special.bos);
      stream.ids.insert(stream.ids.end(), ids.begin(), ids.end());
      if (special.eos) stream.ids.push_back(*special.eos);
    }
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

}  // namespace crumb::eval
