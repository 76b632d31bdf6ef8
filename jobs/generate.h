// Text from a model: a prompt continued, or a corpus of documents sampled from nothing.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/common/file.h"
#include "core/tokenizer/tokenizer.h"
#include "runtime/packed_linear.h"

namespace crumb::jobs {

/// How the next token is picked; runtime/generate.h has the terms.
struct SamplingChoice {
  std::optional<double> temperature;  // 0: the likeliest token; none: 0 after a prompt, 1 for a corpus
  double top_p = 1.0;
  int64_t top_k = 0;
  uint64_t seed = 0;
};

struct PromptJob {
  Path model;
  std::string prompt;  // "": from the start of a document
  int64_t max_tokens = 128;
  SamplingChoice sampling;
  runtime::Activations activations = runtime::Activations::floats;
  int64_t threads = 0;  // 0: one per processor
};

struct PromptResult {
  std::vector<tokenizer::TokenId> prompt_tokens, tokens;
  std::string text;           // without the prompt
  bool stopped = false;       // by an end token of the model
  bool context_full = false;  // the model's context ended it, before max_tokens
  double seconds = 0;

  /// "stop", "context" or "length".
  const char* finish_reason() const;
  double tokens_per_second() const;
};

/// `show`: pieces of text as they come, the prompt first. A warning when the context ends it. UserError: no such model,
/// a prompt longer than its context.
PromptResult continue_prompt(const PromptJob& job, const std::function<void(const std::string&)>& show);

struct CorpusJob {
  Path model;
  Path output;         // JSON lines {"text": ...}
  int64_t tokens = 0;  // to sample, exactly: the last document is cut
  SamplingChoice sampling;
  int64_t skip_documents = 0;  // the first ones of this seed
  int64_t batch = 64;          // documents decoded at once
  runtime::Activations activations = runtime::Activations::floats;
  int64_t threads = 0;
  bool force = false;  // replaces an output that exists
};

struct CorpusResult {
  int64_t documents = 0, bytes = 0;
  int64_t next_document = 0;  // the skip_documents that goes on from here
  double temperature = 0, seconds = 0, tokens_per_second = 0;
};

/// Document n is drawn with random stream n, whatever the batch. Written atomically. UserError: an output that exists
/// or is the model; RunError: a model that ends every document at once.
CorpusResult sample_corpus(const CorpusJob& job);

}  // namespace crumb::jobs
