#define CRUMB_LANES 16
#include "kernels/isa/code_matmul_amx.h"
#include "tests/kernels/code_kernels.h"

namespace crumb::testing {
namespace {

/// kernels/isa/amx_tiles.h in plain loops, after the pseudocode of Intel's manual.
class EmulatedTiles {
 public:
  void start() { __builtin_memset(tiles_, 0x5a, sizeof tiles_); }
  void stop() {}

  template <int kTile>
  void zero() {
    __builtin_memset(tiles_[kTile], 0, sizeof tiles_[kTile]);
  }
  template <int kTile>
  void load(const void* p, int64_t stride) {
    for (int row = 0; row < 16; ++row)
      __builtin_memcpy(tiles_[kTile][row], static_cast<const uint8_t*>(p) + row * stride, 64);
  }
  template <int kTile>
  void store(void* p, int64_t stride) {
    for (int row = 0; row < 16; ++row)
      __builtin_memcpy(static_cast<uint8_t*>(p) + row * stride, tiles_[kTile][row], 64);
  }
  template <int kSums, int kA, int kB>
  void add_products() {
    for (int m = 0; m < 16; ++m) {
      int32_t sums[16];
      __builtin_memcpy(sums, tiles_[kSums][m], 64);
      for (int k = 0; k < 16; ++k) {
        for (int n = 0; n < 16; ++n) {
          for (int i = 0; i < 4; ++i)
            sums[n] += static_cast<int8_t>(tiles_[kA][m][4 * k + i]) * tiles_[kB][k][4 * n + i];
        }
      }
      __builtin_memcpy(tiles_[kSums][m], sums, 64);
    }
  }

 private:
  uint8_t tiles_[8][16][64];
};

}  // namespace

const CodeKernel kEmulatedAmxKernel = kernels::multiply_codes_by_tiles<EmulatedTiles>;

}  // namespace crumb::testing
