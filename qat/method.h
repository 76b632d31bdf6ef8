// The keys of `method: {name: qat}`.
#pragma once

#include <string>

#include "quant/linear_formats.h"

namespace crumb::qat {

struct QatMethod {
  static constexpr const char* kName = "qat";

  quant::LinearFormats linears = {};
  std::string init = "mse";
  std::string outside_gradient = "zero";

  template <class V>
  void visit(V& v) {
    linears.visit(v);
    v.field("init", init, quant::format_help::kInit, {.choices = quant::scale_init_names()});
    v.field("outside_gradient", outside_gradient,
            "gradient of weights beyond the outer levels: zero, or straight through", {.choices = {"zero", "ste"}});
  }

  /// UserError for a grid that has no QuantLinear, and for a combination that does not exist.
  void check() const;
};

}  // namespace crumb::qat
