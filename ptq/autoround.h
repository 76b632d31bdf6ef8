// AutoRound (Cheng et al., arXiv:2309.05516): which way each weight is rounded, and the scales, are learned block by
// block by the signs of gradients, from rounding to nearest.
#pragma once

#include <string>

#include "ptq/gptq.h"
#include "ptq/method.h"

namespace crumb::ptq {

/// The keys of `method: {name: autoround}`.
struct AutoRoundMethod {
  static constexpr const char* kName = "autoround";

  quant::LinearFormats linears = {};
  std::string init = "mse";
  int64_t iterations = 200;
  int64_t batch_size = 8;
  Auto<double> lr = {};
  int64_t seed = 0;

  template <class V>
  void visit(V& v) {
    linears.visit(v);
    v.field("init", init, kCalibratedInit, {.choices = quant::scale_init_names()});
    v.field("iterations", iterations, "steps of each block", {.min = 1, .max = 100000});
    v.field("batch_size", batch_size, "windows of a step, no more than there are", {.min = 1, .max = 65536});
    v.field("lr", lr, "first step of weights, in scales, and of the logarithms of scales; auto: 1 / iterations",
            {.min = 0});
    v.field("seed", seed, "of the order of the text", {.min = 0});
  }

  void check() const;
  Method make() const;
};

}  // namespace crumb::ptq
