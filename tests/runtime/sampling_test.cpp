#include "runtime/sampling.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>
#include <sstream>

#include "core/common/rng.h"
#include "tests/testing/testing.h"

namespace crumb::runtime {
namespace {

std::vector<Candidate> random_candidates(uint64_t seed, size_t count) {
  const Rng rng(seed);
  std::vector<Candidate> out;
  for (size_t i = 0; i < count; ++i) out.push_back({static_cast<TokenId>(i), std::exp(8 * rng.uniform(i))});
  return out;
}

std::set<TokenId> ids_of(const std::vector<Candidate>& candidates) {
  std::set<TokenId> out;
  for (const auto& c : candidates) out.insert(c.id);
  return out;
}

std::vector<Candidate> heaviest_first(std::vector<Candidate> candidates) {
  std::stable_sort(candidates.begin(), candidates.end(),
                   [](const auto& a, const auto& b) { return a.weight > b.weight; });
  return candidates;
}

double sum_of(const std::vector<Candidate>& candidates) {
  return std::accumulate(candidates.begin(), candidates.end(), 0.0,
                         [](double s, const auto& c) { return s + c.weight; });
}

TEST(KeepTopK, KeepsTheFirstOfAllSortedByWeight) {
  for (const int64_t k : {1, 2, 7, 49, 50, 51, 1000}) {
    auto kept = random_candidates(1, 50);
    auto expected = heaviest_first(kept);
    expected.resize(std::min<size_t>(expected.size(), static_cast<size_t>(k)));
    keep_top_k(kept, k);
    EXPECT_EQ(ids_of(kept), ids_of(expected)) << k;
  }
  std::vector<Candidate> equal = {{0, 1.0}, {1, 2.0}, {2, 2.0}, {3, 2.0}};
  keep_top_k(equal, 2);
  EXPECT_EQ(ids_of(equal), (std::set<TokenId>{1, 2})) << "of equal weights the first ids";
}

TEST(KeepTopP, KeepsTheFewestThatReachTheShare) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    for (const double p : {0.0, 0.1, 0.5, 0.9, 0.999, 1.0}) {
      auto kept = random_candidates(seed, 60);
      const auto sorted = heaviest_first(kept);
      const double total = sum_of(kept);
      std::set<TokenId> expected;
      double share = 0.0;
      for (const auto& c : sorted) {
        if (!expected.empty() && share >= p * total) break;
        expected.insert(c.id);
        share += c.weight;
      }
      keep_top_p(kept, p);
      EXPECT_EQ(ids_of(kept), expected) << seed << " " << p;
    }
  }
}

TEST(KeepMinP, KeepsWhatHasTheShareOfTheLargest) {
  for (const double p : {0.0, 0.01, 0.3, 1.0}) {
    auto kept = random_candidates(3, 60);
    const double most = heaviest_first(kept)[0].weight;
    std::set<TokenId> expected;
    for (const auto& c : kept) {
      if (c.weight >= p * most) expected.insert(c.id);
    }
    keep_min_p(kept, p);
    EXPECT_EQ(ids_of(kept), expected) << p;
    EXPECT_FALSE(kept.empty());
  }
}

TEST(Candidates, AreInOrderOfIdsAlsoWhereAFilterKeepsAll) {
  const std::vector<float> logits = {1.0f, 1.2f, 0.9f, 1.1f};
  for (const auto& options : {SamplingOptions{.temperature = 1.0, .top_p = 0.99}, SamplingOptions{.temperature = 1.0},
                              SamplingOptions{.temperature = 1.0, .top_k = 3}}) {
    const auto choices = candidates(logits, options);
    EXPECT_EQ(choices.size(), options.top_k == 3 ? 3u : 4u);
    EXPECT_TRUE(std::ranges::is_sorted(choices, {}, &Candidate::id)) << options.top_p;
  }
}

