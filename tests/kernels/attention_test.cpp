#include "kernels/attention.h"

#include <gtest/gtest.h>

#include "tests/kernels/isa_cases.h"

namespace crumb::kernels {
namespace {

using testing::normal_values;

class Attention : public ::testing::TestWithParam<Isa> {};
INSTANTIATE_TEST_SUITE_P(Paths, Attention, ::testing::ValuesIn(testing::isas()), testing::isa_label);

struct Case {
  int64_t position, count, heads, dim, window;
};
constexpr Case kCases[] = {{0, 1, 1, 8, 0},     {0, 5, 2, 16, 0},     {63, 2, 3, 64, 0},
                           {100, 30, 3, 64, 0}, {0, 200, 1, 20, 0},   {190, 40, 4, 128, 0},
                           {70, 90, 2, 32, 7},  {300, 70, 1, 48, 64}, {10, 3, 2, 300, 0}};

std::vector<Half> halves(const std::vector<float>& floats) {
  std::vector<Half> out;
  for (const float x : floats) out.push_back({to_f16(x)});
  return out;
}
std::vector<float> rounded_to_half(std::vector<float> floats) {
  for (float& x : floats) x = from_f16(to_f16(x));
  return floats;
}

struct Problem {
  std::vector<float> q, keys, values;  // keys by key_index; what no position holds is NaN
  explicit Problem(const Case& c)
      : q(normal_values(c.count * c.heads * c.dim, 1)),
        keys(static_cast<size_t>((c.position + c.count + kKeyPanel - 1) / kKeyPanel * kKeyPanel * c.dim), NAN),
        values(normal_values((c.position + c.count) * c.dim, 3)) {
    const auto rows = normal_values((c.position + c.count) * c.dim, 2, 1.5);
    for (int64_t i = 0; i < static_cast<int64_t>(rows.size()); ++i)
      keys[static_cast<size_t>(key_index(i / c.dim, i % c.dim, c.dim))] = rows[static_cast<size_t>(i)];
  }
  std::vector<float> run(Isa isa, const Case& c) const { return run_on(keys, values, isa, c); }
  struct Bytes {
    std::vector<int8_t> keys, values;
    std::vector<float> key_scales, value_scales;
  };
  /// Each position with a scale; keys and values become what the bytes stand for.
  Bytes as_bytes(const Case& c) {
    Bytes bytes{std::vector<int8_t>(keys.size()), std::vector<int8_t>(values.size()), {}, {}};
    for (int64_t position = 0; position < c.position + c.count; ++position) {
      const float scale = 0.02f + 0.0001f * static_cast<float>(position % 17);
      bytes.key_scales.push_back(scale);
      bytes.value_scales.push_back(1.5f * scale);
      for (int64_t i = 0; i < c.dim; ++i) {
        const auto key = static_cast<size_t>(key_index(position, i, c.dim)),
                   value = static_cast<size_t>(position * c.dim + i);
        bytes.keys[key] = static_cast<int8_t>(std::clamp(std::nearbyint(keys[key] / scale), -128.0f, 127.0f));
        bytes.values[value] = static_cast<int8_t>(std::clamp(std::nearbyint(values[value] / scale), -128.0f, 127.0f));
        keys[key] = bytes.keys[key] * scale;
        values[value] = bytes.values[value] * bytes.value_scales.back();
      }
    }
    return bytes;
  }
  std::vector<float> run_on_bytes(const Bytes& bytes, Isa isa, const Case& c) const {
    return run_on(bytes.keys, bytes.values, isa, c, bytes.key_scales.data(), bytes.value_scales.data());
  }
  std::vector<float> run_on_halves(Isa isa, const Case& c) const {
    return run_on(halves(keys), halves(values), isa, c);
  }

