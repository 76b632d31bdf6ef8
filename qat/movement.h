// How far training has moved a model from its start: a run that flips no codes learns nothing, one that flips a third
// has lost its start.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "model/decoder.h"
#include "qat/quant_linear.h"
#include "train/optimizer.h"

namespace crumb::qat {

struct MovementReport {
  double flipped_share = 0;    // of the codes, those that differ from the start
  double weight_distance = 0;  // ||w - w0|| / ||w0|| of the trained matrices, on an even sample of at most 64k of each
  double scale_distance = 0;   // root mean square of ln s - ln s0
};

/// Remembers the start of a decoder: of its quantized linears the codes, packed, and the scales; of every
/// trained matrix a sample. Make it before a checkpoint of a resumed run is loaded, so that the start is that of the
/// whole run.
class Movement {
 public:
  Movement(const model::Decoder& decoder, const std::vector<train::TrainedParameter>& parameters);
  bool has_codes() const { return !linears_.empty(); }
  /// One pass over the weights.
  MovementReport report() const;

 private:
  struct LinearStart {
    std::shared_ptr<QuantLinear> linear;
    std::vector<uint8_t> codes;  // packed rows
    torch::Tensor log_scales;
  };
  struct MatrixStart {
    torch::Tensor weight, sample;
  };
  std::vector<LinearStart> linears_;
  std::vector<MatrixStart> matrices_;
};

}  // namespace crumb::qat
