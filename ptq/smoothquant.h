// SmoothQuant (Xiao et al., arXiv:2211.10438): activations have outliers in a few channels, which a scale a token has
// to span; weights have none. Channels of large inputs are divided by a scale, and their weights multiplied
// (ptq/channel_scales.h), so that both are easy to round. Then every weight takes the nearest level.
//
// s = max|x|^alpha / max|w|^(1 - alpha). alpha is given, or the one of a grid from 0 to 1 with the least error of the
// group's outputs on a sample of tokens, weights and activations rounded; each token's error relative to its output.
#pragma once

#include <memory>
#include <optional>

#include "core/common/config.h"
#include "ptq/gptq.h"
#include "ptq/method.h"
#include "quant/linear_formats.h"

namespace crumb::ptq {

class ChannelScaleSearch;

/// The search, with weights rounded by `init`; of one alpha, or, without, of `grid_points` of them and no scales at
/// all.
std::shared_ptr<const ChannelScaleSearch> make_smoothquant_search(quant::ScaleInit init, std::optional<double> alpha,
                                                                  int64_t grid_points);

/// The keys of `method: {name: smoothquant}`.
struct SmoothQuantMethod {
  static constexpr const char* kName = "smoothquant";

  quant::LinearFormats linears = {};
  std::string init = "mse";
  Auto<double> alpha = {};
  int64_t grid_points = 21;

  template <class V>
  void visit(V& v) {
    linears.visit(v);
    v.field("init", init, kCalibratedInit, {.choices = quant::scale_init_names()});
    v.field("alpha", alpha,
            "how far outliers go from activations into weights: 0.5 shares them, more moves more; auto: what loses the "
            "least, for each group of linears",
            {.min = 0, .max = 1});
    v.field("grid_points", grid_points, "values of alpha that auto tries, from 0 to 1", {.min = 2, .max = 1000});
  }

  void check() const;
  Method make() const;
};

}  // namespace crumb::ptq
