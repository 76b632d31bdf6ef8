// Which linears of a model are quantized, and to what: the keys that every algorithm of a `method:` section has.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/arch/tensor_table.h"
#include "core/common/config.h"
#include "quant/quantized_tensor.h"

namespace crumb::quant {

/// What the grids say of the keys that choose one.
namespace format_help {
const char* grids();
const char* bits();
FieldLimits bits_limits();
inline constexpr const char* kInit = "first scales: absmax, absmean, or the least squared error of the row (mse)";
}  // namespace format_help

/// The keys of a format, whether each has a value or may be absent.
template <class V, class Formats>
void visit_format(V& v, Formats& f) {
  v.field("grid", f.grid, format_help::grids(), {.choices = grid_names()});
  v.field("bits", f.bits, format_help::bits(), format_help::bits_limits());
  v.field("symmetric", f.symmetric, "integer grids: no zero point");
  v.field(
      "zero_point", f.zero_point,
      "of integer grids: none (symmetric: true); with symmetric: false integer, a level that is 0, or float: weight "
      "= code * scale + minimum, as GGUF's q4_1. Left out: none or integer, as symmetric says",
      {.choices = zero_point_names()});
  v.field("group_size", f.group_size, "weights that share one scale; 0: a whole row", {.min = 0});
}

/// One entry of `overrides:`; what is absent is as for the other linears, but that symmetric and zero_point follow each
/// other where one of them is given.
struct FormatOverride {
  std::optional<std::string> grid = std::nullopt;
  std::optional<int64_t> bits = std::nullopt;
  std::optional<bool> symmetric = std::nullopt;
  std::optional<int64_t> group_size = std::nullopt;
  std::optional<std::string> zero_point = std::nullopt;

  template <class V>
  void visit(V& v) {
    visit_format(v, *this);
  }
};

struct LinearFormats {
  std::string grid = "seq";
  int64_t bits = 2;
  bool symmetric = true;
  int64_t group_size = 0;
  std::optional<std::string> zero_point = std::nullopt;
  std::string activations = "none";
  std::vector<std::string> exclude = {"lm_head", "embed_tokens"};
  NamedList<FormatOverride> overrides = {};
  /// Formats that linears may get beside those, with the keys that say so ("budget.choices[0]"): no key of its own, for
  /// who decides later which linear gets which.
  NamedList<FormatOverride> candidates = {};

  template <class V>
  void visit(V& v) {
    visit_format(v, *this);
    v.field("activations", activations, "quantization of activations", {.choices = {"none"}});
    v.field("exclude", exclude,
            "globs on full module names that stay in float; a bare word matches one path component");
    v.field("overrides", overrides,
            "other formats by glob, as in exclude: {\"*.down_proj\": {group_size: 64}}; keys left out are those above; "
            "where "
            "several match a linear, the last one holds. On the command line, a name with dots needs the whole map in "
            "braces, which replaces that of the file");
  }

  /// Of linears that no override matches.
  QuantFormat format() const;
  /// With these changes; `key` is what messages call them.
  QuantFormat format(const FormatOverride& changes, const std::string& key) const;
  /// Whether an entry of `overrides` says what its format is.
  bool is_overridden(const std::string& module_name) const;
  /// Empty: it is excluded. The format may not fit the linear: see formats_of().
  std::optional<QuantFormat> format_of(const std::string& module_name) const;
  /// Formats of the quantized linears of a model by hf_name. UserError naming the linear and the key when a group_size
  /// does not divide its rows.
  std::map<std::string, QuantFormat> formats_of(const arch::DecoderSpec& spec) const;
  /// UserError for combinations that do not exist (seq with 4 bits, ...), naming the key or the override.
  void check(ScaleInit init) const;
  /// UserError naming the key, and why, for symmetric: false of the section or an override.
  void check_symmetric(const std::string& why) const;
  /// The same for zero_point: float.
  void check_no_minima(const std::string& why) const;
  /// Every grid that a linear may get, with the key that says so: "method.grid", "method.overrides.PATTERN.grid".
  std::vector<std::pair<Grid, std::string>> grids() const;
  /// Warns of patterns that match nothing: a mistyped one would leave a matrix quantized, or in a format, that it
  /// should not have.
  void warn_unmatched(const arch::DecoderSpec& spec) const;
};

/// "model.layers.0.mlp.up_proj" against globs (* and ?); a pattern without dots or wildcards matches any one component
/// of the name.
bool matches_any(const std::string& module_name, const std::vector<std::string>& patterns);

/// UserError naming the linear unless group_size (0: a row) divides `cols`. `key`: of the section that says so.
void check_group_size(int64_t group_size, int64_t cols, const std::string& module_name,
                      const std::string& key = "method");

}  // namespace crumb::quant
