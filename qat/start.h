// A folder that `crumb quantize` made, as what training begins with: its codes and scales, and the weights that were
// rounded to them, so that nothing the method chose is lost.
#pragma once

#include <torch/torch.h>

#include <memory>

#include "core/formats/safetensors.h"
#include "model/decoder.h"
#include "quant/checkpoint.h"

namespace crumb::qat {

/// The masters of a folder (crumb quantize, masters: true). `start` must outlive them.
class Masters {
 public:
  /// Where the folder has none, with a warning: every weight is the level of its code.
  explicit Masters(const quant::Checkpoint& start);
  /// Those of a quantized linear; of any other tensor what the folder holds. UserError for one of another shape or that
  /// is not finite.
  torch::Tensor operator()(const arch::TensorDesc& desc) const;

 private:
  const quant::Checkpoint& start_;
  std::shared_ptr<const formats::SafetensorsReader> reader_;  // null: there are none
};

/// Gives the quantized linears of a decoder that was made of its masters the scales and masks of the folder. UserError
/// naming a linear whose codes are others than the folder's then: masters and codes are not of one making.
void take_scales(const quant::Checkpoint& start, model::Decoder& decoder);

}  // namespace crumb::qat
