#include "eval/perplexity.h"

#include <gtest/gtest.h>

#include <numeric>

#include "tests/eval/fake_scorer.h"
#include "tests/testing/testing.h"

namespace crumb::eval {
namespace {

using testing::fake_logits;
using testing::FakeScorer;
using testing::plain_score;
using testing::random_ids;
using testing::score_window;
using tokenizer::TokenId;

TEST(ScoreRow, EqualsTheDefinitionsWithProbabilitiesWrittenOut) {
  for (TokenId t = 0; t < 37; ++t) {
    const auto model = fake_logits({t, 3}, 37, 1, 0.5), baseline = fake_logits({t, 3}, 37, 2, 0.5);
    const TokenScore got = score_row(model, baseline, t);
    const auto want = plain_score(model, baseline, t);
    EXPECT_NEAR(got.nll, want.nll, 1e-12);  // a few dozen roundings of numbers near 10
    EXPECT_NEAR(got.baseline_nll, want.baseline_nll, 1e-12);
    EXPECT_NEAR(got.kl, want.kl, 1e-12);
    EXPECT_EQ(got.same_top, want.same_top);
    EXPECT_GT(got.kl, 0.0);
    EXPECT_EQ(score_row(model, {}, t).nll, got.nll);
  }
}

TEST(ScoreRow, OfEqualRowsHasNoDivergenceAtAll) {
  const auto row = fake_logits({5}, 1000, 1, 0.5);
  const TokenScore s = score_row(row, row, 17);
  EXPECT_EQ(s.kl, 0.0);
  EXPECT_EQ(s.nll, s.baseline_nll);
  EXPECT_TRUE(s.same_top);
}

TEST(ScoreRow, SurvivesLogitsWhoseExponentialsOverflow) {
  const std::vector<float> model{10000.0f, -10000.0f, 0.0f}, baseline{9999.0f, -9999.0f, 0.0f};
  EXPECT_EQ(score_row(model, baseline, 0).nll, 0.0);
  EXPECT_EQ(score_row(model, baseline, 1).nll, 20000.0);
  EXPECT_EQ(score_row(model, baseline, 1).baseline_nll, 19998.0);
  EXPECT_EQ(score_row(model, baseline, 1).kl, 0.0);
}

TEST(ScoreRow, TakesTheLowestIdAmongEqualFirstChoices) {
  EXPECT_TRUE(score_row(std::vector<float>{0, 4, 4}, std::vector<float>{0, 4, 3}, 0).same_top);
  EXPECT_FALSE(score_row(std::vector<float>{0, 4, 4}, std::vector<float>{0, 3, 4}, 0).same_top);
}

TEST(ScoreRow, OfNotFiniteLogitsIsNotFinite) {
  const std::vector<float> good{0, 1, 2}, nan{0, std::nanf(""), 2}, infinite{0, INFINITY, 2};
  EXPECT_FALSE(std::isfinite(score_row(nan, good, 0).nll));
  EXPECT_FALSE(std::isfinite(score_row(infinite, good, 0).nll));
  EXPECT_FALSE(std::isfinite(score_row(good, nan, 0).baseline_nll));
  EXPECT_FALSE(std::isfinite(score_row(nan, {}, 0).nll));
}

void expect_plain_scores(const std::vector<TokenScore>& got, const std::vector<TokenId>& ids, size_t first_scored,
                         int64_t vocab) {
  ASSERT_EQ(got.size(), ids.size() - 1 - first_scored);
  for (size_t i = first_scored; i + 1 < ids.size(); ++i) {
    const std::vector<TokenId> seen(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(i) + 1);
    const auto want = plain_score(fake_logits(seen, vocab, 1, 0.5), fake_logits(seen, vocab, 2, 0.5), ids[i + 1]);
    EXPECT_NEAR(got[i - first_scored].nll, want.nll, 1e-11) << "position " << i;
    EXPECT_NEAR(got[i - first_scored].baseline_nll, want.baseline_nll, 1e-11);
    EXPECT_NEAR(got[i - first_scored].kl, want.kl, 1e-11);
  }
}

TEST(ScoreWindow, PredictsEveryTokenFromAllBeforeIt) {
  FakeScorer model(29, 1, 0.5), baseline(29, 2, 0.5);
  const auto ids = random_ids(41, 29, 0);
  expect_plain_scores(score_window(model, &baseline, ids, 0, serial_for), ids, 0, 29);
  EXPECT_EQ(model.begins, 1);
}

TEST(ScoreWindow, OfSeveralModelsRunsTheBaselineOnceAndGivesEachItsOwnScores) {
  FakeScorer first(29, 1, 0.5), second(29, 3, 0.5), baseline(29, 2, 0.5);
  const auto ids = random_ids(41, 29, 0);
  Scorer* const models[] = {&first, &second};
  const ScoreRequest request{std::span(ids).first(21), std::span(ids).subspan(21)};
  const auto together = score_requests(models, &baseline, {&request, 1}, serial_for);
  EXPECT_EQ(baseline.begins, 1);
  ASSERT_EQ(together.size(), 2u);
  const std::vector<TokenScore> alone[] = {score_window(first, &baseline, ids, 20, serial_for),
                                           score_window(second, &baseline, ids, 20, serial_for)};
  for (size_t m = 0; m < 2; ++m) {
    ASSERT_EQ(together[m][0].size(), 20u);
    for (size_t i = 0; i < 20; ++i) {
      EXPECT_EQ(together[m][0][i].nll, alone[m][i].nll);
      EXPECT_EQ(together[m][0][i].kl, alone[m][i].kl);
    }
  }
  EXPECT_NE(together[0][0][0].kl, together[1][0][0].kl);
}

TEST(ScoreWindow, BeginsAnewEachTime) {
  FakeScorer model(29, 1, 0.5), baseline(29, 2, 0.5);
  const auto first = random_ids(30, 29, 0), second = random_ids(20, 29, 1);
  score_window(model, &baseline, first, 0, serial_for);
  expect_plain_scores(score_window(model, &baseline, second, 0, serial_for), second, 0, 29);
}

TEST(ScoreWindow, AsksForNoLogitsOfPositionsThatAreContextOnly) {
  FakeScorer model(29, 1, 0.5), baseline(29, 2, 0.5);
  const auto ids = random_ids(41, 29, 0);
  expect_plain_scores(score_window(model, &baseline, ids, 25, serial_for), ids, 25, 29);
  const std::vector<ScorePiece> pieces{{0, 0, 15}};
  EXPECT_EQ(model.pieces, pieces);
  EXPECT_EQ(baseline.pieces, pieces);
}

TEST(ScoreRequests, OfABatchAreThoseOfEachAlone) {
  FakeScorer model(29, 1, 0.5), baseline(29, 2, 0.5);
  const auto ids = random_ids(200, 29, 0);
  std::vector<ScoreRequest> requests;
  for (const auto& [begin, given, judged] :
       {std::tuple<size_t, size_t, size_t>{0, 1, 40}, {41, 30, 3}, {90, 7, 1}, {100, 2, 90}})
    requests.push_back({std::span(ids).subspan(begin, given), std::span(ids).subspan(begin + given, judged)});
  Scorer* const models[] = {&model};
  const auto together = score_requests(models, &baseline, requests, serial_for).at(0);
  EXPECT_EQ(model.begins, 1);
  for (size_t r = 0; r < requests.size(); ++r) {
    const auto alone = score_requests(models, &baseline, {&requests[r], 1}, serial_for).at(0).at(0);
    ASSERT_EQ(together[r].size(), requests[r].continuation.size());
    for (size_t i = 0; i < alone.size(); ++i) {
      EXPECT_EQ(together[r][i].nll, alone[i].nll);
      EXPECT_EQ(together[r][i].kl, alone[i].kl);
      const std::vector<TokenId> seen(requests[r].context.begin(),
                                      requests[r].continuation.begin() + static_cast<std::ptrdiff_t>(i));
      const auto want =
          plain_score(fake_logits(seen, 29, 1, 0.5), fake_logits(seen, 29, 2, 0.5), requests[r].continuation[i]);
      EXPECT_NEAR(together[r][i].nll, want.nll, 1e-11);
    }
  }
}

// Rows of a large vocabulary with one high logit each; cheap enough for half a million entries.
class SpikeScorer : public Scorer {
 public:
  explicit SpikeScorer(int64_t vocab) : row_(static_cast<size_t>(vocab), 0.0f) {}
  int64_t vocab_size() const override { return static_cast<int64_t>(row_.size()); }
  int64_t context_length() const override { return 1 << 20; }
  void begin(std::span<const ScoreRequest> requests) override { requests_.assign(requests.begin(), requests.end()); }
  void score(std::span<const ScorePiece> pieces, const RowSink& row) override {
    int64_t rows = 0;
    for (const auto& [request, first, count] : pieces) {
      rows += count;
      const auto& [context, continuation] = requests_[static_cast<size_t>(request)];
      for (int64_t i = first; i < first + count; ++i) {
        const TokenId last = i == 0 ? context.back() : continuation[static_cast<size_t>(i - 1)];
        row_[static_cast<size_t>(last)] = 10.0f;
        row(request, i, row_);
        row_[static_cast<size_t>(last)] = 0.0f;
      }
    }
    most_rows = std::max(most_rows, rows);
  }
  int64_t most_rows = 0;

