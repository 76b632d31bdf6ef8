#include "core/common/rng.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <vector>

namespace crumb {
namespace {

using Words = std::array<uint32_t, 4>;

// Known answers of Random123's file kat_vectors, philox4x32 with 10 rounds.
TEST(Philox, GivesRandom123sKnownAnswers) {
  EXPECT_EQ(philox(0, 0, 0), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox(~uint64_t{0}, ~uint64_t{0}, ~uint64_t{0}), (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  // counter 243f6a88 85a308d3 13198a2e 03707344, key a4093822 299f31d0: the digits of pi
  EXPECT_EQ(philox(0x299f31d0a4093822, 0x85a308d3243f6a88, 0x0370734413198a2e),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Rng, IsAPureFunctionOfSeedStreamAndIndex) {
  EXPECT_EQ(Rng(5, 6).bits(7), Rng(5, 6).bits(7));
  std::set<uint64_t> seen;
  for (uint64_t seed = 0; seed < 10; ++seed) {
    for (uint64_t stream = 0; stream < 10; ++stream) {
      for (uint64_t index = 0; index < 10; ++index) seen.insert(Rng(seed, stream).bits(index));
    }
  }
  EXPECT_EQ(seen.size(), 1000u);
}

TEST(Rng, UniformNumbersFillTheUnitIntervalEvenly) {
  const Rng rng(1);
  constexpr int kCount = 100000;
  std::vector<int> bins(10, 0);
  double sum = 0;
  for (uint64_t i = 0; i < kCount; ++i) {
    const double u = rng.uniform(i);
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    ++bins[static_cast<size_t>(u * 10)];
    sum += u;
  }
  EXPECT_NEAR(sum / kCount, 0.5, 5 * std::sqrt(1.0 / 12 / kCount));  // five standard errors
  for (const int n : bins) EXPECT_NEAR(n, kCount / 10, 5 * std::sqrt(kCount * 0.09));
}

TEST(Rng, NormalNumbersHaveTheMomentsOfANormal) {
  const Rng rng(2);
  constexpr int kCount = 100000;
  double m1 = 0, m2 = 0, m3 = 0, m4 = 0;
  for (uint64_t i = 0; i < kCount; ++i) {
    const double x = rng.normal(i);
    ASSERT_TRUE(std::isfinite(x));
    m1 += x;
    m2 += x * x;
    m3 += x * x * x;
    m4 += x * x * x * x;
  }
  // Five standard errors; variances of x, x^2, x^3, x^4 are 1, 2, 15, 96.
  EXPECT_NEAR(m1 / kCount, 0, 5 * std::sqrt(1.0 / kCount));
  EXPECT_NEAR(m2 / kCount, 1, 5 * std::sqrt(2.0 / kCount));
  EXPECT_NEAR(m3 / kCount, 0, 5 * std::sqrt(15.0 / kCount));
  EXPECT_NEAR(m4 / kCount, 3, 5 * std::sqrt(96.0 / kCount));
}

TEST(Rng, BelowReachesEveryNumberAndNoOther) {
  const Rng rng(3);
  std::vector<int> counts(7, 0);
  for (uint64_t i = 0; i < 70000; ++i) {
    const uint64_t n = rng.below(i, 7);
    ASSERT_LT(n, 7u);
    ++counts[n];
  }
  for (const int n : counts) EXPECT_NEAR(n, 10000, 500);  // five standard errors are 463
  EXPECT_EQ(rng.below(0, 1), 0u);
}

TEST(HashName, IsFnv1a) {
  EXPECT_EQ(hash_name(""), 0xcbf29ce484222325u);
  EXPECT_EQ(hash_name("a"), 0xaf63dc4c8601ec8cu);
  EXPECT_EQ(hash_name("foobar"), 0x85944171f73967e8u);
}

}  // namespace
}  // namespace crumb
