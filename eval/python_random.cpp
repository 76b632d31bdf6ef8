#include "eval/python_random.h"

#include <bit>
#include <cmath>
#include <numeric>
#include <set>

#include "core/common/error.h"

namespace crumb::eval {

PythonRandom::PythonRandom(uint32_t seed) {
  // init_genrand(19650218), then init_by_array({seed}).
  state_[0] = 19650218;
  for (uint32_t i = 1; i < kWords; ++i) state_[i] = 1812433253 * (state_[i - 1] ^ (state_[i - 1] >> 30)) + i;
  size_t i = 1;
  const auto step = [&] {
    if (++i < kWords) return;
    state_[0] = state_[kWords - 1];
    i = 1;
  };
  const auto mixed = [&](uint32_t factor) { return state_[i] ^ ((state_[i - 1] ^ (state_[i - 1] >> 30)) * factor); };
  for (size_t k = 0; k < kWords; ++k, step()) state_[i] = mixed(1664525) + seed;
  for (size_t k = 1; k < kWords; ++k, step()) state_[i] = mixed(1566083941) - static_cast<uint32_t>(i);
  state_[0] = 0x80000000;
}

void PythonRandom::refill() {
  for (size_t i = 0; i < kWords; ++i) {
    const uint32_t y = (state_[i] & 0x80000000) | (state_[(i + 1) % kWords] & 0x7fffffff);
    state_[i] = state_[(i + 397) % kWords] ^ (y >> 1) ^ ((y & 1) != 0 ? 0x9908b0df : 0);
  }
  used_ = 0;
}

uint32_t PythonRandom::bits() {
  if (used_ == kWords) refill();
  uint32_t y = state_[used_++];
  y ^= y >> 11;
  y ^= (y << 7) & 0x9d2c5680;
  y ^= (y << 15) & 0xefc60000;
  return y ^ (y >> 18);
}

int64_t PythonRandom::below(int64_t n) {
  CRUMB_ASSERT(n > 0 && n < (int64_t{1} << 32));
  const int width = std::bit_width(static_cast<uint64_t>(n));
  int64_t drawn = n;
  while (drawn >= n) drawn = bits() >> (32 - width);
  return drawn;
}

std::vector<int64_t> PythonRandom::sample(int64_t n, int64_t count) {
  CRUMB_ASSERT(count >= 0 && count <= n);
  double listed = 21;  // up to so many places a list of them is cheaper than a set of those drawn
  if (count > 5) listed += std::pow(4, std::ceil(std::log(static_cast<double>(count) * 3) / std::log(4.0)));
  std::vector<int64_t> out;
  if (static_cast<double>(n) <= listed) {
    std::vector<int64_t> pool(static_cast<size_t>(n));
    std::iota(pool.begin(), pool.end(), 0);
    for (int64_t i = 0; i < count; ++i) {
      const auto place = static_cast<size_t>(below(n - i));
      out.push_back(pool[place]);
      pool[place] = pool[static_cast<size_t>(n - i - 1)];
    }
    return out;
  }
  std::set<int64_t> drawn;
  while (std::ssize(out) < count) {
    const int64_t place = below(n);
    if (drawn.insert(place).second) out.push_back(place);
  }
  return out;
}

}  // namespace crumb::eval
