// AWQ, activation-aware weight quantization (Lin et al., arXiv:2306.00978): channels of large inputs are multiplied by
// a scale before rounding, so that their weights lose less, and what makes the inputs is divided by it
// (ptq/channel_scales.h). Then every weight takes the nearest level, or GPTQ goes on from there.
//
// s = mean|x|^alpha, for alpha in [0, 1) of a grid; and, as in the paper's code ("duo scaling"), s = mean|x|^alpha /
// mean|w|^(1 - alpha). The best of them is that of the least error of the group's outputs, each linear's relative to
// its output. With the Gram matrix H of the inputs that error is tr((w - q) H (w - q)^T), exactly and for the price of
// one product of rows x cols^2, where the paper runs the block on a sample of tokens.
#pragma once

#include <memory>
#include <string>

#include "ptq/gptq.h"
#include "ptq/method.h"
#include "quant/linear_formats.h"

namespace crumb::ptq {

class ChannelScaleSearch;

/// The search with `grid_points` values of alpha, and weights rounded by `init`.
std::shared_ptr<const ChannelScaleSearch> make_awq_search(quant::ScaleInit init, int64_t grid_points);

/// The keys of `method: {name: awq}`.
struct AwqMethod {
  static constexpr const char* kName = "awq";

  quant::LinearFormats linears = {};
  std::string rounding = "rtn";
  std::string init = "mse";
  GptqOptions gptq = {};
  int64_t grid_points = 20;

  template <class V>
  void visit(V& v) {
    linears.visit(v);
    v.field("rounding", rounding, "what follows; damping, act_order, static_groups and token_cap are for gptq",
            {.choices = {"rtn", "gptq"}});
    v.field("init", init, kCalibratedInit, {.choices = quant::scale_init_names()});
    gptq.visit(v);
    v.field("grid_points", grid_points, "values of alpha that are tried, from 0", {.min = 1, .max = 1000});
  }

  void check() const;
  Method make() const;
};

}  // namespace crumb::ptq
