// Codes and scales written without rounding: SEQ (level = (code - 1.5) * scale) and symmetric integers.
#include <gmock/gmock.h>

#include <algorithm>
#include <numeric>

#include "core/formats/blocks.h"
#include "core/formats/codec.h"
#include "core/formats/dtype.h"
#include "core/formats/row_codes.h"
#include "tests/formats/support.h"

namespace crumb::formats {
namespace {

std::vector<uint8_t> random_codes(size_t count, int levels, uint32_t seed) {
  std::mt19937 rng(seed);
  std::vector<uint8_t> codes(count);
  for (auto& c : codes) c = static_cast<uint8_t>(rng() % static_cast<uint32_t>(levels));
  return codes;
}

// Every scale with 6 significant bits from 2^-17 to 2^14: 32 mantissas in each octave.
std::vector<float> all_scales() {
  std::vector<float> scales;
  for (int exponent = -17; exponent < 14; ++exponent) {
    for (int mantissa = 32; mantissa < 64; ++mantissa)
      scales.push_back(std::ldexp(static_cast<float>(mantissa), exponent - 5));
  }
  scales.push_back(16384.0f);
  return scales;
}

// Codes against what the row decodes to, in double precision.
void expect_levels(TensorType type, const std::vector<uint8_t>& row, const std::vector<uint8_t>& codes,
                   const std::vector<float>& scales, double zero) {
  std::vector<float> out(codes.size());
  decode_row(type, row.data(), static_cast<int64_t>(out.size()), out.data());
  const size_t group = codes.size() / scales.size();
  for (size_t i = 0; i < out.size(); ++i) {
    ASSERT_EQ(static_cast<double>(out[i]), (codes[i] - zero) * static_cast<double>(scales[i / group]))
        << type_name(type) << " weight " << i << " code " << int{codes[i]} << " scale " << scales[i / group];
  }
}

const std::vector<float> kSeqLevels = {-1.5f, -0.5f, 0.5f, 1.5f};

std::vector<float> int_levels(int bits) {
  std::vector<float> levels;
  for (int code = 0; code < 1 << bits; ++code) levels.push_back(static_cast<float>(code - (1 << (bits - 1))));
  return levels;
}

std::vector<uint8_t> seq_row(TensorType type, const std::vector<uint8_t>& codes, const std::vector<float>& scales) {
  const auto cols = static_cast<int64_t>(codes.size());
  std::vector<uint8_t> row(static_cast<size_t>(row_bytes(type, cols)));
  encode_codes_row(type, codes.data(), kSeqLevels, scales.data(), cols, cols / static_cast<int64_t>(scales.size()),
                   row.data());
  return row;
}

std::vector<uint8_t> int_row(TensorType type, const std::vector<uint8_t>& codes, const std::vector<float>& scales,
                             int bits) {
  const auto cols = static_cast<int64_t>(codes.size());
  std::vector<uint8_t> row(static_cast<size_t>(row_bytes(type, cols)));
  encode_codes_row(type, codes.data(), int_levels(bits), scales.data(), cols,
                   cols / static_cast<int64_t>(scales.size()), row.data());
  return row;
}

class SeqTest : public ::testing::TestWithParam<TensorType> {};
class GroupedSeqTest : public SeqTest {};

TEST_P(SeqTest, EveryScaleAndCodeDecodesExactly) {
  const auto scales = all_scales();
  for (size_t i = 0; i < scales.size(); ++i) {
    const auto codes = random_codes(1024, 4, static_cast<uint32_t>(i));
    expect_levels(GetParam(), seq_row(GetParam(), codes, {scales[i]}), codes, {scales[i]}, 1.5);
  }
}

TEST_P(GroupedSeqTest, GroupsHaveScalesOfTheirOwn) {
  const TensorType type = GetParam();
  const size_t group = type == TensorType::q2_k ? 256 : block_size(type) == 32 ? 32 : 8;
  const auto all = all_scales();
  const std::vector<float> scales(all.begin() + 300, all.begin() + 316);
  for (const size_t size : {group, 2 * group}) {
    const auto codes = random_codes(size * scales.size(), 4, 5);
    expect_levels(type, seq_row(type, codes, scales), codes, scales, 1.5);
  }
}

TEST_P(SeqTest, AScaleItCannotHoldIsRefused) {
  const auto codes = random_codes(512, 4, 6);
  const bool is_f32 = GetParam() == TensorType::f32;
  const float scale = is_f32 ? 1.0f + 0x1p-23f : 1.0f + 0x1p-11f;  // 24 and 12 significant bits
  EXPECT_THAT(error_of([&] { seq_row(GetParam(), codes, {scale}); }), HasSubstr("exactly"));
  EXPECT_THAT(error_of([&] { seq_row(GetParam(), codes, {NAN}); }), HasSubstr("exactly"));
}

std::string test_name(const ::testing::TestParamInfo<TensorType>& info) { return std::string(type_name(info.param)); }
INSTANTIATE_TEST_SUITE_P(Types, SeqTest,
                         ::testing::Values(TensorType::q2_0c, TensorType::q2_k, TensorType::q4_0, TensorType::q8_0,
                                           TensorType::bf16, TensorType::f16, TensorType::f32),
                         test_name);

INSTANTIATE_TEST_SUITE_P(Types, GroupedSeqTest,  // Q2_0C holds one scale a row
                         ::testing::Values(TensorType::q2_k, TensorType::q4_0, TensorType::q8_0, TensorType::bf16,
                                           TensorType::f16, TensorType::f32),
                         test_name);

TEST(SeqPacking, Q2KHoldsTheScaleAndItsHalf) {
  const auto row = seq_row(TensorType::q2_k, random_codes(512, 4, 1), {0.75f});
  for (size_t b = 0; b < 2; ++b) {
    BlockQ2_K block;
    std::memcpy(&block, row.data() + b * sizeof block, sizeof block);
    EXPECT_THAT(block.scales, ::testing::Each(0x31));
    EXPECT_EQ(from_f16(block.d), 0.75f);
    EXPECT_EQ(from_f16(block.dmin), 0.375f);
  }
}

TEST(SeqPacking, Q2_0CRepeatsHalfTheScaleInEveryBlockAndPacksCodesInOrder) {
  std::vector<uint8_t> codes(1024, 0);
  codes[0] = 1, codes[1] = 2, codes[2] = 3, codes[517] = 2;
  const auto row = seq_row(TensorType::q2_0c, codes, {0.75f});
  ASSERT_EQ(row.size(), 260u);
  EXPECT_EQ(row[2], 1 | 2 << 2 | 3 << 4);
  EXPECT_EQ(row[130 + 2 + 1], 2 << 2);
  for (const size_t at : {0u, 130u}) EXPECT_EQ(from_f16(static_cast<uint16_t>(row[at] | row[at + 1] << 8)), 0.375f);
}

TEST(SeqPacking, GroupsThatDoNotFitTheBlocksAreRefused) {
  const auto codes = random_codes(1024, 4, 2);
  const auto error = [&](TensorType type, size_t groups) {
    return error_of([&] { seq_row(type, codes, std::vector<float>(groups, 1.0f)); });
  };
  EXPECT_THAT(error(TensorType::q2_0c, 2), HasSubstr("group size 512"));
  EXPECT_THAT(error(TensorType::q2_k, 8), HasSubstr("group size 128"));
  EXPECT_THAT(error(TensorType::q4_0, 64), HasSubstr("group size 16"));
  EXPECT_THAT(error(TensorType::q6_k, 1), HasSubstr("q6_k"));
  EXPECT_EQ(error(TensorType::q2_k, 4), "");
  EXPECT_THAT(error_of([&] { seq_row(TensorType::q2_0c, random_codes(768, 4, 3), {1.0f}); }), HasSubstr("768"));
}

TEST(IntegerPacking, FourBitsInQ4_0AreExactForEveryScale) {
  const auto scales = all_scales();
  for (size_t i = 0; i < scales.size(); ++i) {
    const auto codes = random_codes(64, 16, static_cast<uint32_t>(i));
    expect_levels(TensorType::q4_0, int_row(TensorType::q4_0, codes, {scales[i]}, 4), codes, {scales[i]}, 8);
  }
}

TEST(IntegerPacking, EveryWidthUpToEightBitsInQ8_0IsExact) {
  for (int bits = 2; bits <= 8; ++bits) {
    std::vector<uint8_t> codes(256);
    for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(i % (size_t{1} << bits));
    for (const float scale : all_scales()) {
      expect_levels(TensorType::q8_0, int_row(TensorType::q8_0, codes, {scale}, bits), codes, {scale}, 1 << (bits - 1));
    }
  }
}

TEST(IntegerPacking, FloatTypesHoldIntegersOnlyWhenExact) {
  const auto codes = random_codes(64, 16, 4);
  expect_levels(TensorType::bf16, int_row(TensorType::bf16, codes, {0.5f, 3.0f}, 4), codes, {0.5f, 3.0f}, 8);
  expect_levels(TensorType::f32, int_row(TensorType::f32, codes, {63.0f, 0x1.f8p-17f}, 4), codes, {63.0f, 0x1.f8p-17f},
                8);
  EXPECT_THAT(error_of([&] { int_row(TensorType::bf16, codes, {63.0f}, 4); }),
              HasSubstr("bf16"));  // 7 x 63 = 441 has 9 bits
}

TEST(IntegerPacking, WidthsThatDoNotFitAreRefused) {
  const auto codes = random_codes(512, 16, 4);
  EXPECT_THAT(error_of([&] { int_row(TensorType::q4_0, codes, {1.0f}, 5); }),
              HasSubstr("q4_0 cannot hold 32 levels from -16 to 15"));
  EXPECT_THAT(error_of([&] { int_row(TensorType::q2_k, codes, {1.0f}, 4); }),
              HasSubstr("q2_k cannot hold 16 levels from -8 to 7"));
  EXPECT_THAT(error_of([&] { int_row(TensorType::q8_0, codes, std::vector<float>(32, 1.0f), 8); }),
              HasSubstr("group size 16"));
}

TEST(RowCodes, AreThoseTheRowWasWrittenFrom) {
  for (const auto type : {TensorType::q2_0c, TensorType::q2_k, TensorType::q4_0, TensorType::q8_0}) {
    const std::vector<float> scales(type == TensorType::q2_0c ? 1 : 4, 0.75f);
    const auto codes = random_codes(1024, 4, 9), row = seq_row(type, codes, scales);
    std::vector<uint8_t> back(codes.size());
    std::vector<float> of_blocks(codes.size() / static_cast<size_t>(block_size(type)));
    EXPECT_TRUE(RowCodes(type, kSeqLevels).decode(row.data(), 1024, back.data(), of_blocks.data()));
    EXPECT_EQ(back, codes) << type_name(type);
    EXPECT_THAT(of_blocks, ::testing::Each(0.75f));
  }
  const auto codes = random_codes(64, 16, 10), row = int_row(TensorType::q4_0, codes, {3.0f, 0.5f}, 4);
  std::vector<uint8_t> back(64);
  std::vector<float> of_blocks(2);
  EXPECT_TRUE(RowCodes(TensorType::q4_0, int_levels(4)).decode(row.data(), 64, back.data(), of_blocks.data()));
  EXPECT_EQ(back, codes);
  EXPECT_THAT(of_blocks, ::testing::ElementsAre(3.0f, 0.5f));
  EXPECT_FALSE(RowCodes(TensorType::q4_0, kSeqLevels).decode(row.data(), 64, back.data(), of_blocks.data()));
}

TEST(RowCodes, OfAllBytesAreThoseTheRowWasWrittenFrom) {
  std::vector<uint8_t> codes(256);
  std::iota(codes.begin(), codes.end(), uint8_t{0});
  const auto row = int_row(TensorType::q8_0, codes, std::vector<float>(8, 0.75f), 8);
  std::vector<uint8_t> back(256);
  std::vector<float> of_blocks(8);
  const RowCodes bytes(TensorType::q8_0, int_levels(8));
  EXPECT_TRUE(bytes.decode(row.data(), 256, back.data(), of_blocks.data()));
  EXPECT_EQ(back, codes);
  std::ranges::fill(of_blocks, 0.0f);
  EXPECT_TRUE(bytes.decode(row.data(), 256, nullptr, of_blocks.data()));
  EXPECT_THAT(of_blocks, ::testing::Each(0.75f));
}

TEST(RowCodes, WithoutWantingThemAreCheckedAllTheSame) {
  const auto row = int_row(TensorType::q4_0, random_codes(64, 16, 10), {3.0f, 0.5f}, 4);
  std::vector<float> of_blocks(2);
  EXPECT_TRUE(RowCodes(TensorType::q4_0, int_levels(4)).decode(row.data(), 64, nullptr, of_blocks.data()));
  EXPECT_FALSE(RowCodes(TensorType::q4_0, int_levels(3)).decode(row.data(), 64, nullptr, of_blocks.data()));
}

// Minima of their own, and those that stand for the first level of other grids.
TEST(IntegerPacking, FourBitsWithMinimaInQ4_1AreExact) {
  const auto codes = random_codes(128, 16, 21);
  std::vector<float> levels;
  for (int level = 0; level < 16; ++level) levels.push_back(static_cast<float>(level));
  const std::vector<float> scales = {0.28125f, 0x1.f8p-17f}, minima = {-3.1875f, 0x1.ffcp3f};
  std::vector<uint8_t> row(static_cast<size_t>(row_bytes(TensorType::q4_1, 128)));
  encode_codes_row(TensorType::q4_1, codes.data(), levels, scales.data(), 128, 64, row.data(), minima.data());
  std::vector<float> values(128);
  decode_row(TensorType::q4_1, row.data(), 128, values.data());
  for (size_t i = 0; i < values.size(); ++i)
    EXPECT_EQ(values[i], static_cast<float>(codes[i]) * scales[i / 64] + minima[i / 64]) << i;

  std::vector<uint8_t> back(128);
  std::vector<float> found(4), found_minima(4);
  EXPECT_TRUE(
      RowCodes(TensorType::q4_1, levels).decode(row.data(), 128, back.data(), found.data(), found_minima.data()));
  EXPECT_EQ(back, codes);
  EXPECT_THAT(found, ::testing::ElementsAre(scales[0], scales[0], scales[1], scales[1]));
  EXPECT_THAT(found_minima, ::testing::ElementsAre(minima[0], minima[0], minima[1], minima[1]));
  EXPECT_FALSE(RowCodes(TensorType::q4_1, levels).decode(row.data(), 128, back.data(), found.data()));
  const std::vector<float> rough = {1.0f / 3, 0};
  EXPECT_THAT(error_of([&] {
                encode_codes_row(TensorType::q4_1, codes.data(), levels, scales.data(), 128, 64, row.data(),
                                 rough.data());
              }),
              HasSubstr("q4_1 cannot hold the minimum 0.33333334 exactly"));
}

TEST(IntegerPacking, OtherGridsLieInQ4_1WithTheirFirstLevelAsTheMinimum) {
  for (const std::vector<float>& levels : {int_levels(4), int_levels(3), kSeqLevels, std::vector<float>{-1, 0, 1}}) {
    const auto codes = random_codes(64, static_cast<int>(levels.size()), 22);
    const std::vector<float> scales = {0.40625f, 3.0f};
    std::vector<uint8_t> row(static_cast<size_t>(row_bytes(TensorType::q4_1, 64))), back(64);
    encode_codes_row(TensorType::q4_1, codes.data(), levels, scales.data(), 64, 32, row.data());
    std::vector<float> values(64), found(2);
    decode_row(TensorType::q4_1, row.data(), 64, values.data());
    for (size_t i = 0; i < values.size(); ++i) EXPECT_EQ(values[i], levels[codes[i]] * scales[i / 32]) << i;
    EXPECT_TRUE(RowCodes(TensorType::q4_1, levels).decode(row.data(), 64, back.data(), found.data()));
    EXPECT_EQ(back, codes);
    EXPECT_EQ(found, scales);
  }
}

TEST(LevelFactor, IsTheLeastThatMakesIntegersTheTypeHas) {
  const std::vector<float> ternary = {-1, 0, 1}, eighths = {-0.125f, 0, 0.125f};
  EXPECT_EQ(level_factor(TensorType::q4_0, ternary), 1);
  EXPECT_EQ(level_factor(TensorType::q8_0, ternary), 1);
  EXPECT_EQ(level_factor(TensorType::q2_k, ternary), std::nullopt);
  EXPECT_EQ(level_factor(TensorType::q8_0, eighths), std::nullopt);
  for (const auto type : {TensorType::q2_0c, TensorType::q2_k, TensorType::q4_0, TensorType::q8_0})
    EXPECT_EQ(level_factor(type, kSeqLevels), 2);
  EXPECT_EQ(level_factor(TensorType::q4_0, int_levels(4)), 1);
  EXPECT_EQ(level_factor(TensorType::q4_0, int_levels(5)), std::nullopt);
  EXPECT_EQ(level_factor(TensorType::q4_1, int_levels(4)), 1);
  EXPECT_EQ(level_factor(TensorType::q4_1, int_levels(5)), std::nullopt);
  EXPECT_EQ(level_factor(TensorType::q4_1, kSeqLevels), 1);
  EXPECT_EQ(level_factor(TensorType::q8_0, int_levels(8)), 1);
  EXPECT_EQ(level_factor(TensorType::q6_k, kSeqLevels), std::nullopt);
}

TEST(LevelFactor, RowsOfAnyLevelsDecodeExactly) {
  const std::vector<float> ternary = {-1, 0, 1};
  const auto codes = random_codes(64, 3, 8);
  for (const auto type : {TensorType::q4_0, TensorType::q8_0, TensorType::bf16}) {
    std::vector<uint8_t> row(static_cast<size_t>(row_bytes(type, 64)));
    const std::vector<float> scales = {0.75f, 63.0f};
    encode_codes_row(type, codes.data(), ternary, scales.data(), 64, 32, row.data());
    expect_levels(type, row, codes, scales, 1);
  }
}

}  // namespace
}  // namespace crumb::formats
