// random.Random of Python, so that examples are drawn as other programs draw them: the Mersenne Twister MT19937
// (Matsumoto and Nishimura 1998) seeded by an array, and random.sample() of CPython 3.11 and later.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace crumb::eval {

class PythonRandom {
 public:
  explicit PythonRandom(uint32_t seed);

  /// The next 32 bits: getrandbits(32).
  uint32_t bits();
  /// Uniform in 0..n-1, 0 < n < 2^32: _randbelow().
  int64_t below(int64_t n);
  /// `count` of the places 0..n-1, each once, in the order drawn: sample(range(n), count). 0 <= count <= n.
  std::vector<int64_t> sample(int64_t n, int64_t count);

 private:
  static constexpr size_t kWords = 624;
  void refill();

  std::array<uint32_t, kWords> state_;
  size_t used_ = kWords;
};

}  // namespace crumb::eval
