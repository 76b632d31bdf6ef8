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
            "error of the row (mse); what gptq or blockwise makes of it, on the first windows of the training text "
            "(sections calibration and rotation; kept in OUTPUT/start); or a folder that `crumb quantize` has made of "
            "it with masters: true",
            {.choices = init_names()});
    v.field("outside_gradient", outside_gradient,
            "gradient of weights beyond the outer levels: zero, or straight through", {.choices = {"zero", "ste"}});
  }

  /// The quantized folder it begins with; null: the model is rounded, or quantized by the run itself.
  const Path* start() const { return std::get_if<Path>(&init); }
  /// Whether the run begins by quantizing the model with a method of `crumb quantize`: init is its name.
  bool makes_start() const {
    const auto* word = std::get_if<std::string>(&init);
    return word != nullptr && (*word == "gptq" || *word == "blockwise");
  }
  /// Of a model that is rounded.
  quant::ScaleInit scale_init() const {
    if (start() != nullptr || makes_start()) return quant::ScaleInit::mse;
    return quant::scale_init_from_name(std::get<std::string>(init));
  }

  /// Words for init.
  static std::vector<std::string> init_names() {
    auto names = quant::scale_init_names();
    names.insert(names.end(), {"gptq", "blockwise"});
    return names;
  }
  /// UserError for a grid that has no QuantLinear, and for a combination that does not exist.
  void check() const;
};

}  // namespace crumb::qat
