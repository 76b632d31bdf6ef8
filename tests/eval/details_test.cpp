// The KL by text and by position, its percentiles, the other measures beside it and the worst tokens, each against all
// tokens written out.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <numeric>

#include "eval/report.h"
#include "tests/eval/fake_scorer.h"
#include "tests/testing/testing.h"

namespace crumb::eval {
namespace {

using crumb::testing::TempDir;
using crumb::testing::write_file;
using testing::fake_logits;
using testing::FakeScorer;
using ::testing::HasSubstr;
using testing::plain_score;
using testing::plain_softmax;
using testing::random_ids;
using testing::score_stream;
using tokenizer::TokenId;

constexpr int64_t kVocab = 29, kContext = 16, kStride = 8;

struct PlainToken {
  int64_t index, seen, window, text;
  double kl, delta_p, shared_top5;
};

std::vector<size_t> largest_five(const std::vector<double>& p) {
  std::vector<size_t> order(p.size());
  std::iota(order.begin(), order.end(), 0u);
  std::ranges::stable_sort(order, [&](size_t a, size_t b) { return p[a] > p[b]; });
  order.resize(5);
  return order;
}

double plain_top5(const std::vector<float>& model, const std::vector<float>& baseline) {
  const auto a = largest_five(plain_softmax(model)), b = largest_five(plain_softmax(baseline));
  double shared = 0;
  for (const size_t id : b) shared += std::count(a.begin(), a.end(), id);
  return shared / 5;
}

/// Every scored token of the windows of two texts, by the definitions.
struct Example {
  text::TokenStream stream;
  std::vector<text::Window> windows;
  std::vector<PlainToken> tokens;
  StreamScores scores;

