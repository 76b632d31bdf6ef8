#include "jobs/train_memory.h"

#include <ATen/DeviceAccelerator.h>

#include <algorithm>

#include "jobs/train_device.h"
#include "kernels/torch/head_loss.h"
#include "train/parameters.h"

namespace crumb::jobs {
namespace {

constexpr int64_t kFloat = 4;
constexpr double kUsableShare = 0.8;  // of a GPU's memory: the rest is the driver's, and lies between pieces

/// Floats that the backward pass of one layer keeps for each token.
int64_t activations_of(const arch::LayerSpec& layer, int64_t hidden) {
  const auto& attention = layer.gqa();
  const int64_t heads = (2 * attention.heads + 2 * attention.kv_heads) * attention.head_dim;
  return 6 * hidden + 2 * heads + 4 * layer.mlp().intermediate;
}

int64_t activation_bytes(const arch::DecoderSpec& spec) {
  int64_t floats = 0;
  for (const auto& layer : spec.layers) floats += activations_of(layer, spec.hidden_size);
  return kFloat * floats;
}

MemoryEstimate memory_of_weights(const TrainJob& job, const arch::DecoderSpec& spec) {
  const int64_t parameters = arch::parameter_count(spec), trained = train::count_trained(spec, job.train);
  return {.masters = kFloat * parameters,
          .gradients = kFloat * trained,
          .moments = kFloat * train::count_optimizer_state(spec, job.train, job.optimizer),
          .quantized = kFloat * count_quantized(job, spec),
          .teacher = has_teacher(job) ? kFloat * parameters : 0};
}

}  // namespace

MemoryEstimate estimate_memory(const TrainJob& job, const arch::DecoderSpec& spec, const train::Plan& plan) {
  MemoryEstimate memory = memory_of_weights(job, spec);
  const int64_t tokens = plan.micro_windows * plan.sequence_length;
  memory.activations = tokens * activation_bytes(spec);
  memory.logits = (has_teacher(job) ? 3 : 2) * kFloat *
                  std::min(kernels::logit_chunk(job.objective.chunk_tokens, spec.vocab_size, !uses_cuda(job)), tokens) *
                  spec.vocab_size;
  return memory;
}

int64_t count_quantized(const TrainJob& job, const arch::DecoderSpec& spec) {
  const auto formats = planned_formats(job, spec);
  int64_t weights = 0;
  for (const auto& desc : arch::tensor_table(spec)) weights += formats.contains(desc.hf_name) ? desc.elements() : 0;
  return weights;
}

int64_t auto_micro_tokens(const TrainJob& job, const arch::DecoderSpec& spec) {
  if (!uses_cuda(job)) return train::kMicroTokens;
  // All of its memory, not what is free now: a run that goes on must choose as before.
  const auto total = static_cast<double>(at::accelerator::getMemoryInfo(0).second);
  const double room = kUsableShare * total - static_cast<double>(memory_of_weights(job, spec).total());
  return std::max(train::kMicroTokens, static_cast<int64_t>(room / static_cast<double>(activation_bytes(spec))));
}

}  // namespace crumb::jobs
