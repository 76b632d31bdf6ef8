// Random orthogonal matrices that are applied in O(n log n): Q = S K / sqrt(n), S random signs, K = H (x) B.
//
// H is the Hadamard matrix of a power of two. B takes what is left of n, as small as possible:
//   nothing                  n is a power of two
//   a Hadamard matrix        of 12, 20, 28, 36, 44, 60, 68 ... by Paley's constructions (J. Math. Phys. 12, 1933) over
//                            primes, at most 256 rows: 576 = 16 x 36, 768 = 64 x 12, 896 = 32 x 28
//   else the Hartley matrix  cos(t) + sin(t), t = 2 pi j k / m, of the odd part m of n: where n is no multiple of 4, or
//                            no prime fits (100, 11008)
//
// A Hadamard matrix has no entry but +-1, so that an outlier at any one place goes into all n in equal parts; no other
// orthogonal matrix spreads it so well. One drawn at random from a Gaussian (576 = 64 x 9) has large entries and small
// ones, and a small one may by chance be near the identity. Hartley's entries are at most sqrt(2) for every m.
//
// The construction belongs to the models that were made with it: their float model is rotated again from the seed.
#pragma once

#include <cstdint>
#include <vector>

#include "core/common/rng.h"

namespace crumb::ptq {

class RandomHadamard {
 public:
  /// n > 0. The sign of place i is a function of (rng, i).
  RandomHadamard(int64_t n, const Rng& rng);

  int64_t size() const { return size_; }
  /// Every row v of x [rows, size()] becomes v Q; row i begins at x + i * stride.
  void rotate_rows(double* x, int64_t rows, int64_t stride) const;
  /// Every column v of x [size(), width] becomes Q^T v: as a row, v Q. A vector's result, here as above, does not
  /// depend on those beside it.
  void rotate_columns(double* x, int64_t width) const;

 private:
  int64_t size_;
  std::vector<double> factors_;  // [size], +-1 / sqrt(size)
  int64_t core_size_ = 1;
  std::vector<double> core_;  // B [core_size, core_size]; empty for 1
};

}  // namespace crumb::ptq
