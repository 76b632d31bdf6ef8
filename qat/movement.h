// How far training has moved a model from its start: a run that flips no codes learns nothing, one that flips a third
// has lost its start.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "model/decoder.h"
#include "qat/seq_linear.h"

namespace crumb::qat {

struct MovementReport {
  double flipped_share = 0;    // of the codes, those that differ from the start
  double weight_distance = 0;  // ||w - w0|| / ||w0|| of the masters, on an even sample of at most 64k weights a linear
  double scale_distance = 0;   // root mean square of ln s - ln s0
};

/// Remembers the start of a decoder's SEQ linears: codes packed (2 bits a weight), scales, and the sampled weights.
/// Make it before a checkpoint of a resumed run is loaded, so that the start is that of the whole run.
class Movement {
 public:
  explicit Movement(const model::Decoder& decoder);
  /// One pass over the weights; all zero for a decoder without SEQ linears.
  MovementReport report() const;

 private:
  struct Start {
    std::shared_ptr<SeqLinearImpl> linear;
    std::vector<uint8_t> codes;        // packed rows
    torch::Tensor weights, log_scale;  // the sample; all scales
  };
  std::vector<Start> starts_;
};

}  // namespace crumb::qat
