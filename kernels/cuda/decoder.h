// What a pass of a decoder does outside of products with packed weights, on a CUDA device. Everything that changes from
// token to token (ids, positions, where a sequence has its keys and values) is read from device memory, so that a pass
// recorded once as a graph serves all tokens. Sums are made in an order that depends on shapes and positions alone: the
// same bits every time. Pointers are the device's; a call returns before the device is done. A kernel that cannot be
// launched is a RunError.
#pragma once

#include <cstdint>

#include "core/common/half.h"
#include "kernels/bf16.h"
#include "kernels/cuda/stream.h"

namespace crumb::kernels {

/// Whether this program has code for the device in use.
bool has_code_for_device();

/// out [tokens, cols] = rows ids[token] of weights [.., cols]. W: float, Bf16, Half.
template <class W>
void embed(const W* weights, const int32_t* ids, int64_t tokens, int64_t cols, float* out, CudaStream stream);

/// sum [rows, cols] += addend (null: nothing); y = norm(sum) * weight, as rms_norm_forward(). Out: float, Bf16.
template <class Out>
void add_rms_norm(float* sum, const float* addend, const float* weight, float eps, int64_t rows, int64_t cols, Out* y,
                  CudaStream stream);

/// Positions whose keys lie together: of each 32 positions, layer and key/value head first the keys, [dim / 8][32
/// positions][8], so that the threads of a warp read neighbouring keys at once, then the values, [32 positions][dim].
inline constexpr int64_t kCachePanel = 32;
/// Values of a head: a multiple of 8.
inline constexpr int64_t kMostCacheDim = 256;

/// A layer's part of the caches of the sequences of a pass.
struct CacheView {
  const int32_t* positions = nullptr;    // [tokens]
  const uint64_t* sequences = nullptr;   // [tokens]: where the cache of the token's sequence begins
  int64_t panel_stride = 0, offset = 0;  // elements from panel to panel; to this layer in a panel
};

/// Rows of a token in a product's output: at + token * stride.
struct HeadRows {
  float* at = nullptr;
  int64_t stride = 0;
};

/// Queries, keys and values of one layer, as they come out of their products.
struct PreparedHeads {
  HeadRows q, k, v;
  int64_t tokens = 0, heads = 0, kv_heads = 0, dim = 0;
  const float *q_norm = nullptr, *k_norm = nullptr;  // [dim] or null: RMS norm of each head
  bool norm_is_before_rope = false;
  float eps = 0;
  const float *cos = nullptr, *sin = nullptr;  // [positions, half]
  int64_t half = 0;                            // pairs i and i + half are turned; 2 * half <= dim
};
/// Norms and turns the queries, which stay where they are, and the keys, and puts keys and values into the caches.
/// C: float, Half, to which they are rounded.
template <class C>
void prepare_heads(const PreparedHeads& args, const CacheView& cache, CudaStream stream);

/// out [tokens, heads * dim] = softmax(q k^T / sqrt(dim)) v, of the keys max(0, position - window + 1) .. position
/// (window 0: 0 .. position) of each token's sequence; kernels/attention.h on the CPU. C: float, Half; Out: float,
/// Bf16.
/// The keys are cut into `splits` parts, whose sums are added in their order. workspace: attention_workspace() floats,
/// may be null with one split.
template <class C, class Out>
void attend(const HeadRows& q, int64_t tokens, int64_t heads, int64_t kv_heads, int64_t dim, int64_t window,
            const CacheView& cache, int64_t splits, float* workspace, Out* out, CudaStream stream);
/// As many as make two blocks a multiprocessor, at most 16.
int64_t attention_splits(int64_t tokens, int64_t kv_heads, int64_t multiprocessors);
constexpr int64_t attention_workspace(int64_t tokens, int64_t heads, int64_t dim, int64_t splits) {
  return splits == 1 ? 0 : tokens * heads * splits * (dim + 2);
}

/// y [tokens, cols] = silu(gate) * up.
template <class Out>
void swiglu_rows(const HeadRows& gate, const HeadRows& up, int64_t tokens, int64_t cols, Out* y, CudaStream stream);

/// y [tokens, rows] = x [tokens, cols] weights [rows, cols]^T + bias (null: none), in float. W: float, Bf16, Half; X:
/// float, Bf16, but not float with Bf16.
template <class W, class X>
void dense_matmul(const X* x, const W* weights, const float* bias, int64_t tokens, int64_t rows, int64_t cols, float* y,
                  CudaStream stream);

}  // namespace crumb::kernels
