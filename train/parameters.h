// Which parameters of a decoder a run trains.
#pragma once

#include <vector>

#include "core/arch/tensor_table.h"
#include "train/optimizer.h"

namespace crumb::model {
class Decoder;
}

namespace crumb::train {

/// Whether `parts` names tensors of this role; a tied head goes with the embedding.
bool is_trained(arch::TensorRole role, const TrainedParts& parts, bool tied_head);

/// Parameters of a model that `parts` names; scales not counted.
int64_t count_trained(const arch::DecoderSpec& spec, const TrainedParts& parts);

/// Numbers that the optimizer keeps beside them: moments and averages.
int64_t count_optimizer_state(const arch::DecoderSpec& spec, const TrainedParts& parts,
                              const OptimizerOptions& optimizer);

/// The decoder's parameters that `parts` names, each with its kind; the others no longer need a gradient. What a linear
/// has beside weight and bias are scales, trained with the linears. UserError if there are none.
std::vector<TrainedParameter> trained_parameters(model::Decoder& decoder, const TrainedParts& parts);

}  // namespace crumb::train
