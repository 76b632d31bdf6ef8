// Codes of 2, 4 or 8 bits as tensor cores read them (CUDA: kernels/cuda/matmul.h): the one definition of the layout for
// who packs, who multiplies and who tests.
//
// A block is 16 rows x 128 columns. It is bits / 2 tiles of 512 bytes, each 32 lanes x 4 words of 32 bits and 256 /
// bits columns wide. Blocks lie in the order [row / 16][column / 128]; rows and columns are filled up with codes 0. In
// a tile, of its row r (0..15) and column c = 32 j + 8 t + 4 e + 2 h + i (t 0..3; e, h, i 0..1):
//
//   lane 4 (r % 8) + t      word r / 8 + 2 h      bits of the word from 8 (2 i + e) + bits * j
//
// So what a lane loads with one instruction of 16 bytes are its registers of the first operand of mma, of every slice
// of 32 columns j: as bytes, those of m16n8k32 (a shift and an AND give four codes); as halves of a word, those of two
// m16n8k16, one of the columns e = 0 and one of e = 1. The second operand of either is then 8 neighbouring columns of a
// token, from 32 j + 8 t, and its registers are neighbours, too: of float tokens as they are, of int8 in the order of
// int8_position().
//
// A scale belongs to a row, or to a row and a group of 32 or 128 columns. Scales are bfloat16, which holds those of
// every grid exactly (round_scale of kernels/seq.h); the word [row / 16][group][r % 8] has that of row r in its low
// half and that of row r + 8 in its high half.
#pragma once

#include <cstdint>

namespace crumb::kernels {

inline constexpr int kTileRows = 16, kTileBytes = 512, kTileWords = kTileBytes / 4;
inline constexpr int kTileBlockCols = 128;  // columns of a block
inline constexpr int kTileSliceCols = 32;   // that one mma of bytes multiplies, and the smallest group
/// Sums of int8 products stay in int32: 255 * 128 * 65536 < 2^31.
inline constexpr int64_t kMostTileCols = 65536;

constexpr int tile_cols(int bits) { return 256 / bits; }
constexpr int tiles_per_block(int bits) { return bits / 2; }
/// Slices of 32 columns in a tile.
constexpr int tile_slices(int bits) { return 8 / bits; }

/// Where a code lies in its block.
struct TilePlace {
  int tile, lane, word, bit;
};
constexpr TilePlace tile_place(int bits, int row, int col) {
  const int c = col % tile_cols(bits), slice = c / 32, t = c % 32 / 8, e = c % 8 / 4, h = c % 4 / 2, i = c % 2;
  return {.tile = col / tile_cols(bits),
          .lane = row % 8 * 4 + t,
          .word = row / 8 + 2 * h,
          .bit = 8 * (2 * i + e) + bits * slice};
}

struct TileCell {
  int row, col;  // in the tile
};
/// What lies there in a tile; bit is a multiple of bits.
constexpr TileCell tile_cell(int bits, int lane, int word, int bit) {
  const int byte = bit / 8;
  return {.row = lane / 4 + 8 * (word % 2),
          .col = 32 * (bit % 8 / bits) + 8 * (lane % 4) + 4 * (byte % 2) + 2 * (word / 2) + byte / 2};
}

/// Where the int8 of a column lies in the row of a token: columns 0 to 7 at 0, 2, 4, 6, 1, 3, 5, 7, and so on.
constexpr int64_t int8_position(int64_t col) { return col / 8 * 8 + 2 * (col % 4) + col % 8 / 4; }
/// And back.
constexpr int64_t int8_column(int64_t position) { return position / 8 * 8 + 4 * (position % 2) + position % 8 / 2; }

/// A weight is (step * code - zero) * scale: SEQ step 2, zero 3, scale s / 2; symmetric integers step 1, zero
/// 2^(bits - 1); ternary step 1, zero 1.
struct PackedShape {
  int bits = 2;
  int64_t rows = 0, cols = 0;
  int64_t group_cols = 0;  // 32, 128, or cols
  int step = 1, zero = 0;

  constexpr int64_t row_tiles() const { return (rows + kTileRows - 1) / kTileRows; }
  constexpr int64_t blocks() const { return (cols + kTileBlockCols - 1) / kTileBlockCols; }
  /// Of 32 bits, of all codes.
  constexpr int64_t code_words() const { return row_tiles() * blocks() * tiles_per_block(bits) * kTileWords; }
  constexpr bool has_row_scales() const { return group_cols == cols; }
  /// Of a row, with those of the columns that were filled up.
  constexpr int64_t groups() const { return has_row_scales() ? 1 : blocks() * (kTileBlockCols / group_cols); }
  constexpr int64_t scale_words() const { return row_tiles() * groups() * 8; }
};

/// Why there is no packed form or no kernel for such a matrix; null if there is. group_cols may be any number here.
const char* packing_obstacle(const PackedShape& shape);
/// The shape with groups as they are packed: multiples of 128 become 128, other multiples of 32 become 32.
PackedShape packed_shape(PackedShape shape);

/// codes [rows, cols], a byte each, below 2^bits; scales [rows, cols / group_cols] with the groups before
/// packed_shape(). Fills code_words() and scale_words() of packed_shape(shape). RunError for a code or a scale that
/// does not fit.
void pack_tiles(const PackedShape& shape, const uint8_t* codes, const float* scales, uint32_t* code_words,
                uint32_t* scale_words);
/// And back, of a packed_shape(): codes [rows, cols], scales [rows, cols / group_cols, rounded up].
void unpack_tiles(const PackedShape& shape, const uint32_t* code_words, const uint32_t* scale_words, uint8_t* codes,
                  float* scales);

}  // namespace crumb::kernels
