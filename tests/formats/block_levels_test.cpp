#include "core/formats/block_levels.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <set>

#include "core/formats/row_codes.h"
#include "tests/formats/support.h"

namespace crumb::formats {
namespace {

std::vector<TensorType> block_types() {
  std::vector<TensorType> types;
  for (int i = 0; i <= static_cast<int>(TensorType::nvfp4); ++i) {
    if (block_size(static_cast<TensorType>(i)) > 1) types.push_back(static_cast<TensorType>(i));
  }
  return types;
}

class BlockLevels : public ::testing::TestWithParam<TensorType> {
 protected:
  TensorType type_ = GetParam();
  const BlockForm& form_ = *block_form(type_);

  struct Row {
    std::vector<int8_t> levels;
    std::vector<LevelGroup> groups;
    std::vector<float> values;
  };
  Row read(const std::vector<uint8_t>& bytes) const {
    const int64_t cols = static_cast<int64_t>(bytes.size()) / block_bytes(type_) * block_size(type_);
    const auto size = static_cast<size_t>(cols);
    Row row{std::vector<int8_t>(size), std::vector<LevelGroup>(static_cast<size_t>(cols / form_.group_cols)),
            std::vector<float>(size)};
    decode_levels(type_, bytes.data(), cols, row.levels.data(), row.groups.data());
    decode_row(type_, bytes.data(), cols, row.values.data());
    return row;
  }
  /// A fused multiply-add of every weight has the bits of the decoded one.
  void expect_fused(const Row& row) const {
    for (size_t i = 0; i < row.values.size(); ++i) {
      const auto& [scale, minimum] = row.groups[i / static_cast<size_t>(form_.group_cols)];
      const float fused = std::fma(static_cast<float>(row.levels[i]), scale, minimum), value = row.values[i];
      ASSERT_TRUE(std::bit_cast<uint32_t>(fused) == std::bit_cast<uint32_t>(value) ||
                  (std::isnan(fused) && std::isnan(value)))
          << "weight " << i << ": " << static_cast<int>(row.levels[i]) << " * " << scale << " + " << minimum << " = "
          << fused << " against " << value;
    }
  }
};
INSTANTIATE_TEST_SUITE_P(Types, BlockLevels, ::testing::ValuesIn(block_types()),
                         [](const auto& info) { return std::string(type_name(info.param)); });

TEST_P(BlockLevels, ByOneFusedMultiplyAddAreTheDecodedWeights) {
  expect_fused(read(random_bytes(static_cast<size_t>(block_bytes(type_)) * 2048, 31)));
}

TEST_P(BlockLevels, AreExactAtScalesThatAreZeroSubnormalTheLargestAndNotFinite) {
  for (const uint16_t half : {0x0000, 0x8000, 0x0001, 0x8001, 0x03ff, 0x0400, 0x7bff, 0xfbff, 0x7c00, 0x7e00}) {
    auto bytes = random_bytes(static_cast<size_t>(block_bytes(type_)) * 64, 32);
    for (size_t block = 0; block < 64; ++block) {  // scales stand first or last, at most eight bytes of them
      const auto size = static_cast<size_t>(block_bytes(type_));
      for (const size_t at : {size_t{0}, size_t{2}, size - 4, size - 2}) {
        if (block % 2 == 0 || at == 0 || at == size - 2)
          std::memcpy(bytes.data() + block * size + at, &half, sizeof half);
      }
    }
    expect_fused(read(bytes));
  }
}

TEST_P(BlockLevels, AreThoseOfTheFormAndEachOfThemOccurs) {
  const Row row = read(random_bytes(static_cast<size_t>(block_bytes(type_)) * 2048, 33));
  const std::set<int8_t> found(row.levels.begin(), row.levels.end());
  EXPECT_TRUE(std::ranges::equal(found, form_.levels)) << found.size() << " levels of " << form_.levels.size();
  const auto has_minimum = [](const LevelGroup& group) {
    return std::bit_cast<uint32_t>(group.minimum) != 0x80000000u;
  };
  EXPECT_EQ(std::ranges::any_of(row.groups, has_minimum), form_.has_minima);
}

TEST_P(BlockLevels, ComeInGroupsThatDivideTheBlocks) {
  EXPECT_EQ(form_.group_cols % 16, 0);
  EXPECT_EQ(block_size(type_) % form_.group_cols, 0);
}

TEST(BlockForms, PlainNumbersHaveNone) {
  for (const TensorType type : {TensorType::f32, TensorType::f16, TensorType::bf16})
    EXPECT_EQ(block_form(type), nullptr);
}

TEST(RowCodes, OfQ2KAreSeqOnlyIfEverySubBlockHasOneScaleAndItsMinimum) {
  const std::vector<float> levels = {-1.5f, -0.5f, 0.5f, 1.5f}, scales = {2.0f};
  std::vector<uint8_t> codes(256), row(84), back(256);
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(i * 7 % 4);
  std::vector<float> found(1);
  const auto are_codes = [&] {
    return RowCodes(TensorType::q2_k, levels).decode(row.data(), 256, back.data(), found.data());
  };
  encode_codes_row(TensorType::q2_k, codes.data(), levels, scales.data(), 256, 256, row.data());
  ASSERT_TRUE(are_codes());
  EXPECT_EQ(back, codes);
  EXPECT_EQ(found, scales);
  for (const uint8_t other : {0x32, 0x21, 0x30}) {  // twice the scale, another minimum, no scale
    row[9] = other;
    EXPECT_FALSE(are_codes()) << static_cast<int>(other);
  }
}

}  // namespace
}  // namespace crumb::formats
