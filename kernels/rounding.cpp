#include "kernels/rounding.h"

#include <algorithm>
#include <vector>

#include "kernels/isa/table.h"
#include "kernels/rounded_tokens.h"

namespace crumb::kernels {
namespace {

constexpr int64_t kTokensAtOnce = 4;  // that a thread takes

}  // namespace

float round_to_int8(const float* x, int64_t n, int8_t* codes, Isa isa) {
  return kernel_table(isa).round_to_int8(x, n, codes);
}

void round_to_bf16(const float* x, int64_t n, Bf16* y, Isa isa) { kernel_table(isa).round_to_bf16(x, n, y); }

Bf16Tokens bf16_tokens(const float* x, int64_t x_stride, int64_t tokens, int64_t cols, Executor& executor, Isa isa) {
  thread_local std::vector<Bf16> values;  // kept, so that decoding allocates nothing large
  const int64_t stride = bf16_stride(cols);
  values.resize(static_cast<size_t>(tokens * stride));
  Bf16* const to = values.data();
  executor.run(tokens, kTokensAtOnce, [&](int64_t begin, int64_t end, int) {
    for (int64_t token = begin; token < end; ++token) {
      round_to_bf16(x + token * x_stride, cols, to + token * stride, isa);
      std::fill(to + token * stride + cols, to + (token + 1) * stride, Bf16{});
    }
  });
  return {to, tokens, cols, stride};
}

const float* bf16_values(const float* x, int64_t x_stride, int64_t tokens, int64_t cols, Executor& executor, Isa isa) {
  thread_local std::vector<float> values;
  const Bf16Tokens rounded = bf16_tokens(x, x_stride, tokens, cols, executor, isa);
  values.resize(static_cast<size_t>(tokens * cols));
  float* const to = values.data();
  executor.run(tokens, kTokensAtOnce, [&](int64_t begin, int64_t end, int) {
    for (int64_t token = begin; token < end; ++token) {
      const Bf16* from = rounded.values + token * rounded.stride;
      std::transform(from, from + cols, to + token * cols, [](Bf16 value) { return widened(value); });
    }
  });
  return to;
}

int64_t bf16_stride(int64_t cols) {
  constexpr int64_t kLineValues = 32;
  return ((cols + kLineValues - 1) / kLineValues | 1) * kLineValues;
}

}  // namespace crumb::kernels
