#include "kernels/code_matmul.h"

#include <gtest/gtest.h>

#include "core/common/thread_pool.h"
#include "kernels/matmul.h"
#include "kernels/rounding.h"
#include "tests/kernels/code_cases.h"
#include "tests/kernels/code_kernels.h"

namespace crumb::kernels {
namespace {

using testing::CodeShape;
using testing::normal_values;
using testing::RandomCodes;
using testing::RandomTokens;

class CodeMatmul : public ::testing::TestWithParam<Isa> {};
INSTANTIATE_TEST_SUITE_P(Paths, CodeMatmul, ::testing::ValuesIn(testing::isas()), testing::isa_label);

struct Int8Path {
  std::string name;
  Isa isa;
  testing::CodeKernel kernel = nullptr;  // in place of that of `isa`
};

std::vector<Int8Path> int8_paths() {
  std::vector<Int8Path> paths;
  for (const Isa isa : testing::isas()) {
    paths.push_back({std::string(isa_name(isa)), isa});
#if defined(__x86_64__)
    if (isa == Isa::avx512_vnni) {
      paths.push_back({"avx_vnni_encoded_for_avx512", isa, testing::kVnni256Kernel});
      paths.push_back({"amx_emulated", isa, testing::kEmulatedAmxKernel});
    }
#endif
  }
  return paths;
}

class Int8CodeMatmul : public ::testing::TestWithParam<Int8Path> {};
INSTANTIATE_TEST_SUITE_P(Paths, Int8CodeMatmul, ::testing::ValuesIn(int8_paths()),
                         [](const auto& info) { return info.param.name; });

std::vector<CodeShape> shapes() {
  std::vector<CodeShape> out;
  for (const int bits : {2, 4, 8}) {
    for (const int64_t rows : {1, 3, 15, 16, 17, 31, 33, 40}) out.push_back({bits, rows, 64, 64});
    for (const int64_t cols : {1, 5, 16, 100, 172, 576}) out.push_back({bits, 19, cols, cols});
    for (const int64_t group : {16, 32, 64, 128, 256}) {
      out.push_back({bits, 37, 768, group});
      out.push_back({bits, 37, 768, group, 1, true});
      out.push_back({.bits = bits, .rows = 37, .cols = 768, .group_cols = group, .has_minima = true});
    }
    out.push_back({.bits = bits, .rows = 19, .cols = 172, .group_cols = 172, .has_minima = true});
    out.push_back({.bits = bits, .rows = 17, .cols = 96, .group_cols = 16, .has_zeros = true, .has_minima = true});
  }
  for (const int64_t group : {32, 576}) {
    out.push_back({2, 40, 576, group, 2});
    out.push_back({.bits = 2, .rows = 40, .cols = 576, .group_cols = group, .step = 2, .has_minima = true});
  }
  for (const bool has_minima : {false, true}) {
    for (const int64_t cols : {5, 16, 172, 768}) {
      for (const int64_t group : {16, 256}) {
        CodeShape levels{.bits = 4, .rows = 37, .cols = cols, .group_cols = cols % group == 0 ? group : cols};
        levels.has_minima = has_minima;
        levels.has_levels = true;
        out.push_back(levels);
      }
    }
  }
  return out;
}

std::string text(const CodeShape& s) {
  return std::to_string(s.bits) + " bits, " + std::to_string(s.rows) + " x " + std::to_string(s.cols) + ", groups of " +
         std::to_string(s.group_cols) + (s.has_zeros ? ", zeros" : "") + (s.has_minima ? ", minima" : "") +
         (s.has_levels ? ", levels" : "");
}

std::vector<float> product(const RandomCodes& codes, const Int8Tokens& x, const float* bias, Executor& executor,
                           const Int8Path& path) {
  std::vector<float> y(static_cast<size_t>(x.tokens * codes.shape.rows), NAN);
  const CodeProduct one{codes.matrix, bias, y.data()};
  if (path.kernel == nullptr)
    code_matmul(x, {&one, 1}, executor, path.isa);
  else
    executor.run(one.matrix.panels(), 2, [&](int64_t begin, int64_t end, int) { path.kernel(x, one, begin, end); });
  return y;
}

/// The formula of the header, from codes that were never packed.
std::vector<float> formula(const RandomCodes& codes, const Int8Tokens& x, const float* bias) {
  std::vector<float> out;
  for (int64_t t = 0; t < x.tokens; ++t) {
    for (int64_t row = 0; row < codes.shape.rows; ++row) {
      float y = bias == nullptr ? 0.0f : bias[row];
      for (int64_t first = 0; first < x.cols; first += x.segment_cols) {
        int64_t sum = 0, sum_x = 0;
        for (int64_t k = first; k < first + x.segment_cols; ++k) {
          sum += codes.whole(row, k) * x.codes[t * x.stride + k];
          sum_x += x.codes[t * x.stride + k];
        }
        const float scale = x.scales[(t * x.cols + first) / x.scale_cols];
        y = std::fma(static_cast<float>(sum), codes.scale(row, first) * scale, y);
        if (!codes.minima.empty()) y = std::fma(static_cast<float>(sum_x), codes.minimum(row, first) * scale, y);
      }
      out.push_back(y);
    }
  }
  return out;
}

TEST_P(Int8CodeMatmul, GivesTheBitsOfTheFormula) {
  for (const auto& shape : shapes()) {
    const RandomCodes codes(shape);
    const auto bias = normal_values(shape.rows, 3);
    for (const int64_t tokens : {1, 2, 3, 7, 8, 33}) {
      const RandomTokens x(tokens, shape.cols, shape.cols, shape.group_cols);
      const float* const b = tokens % 2 == 0 ? bias.data() : nullptr;
      ASSERT_EQ(product(codes, x.view, b, serial_executor(), GetParam()), formula(codes, x.view, b))
          << text(shape) << ", " << tokens << " tokens";
    }
  }
}

TEST_P(Int8CodeMatmul, AnyNumberOfTokensGivesTheBitsOfTheFormula) {
  const CodeShape of_levels{
      .bits = 4, .rows = 35, .cols = 320, .group_cols = 64, .has_minima = true, .has_levels = true};
  for (const CodeShape& shape : {CodeShape{2, 35, 576, 576, 2}, CodeShape{2, 49, 256, 128, 1, true},
                                 CodeShape{4, 16, 172, 172}, CodeShape{8, 50, 192, 64, 1, true}, of_levels}) {
    const RandomCodes codes(shape);
    const auto bias = normal_values(shape.rows, 3);
    for (int64_t tokens = 1; tokens <= 40; ++tokens) {
      const RandomTokens x(tokens, shape.cols, shape.cols, shape.group_cols);
      ASSERT_EQ(product(codes, x.view, bias.data(), serial_executor(), GetParam()), formula(codes, x.view, bias.data()))
          << text(shape) << ", " << tokens << " tokens";
    }
  }
}

TEST_P(Int8CodeMatmul, ManyTokensAndLongSegmentsGiveTheBitsOfTheFormula) {
  for (const CodeShape& shape :
       {CodeShape{2, 35, 1100, 1100, 2}, CodeShape{8, 17, 1216, 1216}, CodeShape{4, 49, 128, 64, 1, true},
        CodeShape{2, 33, 96, 32}, CodeShape{2, 33, 160, 80}}) {
    const RandomCodes codes(shape);
    for (const int64_t tokens : {16, 47, 128, 129, 145, 300}) {
      const RandomTokens x(tokens, shape.cols, shape.cols, shape.group_cols);
      ASSERT_EQ(product(codes, x.view, nullptr, serial_executor(), GetParam()), formula(codes, x.view, nullptr))
          << text(shape) << ", " << tokens << " tokens";
    }
  }
}

TEST_P(Int8CodeMatmul, ActivationsMayHaveScalesOfTheirOwnInEveryGroup) {
  for (const int64_t scale_cols : {32, 128}) {
    for (const int64_t group_cols : {32, 256, 768}) {
      const RandomCodes codes(
          {.bits = 2, .rows = 33, .cols = 768, .group_cols = group_cols, .step = 2, .has_minima = scale_cols == 32});
      const RandomTokens x(5, 768, scale_cols, std::min(scale_cols, group_cols));
      ASSERT_EQ(product(codes, x.view, nullptr, serial_executor(), GetParam()), formula(codes, x.view, nullptr));
    }
  }
}

TEST_P(Int8CodeMatmul, TheLargestCodesAndActivationsDoNotSaturate) {
  for (const int bits : {2, 4, 8}) {
    for (const int only : {127, -128}) {
      const int64_t cols = kMostCodeCols;
      RandomCodes codes({.bits = bits, .rows = 17, .cols = cols, .group_cols = cols}, (1 << bits) - 1);
      codes.matrix.zero = 0;
      std::fill(codes.scales.begin(), codes.scales.end(), 1.0f);
      RandomTokens x(17, cols, cols, cols, only);
      std::fill(x.scales.begin(), x.scales.end(), 1.0f);
      const auto y = product(codes, x.view, nullptr, serial_executor(), GetParam());
      const auto expected = static_cast<float>(cols * ((1 << bits) - 1) * only);
      EXPECT_EQ(y, std::vector<float>(17 * 17, expected)) << bits << " bits times " << only;
    }
  }
}

TEST_P(Int8CodeMatmul, TheLargestLevelsOfATableDoNotSaturate) {
  for (const int only : {127, -128}) {
    RandomCodes codes({.bits = 4, .rows = 17, .cols = 4096, .group_cols = 4096, .has_levels = true}, 5);
    codes.matrix.zero = 0;
    std::fill(codes.scales.begin(), codes.scales.end(), 1.0f);
    RandomTokens x(17, 4096, 4096, 4096, only);
    std::fill(x.scales.begin(), x.scales.end(), 1.0f);
    const auto y = product(codes, x.view, nullptr, serial_executor(), GetParam());
    EXPECT_EQ(y, std::vector<float>(17 * 17, static_cast<float>(4096 * 255 * only))) << only;
  }
}

TEST_P(Int8CodeMatmul, ATokenAmongOthersEqualsTheTokenAloneAndThreadsChangeNothing) {
  const RandomCodes codes({.bits = 2, .rows = 500, .cols = 640, .group_cols = 128, .step = 2});
  const RandomTokens x(47, 640, 640, 128);
  ThreadPool pool(3);
  const auto together = product(codes, x.view, nullptr, pool, GetParam());
  for (int64_t t = 0; t < 47; ++t) {
    const auto alone = product(codes, x.slice(t, 1), nullptr, serial_executor(), GetParam());
    ASSERT_TRUE(std::equal(alone.begin(), alone.end(), together.begin() + t * 500)) << "token " << t;
  }
}

TEST_P(CodeMatmul, SeveralMatricesAreSharedOutToTheThreadsTogether) {
  const RandomCodes a({.bits = 2, .rows = 300, .cols = 320, .group_cols = 320, .step = 2});
  const RandomCodes b({.bits = 4, .rows = 47, .cols = 320, .group_cols = 320});
  const RandomTokens x(40, 320, 320, 320);
  std::vector<float> of_a(40 * 300, NAN), of_b(40 * 47, NAN);
  const CodeProduct both[] = {{a.matrix, nullptr, of_a.data()}, {b.matrix, nullptr, of_b.data()}};
  ThreadPool pool(3);
  code_matmul(x.view, both, pool, GetParam());
  EXPECT_EQ(of_a, formula(a, x.view, nullptr));
  EXPECT_EQ(of_b, formula(b, x.view, nullptr));
}

TEST_P(CodeMatmul, FloatActivationsGiveTheBitsOfTheFloatProduct) {
  ThreadPool pool(2);
  for (const auto& shape : shapes()) {
    const RandomCodes codes(shape);
    const auto w = codes.weights(), bias = normal_values(shape.rows, 3);
    for (const int64_t tokens : {1, 2, 7, 13, 33}) {
      const auto x = normal_values(tokens * shape.cols, 4);
      const float* const b = tokens % 2 == 0 ? bias.data() : nullptr;
      std::vector<float> y(static_cast<size_t>(tokens * shape.rows), NAN), expected = y;
      const CodeProduct one{codes.matrix, b, y.data()};
      code_matmul(x.data(), tokens, {&one, 1}, pool, GetParam());
      matmul({x.data(), shape.cols, tokens, w.data(), b, shape.rows, shape.cols, expected.data(), shape.rows},
             serial_executor(), GetParam());
      ASSERT_EQ(y, expected) << text(shape) << ", " << tokens << " tokens";
    }
  }
}

std::vector<float> product_of_bf16(const RandomCodes& codes, const float* x, int64_t tokens, const float* bias,
                                   Executor& executor, Isa isa) {
  std::vector<float> y(static_cast<size_t>(tokens * codes.shape.rows), NAN);
  const CodeProduct one{codes.matrix, bias, y.data()};
  code_matmul_of_bf16(x, tokens, {&one, 1}, executor, isa);
  return y;
}

TEST_P(CodeMatmul, Bf16ActivationsGiveTheProductOfRoundedActivations) {
  ThreadPool pool(2);
  for (const auto& shape : shapes()) {
    const RandomCodes codes(shape);
    const auto bias = normal_values(shape.rows, 3);
    for (const int64_t tokens : {1, 2, 7, 13, 33}) {
      const auto x = normal_values(tokens * shape.cols, 4);
      std::vector<Bf16> rounded(x.size());
      round_to_bf16(x.data(), static_cast<int64_t>(x.size()), rounded.data(), Isa::reference);
      const float* const b = tokens % 2 == 0 ? bias.data() : nullptr;
      const auto y = product_of_bf16(codes, x.data(), tokens, b, pool, GetParam());
      for (int64_t i = 0; i < tokens * shape.rows; ++i) {
        const int64_t row = i % shape.rows;
        double sum = b == nullptr ? 0.0 : b[row], magnitude = std::abs(sum);
        for (int64_t k = 0; k < shape.cols; ++k) {
          const double value = widened(rounded[static_cast<size_t>(i / shape.rows * shape.cols + k)]);
          const double scale = codes.scale(row, k), minimum = codes.minima.empty() ? 0.0 : codes.minimum(row, k);
          sum += value * (static_cast<double>(codes.whole(row, k)) * scale + minimum);
          // Levels and zeros are added apart.
          magnitude += std::abs(value) *
                       ((2.0 * (1 << shape.bits) * shape.step + 256.0 * shape.has_levels) * scale + std::abs(minimum));
        }
        const int64_t pieces = shape.cols / shape.group_cols * (1 + shape.group_cols / 256);
        const auto roundings = static_cast<double>(std::min<int64_t>(shape.group_cols, 256) + 4 * pieces);
        ASSERT_NEAR(y[static_cast<size_t>(i)], sum, roundings * 0x1.0p-24 * magnitude)
            << text(shape) << ", " << tokens << " tokens, value " << i;
      }
    }
  }
}

TEST_P(CodeMatmul, Bf16SumsOfIntegersAreExact) {
  // Sums below 2^24, and scales that are powers of two.
  for (const auto& shape : shapes()) {
    if (shape.has_minima) continue;
    RandomCodes codes(shape);
    std::fill(codes.scales.begin(), codes.scales.end(), 0.25f);
    std::vector<float> x(static_cast<size_t>(5 * shape.cols));
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(static_cast<int>(i * 7 % 23) - 11);
    const auto y = product_of_bf16(codes, x.data(), 5, nullptr, serial_executor(), GetParam());
    for (int64_t i = 0; i < 5 * shape.rows; ++i) {
      int64_t sum = 0;
      for (int64_t k = 0; k < shape.cols; ++k)
        sum += codes.whole(i % shape.rows, k) *
               static_cast<int64_t>(x[static_cast<size_t>(i / shape.rows * shape.cols + k)]);
      ASSERT_EQ(y[static_cast<size_t>(i)], 0.25f * static_cast<float>(sum)) << text(shape) << ", value " << i;
    }
  }
}

TEST_P(CodeMatmul, Bf16ATokenAmongOthersEqualsTheTokenAloneAndThreadsChangeNothing) {
  ThreadPool pool(3);
  for (const auto& shape : {CodeShape{.bits = 2, .rows = 500, .cols = 640, .group_cols = 128, .step = 2},
                            CodeShape{.bits = 4, .rows = 67, .cols = 640, .group_cols = 32, .has_zeros = true},
                            CodeShape{.bits = 8, .rows = 67, .cols = 640, .group_cols = 320, .has_minima = true}}) {
    const RandomCodes codes(shape);
    const auto x = normal_values(31 * 640, 4);
    const auto together = product_of_bf16(codes, x.data(), 31, nullptr, pool, GetParam());
    for (int64_t t = 0; t < 31; ++t) {
      const auto alone = product_of_bf16(codes, x.data() + t * 640, 1, nullptr, serial_executor(), GetParam());
      ASSERT_TRUE(std::equal(alone.begin(), alone.end(), together.begin() + t * shape.rows))
          << text(shape) << ", " << t;
    }
  }
}

TEST(CodePanel, HoldsFourColumnsOfARowInTheFieldsOfItsFourBytes) {
  std::vector<uint8_t> codes(2 * 20);
  for (int64_t k = 0; k < 20; ++k) codes[static_cast<size_t>(20 + k)] = static_cast<uint8_t>(k % 4);  // of row 1
  codes[20 + 4] = 3;
  std::vector<uint8_t> panel(static_cast<size_t>(code_panel_bytes(20, 2)), 0xff);
  ASSERT_EQ(panel.size(), 2u * 64);
  pack_code_panel(codes.data(), 2, 20, 2, panel.data());
  EXPECT_EQ(std::vector<uint8_t>(panel.begin(), panel.begin() + 12),
            (std::vector<uint8_t>{0, 0, 0, 0, 0b00001100, 0b01010101, 0b10101010, 0b11111111, 0, 0, 0, 0}));
  EXPECT_EQ(std::vector<uint8_t>(panel.begin() + 64 + 4, panel.begin() + 64 + 8), (std::vector<uint8_t>{0, 1, 2, 3}));
}

TEST(Int8Stride, KeepsNeighbouringTokensApartInTheCache) {
  for (const int64_t cols : {1, 64, 65, 576, 2048, 4096}) {
    EXPECT_GE(int8_stride(cols), (cols + 15) / 16 * 16);
    EXPECT_EQ(int8_stride(cols) % 128, 64);
  }
}

}  // namespace
}  // namespace crumb::kernels
