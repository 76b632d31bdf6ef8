#include "eval/bootstrap.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "core/common/rng.h"
#include "eval/evaluate.h"
#include "eval/paired.h"
#include "tests/eval/fake_scorer.h"

namespace crumb::eval {
namespace {

using testing::FakeScorer;
using testing::random_ids;

/// Clusters of different sizes, each with a level of its own.
std::vector<WindowSums> synthetic_clusters(size_t count) {
  const Rng rng(5);
  std::vector<WindowSums> clusters(count);
  for (size_t c = 0; c < count; ++c) {
    auto& sums = clusters[c];
    sums.tokens = 20 + static_cast<int64_t>(rng.below(c, 60));
    const auto n = static_cast<double>(sums.tokens);
    const double level = 3 + 0.5 * rng.normal(1000 + c);
    sums.baseline_nll = n * level;
    sums.nll = n * (level + 0.05 + 0.02 * rng.normal(2000 + c));
    sums.kl = n * (0.08 + 0.02 * rng.normal(3000 + c));
    sums.same_top = n * (0.8 + 0.05 * rng.normal(4000 + c));
  }
  return clusters;
}

// Each resample written out: its draws, and the formulas of the measures on its sums.
TEST(Bootstrap, IsAPlainLoopOverResamples) {
  const auto clusters = synthetic_clusters(40);
  Scores scores = summarize(clusters, true);
  add_intervals(clusters, true, {.resamples = 300, .seed = 9}, scores);
  const Rng rng(9, hash_name("bootstrap"));
  std::vector<double> perplexity, change, kl, lost_top1;
  for (size_t b = 0; b < 300; ++b) {
    double tokens = 0, nll = 0, baseline = 0, divergence = 0, same = 0;
    for (size_t i = 0; i < 40; ++i) {
      const auto& c = clusters[rng.below(b * 40 + i, 40)];
      tokens += static_cast<double>(c.tokens);
      nll += c.nll, baseline += c.baseline_nll, divergence += c.kl, same += c.same_top;
    }
    perplexity.push_back(std::exp(nll / tokens));
    change.push_back(std::exp((nll - baseline) / tokens) - 1);
    kl.push_back(divergence / tokens);
    lost_top1.push_back(1 - same / tokens);
  }
  const auto expect = [&](const char* name, std::vector<double> values) {
    std::ranges::sort(values);
    // 0.025 * 299 = 7.475 and 0.975 * 299 = 291.525
    EXPECT_NEAR(scores.find(name)->interval->low, values[7] + 0.475 * (values[8] - values[7]), 1e-9) << name;
    EXPECT_NEAR(scores.find(name)->interval->high, values[291] + 0.525 * (values[292] - values[291]), 1e-9) << name;
  };
  expect("perplexity", perplexity);
  expect("perplexity_change", change);
  expect("kl", kl);
  const auto bound = [](std::vector<double> values) {
    std::ranges::sort(values);
    return values[284] + 0.05 * (values[285] - values[284]);  // 0.95 * 299 = 284.05
  };
  EXPECT_NEAR(*scores.find("perplexity")->drop_bound, bound(change), 1e-9);
  EXPECT_NEAR(*scores.find("kl")->drop_bound, bound(kl), 1e-9);
  EXPECT_NEAR(*scores.find("top1")->drop_bound, bound(lost_top1), 1e-9);
}

TEST(Bootstrap, AgreesWithTheDeltaMethod) {
  const auto clusters = synthetic_clusters(300);
  Scores scores = summarize(clusters, true);
  const Scores delta = scores;
  add_intervals(clusters, true, {.resamples = 2000}, scores);
  for (const char* name : {"cross_entropy", "perplexity", "perplexity_change", "kl", "top1"}) {
    const Measure& measure = *scores.find(name);
    const double width = 2 * 1.959964 * *delta.at(name).standard_error;
    // Percentiles at 2.5 % of 2000 draws are known to about 4 % of the width.
    EXPECT_NEAR((measure.interval->high - measure.interval->low) / width, 1, 0.1) << name;
    EXPECT_NEAR((measure.interval->high + measure.interval->low) / 2, measure.estimate.value, 0.06 * width) << name;
  }
  for (const char* name : {"perplexity", "kl", "top1"}) {
    const double above = *scores.find(name)->drop_bound - *scores.find(name)->drop;
    EXPECT_NEAR(above / (*delta.find(name)->drop_bound - *delta.find(name)->drop), 1, 0.12) << name;
  }
  EXPECT_NEAR(*delta.find("kl")->drop_bound - delta.at("kl").value, 1.644854 * *delta.at("kl").standard_error, 1e-8);
}

TEST(Bootstrap, IsAFunctionOfItsSeedAndLeavesEmptyClustersOut) {
  auto clusters = synthetic_clusters(30);
  const auto interval = [&](uint64_t seed) {
    Scores scores = summarize(clusters, true);
    add_intervals(clusters, true, {.resamples = 50, .seed = seed}, scores);
    return scores.find("kl")->interval->low;
  };
  const double first = interval(1);
  EXPECT_NE(first, interval(2));
  clusters.insert(clusters.begin() + 3, WindowSums{});
  EXPECT_EQ(first, interval(1));
  Scores single = summarize({clusters.data(), 1}, true);
  add_intervals({clusters.data(), 1}, true, {.resamples = 50}, single);
  EXPECT_FALSE(single.find("kl")->interval);
  EXPECT_FALSE(single.find("kl")->drop_bound);
  EXPECT_THROW(check_drops({{"kl", 1.0}}, single, true), UserError);
  EXPECT_EQ(check_drops({{"kl", 1.0}}, single, false).size(), 1u);
}

TEST(Verdict, NeedsSignificance) {
  Measure change{"perplexity_change", {0.1, 0.04}};
  EXPECT_EQ(verdict_of(change), "worse");
  change.estimate.value = -0.1;
  EXPECT_EQ(verdict_of(change), "better");
  change.estimate.value = 0.07;
  EXPECT_EQ(verdict_of(change), "no significant change");
  change.interval = Interval{0.001, 0.2};  // says more than a normal error
  EXPECT_EQ(verdict_of(change), "worse");
  change.interval = Interval{-0.001, 0.2};
  EXPECT_EQ(verdict_of(change), "no significant change");
  EXPECT_FALSE(verdict_of({"perplexity_change", {0.07, std::nullopt}}));
}

// Documents that begin and end within windows: tokens are summed by the document they belong to.
TEST(ScoreStream, MayTakeDocumentsAsClusters) {
  constexpr int64_t kVocab = 29, kContext = 16;
  text::TokenStream stream;
  stream.ids = random_ids(6 * kContext + 1, kVocab, 4);
  stream.text_begin = {0, 50, stream.size()};
  stream.document_begin = {0, 7, 40, 50, 53, 54, 80};
  const auto windows = text::plan_windows(stream.size(), kContext, kContext, 0);
  FakeScorer model(kVocab, 1, 0.5), baseline(kVocab, 2, 0.5);
  Scorer* const models[] = {&model};
  const auto scores = score_stream(models, &baseline, stream, windows, kContext, serial_for, {}, {}, true).at(0);
  EXPECT_EQ(scores.pooled.windows, 7);
  EXPECT_EQ(scores.texts[0].windows, 3);
  EXPECT_EQ(scores.texts[1].windows, 4);

  std::vector<WindowSums> plain(7);
  for (const auto& window : windows) {
    const auto tokens = std::span(stream.ids).subspan(static_cast<size_t>(window.begin), kContext + 1);
    const auto of_window = testing::score_window(model, &baseline, tokens, 0, serial_for);
    for (int64_t i = 0; i < kContext; ++i) {
      const auto next = std::ranges::upper_bound(stream.document_begin, window.begin + i + 1);
      plain[static_cast<size_t>(next - stream.document_begin.begin() - 1)].add(of_window[static_cast<size_t>(i)]);
    }
  }
  const Scores want = summarize(plain, true);
  EXPECT_DOUBLE_EQ(scores.pooled.at("kl").value, want.at("kl").value);
  EXPECT_DOUBLE_EQ(*scores.pooled.at("kl").standard_error, *want.at("kl").standard_error);
  EXPECT_NE(
      *scores.pooled.at("kl").standard_error,
      *score_stream(models, &baseline, stream, windows, kContext, serial_for).at(0).pooled.at("kl").standard_error);
}

}  // namespace
}  // namespace crumb::eval
