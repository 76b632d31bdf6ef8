// Block-wise reconstruction: after GPTQ or rounding to nearest, the weights and scales of a block are trained so that
// its output comes near that of the float block, on what the quantized blocks before it give.
#pragma once

#include <string>

#include "ptq/gptq.h"
#include "ptq/method.h"

namespace crumb::ptq {

/// The keys of `method: {name: blockwise}`.
struct BlockwiseMethod {
  static constexpr const char* kName = "blockwise";

  quant::LinearFormats linears = {};
  std::string first = "gptq";
  std::string init = "mse";
  GptqOptions gptq = {};
  int64_t passes = 2;
  double lr = 0.005, scale_lr = 0.003;
  int64_t seed = 0;

  template <class V>
  void visit(V& v) {
    linears.visit(v);
    v.field("first", first,
            "what is trained further; damping, act_order, static_groups and error_propagation are for gptq",
            {.choices = {"gptq", "rtn"}});
    v.field("init", init, kCalibratedInit, {.choices = quant::scale_init_names()});
    gptq.visit(v);
    gptq.visit_propagation(v);
    v.field("passes", passes, "over the calibration text for each block", {.min = 1, .max = 1000});
    v.field("lr", lr, "Adam's learning rate of weights, in scales; falls to zero", {.min = 0});
    v.field("scale_lr", scale_lr, "that of the logarithms of the scales", {.min = 0});
    v.field("seed", seed, "of the order of the text", {.min = 0});
  }

  void check() const;
  Method make() const;
};

}  // namespace crumb::ptq
