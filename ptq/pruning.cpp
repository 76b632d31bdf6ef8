#include "ptq/pruning.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>
#include <optional>
#include <utility>

#include "core/common/error.h"

namespace crumb::ptq {
namespace {

constexpr int64_t kMostNeighbours = 32;

/// "2:4"; nothing for what is none.
std::optional<Sparsity> parse_pattern(const std::string& text) {
  const auto number = [](const char* begin, const char* end) -> std::optional<int64_t> {
    int64_t value = 0;
    const auto [stop, error] = std::from_chars(begin, end, value);
    return error == std::errc() && stop == end ? std::optional(value) : std::nullopt;
  };
  const size_t colon = std::min(text.find(':'), text.size());
  const char *begin = text.data(), *end = begin + text.size();
  const auto n = number(begin, begin + colon), m = number(std::min(begin + colon + 1, end), end);
  if (!n || !m || *n < 1 || *n >= *m || *m > kMostNeighbours) return std::nullopt;
  return Sparsity{.stay = *n, .of = *m};
}

}  // namespace

int64_t Sparsity::pruned_of(int64_t columns) const {
  return of > 0 ? columns / of * (of - stay) : std::llround(share * static_cast<double>(columns));
}

void keep_largest(const double* scores, int64_t n, int64_t pruned, uint8_t* kept) {
  thread_local std::vector<int64_t> order;
  order.resize(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  const auto is_less = [scores](int64_t a, int64_t b) {
    return scores[a] < scores[b] || (scores[a] == scores[b] && a < b);
  };
  std::nth_element(order.begin(), order.begin() + pruned, order.end(), is_less);
  std::fill_n(kept, n, uint8_t{1});
  for (int64_t i = 0; i < pruned; ++i) kept[order[static_cast<size_t>(i)]] = 0;
}

std::vector<uint8_t> choose_mask(const float* w, int64_t rows, int64_t cols, const double* factors,
                                 const Sparsity& sparsity) {
  const int64_t together = sparsity.of > 0 ? sparsity.of : cols;
  CRUMB_ASSERT(cols % together == 0);
  std::vector<uint8_t> mask(static_cast<size_t>(rows * cols));
  std::vector<double> scores(static_cast<size_t>(cols));
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t i = 0; i < cols; ++i)
      scores[static_cast<size_t>(i)] = std::fabs(w[row * cols + i]) * (factors == nullptr ? 1.0 : factors[i]);
    for (int64_t begin = 0; begin < cols; begin += together)
      keep_largest(scores.data() + begin, together, sparsity.pruned_of(together), mask.data() + row * cols + begin);
  }
  return mask;
}

std::vector<float> masked(const float* w, const std::vector<uint8_t>& mask) {
  std::vector<float> out(mask.size());
  for (size_t i = 0; i < mask.size(); ++i) out[i] = mask[i] != 0 ? w[i] : 0.0f;
  return out;
}

Sparsity PruningOptions::amount() const {
  if (pattern.is_word()) return {.share = sparsity};
  const auto parsed = parse_pattern(*pattern.value);
  CRUMB_ASSERT(parsed);  // mistake_of_pattern()
  return *parsed;
}

void PruningOptions::check(const quant::LinearFormats& linears, quant::ScaleInit init) const {
  for (const auto& [key, mistake] : {std::pair{"pattern", mistake_of_pattern()}, {"method", mistake_of_method()}})
    CRUMB_CHECK(mistake.empty(), "pruning.{}: {}", key, mistake);
  if (!prunes()) return;
  for (const auto& [grid, key] : linears.grids()) {
    if (quant::has_zero({.grid = grid, .bits = grid.facts().most_bits})) continue;
    std::vector<std::string_view> others;
    for (const quant::Grid other : quant::known_grids()) {
      if (quant::has_zero({.grid = other, .bits = other.facts().most_bits})) others.push_back(other.facts().name);
    }
    user_error("{}: {} has no level 0, so it cannot hold pruned weights; pruning is for grid {}", key,
               grid.facts().name, fmt::join(others, ", "));
  }
  linears.check_no_minima("a float zero point has no level 0, so it cannot hold pruned weights; use integer or none");
  // The other first scales do not see zeros: they are exact at every scale.
  CRUMB_CHECK(init != quant::ScaleInit::absmean,
              "method.init: absmean would count the pruned weights; use mse or absmax with pruning");
}

void PruningOptions::check_cols(int64_t cols, const std::string& module_name) const {
  if (!prunes()) return;
  const Sparsity chosen = amount();
  CRUMB_CHECK(chosen.of == 0 || cols % chosen.of == 0, "pruning.pattern: {} does not divide {}, the input size of {}",
              *pattern.value, cols, module_name);
}

std::string PruningOptions::mistake_of_pattern() const {
  if (pattern.is_word()) return "";
  if (!parse_pattern(*pattern.value))
    return fmt::format("expected n:m with 0 < n < m <= {}, as 2:4, got \"{}\"", kMostNeighbours, *pattern.value);
  return sparsity > 0 ? "says how many weights go, and so does sparsity; give one of them" : "";
}

std::string PruningOptions::mistake_of_method() const {
  if (method == "none" && (sparsity > 0 || !pattern.is_word()))
    return "must say which weights go (magnitude, wanda or sparsegpt), since pruning is asked for";
  return "";
}

}  // namespace crumb::ptq
