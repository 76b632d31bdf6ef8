// Field by field comparison of two specs.
#pragma once

#include <gtest/gtest.h>

#include <cmath>

#include "core/arch/decoder_spec.h"

namespace crumb::arch {

/// Rotary numbers may differ by `tolerance`, relative (GGUF holds them as float32).
inline void expect_same_spec(const DecoderSpec& a, const DecoderSpec& b, double tolerance) {
  EXPECT_EQ(gguf_architecture_name(a.architecture), gguf_architecture_name(b.architecture));
  EXPECT_EQ(a.vocab_size, b.vocab_size);
  EXPECT_EQ(a.hidden_size, b.hidden_size);
  EXPECT_EQ(a.context_length, b.context_length);
  EXPECT_NEAR(a.rms_norm_eps / b.rms_norm_eps, 1.0, tolerance);
  EXPECT_EQ(a.tied_head, b.tied_head);
  ASSERT_EQ(a.layers.size(), b.layers.size());
  for (size_t i = 0; i < a.layers.size(); ++i) {
    const auto &x = a.layers[i], &y = b.layers[i];
    EXPECT_EQ(x.gqa().heads, y.gqa().heads);
    EXPECT_EQ(x.gqa().kv_heads, y.gqa().kv_heads);
    EXPECT_EQ(x.gqa().head_dim, y.gqa().head_dim);
    EXPECT_EQ(x.gqa().qkv_bias, y.gqa().qkv_bias);
    EXPECT_EQ(x.gqa().output_bias, y.gqa().output_bias);
    EXPECT_EQ(x.gqa().qk_norm, y.gqa().qk_norm);
    EXPECT_EQ(x.mlp().intermediate, y.mlp().intermediate);
    EXPECT_EQ(x.mlp().bias, y.mlp().bias);
    EXPECT_EQ(x.window, y.window);
    EXPECT_EQ(x.rope.dim, y.rope.dim);
    EXPECT_NEAR(x.rope.base / y.rope.base, 1.0, tolerance);
    ASSERT_EQ(x.rope.divisors.size(), y.rope.divisors.size());
    for (size_t k = 0; k < x.rope.divisors.size(); ++k) {
      EXPECT_NEAR(x.rope.divisors[k] / y.rope.divisors[k], 1.0, tolerance);
    }
  }
}

}  // namespace crumb::arch
