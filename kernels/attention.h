// Causal attention of some queries over the keys and values of one key/value head. Softmax in one pass over the keys:
// Milakov and Gimelshein, arXiv:1805.02867; block by block as in Dao et al., arXiv:2205.14135.
#pragma once

#include <cstdint>

#include "kernels/cpu_features.h"

namespace crumb::kernels {

/// `count` tokens in a row, the first at `position`, each with `heads` queries that share the key/value head. A query
/// at position p sees the keys at max(0, p - window + 1) .. p (window 0: 0 .. p).
struct AttentionArguments {
  const float* q;  // [count, heads, dim], tokens `stride` floats apart
  float* out;      // like q
  int64_t stride, count, heads, dim;
  int64_t position, window;
  const float *keys, *values;  // [positions, dim], from position 0 on
};

/// out = softmax(q k^T / sqrt(dim)) v. Keys are read once for all queries. What a query gets does not depend on the
/// others of the call.
void attend(const AttentionArguments& arguments, Isa isa = best_isa());

}  // namespace crumb::kernels