  Example() {
    stream.ids = random_ids(40 * kStride + kContext + 1, kVocab, 4);
    stream.text_begin = {0, 101, stream.size()};
    windows = text::plan_windows(stream.size(), kContext, kStride, 0);
    FakeScorer model(kVocab, 1, 0.5), baseline(kVocab, 2, 0.5);
    scores = score_stream(model, &baseline, stream, windows, kContext, serial_for);
    for (size_t w = 0; w < windows.size(); ++w) {
      for (int64_t t = windows[w].first_scored + 1; t <= kContext; ++t) add(static_cast<int64_t>(w), t);
    }
  }
  void add(int64_t window, int64_t seen) {
    const auto begin = stream.ids.begin() + windows[static_cast<size_t>(window)].begin;
    const std::vector<TokenId> context(begin, begin + seen);
    const auto model = fake_logits(context, kVocab, 1, 0.5), baseline = fake_logits(context, kVocab, 2, 0.5);
    const auto s = plain_score(model, baseline, *(begin + seen));
    const int64_t index = windows[static_cast<size_t>(window)].begin + seen;
    tokens.push_back({index, seen, window, index < 101 ? 0 : 1, s.kl, std::exp(-s.nll) - std::exp(-s.baseline_nll),
                      plain_top5(model, baseline)});
  }
  std::vector<PlainToken> those(const std::function<bool(const PlainToken&)>& wanted) const {
    std::vector<PlainToken> some;
    std::copy_if(tokens.begin(), tokens.end(), std::back_inserter(some), wanted);
    return some;
  }
};

double plain_mean(const std::vector<PlainToken>& tokens, const std::function<double(const PlainToken&)>& value) {
  double sum = 0;
  for (const auto& t : tokens) sum += value(t);
  return sum / static_cast<double>(tokens.size());
}

/// Of the mean, with the windows that have tokens as clusters.
double plain_error(const std::vector<PlainToken>& tokens, const std::function<double(const PlainToken&)>& value) {
  const double mean = plain_mean(tokens, value);
  std::map<int64_t, double> residuals;
  for (const auto& t : tokens) residuals[t.window] += value(t) - mean;
  double squares = 0;
  for (const auto& [window, residual] : residuals) squares += residual * residual;
  const auto n = static_cast<double>(residuals.size());
  return std::sqrt(n / (n - 1) * squares) / static_cast<double>(tokens.size());
}

double plain_quantile(const std::vector<PlainToken>& tokens, double share) {
  std::vector<double> sorted;
  for (const auto& t : tokens) sorted.push_back(t.kl);
  std::ranges::sort(sorted);
  const double place = share * static_cast<double>(sorted.size() - 1), below = std::floor(place);
  const double high = sorted[static_cast<size_t>(std::ceil(place))];
  return sorted[static_cast<size_t>(below)] * (1 - (place - below)) + high * (place - below);
}

void expect_measures(const Scores& scores, const std::vector<PlainToken>& tokens) {
  ASSERT_EQ(scores.tokens, std::ssize(tokens));
  const auto expect = [&](const char* name, const std::function<double(const PlainToken&)>& value) {
    EXPECT_NEAR(scores.at(name).value, plain_mean(tokens, value), 1e-12) << name;
    EXPECT_NEAR(*scores.at(name).standard_error, plain_error(tokens, value), 1e-12) << name;
  };
  expect("kl", [](const PlainToken& t) { return t.kl; });
  expect("top5", [](const PlainToken& t) { return t.shared_top5; });
  expect("delta_p", [](const PlainToken& t) { return t.delta_p; });
  const auto square = [](const PlainToken& t) { return t.delta_p * t.delta_p; };
  const double rms = std::sqrt(plain_mean(tokens, square));
  EXPECT_NEAR(scores.at("delta_p_rms").value, rms, 1e-12);
  EXPECT_NEAR(*scores.at("delta_p_rms").standard_error, plain_error(tokens, square) / (2 * rms), 1e-12);
  for (const auto& [name, share] : std::map<std::string, double>{
           {"kl_p50", 0.5}, {"kl_p90", 0.9}, {"kl_p95", 0.95}, {"kl_p99", 0.99}, {"kl_p99_9", 0.999}, {"kl_max", 1}}) {
    const double want = plain_quantile(tokens, share);
    EXPECT_NEAR(scores.at(name).value, want, 1e-7 * want) << name;  // kept as floats
    EXPECT_FALSE(scores.at(name).standard_error);
  }
}

TEST(Details, OfAllTokensOfTextsAndOfPositionsAreThoseOfTheDefinitions) {
  const Example e;
  expect_measures(e.scores.pooled, e.tokens);
  ASSERT_EQ(e.scores.texts.size(), 2u);
  for (int64_t text = 0; text < 2; ++text)
    expect_measures(e.scores.texts[static_cast<size_t>(text)],
                    e.those([&](const PlainToken& t) { return t.text == text; }));
  // The first window alone has predictions that saw 8 tokens or fewer.
  std::vector<std::pair<int64_t, int64_t>> ranges;
  for (const auto& range : e.scores.positions) {
    const int64_t least = range.least, most = range.most;
    const Scores& scores = range.scores;
    ranges.emplace_back(least, most);
    const auto those = e.those([&](const PlainToken& t) { return t.seen >= least && t.seen <= most; });
    if (most > 8) {
      expect_measures(scores, those);
    } else {
      EXPECT_NEAR(scores.at("kl").value, plain_mean(those, [](const PlainToken& t) { return t.kl; }), 1e-12) << most;
    }
  }
  using Ranges = std::vector<std::pair<int64_t, int64_t>>;
  EXPECT_EQ(ranges, (Ranges{{1, 1}, {2, 2}, {3, 4}, {5, 8}, {9, 16}}));
}

TEST(Details, TheWorstTokensAreTheLargestOfAll) {
  Example e;
  std::ranges::sort(e.tokens, [](const PlainToken& a, const PlainToken& b) { return a.kl > b.kl; });
  ASSERT_EQ(e.scores.worst.size(), kWorstTokens);
  for (size_t i = 0; i < kWorstTokens; ++i) {
    EXPECT_EQ(e.scores.worst[i].index, e.tokens[i].index);
    EXPECT_EQ(e.scores.worst[i].index - e.scores.worst[i].begin, e.tokens[i].seen);
    EXPECT_NEAR(e.scores.worst[i].score.kl, e.tokens[i].kl, 1e-12);
  }
}

TEST(Details, NeedABaseline) {
  const Example e;
  FakeScorer model(kVocab, 1, 0.5);
  const auto alone = score_stream(model, nullptr, e.stream, e.windows, kContext, serial_for);
  EXPECT_TRUE(alone.positions.empty());
  EXPECT_TRUE(alone.worst.empty());
  EXPECT_EQ(alone.pooled.find("kl_max"), nullptr);
}

TEST(Details, TopFiveOfEqualsAreTheLowestIds) {
  const std::vector<float> flat(8, 1.0f);
  std::vector<float> last = flat;
  last[7] = 2.0f;  // 7, 0, 1, 2, 3 beside 0, 1, 2, 3, 4
  EXPECT_EQ(score_row(flat, flat, 0).shared_top5, 1.0);
  EXPECT_DOUBLE_EQ(score_row(last, flat, 0).shared_top5, 0.8);
  EXPECT_EQ(score_row(last, flat, 0).top, 7);
  EXPECT_EQ(score_row(last, flat, 0).baseline_top, 0);
  const std::vector<float> few{0, 1, 2};  // fewer than five: all are shared
  EXPECT_EQ(score_row(few, std::vector<float>{2, 1, 0}, 0).shared_top5, 1.0);
}

TEST(Quantile, IsLinearBetweenNeighbours) {
  const std::vector<float> sorted{1, 2, 4};
  EXPECT_EQ(quantile(sorted, 0), 1);
  EXPECT_EQ(quantile(sorted, 0.25), 1.5);
  EXPECT_EQ(quantile(sorted, 0.75), 3);
  EXPECT_EQ(quantile(sorted, 1), 4);
}

// The contexts as text, with a real tokenizer: what stands before a token is in the text itself.
TEST(Details, ShowTheWorstContextsAsText) {
  CRUMB_NEED_DATA(model, "models/stories260K-hf");
  const TempDir dir;
  std::filesystem::copy(model, dir / "worse");
  auto config = nlohmann::json::parse(crumb::testing::read_file(model / "config.json"));
  config["rms_norm_eps"] = 0.3;
  std::filesystem::remove(dir / "worse" / "config.json");
  write_file(dir / "worse" / "config.json", config.dump());
  std::string text;
  for (int i = 0; i < 8; ++i) text += "Tom | saw bird " + std::to_string(i) + ". She liked to play with it.\n";
  write_file(dir / "birds.txt", text);
  EvalOptions options;
  options.model = dir / "worse";
  options.baseline = model;
  options.texts = {dir / "birds.txt"};
  options.context = 64;
  const EvalResult result = evaluate(options);
  ASSERT_EQ(result.worst.size(), kWorstTokens);
  for (const auto& w : result.worst) {
    EXPECT_EQ(w.text, dir / "birds.txt");
    if (w.position < w.index) {  // not in the first window, whose text begins with a space of SentencePiece
      EXPECT_NE(text.find(w.before + w.token), std::string::npos) << w.before << w.token;
    }
    EXPECT_FALSE(w.baseline_choice.empty());
  }
  EXPECT_FLOAT_EQ(static_cast<float>(result.worst[0].score.kl), static_cast<float>(result.pooled.at("kl_max").value));

  const auto json = to_json(result);
  ASSERT_EQ(json["worst"].size(), kWorstTokens);
  EXPECT_EQ(json["worst"][0]["token"], result.worst[0].token);
  EXPECT_EQ(json["positions"][0]["most_tokens_seen"], 1);
  EXPECT_TRUE(json["pooled"]["kl_p99"]["value"].is_number());
  EXPECT_EQ(to_markdown(result).find("###"), std::string::npos);
  const std::string report = to_markdown(result, true);
  EXPECT_THAT(report, HasSubstr("| context 33-64 | "));
  EXPECT_THAT(report, HasSubstr("### Where the model is farthest from the baseline\n\n| context | token | KL | p % |"));
  EXPECT_THAT(to_table(result, true), HasSubstr("\ncontext 33-64 "));
}

}  // namespace
}  // namespace crumb::eval
