#include "ptq/hadamard.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>

#include "core/common/error.h"

namespace crumb::ptq {
namespace {

constexpr int64_t kLargestPaley = 256;  // its product takes as many steps an element

bool is_prime(int64_t n) {
  for (int64_t d = 2; d * d <= n; ++d)
    if (n % d == 0) return false;
  return n > 1;
}

/// Paley's conference matrix C [q + 1, q + 1] of an odd prime q: 0 on the diagonal, +-1 elsewhere, C C^T = q I.
std::vector<double> conference_matrix(int64_t q) {
  std::vector<double> is_square(static_cast<size_t>(q), -1.0);  // the Legendre symbol
  is_square[0] = 0;
  for (int64_t i = 1; i < q; ++i) is_square[static_cast<size_t>(i * i % q)] = 1;
  const int64_t n = q + 1;
  std::vector<double> c(static_cast<size_t>(n * n));
  for (int64_t i = 1; i < n; ++i) {
    c[static_cast<size_t>(i)] = 1;
    c[static_cast<size_t>(i * n)] = q % 4 == 3 ? -1 : 1;  // C is skew, or symmetric
    for (int64_t j = 1; j < n; ++j) c[static_cast<size_t>(i * n + j)] = is_square[static_cast<size_t>((i - j + q) % q)];
  }
  return c;
}

/// A Hadamard matrix of n rows, n a multiple of 4; empty where neither construction gives one.
std::vector<double> paley_matrix(int64_t n) {
  if (is_prime(n - 1)) {  // I: C is skew, so (C + I)(C + I)^T = q I + C + C^T + I
    auto h = conference_matrix(n - 1);
    for (int64_t i = 0; i < n; ++i) h[static_cast<size_t>(i * n + i)] = 1;
    return h;
  }
  const int64_t half = n / 2;
  if (half % 4 != 2 || !is_prime(half - 1)) return {};
  // II: C (x) [1 1; 1 -1] + I (x) [1 -1; -1 -1]
  const auto c = conference_matrix(half - 1);
  std::vector<double> h(static_cast<size_t>(n * n));
  for (int64_t i = 0; i < half; ++i) {
    for (int64_t j = 0; j < half; ++j) {
      const double of_c = c[static_cast<size_t>(i * half + j)], of_i = i == j ? 1 : 0;
      double* block = h.data() + 2 * i * n + 2 * j;
      block[0] = of_c + of_i;
      block[1] = block[n] = of_c - of_i;
      block[n + 1] = -of_c - of_i;
    }
  }
  return h;
}

/// R. V. L. Hartley, Proc. IRE 30 (1942): symmetric, its square is m I.
std::vector<double> hartley_matrix(int64_t m) {
  std::vector<double> h(static_cast<size_t>(m * m));
  for (int64_t j = 0; j < m; ++j) {
    for (int64_t k = 0; k < m; ++k) {
      const double t = 2 * std::numbers::pi * static_cast<double>(j * k % m) / static_cast<double>(m);
      h[static_cast<size_t>(j * m + k)] = std::cos(t) + std::sin(t);
    }
  }
  return h;
}

/// B for rows of n numbers; empty for a power of two.
std::vector<double> core_of(int64_t n) {
  const int64_t odd = n >> std::countr_zero(static_cast<uint64_t>(n));
  if (odd == 1) return {};
  for (int64_t size = 4 * odd; size <= kLargestPaley && n % size == 0; size *= 2) {
    if (auto core = paley_matrix(size); !core.empty()) return core;
  }
  return hartley_matrix(odd);
}

}  // namespace

RandomHadamard::RandomHadamard(int64_t n, const Rng& rng) : size_(n) {
  CRUMB_ASSERT(n > 0);
  const double factor = 1 / std::sqrt(static_cast<double>(n));
  for (int64_t i = 0; i < n; ++i) factors_.push_back(rng.bits(static_cast<uint64_t>(i)) >> 63 ? -factor : factor);
  core_ = core_of(n);
  if (!core_.empty()) core_size_ = std::llround(std::sqrt(static_cast<double>(core_.size())));
}

void RandomHadamard::rotate_columns(double* x, int64_t width) const {
  for (int64_t i = 0; i < size_; ++i)
    for (int64_t j = 0; j < width; ++j) x[i * width + j] *= factors_[static_cast<size_t>(i)];
  const int64_t block = core_size_ * width;
  if (core_size_ > 1) {
    std::vector<double> in(static_cast<size_t>(block));
    for (double* out = x; out < x + size_ * width; out += block) {
      std::copy_n(out, block, in.data());
      std::fill_n(out, block, 0.0);
      for (int64_t r = 0; r < core_size_; ++r) {
        for (int64_t c = 0; c < core_size_; ++c) {
          const double b = core_[static_cast<size_t>(r * core_size_ + c)];
          // fma in so many words: the compiler may take one for some of the columns only
          for (int64_t j = 0; j < width; ++j)
            out[c * width + j] = std::fma(b, in[static_cast<size_t>(r * width + j)], out[c * width + j]);
        }
      }
    }
  }
  for (int64_t half = block; half < size_ * width; half *= 2) {
    for (double* pair = x; pair < x + size_ * width; pair += 2 * half) {
      for (int64_t i = 0; i < half; ++i) {
        const double a = pair[i], b = pair[half + i];
        pair[i] = a + b;
        pair[half + i] = a - b;
      }
    }
  }
}

void RandomHadamard::rotate_rows(double* x, int64_t rows, int64_t stride) const {
  constexpr int64_t kTile = 16;  // rows that are rotated together, as columns: every loop has a width then
  std::vector<double> tile(static_cast<size_t>(size_ * std::min(rows, kTile)));
  for (int64_t begin = 0; begin < rows; begin += kTile) {
    const int64_t count = std::min(kTile, rows - begin);
    double* first = x + begin * stride;
    for (int64_t i = 0; i < size_; ++i)
      for (int64_t j = 0; j < count; ++j) tile[static_cast<size_t>(i * count + j)] = first[j * stride + i];
    rotate_columns(tile.data(), count);
    for (int64_t i = 0; i < size_; ++i)
      for (int64_t j = 0; j < count; ++j) first[j * stride + i] = tile[static_cast<size_t>(i * count + j)];
  }
}

}  // namespace crumb::ptq