 private:
  std::vector<float> row_;
  std::vector<ScoreRequest> requests_;
};

TEST(ScoreWindow, HoldsLogitsOfAChunkOfPositionsOnly) {
  constexpr int64_t kVocab = 400'000;
  SpikeScorer model(kVocab);
  const std::vector<TokenId> ids{1, 1, 2, 2, 2, 3, 3, 3, 3, 4};
  std::vector<TokenId> window;
  for (int i = 0; i < 10; ++i) window.insert(window.end(), ids.begin(), ids.end());
  const auto scores = score_window(model, nullptr, window, 0, serial_for);
  EXPECT_EQ(model.most_rows, (16 << 20) / kVocab);  // 41 rows, of a window of 99
  const double log_sum = std::log(std::exp(10.0) + kVocab - 1);
  ASSERT_EQ(scores.size(), window.size() - 1);
  for (size_t i = 0; i < scores.size(); ++i)
    EXPECT_NEAR(scores[i].nll, log_sum - (window[i] == window[i + 1] ? 10 : 0), 1e-9) << i;
}

TEST(ScoreWindow, GivesTheSameNumbersOnManyThreads) {
  ThreadPool pool(4);
  FakeScorer model(29, 1, 0.5), baseline(29, 2, 0.5);
  const auto ids = random_ids(100, 29, 0);
  const auto one = score_window(model, &baseline, ids, 0, serial_for),
             many = score_window(model, &baseline, ids, 0, pool.as_parallel_for());
  for (size_t i = 0; i < one.size(); ++i) {
    EXPECT_EQ(one[i].nll, many[i].nll);
    EXPECT_EQ(one[i].kl, many[i].kl);
  }
}

// Windows of unequal length whose tokens share a random level: the tokens of a window are far from independent.
std::vector<WindowSums> synthetic_windows(int64_t count) {
  const Rng rng(3);
  std::vector<WindowSums> windows(static_cast<size_t>(count));
  uint64_t at = 0;
  for (auto& w : windows) {
    const double level = 3.0 + 0.5 * rng.normal(at++);
    const auto tokens = static_cast<int64_t>(50 + rng.below(at++, 100));
    for (int64_t i = 0; i < tokens; ++i) {
      TokenScore s;
      s.baseline_nll = level + rng.normal(at++);
      s.kl = 0.1 * level * rng.uniform(at++);
      s.nll = s.baseline_nll + s.kl + 0.1 * rng.normal(at++);
      s.same_top = rng.uniform(at++) < 0.9 - 0.05 * level;
      w.add(s);
    }
  }
  return windows;
}

double spread(const std::vector<double>& x) {
  const double mean = std::accumulate(x.begin(), x.end(), 0.0) / static_cast<double>(x.size());
  double sum = 0;
  for (const double v : x) sum += (v - mean) * (v - mean);
  return std::sqrt(sum / static_cast<double>(x.size() - 1));
}

TEST(Summarize, GivesTheMeansOverTokensNotOverWindows) {
  const auto windows = synthetic_windows(20);
  double tokens = 0, nll = 0, baseline = 0, kl = 0, top = 0;
  for (const auto& w : windows) {
    tokens += static_cast<double>(w.tokens);
    nll += w.nll;
    baseline += w.baseline_nll;
    kl += w.kl;
    top += w.same_top;
  }
  const Scores s = summarize(windows, true);
  EXPECT_EQ(s.tokens, static_cast<int64_t>(tokens));
  EXPECT_EQ(s.windows, 20);
  EXPECT_DOUBLE_EQ(s.at("cross_entropy").value, nll / tokens);
  EXPECT_DOUBLE_EQ(s.at("perplexity").value, std::exp(nll / tokens));
  EXPECT_DOUBLE_EQ(s.at("baseline_perplexity").value, std::exp(baseline / tokens));
  EXPECT_NEAR(s.at("perplexity_change").value, std::exp(nll / tokens) / std::exp(baseline / tokens) - 1, 1e-12);
  EXPECT_NEAR(s.at("perplexity_increase").value, std::exp(nll / tokens) - std::exp(baseline / tokens), 1e-10);
  EXPECT_DOUBLE_EQ(s.at("kl").value, kl / tokens);
  EXPECT_DOUBLE_EQ(s.at("top1").value, top / tokens);
  EXPECT_EQ(summarize(windows, false).find("kl"), nullptr);
  EXPECT_FALSE(summarize(windows, false).find("perplexity")->drop) << "nothing to drop from";
}

TEST(Summarize, HasTheStandardErrorsOfABootstrapOverWindows) {
  const auto windows = synthetic_windows(400);
  const Rng rng(11);
  std::vector<double> nll, perplexity, baseline, change, increase, kl, top1;
  uint64_t at = 0;
  for (int b = 0; b < 2000; ++b) {
    std::vector<WindowSums> sample;
    for (size_t i = 0; i < windows.size(); ++i) sample.push_back(windows[rng.below(at++, windows.size())]);
    const Scores s = summarize(sample, true);
    nll.push_back(s.at("cross_entropy").value);
    perplexity.push_back(s.at("perplexity").value);
    baseline.push_back(s.at("baseline_perplexity").value);
    change.push_back(s.at("perplexity_change").value);
    increase.push_back(s.at("perplexity_increase").value);
    kl.push_back(s.at("kl").value);
    top1.push_back(s.at("top1").value);
  }
  const Scores s = summarize(windows, true);
  // 2000 resamples know a standard deviation to 1.6 %; linearising the exponential costs about as much at 400 windows.
  const auto near = [](const Estimate& e, const std::vector<double>& x) {
    EXPECT_NEAR(*e.standard_error / spread(x), 1.0, 0.07);
  };
  near(s.at("cross_entropy"), nll);
  near(s.at("perplexity"), perplexity);
  near(s.at("baseline_perplexity"), baseline);
  near(s.at("perplexity_change"), change);
  near(s.at("perplexity_increase"), increase);
  near(s.at("kl"), kl);
  near(s.at("top1"), top1);
  // Pairing: model and baseline share the level of a window, their ratio does not.
  EXPECT_LT(*s.at("perplexity_change").standard_error,
            0.25 * *s.at("perplexity").standard_error / s.at("perplexity").value);
}

TEST(Summarize, KnowsNoErrorOfASingleWindow) {
  const Scores s = summarize(synthetic_windows(1), true);
  EXPECT_GT(s.at("perplexity").value, 1.0);
  EXPECT_FALSE(s.at("perplexity").standard_error);
  EXPECT_FALSE(s.at("kl").standard_error);
  EXPECT_FALSE(s.at("perplexity_increase").standard_error);
}

TEST(Summarize, LeavesOutWindowsWithoutTokens) {
  auto windows = synthetic_windows(10);
  const Scores before = summarize(windows, true);
  windows.insert(windows.begin() + 4, WindowSums{});
  const Scores after = summarize(windows, true);
  EXPECT_EQ(after.windows, 10);
  EXPECT_EQ(*after.at("kl").standard_error, *before.at("kl").standard_error);
  EXPECT_EQ(summarize(std::vector<WindowSums>(3), true).tokens, 0);
}

TEST(Summarize, BitsPerByteAreARatioOfSums) {
  auto windows = synthetic_windows(6);
  EXPECT_EQ(summarize(windows, false).find("bits_per_byte"), nullptr) << "no bytes were counted";
  double nats = 0, bytes = 0;
  for (auto& w : windows) {
    w.bytes = 3 * w.tokens + 1;
    nats += w.nll;
    bytes += static_cast<double>(w.bytes);
  }
  const Scores s = summarize(windows, true);
  EXPECT_DOUBLE_EQ(s.at("bits_per_byte").value, nats / std::log(2.0) / bytes);
  // With bytes in proportion to tokens it is the cross-entropy in another unit, and so is its error.
  for (auto& w : windows) w.bytes = 4 * w.tokens;
  const Scores even = summarize(windows, true);
  EXPECT_NEAR(*even.at("bits_per_byte").standard_error, *even.at("cross_entropy").standard_error / std::log(2.0) / 4,
              1e-12);
  EXPECT_TRUE(even.find("perplexity")->drop.has_value());
}

}  // namespace
}  // namespace crumb::eval
