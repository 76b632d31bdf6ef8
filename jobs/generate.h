// Text from a model: a prompt continued, or a corpus of documents sampled from nothing.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/common/file.h"
#include "core/tokenizer/tokenizer.h"
#include "jobs/draft.h"
#include "jobs/running_model.h"

namespace crumb::jobs {

struct PromptJob {
  Path model;
  std::string prompt;  // "": from the start of a document
  int64_t max_tokens = 128;
  SamplingChoice sampling;         // temperature 0 unless given
  std::vector<std::string> stops;  // texts that end it; nothing of them is shown or kept
  Path prompt_cache;               // what was computed of a prompt: read where the file is there, and written; "": none
  Path weight_cache;               // of the model: runtime/weight_cache.h; "": none
  runtime::Precision precision;
  DraftChoice draft;
  bool reports_draft = false;  // measures what it was worth
  int64_t threads = 0;         // 0: one per processor
};

struct PromptResult {
  std::vector<tokenizer::TokenId> prompt_tokens, tokens;
  std::string text;                 // without the prompt
  bool stopped = false;             // by an end token of the model, or a stop text
  bool context_full = false;        // the model's context ended it, before max_tokens
  std::optional<std::string> stop;  // the text of `stops` that ended it
  int64_t known_tokens = 0;         // of the prompt, from the prompt cache
  double seconds = 0;               // prompt and new tokens
  std::vector<std::string> held;    // RunningModel::held()
  int64_t shared_bytes = 0;         // of weights that model and draft have in common
  std::optional<DraftReport> draft;
  double load_seconds = 0, prefill_seconds = 0, decode_seconds = 0;

  /// "stop", "context" or "length".
  const char* finish_reason() const;
  double tokens_per_second() const;
  /// Of the prompt; of the new tokens behind the first.
  double prefill_rate() const;
  double decode_rate() const;
};

/// `show`: pieces of text as they come, the prompt first. A warning when the context ends it. UserError: no such model,
/// a prompt longer than its context, a draft that does not fit.
PromptResult continue_prompt(const PromptJob& job, const std::function<void(const std::string&)>& show);

struct CorpusJob {
  Path model;
  Path output;                 // JSON lines {"text": ...}
  int64_t tokens = 0;          // to sample, exactly: the last document is cut
  SamplingChoice sampling;     // temperature 1 unless given
  int64_t skip_documents = 0;  // the first ones of this seed
  int64_t batch = 64;          // documents decoded at once
  runtime::Precision precision;
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