TEST(Candidates, GreedyTakesTheFirstOfTheLargestAndRefusesWhatIsNotFinite) {
  const SamplingOptions greedy{.temperature = 0};
  const auto best = [&](const std::vector<float>& logits) { return candidates(logits, greedy, {}).front().id; };
  EXPECT_EQ(best({-3, -1, -2, -1}), 1);
  EXPECT_EQ(best({-0.0f, 0.0f, -1}), 0);
  EXPECT_EQ(best({0.0f, -0.0f, -1}), 0);
  EXPECT_EQ(best({-1, 3, 2, 3, 3, 1, 0, -7, 3}), 1);
  EXPECT_EQ(best({-1e38f}), 0);
  for (const float bad : {INFINITY, -INFINITY, NAN, -NAN})
    EXPECT_EQ(testing::error_of([&] { best({1, bad, 2}); }), "the model's logits are not finite");
}

TEST(PenalizeRepetition, DividesPositiveLogitsAndMultipliesOthersOnce) {
  std::vector<float> logits = {2.0f, -2.0f, 0.0f, 3.0f};
  penalize_repetition(logits, std::vector<TokenId>{0, 0, 1, 2, 99, -1}, 2.0);
  EXPECT_THAT(logits, ::testing::ElementsAre(1.0f, -4.0f, 0.0f, 3.0f));
}

TEST(Sampling, ARepeatedTokenGivesWayToAnotherAlsoWhenGreedy) {
  const std::vector<float> logits = {3.0f, 2.5f, 1.0f};
  EXPECT_EQ(runtime::sample(logits, {.repetition_penalty = 1.3}, 0, 0, std::vector<TokenId>{0}), 1);
  EXPECT_EQ(runtime::sample(logits, {.repetition_penalty = 1.3}, 0, 0, std::vector<TokenId>{2}), 0);
  EXPECT_EQ(runtime::sample(logits, {}, 0, 0, std::vector<TokenId>{0}), 0);
}

TEST(Sampling, DrawsFromWhatTransformersWouldDrawFrom) {
  CRUMB_NEED_PEERS(python);
  auto items = nlohmann::json::array();
  std::vector<std::pair<std::vector<float>, SamplingOptions>> cases;
  const std::vector<TokenId> text = {1, 5, 5, 9, 30};
  for (uint64_t i = 0; i < 40; ++i) {
    const Rng rng(100 + i);
    std::vector<float> logits;
    for (uint64_t j = 0; j < 64; ++j) logits.push_back(static_cast<float>(12 * rng.uniform(j) - 6));
    const SamplingOptions options{.temperature = 0.3 + rng.uniform(1000),
                                  .top_p = i % 3 == 0 ? 1.0 : 0.5 + 0.5 * rng.uniform(1001),
                                  .top_k = i % 2 == 0 ? 0 : static_cast<int64_t>(1 + rng.below(1002, 30)),
                                  .min_p = i % 5 < 2 ? 0.0 : 0.3 * rng.uniform(1003),
                                  .repetition_penalty = i % 4 == 0 ? 1.0 : 0.8 + rng.uniform(1004)};
    items.push_back({{"logits", logits},
                     {"text", text},
                     {"temperature", options.temperature},
                     {"top_k", options.top_k},
                     {"top_p", options.top_p},
                     {"min_p", options.min_p},
                     {"repetition_penalty", options.repetition_penalty}});
    cases.emplace_back(logits, options);
  }
  const testing::TempDir dir;
  testing::write_file(dir / "items.json", items.dump());
  const auto result =
      testing::run_command(python.string() + " " + (testing::source_dir() / "tests/runtime/sampling_peer.py").string() +
                           " " + (dir / "items.json").string());
  ASSERT_EQ(result.exit_code, 0) << result.err;
  std::istringstream lines(result.out);
  std::string line;
  for (const auto& [logits, options] : cases) {
    ASSERT_TRUE(std::getline(lines, line));
    const auto expected = nlohmann::json::parse(line).get<std::vector<double>>();
    const auto ours = candidates(logits, options, text);
    std::vector<double> shares(logits.size());
    for (const auto& c : ours) shares[static_cast<size_t>(c.id)] = c.weight / sum_of(ours);
    for (size_t i = 0; i < shares.size(); ++i) {
      EXPECT_EQ(shares[i] == 0.0, expected[i] == 0.0) << i;
      EXPECT_NEAR(shares[i], expected[i], 1e-6) << i;  // penalized logits are float32 here
    }
  }
}

}  // namespace
}  // namespace crumb::runtime
