// Bits chosen for a budget: which format each linear gets, so that all fit and the model loses least. ptq/sensitivity.h
// measures what each choice would lose, ptq/budget_solver.h chooses.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/common/config.h"
#include "quant/checkpoint.h"
#include "quant/linear_formats.h"

namespace crumb::ptq {

/// One of the formats to choose among: keys left out are those of the method. A number alone is its bits.
struct BudgetFormat : quant::FormatOverride {
  static constexpr const char* kShort = "bits";
};

/// The section `budget:` of a job.
struct BudgetOptions {
  std::optional<double> bits_per_weight = std::nullopt;
  std::optional<std::string> size = std::nullopt;
  std::vector<BudgetFormat> choices = {};
  std::string sensitivity = "fisher";
  int64_t tokens = 8 * 1024;

  template <class V>
  void visit(V& v) {
    v.field("bits_per_weight", bits_per_weight,
            "what the linears that are quantized may take on average, scales included: the number that the dry run and "
            "the summary print",
            {.min = 0.1, .max = 64});
    v.field("size", size,
            "instead: what all weights of the output may take, those that stay as they are (embedding, head, norms) "
            "included: 900MB, 1.5GB; as the dry run counts them, without masters");
    v.field("choices", choices,
            "formats a linear may get, keys left out being those of the method: bits, or {grid: int, bits: 4, "
            "group_size: 32}; none: 2, 3, 4 and 8 bits. Linears that method.overrides names keep what it says");
    v.field(
        "sensitivity", sensitivity,
        "what an error of a linear's output costs: fisher, by the gradients of the model's predictions, which holds "
        "the model in float32; error, its share of the output for each weight",
        {.choices = {"fisher", "error"}});
    v.field("tokens", tokens, "of the calibration text that are looked at to choose", {.min = 2});
  }

  bool is_asked() const { return bits_per_weight.has_value() || size.has_value(); }
  /// UserError for keys that contradict each other.
  void check() const;
};

/// A linear whose format is to be chosen, with those it may get.
struct BudgetLinear {
  arch::TensorDesc desc;
  std::vector<quant::QuantFormat> formats;  // of the choices, in their order
};

/// What a budget leaves to choose, known without reading a weight.
struct BudgetFrame {
  std::vector<BudgetFormat> choices;
  std::vector<BudgetLinear> linears;
  int64_t bytes = 0;                        // for these linears
  int64_t least_bytes = 0, most_bytes = 0;  // of them, by the cheapest and the dearest choice
  int64_t fixed_bytes = 0, kept_bytes = 0;  // of linears that overrides name; of what is not quantized
  int64_t weights = 0;                      // of these linears

  double bits(int64_t bytes) const { return 8.0 * static_cast<double>(bytes) / static_cast<double>(weights); }
};

/// The formats of choices by the keys that name them, for LinearFormats::candidates.
NamedList<quant::FormatOverride> budget_candidates(const BudgetOptions& options, const quant::LinearFormats& linears);

/// options.is_asked(), and linears with these candidates are checked. `kept_bytes`: of everything that is not
/// quantized. UserError: a budget below what the cheapest choices need, saying what that is; a group_size that does not
/// divide a row; no linear to choose for. Warns of one beyond the dearest.
BudgetFrame budget_frame(const BudgetOptions& options, const quant::LinearFormats& linears,
                         const arch::DecoderSpec& spec, int64_t kept_bytes);

/// What became of a budget, and why.
struct BudgetReport {
  struct Next {  // the cheapest choice that would lose less
    quant::QuantFormat format;
    int64_t bytes = 0;  // more than the chosen one
    double loss = 0;
  };
  struct Line {
    std::string module;
    quant::QuantFormat format;
    quant::FormatOverride change;  // says it in a job
    int64_t bytes = 0;
    double loss = 0;
    std::optional<Next> next = std::nullopt;
  };
  std::string sensitivity;
  std::vector<Line> lines;                   // in the model's order
  int64_t budget_bytes = 0, used_bytes = 0;  // of these linears
  double loss = 0, bound = 0;                // no choice that fits loses less than `bound`

  /// For the section `method:` of a job; without those the method's own keys say already.
  NamedList<quant::FormatOverride> overrides(const quant::LinearFormats& linears) const;
  /// The same as YAML: "overrides:\n  ...".
  std::string overrides_yaml(const quant::LinearFormats& linears) const;
};

/// losses[i][k]: of linear i by choice k.
BudgetReport choose_for_budget(const BudgetFrame& frame, const std::vector<std::vector<double>>& losses,
                               const std::string& sensitivity);

}  // namespace crumb::ptq
