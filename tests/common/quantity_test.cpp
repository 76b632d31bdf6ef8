#include "core/common/quantity.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "core/common/rng.h"

namespace crumb {
namespace {

TEST(ParseCount, UnderstandsBinaryUnitsAndExponents) {
  EXPECT_EQ(parse_count("0"), 0);
  EXPECT_EQ(parse_count("12"), 12);
  EXPECT_EQ(parse_count("-3"), -3);
  EXPECT_EQ(parse_count("16k"), 16384);
  EXPECT_EQ(parse_count("16K"), 16384);
  EXPECT_EQ(parse_count("1.5k"), 1536);
  EXPECT_EQ(parse_count("10M"), 10485760);
  EXPECT_EQ(parse_count("2G"), int64_t{1} << 31);
  EXPECT_EQ(parse_count("1e6"), 1000000);
  EXPECT_EQ(parse_count("9000000000000001"), std::nullopt) << "beyond 9e15 a double is no longer exact";
}

TEST(ParseCount, RefusesWhatIsNotAWholeNumber) {
  for (const char* text :
       {"", "k", "1.5", "1.3k", "10%", "12 ", " 12", "0x10", "1e400", "ten", "1kk", "1MB", "nan", "inf", "--1"}) {
    EXPECT_EQ(parse_count(text), std::nullopt) << text;
  }
}

TEST(ParseBytes, UnderstandsTheUnitsOfFilesAndNoOthers) {
  EXPECT_EQ(parse_bytes("900MB"), 900000000);
  EXPECT_EQ(parse_bytes("1.5 GB"), 1500000000);
  EXPECT_EQ(parse_bytes("64kB"), 64000);
  EXPECT_EQ(parse_bytes("512MiB"), int64_t{1} << 29);
  EXPECT_EQ(parse_bytes("1000"), 1000);
  EXPECT_EQ(parse_bytes("1000B"), 1000);
  for (const char* text : {"", "MB", "-1MB", "900M", "1.5", "0.1kBB", "1e30GB", "nan", "900mb", " 1MB"})
    EXPECT_EQ(parse_bytes(text), std::nullopt) << text;
}

TEST(ParseNumber, UnderstandsPercentAndExponents) {
  EXPECT_EQ(parse_number("0.5"), 0.5);
  EXPECT_EQ(parse_number("2e-5"), 2e-5);
  EXPECT_EQ(parse_number("3%"), 0.03);
  EXPECT_EQ(parse_number("-2.5%"), -0.025);
  EXPECT_EQ(parse_number("7"), 7.0);
  for (const char* text : {"", "%", "1e999", "nan", "inf", "1,5", "5 %", "1%%", "0x1p3"})
    EXPECT_EQ(parse_number(text), std::nullopt) << text;
}

TEST(FormatNumber, ReadsBackAsTheSameDouble) {
  const Rng rng(1);
  for (uint64_t i = 0; i < 10000; ++i) {
    double value = 0;
    const uint64_t bits = rng.bits(i);
    static_assert(sizeof value == sizeof bits);
    std::memcpy(&value, &bits, sizeof value);
    if (!std::isfinite(value)) continue;
    EXPECT_EQ(parse_number(format_number(value)), value);
  }
  EXPECT_EQ(format_number(0.1), "0.1");
  EXPECT_EQ(format_number(2e-5), "2e-05");
}

TEST(FormatCount, SeparatesThousands) {
  EXPECT_EQ(format_count(0), "0");
  EXPECT_EQ(format_count(999), "999");
  EXPECT_EQ(format_count(1000), "1,000");
  EXPECT_EQ(format_count(1234567), "1,234,567");
  EXPECT_EQ(format_count(-1234), "-1,234");
  EXPECT_EQ(format_count(-123), "-123");
  EXPECT_EQ(format_count(std::numeric_limits<int64_t>::min()), "-9,223,372,036,854,775,808");
}

TEST(FormatBytes, UsesDecimalUnits) {
  EXPECT_EQ(format_bytes(999), "999 B");
  EXPECT_EQ(format_bytes(1234), "1.2 kB");
  EXPECT_EQ(format_bytes(1234567), "1.23 MB");
  EXPECT_EQ(format_bytes(600534880), "600.53 MB");
  EXPECT_EQ(format_bytes(4900000000), "4.90 GB");
}

}  // namespace
}  // namespace crumb
