// Attention on vectors, made of the matrix product; included by the files of the instruction sets.
#pragma once

#include "kernels/isa/matmul.h"

namespace crumb::kernels {
namespace {

/// What one call of attend_queries has in its scratch; a row is one query of one head.
struct AttentionRows {
  float *q, *sums;        // [rows, dim]; sums: of values by their exponentials
  float* scores;          // [rows, kKeysPerBlock]
  float *peaks, *totals;  // [rows]: the largest score and the sum of exponentials so far
  float* panel;           // for the last columns of values
};
static_assert(kKeysPerBlock % kKeyPanel == 0 && kKeyPanel % kTileCols == 0);

/// One row's scores become exponentials, 0 outside [begin, end); its peak, total and sums follow.
inline void softmax_step(float* scores, int64_t begin, int64_t end, float scale, int64_t dim, float* sums, float* peak,
                         float* total) {
  const float hidden = begin < end ? -__builtin_inff() : 0.0f;  // a block that the query does not see adds zeros
  for (int64_t i = 0; i < begin; ++i) scores[i] = hidden;
  for (int64_t i = end; i < kKeysPerBlock; ++i) scores[i] = hidden;
  if (begin == end) return;
  Vec largest = broadcast(*peak);
  for (int64_t i = 0; i < kKeysPerBlock; i += kLanes) largest = max(largest, load(scores + i));
  const float new_peak = largest_of(largest);
  Vec exponentials = broadcast(0);
  for (int64_t i = 0; i < kKeysPerBlock; i += kLanes) {
    const Vec score = load(scores + i);
    const Vec e = score == hidden ? broadcast(0) : exp((score - new_peak) * scale);
    exponentials += e;
    store(scores + i, e);
  }
  if (*peak != new_peak) {
    const float shrink = exp(broadcast((*peak - new_peak) * scale))[0];
    *total *= shrink;
    scale_row(sums, dim, shrink);
    *peak = new_peak;
  }
  *total += sum(exponentials);
}

/// scores = q k^T of the keys [first_key, first_key + keys), which begin a panel.
template <class T>
inline void score_keys(const AttentionArguments<T>& a, const AttentionRows& rows, int64_t first_key, int64_t keys) {
  for (int64_t key = 0; key < keys; key += kTileCols) {
    const T* panel = a.keys + (first_key + key) / kKeyPanel * kKeyPanel * a.dim + key % kKeyPanel;
    for (int64_t i = 0; i < a.dim; i += kDepth) {
      const ProductOf<T> product{panel + i * kKeyPanel, min_of(kDepth, a.dim - i), kTileCols, i > 0, {}, kKeyPanel};
      multiply(product, rows.q + i, a.dim, a.count * a.heads, rows.scores + key, kKeysPerBlock);
    }
  }
}

/// sums += scores v of the keys [first_key, first_key + keys).
template <class T>
inline void add_values(const AttentionArguments<T>& a, const AttentionRows& rows, int64_t first_key, int64_t keys) {
  const int64_t num_rows = a.count * a.heads;
  for (int64_t c = 0; c < a.dim; c += kTileCols) {
    const T* values = a.values + first_key * a.dim + c;
    if (c + kTileCols <= a.dim) {
      multiply(ProductOf<T>{values, keys, kTileCols, true, {}, a.dim}, rows.scores, kKeysPerBlock, num_rows,
               rows.sums + c, a.dim);
    } else {
      pack_cols(values, a.dim, a.dim - c, keys, rows.panel);
      multiply(Product{rows.panel, keys, a.dim - c, true, {}}, rows.scores, kKeysPerBlock, num_rows, rows.sums + c,
               a.dim);
    }
  }
}

/// A block of keys or values is little memory after much else: the processor does not see it coming.
template <class T>
inline void prefetch_block(const T* block, int64_t dim) {
  const char* at = reinterpret_cast<const char*>(block);
  for (int64_t i = 0; i < kKeysPerBlock * dim * static_cast<int64_t>(sizeof(T)); i += 64)
    __builtin_prefetch(at + i, 0, 2);
}

inline void multiply_values(float* x, const float* factors, int64_t n) {
  for_each_vector(
      n, [&](int64_t i, int64_t count) { store(x + i, load(x + i, count, 0) * load(factors + i, count, 0), count); });
}

template <class T>
inline void attend_block(const AttentionArguments<T>& a, const AttentionRows& rows, int64_t first_key,
                         int64_t last_key) {
  prefetch_block(a.values + first_key * a.dim, a.dim);
  score_keys(a, rows, first_key, last_key - first_key);
  prefetch_block(a.keys + (first_key + kKeysPerBlock) * a.dim, a.dim);
  const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(a.dim));
  for (int64_t r = 0; r < a.count * a.heads; ++r) {
    const int64_t position = a.position + r / a.heads;
    const int64_t begin = a.window > 0 ? min_of(kKeysPerBlock, max_of(0, position - a.window + 1 - first_key)) : 0;
    const int64_t end = max_of(begin, min_of(kKeysPerBlock, position + 1 - first_key));
    float* scores = rows.scores + r * kKeysPerBlock;
    if constexpr (sizeof(T) == 1) multiply_values(scores, a.key_scales + first_key, end);
    softmax_step(scores, begin, end, scale, a.dim, rows.sums + r * a.dim, rows.peaks + r, rows.totals + r);
    if constexpr (sizeof(T) == 1) multiply_values(scores, a.value_scales + first_key, end);
  }
  add_values(a, rows, first_key, last_key - first_key);
}

template <class T>
inline void attend_queries(const AttentionArguments<T>& a, float* scratch) {
  const int64_t num_rows = a.count * a.heads, row = a.heads * a.dim;
  AttentionRows rows;
  rows.panel = scratch;
  rows.scores = rows.panel + kMatmulScratch;
  rows.q = rows.scores + num_rows * kKeysPerBlock;
  rows.sums = rows.q + num_rows * a.dim;
  rows.peaks = rows.sums + num_rows * a.dim;
  rows.totals = rows.peaks + num_rows;
  for (int64_t i = 0; i < a.count; ++i)
    __builtin_memcpy(rows.q + i * row, a.q + i * a.stride, static_cast<unsigned long>(row) * sizeof(float));
  for (int64_t i = 0; i < num_rows * a.dim; ++i) rows.sums[i] = 0;
  for (int64_t r = 0; r < num_rows; ++r) rows.peaks[r] = -__builtin_inff(), rows.totals[r] = 0;

  // Blocks begin at multiples of their size, so that a query's sums are cut alike whoever shares the call.
  const int64_t first = a.window > 0 ? max_of(0, a.position - a.window + 1) : 0, last = a.position + a.count;
  for (int64_t key = first / kKeysPerBlock * kKeysPerBlock; key < last; key += kKeysPerBlock)
    attend_block(a, rows, key, min_of(key + kKeysPerBlock, last));

  for (int64_t r = 0; r < num_rows; ++r) {
    float* out = a.out + r / a.heads * a.stride + r % a.heads * a.dim;
    const float inverse = 1.0f / rows.totals[r];
    for_each_vector(a.dim, [&](int64_t i, int64_t count) {
      store(out + i, load(rows.sums + r * a.dim + i, count, 0) * inverse, count);
    });
  }
}

}  // namespace
}  // namespace crumb::kernels
