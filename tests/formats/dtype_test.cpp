#include "core/formats/dtype.h"

#include <gmock/gmock.h>

#include "tests/formats/support.h"

namespace crumb::formats {
namespace {

using crumb::testing::call_peer;
using crumb::testing::error_of;
using crumb::testing::read_values;
using crumb::testing::TempDir;
using ::testing::HasSubstr;

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
