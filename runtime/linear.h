// Linear layers behind a backend: dense floats here, packed codes in packed_linear.h. A backend is a file with a
// LinearMaker, which looks at the tensors and takes them or not.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <span>
#include <vector>

#include "core/common/executor.h"
#include "quant/checkpoint.h"
#include "runtime/weight_cache.h"

namespace crumb::runtime {

/// Bytes of weights: those that are held in memory, and those that a pass reads, however many tokens it has.
struct WeightBytes {
  int64_t held = 0, read = 0;
  WeightBytes& operator+=(const WeightBytes& other) {
    held += other.held;
    read += other.read;
    return *this;
  }
};

/// The norm before linears: x / sqrt(mean(x^2) + epsilon) * weight for each token (kernels/rms_norm.h).
struct RmsNorm {
  std::span<const float> weight;  // [cols]
  float epsilon = 0;
};

/// Linears that read the same input (q, k and v; gate and up), or one alone: a backend that quantizes its input does so
/// once, and may take them for one matrix.
class LinearGroup {
 public:
  virtual ~LinearGroup() = default;
  /// outputs[i][tokens, rows of i] = x[tokens, cols] * W_i^T (+ bias_i), row-major. A token's row does not depend on
  /// the other tokens.
  virtual void forward(const float* x, int64_t tokens, std::span<float* const> outputs, Executor& executor) const = 0;
  /// forward() of normalised x, the same bits. A backend that rounds its input does both to a token at once.
  virtual void forward_normed(const float* x, const RmsNorm& norm, int64_t tokens, std::span<float* const> outputs,
                              Executor& executor) const;
  /// out [cols]: weights of the first of them, the floats whose product forward() gives. An embedding is read so.
  virtual void read_row(int64_t row, float* out) const = 0;
  /// Of codes, scales, zero points, floats and biases, as they are held.
  virtual WeightBytes weight_bytes() const = 0;
};

/// A member of a group.
struct LinearTensors {
  const quant::StoredTensor* weight = nullptr;
  const quant::StoredTensor* bias = nullptr;  // null without one
};
/// The tensors of these slots of a layer, which the model has, with their biases.
std::vector<LinearTensors> linear_tensors(const quant::Checkpoint& checkpoint, int layer,
                                          std::initializer_list<arch::Slot> slots);

/// Makes a group of tensors with the same number of columns; null for those that the backend does not take.
using LinearMaker = std::function<std::unique_ptr<LinearGroup>(const quant::Checkpoint& checkpoint,
                                                               std::span<const LinearTensors> members)>;

/// By `maker` (or null) together, else each alone by it, else as dense floats: members may be of different types.
/// Quantized members of a model with quantized activations (quant/activations.h) read their input rounded; what a maker
/// gives is given it so. `stores`: of dense floats. `executor`: reads them.
std::unique_ptr<LinearGroup> make_linears(const quant::Checkpoint& checkpoint, std::span<const LinearTensors> members,
                                          const LinearMaker& maker = nullptr, const WeightStores& stores = {},
                                          Executor& executor = serial_executor());

/// Float weights [rows, cols] (kernels/matmul.h) and a bias [rows] or none. Held in bfloat16 where they are that, in
/// float16 where a file has them so: the same results from half of the bytes.
struct DenseWeights {
  std::vector<float> weight;
  int64_t rows = 0, cols = 0;
  std::vector<float> bias = {};
};
std::unique_ptr<LinearGroup> make_dense_linear(DenseWeights weights);
/// What dense linears do to their inputs: nothing, or round them to bfloat16 where the weights are that.
enum class DenseInputs { floats, bf16 };
/// The same from a checkpoint.
std::unique_ptr<LinearGroup> read_dense_linear(const quant::Checkpoint& checkpoint, const LinearTensors& tensors,
                                               const WeightStores& stores, Executor& executor,
                                               DenseInputs inputs = DenseInputs::floats);

}  // namespace crumb::runtime
