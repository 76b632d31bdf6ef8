#include "ptq/blockwise.h"

#include "core/common/log.h"
#include "ptq/block_training.h"
#include "ptq/nearest.h"

namespace crumb::ptq {
namespace {

class Blockwise : public BlockMethod {
 public:
  Blockwise(std::shared_ptr<BlockMethod> first, const BlockTraining& training, int64_t passes)
      : first_(std::move(first)), training_(training), passes_(passes) {}

  void quantize(BlockWork& work) const override {
    const torch::Tensor input = work.memory.make(work.residual.sizes());
    input.copy_(work.residual);
    const torch::Tensor target = float_output(work, input);
    first_->quantize(work);
    if (work.results.empty()) return;
    BlockTraining training = training_;
    training.steps = passes_ * input.size(0);
    const TrainedBlock trained = train_block(work, input, target, training);
    log_info("block {}: error of its output {:.4g} -> {:.4g}{}", work.layer, trained.loss_before, trained.loss_after,
             trained.is_kept ? "" : "; training is left out");
  }

 private:
  std::shared_ptr<BlockMethod> first_;
  BlockTraining training_;
  int64_t passes_;
};

}  // namespace

void BlockwiseMethod::check() const { linears.check(quant::scale_init_from_name(init)); }

Method BlockwiseMethod::make() const {
  const quant::ScaleInit scales = quant::scale_init_from_name(init);
  std::shared_ptr<BlockMethod> before =
      first == "gptq" ? make_gptq(gptq, scales) : make_weighted_nearest(scales, gptq.token_cap);
  return std::make_shared<Blockwise>(
      std::move(before), BlockTraining{.lr = lr, .scale_lr = scale_lr, .seed = static_cast<uint64_t>(seed)}, passes);
}

}  // namespace crumb::ptq
