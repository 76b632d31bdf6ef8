// A model that is judged: what its file is, how it cuts texts, what it predicts.
#pragma once

#include <memory>
#include <string>

#include "core/common/thread_pool.h"
#include "core/tokenizer/tokenizer.h"
#include "eval/scorer.h"
#include "runtime/precision.h"

namespace crumb::eval {

/// The file that was judged.
struct ModelFacts {
  Path path;
  std::string kind;        // "HF folder", "codes and scales", "GGUF"
  int64_t parameters = 0;  // 0: no model, only what one said
  int64_t file_bytes = 0;  // of the GGUF, or of the folder's safetensors
  double bits_per_weight = 0,
         bits_per_weight_without_embeddings = 0;             // embeddings: the embedding and, unless tied, the head
  std::string linear_dtypes, embedding_dtypes, head_dtypes;  // "Q2_K", "BF16+Q2_K"; head: empty when tied
  std::string fingerprint = {};                              // of the weights (quant/fingerprint.h); empty: no model
};

struct Judged {
  ModelFacts facts;
  std::unique_ptr<tokenizer::Tokenizer> tokenizer;
  std::unique_ptr<Scorer> scorer;
};

/// UserError: files, and a tokenizer with more tokens than the model.
Judged load_judged(const Path& path, const runtime::Precision& precision, const std::shared_ptr<ThreadPool>& pool);

}  // namespace crumb::eval
