// Eight floats at a time, for code outside kernels/isa that is compiled for the baseline.
#pragma once

#include "kernels/isa/vector.h"

namespace crumb::kernels {
namespace {

static_assert(kLanes == 8);
using Vec8 = Vec;

inline Vec8 magnitude(Vec8 x) { return x < 0.0f ? -x : x; }

template <class Body>
inline void for_each8(int64_t n, const Body& body) {
  for_each_vector(n, body);
}

}  // namespace
}  // namespace crumb::kernels
