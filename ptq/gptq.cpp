#include "ptq/gptq.h"

#include "core/common/log.h"
#include "kernels/torch/where.h"
#include "ptq/block_walk.h"
#include "ptq/feedback.h"
#include "ptq/reorder.h"
#include "quant/scale_search.h"

namespace crumb::ptq {
namespace {

class Gptq : public LinearMethod {
 public:
  Gptq(const FeedbackOptions& options, double token_cap, double error_propagation)
      : LinearMethod(token_cap), options_(options), error_propagation_(error_propagation) {}
  bool prunes_jointly() const override { return options_.static_scales; }
  bool reads_float_prefix() const override { return error_propagation_ > 0; }

 protected:
  std::map<arch::Slot, LinearResult> round(const BlockWork& work, const std::map<arch::Slot, torch::Tensor>& weights,
                                           const InputStatistics& inputs) const override {
    FeedbackOptions options = options_;
    if (work.pruning.is_joint()) options.sparsity = work.pruning.amount();
    const FeedbackFactor factor(inputs.gram.const_data_ptr<float>(), inputs.gram.size(0), options);
    warn(factor, work.name(weights.begin()->first));
    std::map<arch::Slot, LinearResult> results;
    for (const auto& [slot, weight] : weights) {
      const torch::Tensor w = aim(weight, inputs, factor);
      const auto mask = work.masks.find(slot);
      FeedbackResult rounded = round_with_feedback(w.const_data_ptr<float>(), w.size(0), factor, work.formats.at(slot),
                                                   options, kernels::torch_executor(),
                                                   mask == work.masks.end() ? std::vector<uint8_t>() : mask->second);
      results[slot] = {.codes = std::move(rounded.codes),
                       .masters = torch::from_blob(rounded.targets.data(), w.sizes()).clone()};
    }
    return results;
  }

 private:
  /// What is rounded in place of a weight (see the head of ptq/gptq.h).
  torch::Tensor aim(const torch::Tensor& w, const InputStatistics& inputs, const FeedbackFactor& factor) const {
    if (!inputs.drift.defined()) return w;
    const torch::NoGradGuard no_grad;
    const torch::Tensor missing = w.mm(inputs.drift);
    std::vector<float> move = factor.solve(missing.const_data_ptr<float>(), w.size(0), kernels::torch_executor());
    return w + torch::from_blob(move.data(), w.sizes()) * error_propagation_;
  }

  void warn(const FeedbackFactor& factor, const std::string& where) const {
    if (factor.damping() > options_.damping)
      log_warning("{}: its inputs' Gram matrix needed a damping of {:g}", where, factor.damping());
    if (factor.dead_columns() > 0)
      log_warning("{}: {} of {} inputs are zero on the whole calibration text; their weights are rounded to nearest",
                  where, factor.dead_columns(), factor.size());
  }

  FeedbackOptions options_;
  double error_propagation_;
};

}  // namespace

void GptqMethod::check() const { linears.check(quant::scale_init_from_name(init)); }

Method GptqMethod::make() const {
  const std::shared_ptr<BlockMethod> rounding = make_gptq(gptq, quant::scale_init_from_name(init));
  return gptq.reorder ? make_reordered(rounding) : rounding;
}

std::shared_ptr<BlockMethod> make_gptq(const GptqOptions& options, quant::ScaleInit init) {
  return std::make_shared<Gptq>(FeedbackOptions{.damping = options.damping,
                                                .act_order = options.act_order,
                                                .static_scales = options.static_groups,
                                                .init = init},
                                options.token_cap, options.error_propagation);
}

}  // namespace crumb::ptq
