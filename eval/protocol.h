// How a text is cut into windows for a perplexity. Numbers of different protocols cannot be compared.
#pragma once

#include <string>
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
  llamacpp
};

/// "windows", "gptq", "llama.cpp"; UserError for another name.
PerplexityProtocol protocol_from_name(const std::string& name);
std::string_view name_of(PerplexityProtocol protocol);
/// Tokens a window if nothing is said: 2048, of llama.cpp 512.
int64_t usual_context(PerplexityProtocol protocol);

/// The tokens of a file, for a protocol other than windows. UserError: not a plain text.
text::TokenStream protocol_stream(PerplexityProtocol protocol, const tokenizer::Tokenizer& tokenizer, const Path& path);

/// Windows of `context` tokens as score_stream() takes them: context - 1 tokens go in. The first `max_windows` of them;
/// 0: all. llama.cpp: puts BOS where windows begin, whose tokens are in none of the predictions.
std::vector<text::Window> protocol_windows(PerplexityProtocol protocol, const tokenizer::Tokenizer& tokenizer,
                                           int64_t context, int64_t max_windows, text::TokenStream& stream);

}  // namespace crumb::eval
