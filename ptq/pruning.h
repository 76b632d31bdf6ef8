// Which weights of a linear become zero, and stay it, before the others are rounded. No Torch here.
//
//   magnitude  those of least |w|
//   wanda      of least |w_ij| ||x_j||, x_j the j-th input over all calibration tokens (Sun et al., arXiv:2306.11695)
//   sparsegpt  of least loss when all columns after them make up for it (Frantar and Alistarh, arXiv:2301.00774):
//              chosen while errors are fed on, so that pruning and rounding make up for each other (ptq/feedback.h)
//
// Weights are compared within a row: each keeps the same share. Of equal scores the first goes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/common/config.h"
#include "quant/linear_formats.h"

namespace crumb::ptq {

/// How many weights go. {}: none.
struct Sparsity {
  double share = 0;          // of a row
  int64_t stay = 0, of = 0;  // of > 0: so many of every `of` neighbours along the input stay, and share means nothing

  bool prunes() const { return share > 0 || of > 0; }
  /// How many of the first `columns` of a row have gone when so many have been decided.
  int64_t pruned_of(int64_t columns) const;
};

/// kept [n] becomes 0 for the `pruned` least scores [n], 1 for the others.
void keep_largest(const double* scores, int64_t n, int64_t pruned, uint8_t* kept);
/// The mask of w [rows, cols] by |w| times factors [cols] (null: 1).
std::vector<uint8_t> choose_mask(const float* w, int64_t rows, int64_t cols, const double* factors,
                                 const Sparsity& sparsity);
/// w with zeros where the mask has them.
std::vector<float> masked(const float* w, const std::vector<uint8_t>& mask);

/// The section `pruning:` of a job.
struct PruningOptions {
  std::string method = "none";
  double sparsity = 0;
  WordOr<std::string, "none"> pattern = {};

  template <class V>
  void visit(V& v) {
    v.field("method", method,
            "which weights become zero before the others are rounded: those of least size, of least size times the "
            "energy of their input, or of least loss when the others make up for it (with what begins with gptq)",
            {.choices = {"none", "magnitude", "wanda", "sparsegpt"}});
    v.field("sparsity", sparsity, "share of each row that becomes zero", {.min = 0, .max = 0.99});
    v.field("pattern", pattern, "in place of sparsity: n:m keeps n of every m neighbours along the input, as 2:4");
    v.check("pattern", mistake_of_pattern());
    v.check("method", mistake_of_method());
  }

  bool prunes() const { return method != "none" && amount().prunes(); }
  bool looks_at_activations() const { return prunes() && method != "magnitude"; }
  /// Errors are fed on while it chooses.
  bool is_joint() const { return prunes() && method == "sparsegpt"; }
  Sparsity amount() const;
  /// UserError naming a key of the job: a grid without a zero, first scales that would count pruned weights.
  void check(const quant::LinearFormats& linears, quant::ScaleInit init) const;
  /// UserError naming the linear whose rows the pattern does not divide.
  void check_cols(int64_t cols, const std::string& module_name) const;

 private:
  std::string mistake_of_pattern() const;
  std::string mistake_of_method() const;
};

}  // namespace crumb::ptq
