#include "ptq/blockwise.h"

#include "ptq/block_training.h"
#include "ptq/nearest.h"

namespace crumb::ptq {

void BlockwiseMethod::check() const {
  linears.check(quant::scale_init_from_name(init));
  check_trainable(linears);
}

Method BlockwiseMethod::make() const {
  const quant::ScaleInit scales = quant::scale_init_from_name(init);
  return make_trained(first == "gptq" ? make_gptq(gptq, scales) : make_weighted_nearest(scales, gptq.token_cap),
                      {.lr = lr, .scale_lr = scale_lr, .passes = passes, .seed = static_cast<uint64_t>(seed)});
}

}  // namespace crumb::ptq
