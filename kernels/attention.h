// Causal attention of some queries over the keys and values of one key/value head. Softmax in one pass over the keys:
// Milakov and Gimelshein, arXiv:1805.02867; block by block as in Dao et al., arXiv:2205.14135.
#pragma once

#include <cstdint>

#include "core/common/half.h"
#include "kernels/cpu_features.h"

namespace crumb::kernels {

/// Positions whose keys lie interleaved, so that a register holds one value of neighbouring keys and scores need no
/// sums across lanes: value i of position p lies at key_index(p, i, dim).
inline constexpr int64_t kKeyPanel = 32;
inline int64_t key_index(int64_t position, int64_t i, int64_t dim) {
  return (position / kKeyPanel * dim + i) * kKeyPanel + position % kKeyPanel;
}

/// `count` tokens in a row, the first at `position`, each with `heads` queries that share the key/value head. A query
/// at position p sees the keys at max(0, p - window + 1) .. p (window 0: 0 .. p). T: float, Half, or int8_t,
/// which is times the scale of its position.
template <class T>
struct AttentionArguments {
  const float* q;  // [count, heads, dim], tokens `stride` floats apart
  float* out;      // like q
  int64_t stride, count, heads, dim;
  int64_t position, window;
  const T* keys;                      // by key_index, from position 0 on, whole panels
  const T* values;                    // [positions, dim], from position 0 on
  const float* key_scales = nullptr;  // [positions], of int8_t
  const float* value_scales = nullptr;
};

/// out = softmax(q k^T / sqrt(dim)) v in float. Keys are read once for all queries. What a query gets does not depend
/// on the others of the call.
void attend(const AttentionArguments<float>& arguments, Isa isa = best_isa());
void attend(const AttentionArguments<Half>& arguments, Isa isa = best_isa());
void attend(const AttentionArguments<int8_t>& arguments, Isa isa = best_isa());

}  // namespace crumb::kernels
