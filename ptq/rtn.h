// Round-to-nearest: every weight takes the nearest level of its row's or group's scale. No data, no training.
#pragma once

#include <memory>
#include <string>
#include <variant>

#include "ptq/method.h"
#include "quant/linear_formats.h"

namespace crumb::ptq {

/// The keys of `method: {name: rtn}`.
struct RtnMethod {
  static constexpr const char* kName = "rtn";

  quant::LinearFormats linears = {};
  std::string init = "mse";
  std::variant<std::string, Path> importance = std::string("none");

  template <class V>
  void visit(V& v) {
    linears.visit(v);
    v.field("init", init, quant::format_help::kInit, {.choices = quant::scale_init_names()});
    v.field("importance", importance,
            "what weighs the errors of init: mse: none; activations, the energy of each input on the calibration text; "
            "or that which a file of llama.cpp's imatrix says (.gguf, .dat)",
            {.choices = {"none", "activations"}});
  }

  /// UserError for combinations that do not exist.
  void check() const;
  Method make() const;
};

}  // namespace crumb::ptq
