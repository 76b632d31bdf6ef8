// The texts of a training job as token streams, split into what is trained on and what is held out.
#pragma once

#include <vector>

#include "core/text/token_cache.h"
#include "jobs/train_job.h"
#include "train/sampler.h"

namespace crumb::jobs {

struct TrainData {
  std::vector<train::MixedStream> train;
  std::vector<text::TokenRuns> valid;
  uint64_t key = 0;  // a hash of the texts, the separator and the tokenizer
};

/// UserError for what can be told without reading the job's texts: one that is a folder, that is given twice, or that
/// is trained on and validated on. Absent ones are told where they are read.
void check_texts(const TrainJob& job);

/// What makes tokens of the job's texts; `tokenizer` must outlive it.
text::TextEncoder text_encoder(const TrainJob& job, const tokenizer::Tokenizer& tokenizer);

/// Tokenizes the texts, or maps the token files made before; `fallback` keeps them where no cache folder can be
/// written. UserError: a text that is absent, empty or shorter than a window of `length`.
TrainData open_train_data(const TrainJob& job, const text::TextEncoder& encoder, int64_t length, const Path& fallback);

/// Windows of `length` tokens in one epoch of the job's training text; tokenizes it if that was not done before.
int64_t count_windows(const TrainJob& job, int64_t length);

}  // namespace crumb::jobs
