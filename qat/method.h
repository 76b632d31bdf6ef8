// The keys of `method: {name: qat}`.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "quant/linear_formats.h"

namespace crumb::qat {

struct QatMethod {
  static constexpr const char* kName = "qat";

  quant::LinearFormats linears = {};
  std::variant<std::string, Path> init = std::string("mse");
  std::string outside_gradient = "zero";

  template <class V>
  void visit(V& v) {
    linears.visit(v);
    v.field("init", init,
            "what training begins with: the model rounded with first scales by absmax, absmean or the least squared "
            "error of the row (mse); or a folder that `crumb quantize` has made of it with masters: true",
            {.choices = quant::scale_init_names()});
    v.field("outside_gradient", outside_gradient,
            "gradient of weights beyond the outer levels: zero, or straight through", {.choices = {"zero", "ste"}});
  }

  /// The quantized folder it begins with; null: the model is rounded.
  const Path* start() const { return std::get_if<Path>(&init); }
  /// Of a model that is rounded.
  quant::ScaleInit scale_init() const {
    return start() != nullptr ? quant::ScaleInit::mse : quant::scale_init_from_name(std::get<std::string>(init));
  }

  /// UserError for a grid that has no QuantLinear, and for a combination that does not exist.
  void check() const;
};

}  // namespace crumb::qat
