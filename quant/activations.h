// Activations rounded while a model runs: what a quantized linear reads is rounded token by token, with a scale that is
// found as the token comes ("dynamic"), max|x| / the grid's largest level. INT8: max|x| / 127; FP8 E4M3: max|x| / 448.
// The scale is a float as it is: nothing stores it.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/common/config.h"
#include "quant/checkpoint.h"

namespace crumb::quant {

/// Which grid the tokens are rounded to.
struct ActivationFormat {
  Grid grid = Grid::intn;
  int bits = 8;
  bool operator==(const ActivationFormat&) const = default;
  std::string title() const;  // "INT8 symmetric, a scale a token"
};

/// The section `activations:` of a job.
struct ActivationOptions {
  std::string grid = "none";
  int64_t bits = 8;
  std::string per = "token";

  template <class V>
  void visit(V& v) {
    v.field("grid", grid,
            "what the inputs of quantized linears are rounded to while the model runs, with a scale found as they come",
            {.choices = {"none", "int", "fp8"}});
    v.field("bits", bits, "of int: 4 to 8; of fp8: 8", {.min = 4, .max = 8});
    v.field("per", per, "what shares a scale", {.choices = {"token"}});
    v.check("bits", grid == "fp8" && bits != 8 ? "fp8 has 8" : "");
  }
  std::optional<ActivationFormat> format() const;
};

/// Rounds tokens. May be used by several threads at once.
class ActivationRounder {
 public:
  explicit ActivationRounder(const ActivationFormat& format);
  /// out [tokens, cols] = what becomes of x [tokens, cols]; may be x itself. Each token by itself; one with
  /// a value that is not finite becomes NaN.
  void round(const float* x, int64_t tokens, int64_t cols, float* out) const;
  /// The same as codes of the grid, of n values that share a scale, which is returned: 0 where all become 0, NaN where
  /// one is not finite; the codes are then not set.
  float find_codes(const float* x, int64_t n, uint8_t* codes) const;

 private:
  QuantFormat format_;
  std::vector<float> levels_;
};

/// Of the quantized linears of a model; nothing where they read floats.
std::optional<ActivationFormat> activations_of(const Checkpoint& checkpoint);

/// The entry "activations" of quantization_config, and what it says. UserError beginning with `where` for what does not
/// exist.
nlohmann::json activations_json(const std::optional<ActivationFormat>& format);
std::optional<ActivationFormat> activations_from_json(const nlohmann::json& entry, const std::string& where);

}  // namespace crumb::quant
