#include "ptq/autoround.h"

#include "ptq/block_training.h"
#include "ptq/nearest.h"

namespace crumb::ptq {
namespace {

/// Rounding down and up are half a scale away from every weight.
constexpr double kReach = 0.5;

}  // namespace

void AutoRoundMethod::check() const {
  linears.check(quant::scale_init_from_name(init));
  check_trainable(linears);
}

Method AutoRoundMethod::make() const {
  const double rate = lr.value_or(1.0 / static_cast<double>(iterations));
  return make_trained(make_weighted_nearest(quant::scale_init_from_name(init)), {.step = BlockTraining::Step::sign,
                                                                                 .lr = rate,
                                                                                 .scale_lr = rate,
                                                                                 .steps = iterations,
                                                                                 .windows = batch_size,
                                                                                 .reach = kReach,
                                                                                 .normalise_tokens = false,
                                                                                 .seed = static_cast<uint64_t>(seed)});
}

}  // namespace crumb::ptq
