// The shapes of the matmul kernels that their host code has to know.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/packed_tiles.h"

namespace crumb::kernels {

// ---- few tokens: a warp has some columns of 8 n tokens at hand and walks row tiles. group 0: a scale a row ----

inline constexpr int kSkinnyMostWarps = 16;
inline constexpr int kSkinnyMostTokens = 16;

/// Whether a lane keeps its part of the columns in registers; else they stay in shared memory, which costs 1 to 5 %.
constexpr bool skinny_in_registers(int bits, int group, int tokens8, bool int8) {
  return tokens8 == 1 && (group == 0 || int8) && bits != 8;
}
/// Blocks of 128 columns of a warp, at most: their codes are in registers, for skinny_depth() row tiles.
constexpr int skinny_tiles(int bits) { return bits == 8 ? 2 : 4; }
/// Row tiles in flight.
constexpr int skinny_depth(int bits) { return bits == 2 ? 2 : 1; }

/// Where things begin in the shared memory of a block, and how much there is: sums of two turns of row tiles; columns,
/// in the place of the sums where they go on to registers; two floats a token; zero * sums of groups.
struct SkinnyShared {
  size_t columns, tokens, offsets, bytes;
};
constexpr SkinnyShared skinny_shared(int bits, int group, int tokens8, bool int8, int warps, int tiles_a_warp) {
  const int groups = group == 0 ? 0 : kTileBlockCols / group;
  const int sums = 2 * skinny_depth(bits) * warps * tokens8 * kTileRows * 8 * 4;
  const int columns = warps * tiles_a_warp * tokens8 * 8 * kTileBlockCols * (int8 ? 1 : 2);
  const bool shares = skinny_in_registers(bits, group, tokens8, int8);
  const int tokens = shares ? (sums > columns ? sums : columns) : sums + columns;
  const int offsets = tokens + warps * tokens8 * 8 * 8;
  return {.columns = static_cast<size_t>(shares ? 0 : sums),
          .tokens = static_cast<size_t>(tokens),
          .offsets = static_cast<size_t>(offsets),
          .bytes = static_cast<size_t>(offsets + warps * tiles_a_warp * groups * tokens8 * 8 * 4)};
}

// ---- more tokens: 4 warps of 32 rows each by 32 or 64 tokens ----

inline constexpr int kMatmulWarps = 4, kMatmulRows = 32 * kMatmulWarps;

constexpr int matmul_stages(int bits) { return bits == 8 ? 3 : 4; }
constexpr int matmul_tile_bytes(int bits) { return kMatmulRows / kTileRows * tiles_per_block(bits) * kTileBytes; }
constexpr int matmul_stage_bytes(int bits, int tokens, bool int8) {
  return matmul_tile_bytes(bits) + tokens * kTileBlockCols * (int8 ? 1 : 2);
}
constexpr size_t matmul_shared_bytes(int bits, int tokens, bool int8) {
  return static_cast<size_t>(matmul_stages(bits) * matmul_stage_bytes(bits, tokens, int8));
}

}  // namespace crumb::kernels
