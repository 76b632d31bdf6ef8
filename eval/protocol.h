// How a text is cut into windows for a perplexity. Numbers of different protocols cannot be compared.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/text/token_stream.h"
#include "core/text/windows.h"

namespace crumb::eval {

enum class PerplexityProtocol {
  /// Documents with EOS after each in one stream; windows of a context and a stride, every token is predicted.
  windows,
  /// GPTQ (Frantar et al., arXiv:2210.17323) and the papers after it: the lines of a file as rows of the Hugging Face
  /// set (blank ones empty) joined by "\n\n" and encoded at once; windows without overlap whose first token is not
  /// predicted; the tail is dropped.
  gptq,
  /// llama-perplexity of llama.cpp: the file as it is but for a last line end, special tokens in it are text; windows
  /// without overlap whose first token becomes BOS where the model adds one; the second half of each is predicted.
  llamacpp,
  /// The rolling log-likelihood of lm-evaluation-harness, as its wikitext task has it: each document by itself behind a
  /// prefix token, BOS or else EOS. Windows of a context follow each other, each from the last token of the one before;
  /// the last of a document reaches back as far as the context goes. Every token is predicted once.
  rolling
};

/// A document of a stream: its prefix and tokens are ids[begin .. end).
struct RollingDocument {
  int64_t begin = 0, end = 0;
  int64_t words = 0;  // runs of spaces and one more, as Python's len(re.split(r"\s+", document))
  int64_t bytes = 0;
};

struct RollingStream {
  text::TokenStream stream;
  std::vector<RollingDocument> documents;  // those with tokens
};

/// UserError: a tokenizer with neither BOS nor EOS.
RollingStream rolling_stream(const tokenizer::Tokenizer& tokenizer, std::span<const text::TextDocuments> texts);
/// Of get_rolling_token_windows(tokens, prefix, context, 1): `context` tokens go in, or the whole of a document that
/// has fewer.
std::vector<text::Window> rolling_windows(std::span<const RollingDocument> documents, int64_t context);
/// Of a valid UTF-8 text, by the rule of RollingDocument.
int64_t count_words(std::string_view text);

/// "windows", "gptq", "llama.cpp", "rolling"; UserError for another name.
PerplexityProtocol protocol_from_name(const std::string& name);
std::string_view name_of(PerplexityProtocol protocol);
/// Tokens a window if nothing is said: 2048, of llama.cpp 512, of rolling as many as a model was made for.
int64_t usual_context(PerplexityProtocol protocol);

/// The tokens of a file, for gptq and llamacpp. UserError: not a plain text.
text::TokenStream protocol_stream(PerplexityProtocol protocol, const tokenizer::Tokenizer& tokenizer, const Path& path);

/// Windows of `context` tokens as score_stream() takes them: context - 1 tokens go in. The first `max_windows` of them;
/// 0: all. llama.cpp: puts BOS where windows begin, whose tokens are in none of the predictions.
std::vector<text::Window> protocol_windows(PerplexityProtocol protocol, const tokenizer::Tokenizer& tokenizer,
                                           int64_t context, int64_t max_windows, text::TokenStream& stream);

}  // namespace crumb::eval
