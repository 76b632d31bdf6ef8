// What a quantization would make, known without reading a weight.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "ptq/budget.h"
#include "quant/checkpoint.h"
#include "quant/codes_folder.h"
#include "quant/quantized_tensor.h"

namespace crumb::ptq {

/// A head that was the embedding and becomes a matrix of its own (RotationOptions::residual).
struct AddedHead {
  int64_t parameters = 0, bytes = 0;
  std::string dtype;  // it is stored in: "BF16"
};

/// What the rotated `model` has and the `stored` one has not; nothing if its head stays what it was.
std::optional<AddedHead> added_head(const quant::Checkpoint& stored, const quant::Checkpoint& model);
/// One line: how much larger the model becomes, and how to avoid it.
std::string to_text(const AddedHead& head);

struct QuantizePlan {
  struct Part {  // the linears of one format
    quant::QuantFormat format;
    int64_t linears = 0, weights = 0, bytes = 0;  // bytes: codes, scales and zero points
  };
  std::vector<Part> parts;  // in the order in which the model has them
  int64_t kept_parameters = 0, kept_bytes = 0;
  int64_t masters_bytes = 0;  // of QuantizeJob::masters
  std::optional<AddedHead> added_head;
  /// Where bits are still to be chosen: these linears are counted in `parts` as the method's keys alone have it.
  std::optional<BudgetFrame> budget = std::nullopt;

  Part total() const;  // its format means nothing
  double bits_per_weight() const;
  int64_t all_bytes() const { return total().bytes + kept_bytes + masters_bytes; }
};

/// `stored` as `model` (rotated, or itself) with these linears quantized, `formats` by hf_name, and with their masters
/// beside the codes or without.
QuantizePlan plan_of(const quant::Checkpoint& stored, const quant::Checkpoint& model,
                     const std::map<std::string, quant::QuantFormat>& formats, quant::Masters masters);

}  // namespace crumb::ptq
