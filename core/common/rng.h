// Counter-based random numbers: Philox4x32-10 (Salmon et al., SC 2011). The i-th number of a stream is a pure function
// of (seed, stream, i), so work can be split, resumed and repeated without carrying a state.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <string_view>

namespace crumb {

/// Ten rounds of Philox4x32: 128-bit counter, 64-bit key, 128 random bits.
inline std::array<uint32_t, 4> philox(uint64_t key, uint64_t counter_low, uint64_t counter_high) {
  std::array<uint32_t, 4> c{static_cast<uint32_t>(counter_low), static_cast<uint32_t>(counter_low >> 32),
                            static_cast<uint32_t>(counter_high), static_cast<uint32_t>(counter_high >> 32)};
  auto k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53} * c[0], p1 = uint64_t{0xCD9E8D57} * c[2];
    c = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k0, static_cast<uint32_t>(p1),
         static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k1, static_cast<uint32_t>(p0)};
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  return c;
}

class Rng {
 public:
  /// `stream` separates uses of one seed, for example a hash of a tensor's name.
  explicit Rng(uint64_t seed, uint64_t stream = 0) : seed_(seed), stream_(stream) {}

  uint64_t bits(uint64_t index) const {
    const auto r = philox(seed_, index, stream_);
    return uint64_t{r[1]} << 32 | r[0];
  }
  /// Uniform in [0, 1), 53 bits.
  double uniform(uint64_t index) const { return static_cast<double>(bits(index) >> 11) * 0x1.0p-53; }
  /// Standard normal by Box and Muller.
  double normal(uint64_t index) const {
    const auto r = philox(seed_, index, stream_);
    const double u = (static_cast<double>(uint64_t{r[1]} << 32 | r[0]) + 1.0) * 0x1.0p-64;
    const double v = static_cast<double>(uint64_t{r[3]} << 32 | r[2]) * 0x1.0p-64;
    return std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586 * v);
  }
  /// Uniform in 0..n-1; the bias of the multiplication is below n / 2^64.
  uint64_t below(uint64_t index, uint64_t n) const {
    return static_cast<uint64_t>((static_cast<unsigned __int128>(bits(index)) * n) >> 64);
  }

 private:
  uint64_t seed_, stream_;
};

/// FNV-1a, 64 bits: a stable stream number from a name.
inline uint64_t hash_name(std::string_view text) {
  uint64_t h = 0xcbf29ce484222325;
  for (const char c : text) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return h;
}

}  // namespace crumb
