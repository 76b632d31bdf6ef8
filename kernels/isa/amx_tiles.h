// The tile registers of AMX: eight of 16 rows of 64 bytes, in inline assembly, because GCC 12's intrinsics let the
// compiler move stores to memory behind the loads of it. kernels/cpu_features.cpp asks the system for them.
#pragma once

#include <cstdint>

namespace crumb::kernels {
namespace {

/// This thread's registers, full-sized from start() to stop().
class AmxTiles {
 public:
  void start() {
    Layout layout;
    for (int i = 0; i < 8; ++i) {
      layout.row_bytes[i] = 64;
      layout.rows[i] = 16;
    }
    asm volatile("ldtilecfg %0" : : "m"(layout));
  }
  void stop() { asm volatile("tilerelease"); }

  template <int kTile>
  void zero() {
    asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
  }
  /// 16 rows, `stride` bytes apart.
  template <int kTile>
  void load(const void* p, int64_t stride) {
    asm volatile("tileloadd (%1,%2,1), %%tmm%c0" : : "i"(kTile), "r"(p), "r"(stride) : "memory");
  }
  template <int kTile>
  void store(void* p, int64_t stride) {
    asm volatile("tilestored %%tmm%c0, (%1,%2,1)" : : "i"(kTile), "r"(p), "r"(stride) : "memory");
  }
  /// int32 sums[m][n] += sum over k < 16, i < 4 of signed a[m][4 k + i] * unsigned b[k][4 n + i].
  template <int kSums, int kA, int kB>
  void add_products() {
    asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSums), "i"(kA), "i"(kB));
  }

 private:
  /// As ldtilecfg reads it.
  struct alignas(64) Layout {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
  };
  static_assert(sizeof(Layout) == 64);
};

}  // namespace
}  // namespace crumb::kernels
