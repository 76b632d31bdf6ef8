#include "core/formats/dtype.h"

#include <gmock/gmock.h>

#include "tests/formats/support.h"

namespace crumb::formats {
namespace {

// Every bit pattern of a small type.
template <class T>
void expect_table(DType dtype, const std::vector<float>& expected) {
  ASSERT_EQ(expected.size(), size_t{1} << 8 * sizeof(T));
  for (size_t i = 0; i < expected.size(); ++i) {
    const auto bits = static_cast<T>(i);
    float value = 0;
    to_float(dtype, &bits, 1, &value);
    ASSERT_TRUE(std::bit_cast<uint32_t>(value) == std::bit_cast<uint32_t>(expected[i]) ||
                (std::isnan(value) && std::isnan(expected[i])))
        << dtype_name(dtype) << " pattern " << i << ": " << value << " against " << expected[i];
  }
}

TEST(Floats, EveryPatternOfTheSmallTypesEqualsTorchs) {
  CRUMB_NEED_PEERS(python);
  const TempDir dir;
  call_peer(python, "float-tables " + dir.path().string());
  expect_table<uint8_t>(DType::f8_e4m3, read_values<float>(dir / "float8_e4m3fn"));
  expect_table<uint8_t>(DType::f8_e5m2, read_values<float>(dir / "float8_e5m2"));
  expect_table<uint16_t>(DType::f16, read_values<float>(dir / "float16"));
  expect_table<uint16_t>(DType::bf16, read_values<float>(dir / "bfloat16"));
}

TEST(Floats, SixteenBitTypesSurviveARoundTripThroughFloat) {
  for (const DType dtype : {DType::f16, DType::bf16}) {
    for (uint32_t i = 0; i < 65536; ++i) {
      const auto bits = static_cast<uint16_t>(i);
      float value = 0;
      uint16_t back = 0;
      to_float(dtype, &bits, 1, &value);
      from_float(dtype, &value, 1, &back);
      if (std::isnan(value)) continue;
      ASSERT_EQ(back, bits) << dtype_name(dtype);
    }
  }
}

TEST(Floats, RoundToNearestEven) {
  EXPECT_EQ(round_to_bf16(1.0f + 0x1p-8f), 1.0f);  // tie to even
  EXPECT_EQ(round_to_bf16(1.0f + 3 * 0x1p-8f), 1.0f + 0x1p-6f);
  EXPECT_EQ(round_to_bf16(1.0f + 0x1p-8f + 0x1p-20f), 1.0f + 0x1p-7f);
  EXPECT_TRUE(std::isinf(round_to_bf16(3.4e38f)));
  EXPECT_TRUE(std::isnan(round_to_bf16(std::bit_cast<float>(0x7f800001u))));
}

// sign * 1.mantissa * 2^(exponent - 15) and mantissa * 2^-24, in doubles.
double value_of_half(uint32_t bits) {
  const int exponent = static_cast<int>(bits >> 10 & 31), mantissa = static_cast<int>(bits & 1023);
  const double magnitude =
      exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);  // 31: as if finite
  return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

struct HalfConversion {
  std::string name;
  float (*from)(uint16_t);
  uint16_t (*to)(float);
};
class Halves : public ::testing::TestWithParam<HalfConversion> {};
INSTANTIATE_TEST_SUITE_P(, Halves,
                         ::testing::Values(HalfConversion{"OfThisMachine", from_f16, to_f16},
                                           HalfConversion{"Portable", portable_from_f16, portable_to_f16}),
                         [](const auto& info) { return info.param.name; });

TEST_P(Halves, EveryPatternHasItsValue) {
  for (uint32_t i = 0; i < 65536; ++i) {
    const float value = GetParam().from(static_cast<uint16_t>(i));
    const uint32_t bits = std::bit_cast<uint32_t>(value), sign = (i & 0x8000) << 16;
    if ((i & 0x7fff) > 0x7c00) {
      ASSERT_EQ(bits, sign | 0x7fc00000 | (i & 0x3ff) << 13) << i;
    } else if ((i & 0x7fff) == 0x7c00) {
      ASSERT_EQ(bits, sign | 0x7f800000) << i;
    } else {
      ASSERT_EQ(static_cast<double>(value), value_of_half(i)) << i;
      ASSERT_EQ(std::signbit(value), sign != 0) << i;
    }
  }
}

TEST_P(Halves, FloatsBetweenTwoHalvesGoToTheNearerAndTiesToTheEvenOne) {
  for (uint32_t i = 0; i < 0x7c00; ++i) {
    for (const uint32_t sign : {0u, 0x8000u}) {
      const auto low = static_cast<uint16_t>(sign | i),
                 high = static_cast<uint16_t>(sign | (i + 1));  // may be infinity
      const auto tie = static_cast<float>((value_of_half(low) + value_of_half(high)) / 2);
      ASSERT_EQ(GetParam().to(tie), i % 2 == 0 ? low : high) << tie;
      ASSERT_EQ(GetParam().to(std::nextafter(tie, 0.0f)), low) << tie;
      ASSERT_EQ(GetParam().to(std::nextafter(tie, 2 * tie)), high) << tie;
      ASSERT_EQ(GetParam().to(static_cast<float>(value_of_half(low))), low);
    }
  }
}

TEST_P(Halves, TheEndsOfTheRange) {
  EXPECT_EQ(GetParam().to(65536.0f), 0x7c00);
  EXPECT_EQ(GetParam().to(-std::numeric_limits<float>::max()), 0xfc00);
  EXPECT_EQ(GetParam().to(std::numeric_limits<float>::infinity()), 0x7c00);
  EXPECT_EQ(GetParam().to(std::numeric_limits<float>::denorm_min()), 0);
  EXPECT_EQ(GetParam().to(-0.0f), 0x8000);
  EXPECT_EQ(GetParam().to(std::bit_cast<float>(0x7f800001u)), 0x7e00);  // a signalling NaN
  EXPECT_EQ(GetParam().to(std::bit_cast<float>(0xffabcdefu)), 0xff5e);
}

TEST(Floats, ThePortableConversionEqualsTheMachinesOnEveryThousandthFloat) {
  for (uint64_t i = 0; i <= 0xffffffff; i += 997) {
    const auto value = std::bit_cast<float>(static_cast<uint32_t>(i));
    ASSERT_EQ(portable_to_f16(value), to_f16(value)) << value;
  }
}

TEST(DTypes, NamesAndSizesAgreeWithSafetensors) {
  for (const auto& [name, bytes] : std::vector<std::pair<std::string, int64_t>>{{"BOOL", 1},
                                                                                {"U8", 1},
                                                                                {"I8", 1},
                                                                                {"F8_E5M2", 1},
                                                                                {"F8_E4M3", 1},
                                                                                {"I16", 2},
                                                                                {"U16", 2},
                                                                                {"F16", 2},
                                                                                {"BF16", 2},
                                                                                {"I32", 4},
                                                                                {"U32", 4},
                                                                                {"F32", 4},
                                                                                {"I64", 8},
                                                                                {"U64", 8},
                                                                                {"F64", 8}}) {
    const auto dtype = dtype_from_name(name);
    ASSERT_TRUE(dtype.has_value()) << name;
    EXPECT_EQ(dtype_name(*dtype), name);
    EXPECT_EQ(dtype_bytes(*dtype), bytes);
  }
  EXPECT_FALSE(dtype_from_name("F4").has_value());
}

TEST(DTypes, IntegersAreNotReadAsFloats) {
  int32_t one = 1;
  float value = 0;
  EXPECT_THAT(error_of([&] { to_float(DType::i32, &one, 1, &value); }), HasSubstr("I32"));
  EXPECT_THAT(error_of([&] { from_float(DType::u8, &value, 1, &one); }), HasSubstr("U8"));
}

}  // namespace
}  // namespace crumb::formats
