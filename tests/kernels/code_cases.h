// Random matrices of codes and int8 tokens that own what they point at.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/common/rng.h"
#include "kernels/code_matmul.h"
#include "tests/kernels/isa_cases.h"

namespace crumb::testing {

struct CodeShape {
  int bits = 2;
  int64_t rows = 0, cols = 0, group_cols = 0;
  int32_t step = 1;
  bool has_zeros = false, has_minima = false, has_levels = false;
};

struct RandomCodes {
  CodeShape shape;
  std::vector<uint8_t> codes, panels;  // [rows, cols]; as the kernels read them
  std::vector<float> scales;           // [panels, groups, 16]
  std::vector<int32_t> zeros;
  std::vector<float> minima;
  std::vector<uint8_t> levels;
  kernels::CodeMatrix matrix;

  /// Every code is `only` where that is not negative.
  explicit RandomCodes(const CodeShape& of, int only = -1) : shape(of) {
    using kernels::kCodePanelRows;
    const Rng rng(21, static_cast<uint64_t>(of.bits));
    for (int64_t i = 0; i < of.rows * of.cols; ++i) {
      const auto code =
          only < 0 ? rng.below(static_cast<uint64_t>(i), uint64_t{1} << of.bits) : static_cast<uint64_t>(only);
      codes.push_back(static_cast<uint8_t>(code));
    }
    matrix = {.bits = of.bits,
              .rows = of.rows,
              .cols = of.cols,
              .group_cols = of.group_cols,
              .step = of.step,
              .zero = of.step == 2 ? 3 : 1 << (of.bits - 1)};
    const int64_t panel_bytes = kernels::code_panel_bytes(of.cols, of.bits);
    panels.resize(static_cast<size_t>(matrix.panels() * panel_bytes));
    for (int64_t panel = 0; panel < matrix.panels(); ++panel) {
      const int64_t row = panel * kCodePanelRows;
      kernels::pack_code_panel(codes.data() + row * of.cols, std::min(kCodePanelRows, of.rows - row), of.cols, of.bits,
                               panels.data() + panel * panel_bytes);
    }
    const int64_t count = matrix.panels() * matrix.groups() * kCodePanelRows;
    for (int64_t i = 0; i < count; ++i) {
      scales.push_back(static_cast<float>(0.5 + rng.uniform(static_cast<uint64_t>(i))));
      if (of.has_zeros) zeros.push_back(static_cast<int32_t>(i % (1 << of.bits)) * of.step);
      if (of.has_minima) minima.push_back(static_cast<float>(rng.normal(static_cast<uint64_t>(i + count))));
    }
    for (uint64_t i = 0; i < 16 && of.has_levels; ++i)
      levels.push_back(static_cast<uint8_t>(i == 5 ? 255 : rng.below(i, 255)));
    matrix.codes = panels.data();
    matrix.scales = scales.data();
    matrix.zeros = zeros.empty() ? nullptr : zeros.data();
    matrix.minima = minima.empty() ? nullptr : minima.data();
    matrix.levels = levels.empty() ? nullptr : levels.data();
  }
  RandomCodes(const RandomCodes&) = delete;
  RandomCodes& operator=(const RandomCodes&) = delete;

  size_t group_at(int64_t row, int64_t k) const {
    const int64_t group = row / kernels::kCodePanelRows * matrix.groups() + k / shape.group_cols;
    return static_cast<size_t>(group * kernels::kCodePanelRows + row % kernels::kCodePanelRows);
  }
  float scale(int64_t row, int64_t k) const { return scales[group_at(row, k)]; }
  float minimum(int64_t row, int64_t k) const { return minima[group_at(row, k)]; }
  /// step * level - zero
  int64_t whole(int64_t row, int64_t k) const {
    const auto code = codes[static_cast<size_t>(row * shape.cols + k)];
    const int64_t level = levels.empty() ? code : levels[code];
    return shape.step * level - (zeros.empty() ? matrix.zero : zeros[group_at(row, k)]);
  }
  std::vector<float> weights() const {
    std::vector<float> w;
    for (int64_t row = 0; row < shape.rows; ++row) {
      for (int64_t k = 0; k < shape.cols; ++k) {
        const auto level = static_cast<float>(whole(row, k));
        w.push_back(minima.empty() ? level * scale(row, k) : std::fma(level, scale(row, k), minimum(row, k)));
      }
    }
    return w;
  }
};

struct RandomTokens {
  std::vector<int8_t> codes;
  std::vector<float> scales;
  std::vector<int32_t> sums;
  kernels::Int8Tokens view;

  /// Every code is `only` where that is not 0.
  RandomTokens(int64_t tokens, int64_t cols, int64_t scale_cols, int64_t segment_cols, int only = 0) {
    const Rng rng(22);
    const int64_t stride = kernels::int8_stride(cols);
    codes.resize(static_cast<size_t>(tokens * stride));
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t k = 0; k < cols; ++k) {
        const auto random = static_cast<int>(rng.below(static_cast<uint64_t>(t * cols + k), 256)) - 128;
        codes[static_cast<size_t>(t * stride + k)] = static_cast<int8_t>(only == 0 ? random : only);
      }
      for (int64_t first = 0; first < cols; first += scale_cols)
        scales.push_back(static_cast<float>(0.5 + rng.uniform(scales.size())));
      for (int64_t first = 0; first < cols; first += segment_cols) {
        int32_t sum = 0;
        for (int64_t k = first; k < first + segment_cols; ++k) sum += codes[static_cast<size_t>(t * stride + k)];
        sums.push_back(sum);
      }
    }
    view = {codes.data(), tokens, cols, stride, scales.data(), scale_cols, segment_cols, sums.data()};
  }
  RandomTokens(const RandomTokens&) = delete;
  RandomTokens& operator=(const RandomTokens&) = delete;

  /// Tokens [begin, begin + count).
  kernels::Int8Tokens slice(int64_t begin, int64_t count) const {
    auto out = view;
    out.codes += begin * view.stride;
    out.scales += begin * (view.cols / view.scale_cols);
    out.sums += begin * (view.cols / view.segment_cols);
    out.tokens = count;
    return out;
  }
};

}  // namespace crumb::testing
