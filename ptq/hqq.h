// HQQ, half-quadratic quantization (Badri and Shaji, Mobius Labs, 2023): needs no data and no training.
//
// Minimises sum |w - q|^p over the weights of a group, q = (level - zero point) * scale + minimum and p below 1: most
// weights come close to a level, and a few are given up. With e the errors that are given up, it repeats, while beta
// grows:
//   codes                 the levels next to w
//   e                     sign(x) max(0, |x| - |x|^(p-1) / beta), x = (w - q) / scale
//   scale, zero point     least squares of w - scale e on the levels
//   or minimum
//
// Departures. HQQ keeps the scale and moves a zero point that is a float, which is what formats with minima have (the
// minimum is -zero point * scale); integer zero points hardly move, and other formats have none. So the scale moves
// too, everywhere. x is in units of the scale, so that a matrix that is multiplied by a number gets the same codes. The
// best scale of those passed is kept, of 6 significant bits as all are, instead of ending where the error rises.
#pragma once

#include <cstdint>
#include <string>

#include "ptq/method.h"
#include "quant/linear_formats.h"

namespace crumb::ptq {

/// HQQ calls p lp_norm and beta_growth kappa.
struct HalfQuadratic {
  int64_t iterations = 20;
  double p = 0.7;
  double beta = 10;
  double beta_growth = 1.01;

  template <class V>
  void visit(V& v) {
    v.field("iterations", iterations, "steps of a group", {.min = 1, .max = 1000});
    v.field("p", p, "exponent of the error that is minimised; less gives up more of the outliers",
            {.min = 0.1, .max = 1});
    v.field("beta", beta, "errors of more than beta^(-1 / (2 - p)) scales are given up", {.min = 0.01, .max = 1e6});
    v.field("beta_growth", beta_growth, "what a step multiplies beta with", {.min = 1, .max = 10});
  }
};

/// Scale and zero point or minimum of the n weights of a group, n > 0, found from `start`; sum |w - q|^p is never more
/// than with `start`.
quant::GroupScale half_quadratic_scale(const float* w, int64_t n, const quant::QuantFormat& format,
                                       const quant::GroupScale& start, const HalfQuadratic& options);

/// The keys of `method: {name: hqq}`.
struct HqqMethod {
  static constexpr const char* kName = "hqq";

  quant::LinearFormats linears = {};
  std::string init = "absmax";
  HalfQuadratic search = {};

  template <class V>
  void visit(V& v) {
    linears.visit(v);
    v.field("init", init, quant::format_help::kInit, {.choices = quant::scale_init_names()});
    search.visit(v);
  }

  /// UserError for combinations that do not exist.
  void check() const;
  Method make() const;
};

}  // namespace crumb::ptq
