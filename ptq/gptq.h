// GPTQ: rounding with error feedback (ptq/feedback.h), block after block, each from the inputs that the quantized
// blocks before it give, and within a block each group of linears from those of the groups before.
#pragma once

#include <string>

#include "ptq/method.h"
#include "quant/linear_formats.h"

namespace crumb::ptq {

class BlockMethod;

inline constexpr const char* kCalibratedInit =
    "scales: absmax, absmean, or the least squared error, weighted by the energy of the inputs (mse)";

/// What all methods that begin with GPTQ share.
struct GptqOptions {
  double damping = 0.01;
  bool act_order = true;
  bool static_groups = true;
  double token_cap = 0;

  template <class V>
  void visit(V& v) {
    v.field("damping", damping, "added to the diagonal of the inputs' Gram matrix, as a share of its mean",
            {.min = 0, .max = 1});
    v.field("act_order", act_order, "columns of the most energy are rounded first; a file keeps its own order");
    v.field("static_groups", static_groups,
            "all scales before the first column is rounded; false: those of a group when its turn comes, with "
            "act_order: false");
    v.field("token_cap", token_cap,
            "most energy of a token's input, in medians of its batch: keeps the few tokens with massive activations "
            "from owning the Gram matrix; 0: no limit",
            {.min = 0});
    v.check("static_groups", !static_groups && act_order
                                 ? "false needs act_order: false: no stored format keeps groups of scattered columns"
                                 : "");
  }
};

/// The keys of `method: {name: gptq}`.
struct GptqMethod {
  static constexpr const char* kName = "gptq";

  quant::LinearFormats linears = {};
  std::string init = "mse";
  GptqOptions gptq = {};

  template <class V>
  void visit(V& v) {
    linears.visit(v);
    v.field("init", init, kCalibratedInit, {.choices = quant::scale_init_names()});
    gptq.visit(v);
  }

  void check() const;
  Method make() const;
};

std::shared_ptr<BlockMethod> make_gptq(const GptqOptions& options, quant::ScaleInit init);

}  // namespace crumb::ptq
