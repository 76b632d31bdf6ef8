// What a training run holds in memory, estimated from the model's shape.
#pragma once

#include <cstdint>
#include <string>

#include "core/arch/tensor_table.h"
#include "jobs/train_job.h"
#include "train/schedule.h"

namespace crumb::jobs {

/// Bytes that a training run holds at once; estimates.
struct MemoryEstimate {
  int64_t masters = 0, gradients = 0, moments = 0, quantized = 0, teacher = 0, activations = 0, logits = 0;
  int64_t total() const { return masters + gradients + moments + quantized + teacher + activations + logits; }
};

MemoryEstimate estimate_memory(const TrainJob& job, const arch::DecoderSpec& spec, const train::Plan& plan);

/// Weights of the linears that become codes.
int64_t count_quantized(const TrainJob& job, const arch::DecoderSpec& spec);

/// Tokens to compute at once where the job leaves it open. A CPU is busy with 4k. A GPU wants as many as its memory
/// takes: an H100 trained a model of 135M parameters at 24k tokens/s with 8k at once, and at 74k with 48k.
int64_t auto_micro_tokens(const TrainJob& job, const arch::DecoderSpec& spec);

}  // namespace crumb::jobs
