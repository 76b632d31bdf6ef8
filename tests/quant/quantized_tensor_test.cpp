#include "quant/quantized_tensor.h"

#include <gmock/gmock.h>

#include "core/common/rng.h"
#include "tests/testing/testing.h"

namespace crumb::quant {
namespace {

using ::testing::ElementsAre;

TEST(PackRow, PutsTheFirstCodeIntoTheLowestBits) {
  const uint8_t codes[] = {1, 2, 3, 0, 3};
  uint8_t packed[2];
  pack_row(codes, 5, 2, packed);
  EXPECT_THAT(packed, ElementsAre(0b00111001, 0b00000011));
}

TEST(PackRow, LetsCodesSpanBytes) {
  const uint8_t codes[] = {5, 2, 6, 1};  // bits, low first: 101 010 011 100
  uint8_t packed[2];
  pack_row(codes, 4, 3, packed);
  EXPECT_THAT(packed, ElementsAre(0b10010101, 0b00000011));
}

TEST(PackRow, IsUndoneByUnpackRowForEveryWidthAndLength) {
  for (int bits = 1; bits <= 8; ++bits) {
    for (const int64_t cols : {1, 3, 7, 8, 33, 512}) {
      std::vector<uint8_t> codes, back(static_cast<size_t>(cols), 0xff);
      const Rng rng(5, static_cast<uint64_t>(bits));
      for (int64_t i = 0; i < cols; ++i)
        codes.push_back(static_cast<uint8_t>(rng.below(static_cast<uint64_t>(i), 1u << bits)));
      std::vector<uint8_t> packed(static_cast<size_t>(packed_row_bytes(cols, bits)) + 1, 0xaa);
      pack_row(codes.data(), cols, bits, packed.data());
      EXPECT_EQ(packed.back(), 0xaa) << "wrote beyond the row";
      unpack_row(packed.data(), cols, bits, back.data());
      EXPECT_EQ(back, codes) << bits << " bits, " << cols << " columns";
    }
  }
}

TEST(Dequantize, SeqLevelsLieAtHalvesOfTheScale) {
  const QuantizedTensor tensor{{Grid::seq, 2, true, 2}, 1, 4, {0, 3, 1, 2}, {2.0f, 0.5f}, {}};
  float values[4];
  tensor.dequantize(values);
  EXPECT_THAT(values, ElementsAre(-3.0f, 3.0f, -0.25f, 0.25f));
}

TEST(Dequantize, SymmetricIntegersAreCentredOnHalfTheRange) {
  const QuantizedTensor tensor{{Grid::intn, 4, true, 0}, 2, 2, {0, 15, 8, 9}, {0.5f, 2.0f}, {}};
  float values[4];
  tensor.dequantize(values);
  EXPECT_THAT(values, ElementsAre(-4.0f, 3.5f, 0.0f, 2.0f));
}

TEST(Dequantize, AsymmetricIntegersHaveAZeroPointPerGroup) {
  const QuantizedTensor tensor{{Grid::intn, 8, false, 1}, 1, 2, {255, 0}, {0.5f, 1.0f}, {250, 3}};
  float values[2];
  tensor.dequantize(values);
  EXPECT_THAT(values, ElementsAre(2.5f, -3.0f));
}

}  // namespace
}  // namespace crumb::quant
