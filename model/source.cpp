#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "core/common/rng.h"
#include "model/decoder.h"

namespace crumb::model {
namespace {

constexpr double kInitialDeviation = 0.02;
constexpr int64_t kRowsAtOnce = 4096;

/// The two linears whose output is added to the residual stream.
bool feeds_residual(arch::Slot slot) { return slot == arch::Slot::o || slot == arch::Slot::down; }

torch::Tensor normal_values(const std::vector<int64_t>& shape, double deviation, const Rng& rng) {
  torch::Tensor values = torch::empty(shape);
  float* out = values.data_ptr<float>();
  at::parallel_for(0, values.numel(), 4096, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) out[i] = static_cast<float>(deviation * rng.normal(static_cast<uint64_t>(i)));
  });
  return values;
}

}  // namespace

TensorSource checkpoint_source(const quant::Checkpoint& checkpoint) {
  return [&checkpoint](const arch::TensorDesc& desc) {
    const quant::StoredTensor& stored = checkpoint.tensor(desc.id);
    torch::Tensor values = torch::empty(desc.shape);
    float* out = values.data_ptr<float>();
    for (int64_t begin = 0; begin < desc.rows(); begin += kRowsAtOnce) {
      const int64_t end = std::min(begin + kRowsAtOnce, desc.rows());
      checkpoint.read_rows(stored, begin, end, out + begin * desc.cols());
      checkpoint.release_rows(stored, begin, end);
    }
    return values;
  };
}

TensorSource random_source(const arch::DecoderSpec& spec, uint64_t seed) {
  const double residual_share = 1.0 / std::sqrt(2.0 * static_cast<double>(spec.num_layers()));
  return [residual_share, seed](const arch::TensorDesc& desc) {
    if (desc.role == arch::TensorRole::norm) return torch::ones(desc.shape);
    if (desc.role == arch::TensorRole::bias) return torch::zeros(desc.shape);
    const double deviation = kInitialDeviation * (feeds_residual(desc.id.slot) ? residual_share : 1.0);
    return normal_values(desc.shape, deviation, Rng(seed, hash_name(desc.hf_name)));
  };
}

}  // namespace crumb::model
