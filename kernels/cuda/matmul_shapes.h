// The shapes of the matmul kernels that their host code has to know.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/packed_tiles.h"

namespace crumb::kernels {

// ---- few tokens: a warp has some columns of all tokens at hand and walks row tiles. group 0: a scale a row ----

inline constexpr int kSkinnyMostWarps = 16;
inline constexpr int kSkinnyMostTokens = 16;
inline constexpr int kSkinnyTogether = 2;  // row tiles of a turn
inline constexpr int kSkinnyStages = 3;    // tiles of each that are on their way: 4, 6 and 8 were slower

/// Row tiles of a block whose row scales it has at hand from the start: loaded when a sum is there, they would wait
/// behind all codes that are on their way. Of more row tiles the others are loaded then, which is right and slow.
inline constexpr int kSkinnyHeld = 64;

/// Blocks of kSkinnyMostWarps that share a multiprocessor's registers: with two, those of the next kernel wait there
/// with their codes while this one ends.
constexpr int skinny_blocks(int group, int tokens8) { return group == 0 && tokens8 == 1 ? 2 : 1; }
/// Scales of groups that come with a tile.
constexpr int skinny_tile_groups(int bits, int group) {
  return group == 0 ? 0 : tile_cols(bits) <= group ? 1 : tile_cols(bits) / group;
}
constexpr int skinny_stage_bytes(int bits, int group) {
  return kSkinnyTogether * (kTileBytes + skinny_tile_groups(bits, group) * 32 * 4);
}

/// Turns whose sums have a place: with two a turn has one barrier, with one two.
constexpr int skinny_turns(int tokens8) { return tokens8 == 1 ? 2 : 1; }

/// Where things begin in the shared memory of a block, and how much there is: sums of skinny_turns(); row
/// scales; the ring of codes; the columns of the tokens; zero * sums of groups.
struct SkinnyShared {
  size_t scales, ring, columns, offsets, bytes;
};
constexpr SkinnyShared skinny_shared(int bits, int group, int tokens, bool int8, int warps, int tiles_a_warp) {
  const int tokens8 = (tokens + 7) / 8, groups = group == 0 ? 0 : kTileBlockCols / group;
  const int scales = skinny_turns(tokens8) * kSkinnyTogether * warps * tokens8 * kTileRows * 8 * 4;
  const int ring = scales + (group == 0 ? kSkinnyHeld * 8 * 4 : 0);
  const int columns = ring + warps * kSkinnyStages * skinny_stage_bytes(bits, group);
  const int offsets = columns + warps * tiles_a_warp * tokens * kTileBlockCols * (int8 ? 1 : 2);
  return {.scales = static_cast<size_t>(scales),
          .ring = static_cast<size_t>(ring),
          .columns = static_cast<size_t>(columns),
          .offsets = static_cast<size_t>(offsets),
          .bytes = static_cast<size_t>(offsets + warps * tiles_a_warp * groups * tokens8 * 8 * 4)};
}

// ---- more tokens: 4 warps of 32 or 64 rows each by 32 or 64 tokens ----

inline constexpr int kMatmulWarps = 4;

/// Row tiles of a warp: four were faster with 2 bits, groups and 32 tokens, and no faster or slower elsewhere.
constexpr int matmul_row_tiles(int bits, int group, int tokens) {
  return bits == 2 && group != 0 && tokens == 32 ? 4 : 2;
}
constexpr int matmul_rows(int bits, int group, int tokens) {
  return kMatmulWarps * kTileRows * matmul_row_tiles(bits, group, tokens);
}
/// Blocks that share a multiprocessor's registers.
constexpr int matmul_blocks(int bits, int group, int tokens) {
  return tokens != 32 || matmul_row_tiles(bits, group, tokens) == 4 ? 2 : group == 0 ? 4 : 3;
}
constexpr int matmul_stages(int bits) { return bits == 8 ? 3 : 4; }
constexpr int matmul_tile_bytes(int bits, int group, int tokens) {
  return matmul_rows(bits, group, tokens) / kTileRows * tiles_per_block(bits) * kTileBytes;
}
constexpr int matmul_stage_bytes(int bits, int group, int tokens, bool int8) {
  return matmul_tile_bytes(bits, group, tokens) + tokens * kTileBlockCols * (int8 ? 1 : 2);
}
constexpr size_t matmul_shared_bytes(int bits, int group, int tokens, bool int8) {
  return static_cast<size_t>(matmul_stages(bits) * matmul_stage_bytes(bits, group, tokens, int8));
}

}  // namespace crumb::kernels
