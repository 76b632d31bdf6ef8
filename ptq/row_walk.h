// The walk of methods without data: over a model tensor by tensor, by blocks of rows, into a CodesFolder.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/common/thread_pool.h"
#include "ptq/pruning.h"
#include "ptq/report.h"
#include "quant/checkpoint.h"
#include "quant/codes_folder.h"
#include "quant/quantized_tensor.h"

namespace crumb::ptq {

/// A method to which the rows of a matrix are independent of each other.
class RowMethod {
 public:
  virtual ~RowMethod() = default;
  /// w [rows, cols], part of the matrix `tensor`. May be called from several threads at once.
  virtual quant::QuantizedTensor quantize(const float* w, int64_t rows, int64_t cols, const quant::QuantFormat& format,
                                          const arch::TensorDesc& tensor) const = 0;
  /// UserError, before anything is written, for a model or linears of it that it cannot do.
  virtual void check(const quant::Checkpoint& /*model*/, const std::vector<arch::TensorDesc>& /*linears*/) const {}
  /// Of what it knows beside its keys; "": nothing.
  virtual std::string fingerprint() const { return ""; }
};

/// Of w [rows, cols].
WeightError weight_error(const float* w, const quant::QuantizedTensor& quantized);

/// Puts the tensors that `folder` has no formats for, as they are, unless they are finished; counts them. Those that
/// come later, changed by a method, are counted only.
void put_kept_tensors(
    const quant::Checkpoint& model, quant::CodesFolder& folder, QuantizeReport& report,
    const std::function<bool(const arch::TensorDesc&)>& comes_later = [](const arch::TensorDesc&) { return false; });

/// Fills `folder` with the linears that it has formats for, quantized, and the other tensors of `model` as they are;
/// what is finished there already is left, and reported as it was. The result does not depend on the number of threads.
/// UserError naming the tensor for weights that are not finite.
/// pruning.looks_at_activations() is false.
QuantizeReport walk_rows(const quant::Checkpoint& model, quant::CodesFolder& folder, const RowMethod& method,
                         const PruningOptions& pruning, ThreadPool& pool);

}  // namespace crumb::ptq
