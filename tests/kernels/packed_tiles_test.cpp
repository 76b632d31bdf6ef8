#include "kernels/packed_tiles.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <set>
#include <tuple>
#include <vector>

#include "core/common/error.h"
#include "core/common/rng.h"

namespace crumb::kernels {
namespace {

constexpr bool maps_agree(int bits) {
  for (int row = 0; row < kTileRows; ++row)
    for (int col = 0; col < kTileBlockCols; ++col) {
      const TilePlace at = tile_place(bits, row, col);
      const TileCell cell = tile_cell(bits, at.lane, at.word, at.bit);
      if (cell.row != row || at.tile * tile_cols(bits) + cell.col != col) return false;
      if (at.tile < 0 || at.tile >= tiles_per_block(bits) || at.lane < 0 || at.lane >= 32) return false;
      if (at.word < 0 || at.word >= 4 || at.bit < 0 || at.bit > 32 - bits || at.bit % bits != 0) return false;
    }
  return true;
}
static_assert(maps_agree(2) && maps_agree(4) && maps_agree(8));

constexpr bool int8_order_has_a_way_back() {
  for (int col = 0; col < 256; ++col)
    if (int8_column(int8_position(col)) != col || int8_position(col) / 8 != col / 8) return false;
  return true;
}
static_assert(int8_order_has_a_way_back());

TEST(PackedTiles, EveryCodeHasAPlaceOfItsOwn) {
  for (const int bits : {2, 4, 8}) {
    std::set<std::tuple<int, int, int, int>> places;
    for (int row = 0; row < kTileRows; ++row)
      for (int col = 0; col < kTileBlockCols; ++col) {
        const TilePlace at = tile_place(bits, row, col);
        places.emplace(at.tile, at.lane, at.word, at.bit);
      }
    EXPECT_EQ(static_cast<int>(places.size()), kTileRows * kTileBlockCols) << bits;
  }
}

// What the kernels rely on, from the definitions of mma.m16n8k16 and m16n8k32.
TEST(PackedTiles, WordsAreTheRegistersOfTheFirstOperand) {
  for (const int bits : {2, 4, 8})
    for (int slice = 0; slice < tile_slices(bits); ++slice)
      for (int lane = 0; lane < 32; ++lane)
        for (int word = 0; word < 4; ++word) {
          const int g = lane / 4, t = lane % 4;
          std::vector<int> columns;  // of bytes 0..3
          for (int byte = 0; byte < 4; ++byte) {
            const TileCell cell = tile_cell(bits, lane, word, 8 * byte + bits * slice);
            EXPECT_EQ(cell.row, g + 8 * (word % 2));
            columns.push_back(cell.col);
          }
          // Bytes: register word / 2 of the second operand, of the tokens' bytes in the order of int8_position().
          const int first = 32 * slice + 8 * t;
          for (int byte = 0; byte < 4; ++byte)
            EXPECT_EQ(int8_position(columns[static_cast<size_t>(byte)]), first + 4 * (word / 2) + byte);
          // Halves: of each of two products, columns 2 (word / 2) and the next of four neighbours.
          for (int e = 0; e < 2; ++e)
            for (int half = 0; half < 2; ++half)
              EXPECT_EQ(columns[static_cast<size_t>(2 * half + e)], first + 4 * e + 2 * (word / 2) + half);
        }
}

PackedShape shape_of(int bits, int64_t rows, int64_t cols, int64_t group_cols) {
  return {.bits = bits,
          .rows = rows,
          .cols = cols,
          .group_cols = group_cols,
          .step = bits == 2 ? 2 : 1,
          .zero = bits == 2 ? 3 : 1 << (bits - 1)};
}

TEST(PackedTiles, ComeBackFromPacking) {
  const Rng rng(3, 1);
  for (const int bits : {2, 4, 8})
    for (const auto& [rows, cols, group] : {std::tuple<int64_t, int64_t, int64_t>{16, 128, 128},
                                            {1, 1, 1},
                                            {40, 576, 576},
                                            {7, 172, 172},
                                            {33, 384, 128},
                                            {17, 256, 128},
                                            {20, 96, 32},
                                            {5, 192, 64}}) {
      const PackedShape shape = shape_of(bits, rows, cols, group);
      if (packing_obstacle(shape) != nullptr) continue;
      const PackedShape packed = packed_shape(shape);
      std::vector<uint8_t> codes(static_cast<size_t>(rows * cols)), back(codes.size());
      for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(rng.bits(i) & ((1u << bits) - 1));
      std::vector<float> scales(static_cast<size_t>(rows * (cols / group)));
      for (size_t i = 0; i < scales.size(); ++i) scales[i] = static_cast<float>(i % 200 + 1) * 0x1p-9f;
      std::vector<uint32_t> words(static_cast<size_t>(packed.code_words()), 7),
          pairs(static_cast<size_t>(packed.scale_words()), 7);
      pack_tiles(shape, codes.data(), scales.data(), words.data(), pairs.data());
      const int64_t groups = (cols + packed.group_cols - 1) / packed.group_cols;
      std::vector<float> found(static_cast<size_t>(rows * groups));
      unpack_tiles(packed, words.data(), pairs.data(), back.data(), found.data());
      EXPECT_EQ(back, codes) << bits << " bits " << rows << " x " << cols;
      for (int64_t row = 0; row < rows; ++row)
        for (int64_t g = 0; g < groups; ++g)
          EXPECT_EQ(found[static_cast<size_t>(row * groups + g)],
                    scales[static_cast<size_t>(row * (cols / group) + g * packed.group_cols / group)]);
      // What was filled up is 0.
      int64_t set = 0, expected = 0;
      for (const uint32_t word : words) set += std::popcount(word);
      for (const uint8_t code : codes) expected += std::popcount(code);
      EXPECT_EQ(set, expected);
    }
}

TEST(PackedTiles, RefuseWhatDoesNotFit) {
  const PackedShape shape = shape_of(2, 2, 128, 128);
  std::vector<uint8_t> codes(256, 3);
  std::vector<float> scales{1.0f, 0.5f};
  std::vector<uint32_t> words(static_cast<size_t>(shape.code_words())), pairs(static_cast<size_t>(shape.scale_words()));
  const auto pack = [&] { pack_tiles(shape, codes.data(), scales.data(), words.data(), pairs.data()); };
  EXPECT_NO_THROW(pack());
  codes[200] = 4;
  EXPECT_THROW(pack(), RunError);
  codes[200] = 0;
  scales[1] = 0.1f;
  EXPECT_THROW(pack(), RunError);
  for (const auto& bad :
       {shape_of(3, 2, 128, 128), shape_of(2, 0, 128, 128), shape_of(2, 2, 128, 32), shape_of(2, 2, 128, 0),
        shape_of(4, 2, 128, 48), shape_of(4, 2, 100, 32), shape_of(8, 2, 256, 128), shape_of(4, 2, 65537, 65537)})
    EXPECT_NE(packing_obstacle(bad), nullptr) << bad.bits << " bits, " << bad.cols << " by " << bad.group_cols;
  PackedShape odd = shape_of(8, 2, 128, 128);
  odd.zero = 100;
  EXPECT_NE(packing_obstacle(odd), nullptr);
  odd = shape_of(4, 2, 128, 128);
  odd.step = 2;
  EXPECT_NE(packing_obstacle(odd), nullptr);
}

}  // namespace
}  // namespace crumb::kernels