 private:
  template <class T>
  std::vector<float> run_on(const std::vector<T>& k, const std::vector<T>& v, Isa isa, const Case& c,
                            const float* key_scales = nullptr, const float* value_scales = nullptr) const {
    std::vector<float> out(q.size(), NAN);
    attend(AttentionArguments<T>{.q = q.data(),
                                 .out = out.data(),
                                 .stride = c.heads * c.dim,
                                 .count = c.count,
                                 .heads = c.heads,
                                 .dim = c.dim,
                                 .position = c.position,
                                 .window = c.window,
                                 .keys = k.data(),
                                 .values = v.data(),
                                 .key_scales = key_scales,
                                 .value_scales = value_scales},
           isa);
    return out;
  }
};

TEST_P(Attention, OverHalvesIsThatOverTheFloatsTheyAreRoundedTo) {
  for (const auto& c : kCases) {
    Problem problem(c);
    const auto out = problem.run_on_halves(GetParam(), c);
    problem.keys = rounded_to_half(problem.keys);
    problem.values = rounded_to_half(problem.values);
    EXPECT_EQ(out, problem.run(GetParam(), c)) << "position " << c.position << ", dim " << c.dim;
  }
}

TEST_P(Attention, OverBytesIsThatOverTheFloatsTheyStandFor) {
  for (const auto& c : kCases) {
    Problem problem(c);
    const auto bytes = problem.as_bytes(c);
    const auto out = problem.run_on_bytes(bytes, GetParam(), c), expected = problem.run(GetParam(), c);
    // Scales are multiplied with sums where floats were with each value.
    for (size_t i = 0; i < expected.size(); ++i)
      ASSERT_NEAR(out[i], expected[i], 2e-5) << "position " << c.position << ", dim " << c.dim << ", value " << i;
  }
}

TEST_P(Attention, ABlockOfBytesAmongOthersEqualsItAlone) {
  const Case c{100, 30, 3, 64, 0};
  Problem problem(c);
  const auto bytes = problem.as_bytes(c);
  const auto together = problem.run_on_bytes(bytes, GetParam(), c);
  const int64_t row = c.heads * c.dim;
  const std::vector<float> q = problem.q;
  for (int64_t t = 0; t < c.count; ++t) {
    problem.q.assign(q.begin() + t * row, q.begin() + (t + 1) * row);
    const auto alone = problem.run_on_bytes(bytes, GetParam(), {c.position + t, 1, c.heads, c.dim, c.window});
    ASSERT_TRUE(std::equal(alone.begin(), alone.end(), together.begin() + t * row)) << "token " << t;
  }
}

TEST_P(Attention, EveryPathIsTheReferenceWithinRounding) {
  for (const auto& c : kCases) {
    const Problem problem(c);
    const auto expected = problem.run(Isa::reference, c), actual = problem.run(GetParam(), c);
    // Scores of size 10 carry a relative error of some 1e-6 into the weights; the values are of size 1.
    for (size_t i = 0; i < expected.size(); ++i)
      ASSERT_NEAR(actual[i], expected[i], 2e-5) << "position " << c.position << ", dim " << c.dim << ", value " << i;
  }
}

TEST_P(Attention, OfOneKeyIsItsValue) {
  const Case c{0, 1, 2, 24, 0};
  const Problem problem(c);
  const auto out = problem.run(GetParam(), c);
  for (size_t i = 0; i < out.size(); ++i) EXPECT_EQ(out[i], problem.values[i % 24]);
}

TEST_P(Attention, AWindowOfOneSeesTheTokenAlone) {
  const Case c{70, 9, 1, 16, 1};
  const Problem problem(c);
  const auto out = problem.run(GetParam(), c);
  for (size_t i = 0; i < out.size(); ++i) EXPECT_EQ(out[i], problem.values[70 * 16 + i]);
}

TEST_P(Attention, AQueryAmongOthersEqualsTheQueryAlone) {
  for (const auto& c : kCases) {
    const Problem problem(c);
    const auto together = problem.run(GetParam(), c);
    for (int64_t t = 0; t < c.count; ++t) {
      const Case one{c.position + t, 1, c.heads, c.dim, c.window};
      Problem alone = problem;
      const int64_t row = c.heads * c.dim;
      alone.q.assign(problem.q.begin() + t * row, problem.q.begin() + (t + 1) * row);
      const auto out = alone.run(GetParam(), one);
      for (int64_t i = 0; i < row; ++i)
        ASSERT_EQ(out[static_cast<size_t>(i)], together[static_cast<size_t>(t * row + i)]) << "token " << t;
    }
  }
}

}  // namespace
}  // namespace crumb::kernels
