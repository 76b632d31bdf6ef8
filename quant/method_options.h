// The `method:` section shared by train and quantize: which algorithm, which grid.
#pragma once

#include <string>
#include <vector>

#include "core/arch/tensor_table.h"
#include "core/common/config.h"
#include "quant/quantized_tensor.h"

namespace crumb::quant {

/// What the grids say of the keys that choose one.
namespace method_help {
const char* grids();
const char* bits();
FieldLimits bits_limits();
}  // namespace method_help

struct MethodOptions {
  std::string name = "qat";
  std::string grid = "seq";
  int64_t bits = 2;
  bool symmetric = true;
  std::string outside_gradient = "zero";
  int64_t group_size = 0;
  std::string init = "mse";
  std::string activations = "none";
  std::vector<std::string> exclude = {"lm_head", "embed_tokens"};

  template <class V>
  void visit(V& v) {
    v.field("name", name, "the algorithm; none: plain training in float", {.choices = {"none", "qat", "rtn"}});
    v.field("grid", grid, method_help::grids(), {.choices = grid_names()});
    v.field("bits", bits, method_help::bits(), method_help::bits_limits());
    v.field("symmetric", symmetric, "integer grids: no zero point");
    v.field("outside_gradient", outside_gradient,
            "gradient of weights beyond the outer levels: zero, or straight through", {.choices = {"zero", "ste"}});
    v.field("group_size", group_size, "weights that share one scale; 0: a whole row", {.min = 0});
    v.field("init", init, "first scales: absmax, absmean, or the least squared error of the row (mse)",
            {.choices = {"absmax", "absmean", "mse"}});
    v.field("activations", activations, "quantization of activations", {.choices = {"none"}});
    v.field("exclude", exclude,
            "globs on full module names that stay in float; a bare word matches one path component");
  }
  /// UserError for combinations that do not exist (seq with 4 bits, ...).
  QuantFormat format() const;
};

/// "model.layers.0.mlp.up_proj" against globs (* and ?); a pattern without dots or wildcards matches any one component
/// of the name.
bool matches_any(const std::string& module_name, const std::vector<std::string>& patterns);

/// Warns of patterns that match no tensor of the model: a mistyped one would leave a matrix quantized that should stay.
void warn_unmatched_excludes(const arch::DecoderSpec& spec, const MethodOptions& method);

/// Linears that are not excluded.
bool is_quantized(const arch::TensorDesc& desc, const MethodOptions& method);
/// UserError naming the linear unless group_size (0: a row) divides `cols`.
void check_group_size(int64_t group_size, int64_t cols, const std::string& module_name);

}  // namespace crumb::quant
