// What follows a training: exports, and the judgement of everything that was made.
#pragma once

#include "core/tokenizer/tokenizer.h"
#include "jobs/train.h"

namespace crumb::jobs {

/// What would fail after the training, fill the disk, or come out otherwise than its name promises, is told before it.
void check_ending(const TrainJob& job, const arch::DecoderSpec& spec, const tokenizer::Tokenizer& tokenizer);

/// Exports model/ and judges it and every exported file: what a file keeps its embedding in is a loss of its own.
void export_and_judge(TrainResult& result);

}  // namespace crumb::jobs
