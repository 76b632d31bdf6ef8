// GPTQ: rounding with error feedback (ptq/feedback.h), block after block, each from the inputs that the quantized
// blocks before it give, and within a block each group of linears from those of the groups before.
//
// Error propagation: what a linear should give is W F, of the inputs F that the float model has, while its inputs are
// X. |W F - Q X|^2 = |W' X - Q X|^2 + what no Q changes, with W' = W + W (F - X) X^T (X X^T)^-1, so GPTQ rounds W'
// instead: QEP (Arai and Ichikawa, arXiv:2504.09629), whose alpha scales the second term, and the damping is GPTQ's;
// GPTAQ (Li et al., arXiv:2504.02692) has the same aim within GPTQ's steps.
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
  double error_propagation = 0;
  bool reorder = false;

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
  /// For methods whose linears read what they read in the float model but for rounding: awq scales it.
  template <class V>
  void visit_propagation(V& v) {
    v.field("error_propagation", error_propagation,
            "how far rounding aims at what each linear gives in the float model, on the inputs it has there, rather "
            "than on those it will have: alpha of QEP, 0 to 1. Above 0 the activations of the float model are "
            "computed beside the others: more memory and time",
            {.min = 0, .max = 1});
  }
  template <class V>
  void visit_reorder(V& v) {
    v.field("reorder", reorder,
            "channels between linears (inputs of down_proj, of o_proj within heads) in the order of their energy, "
            "fused into the weights on both sides: groups of like columns, as desc_act has them, in an ordinary file");
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
    gptq.visit_propagation(v);
    gptq.visit_reorder(v);
  }

  void check() const;
  Method make() const;
};

std::shared_ptr<BlockMethod> make_gptq(const GptqOptions& options, quant::ScaleInit init);

}  // namespace crumb::ptq
