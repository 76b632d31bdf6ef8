#include "eval/html_report.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/common/error.h"
#include "core/common/html.h"
#include "core/common/json.h"
#include "eval/report.h"
#include "tests/testing/html_check.h"

namespace crumb::eval {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

const std::string kHostile = "</pre><script>alert('\"1\"')</script>&\n\x1b\xff";

Scores make_scores(double kl, double perplexity) {
  Scores scores{4096, 8, {}};
  const auto add = [&](const char* name, const Estimate& estimate, const Column& shown, const Column& detail = {}) {
    auto& measure = scores.measures.emplace_back();
    measure.name = name;
    measure.estimate = estimate;
    measure.shown = shown;
    measure.detail = detail;
  };
  add("perplexity", {perplexity, 0.5}, {"perplexity", 1, 3});
  add("baseline_perplexity", {40.0, 0.25}, {"baseline", 1, 3});
  add("perplexity_change", {perplexity / 40 - 1, 0.0021}, {"change %", 100, 2, true});
  add("kl", {kl, 0.0013}, {"KL, nats/token", 1, 4}, {"KL, nats/token", 1, 4});
  add("kl_p50", {kl / 2}, {}, {"median", 1, 4});
  return scores;
}

EvalResult make_result(const std::string& path, int64_t bytes, double kl) {
  EvalResult r;
  r.model = {path, "GGUF", 14'684'672, bytes, 2.996, 2.125, "Q2_K", "Q6_K", "", "0123456789abcdef"};
  r.baseline = ModelFacts{"ref" + kHostile, "HF folder", 14'684'672, 29'371'000, 16.0, 16.0, "BF16", "BF16", ""};
  r.protocol = {512, 512, 8, 8, 4096, 4097, kHostile, false, true, "float32"};
  r.pooled = make_scores(kl, 44);
  r.texts = {{kHostile, 97, 3000, make_scores(kl * 1.5, 42), "fedcba9876543210"}, {"b", 1, 1096, make_scores(kl, 41)}};
  r.positions = {{1, 1, make_scores(kl * 3, 90)}, {2, 2, make_scores(kl * 2, 80)}, {3, 4, make_scores(kl, 70)}};
  WorstContext worst{kHostile, 7, 6, kHostile, kHostile, kHostile, "b", {}};
  worst.score.kl = 9.87654;
  r.worst = {worst};
  r.checks = {{"kl", kl, 0.2}, {"perplexity", 0.1, 0.05}};
  r.seconds = 12.25;
  return r;
}

TEST(HtmlReport, IsOneWellFormedPageWhateverNamesAndTextsAre) {
  const RunFacts facts{"1.2.3", "crumb eval '" + kHostile + "'", std::nullopt, ""};
  for (const auto& results : {std::vector{make_result(kHostile, 5'500'000, 0.125)},
                              std::vector{make_result(kHostile, 5'500'000, 0.125), make_result("b", 1'000'000, 0.5)}}) {
    const std::string page = to_html(results, facts);
    EXPECT_EQ(testing::html_fault(page), "");
    EXPECT_THAT(page, AllOf(Not(HasSubstr("<script")), Not(HasSubstr("http:")), Not(HasSubstr("https:")),
                            Not(HasSubstr("src=")), Not(HasSubstr("url("))));
    EXPECT_THAT(page,
                AllOf(HasSubstr("&lt;script&gt;alert"), HasSubstr("0123456789abcdef"), HasSubstr("fedcba987654321"),
                      HasSubstr("crumb 1.2.3"), HasSubstr("perplexity drop 10 % exceeds the limit of 5 %"),
                      HasSubstr("<td>9.8765</td>"), HasSubstr("44.000 ± 0.500")));
  }
}

void for_each_number(const nlohmann::ordered_json& json,
                     const std::function<void(const nlohmann::ordered_json&)>& call) {
  if (json.is_structured()) {
    for (const auto& item : json) for_each_number(item, call);
  } else if (json.is_number()) {
    call(json);
  }
}

TEST(HtmlReport, HoldsEveryNumberOfTheJson) {
  const std::vector results{make_result("a", 5'500'000, 0.12537), make_result("b", 1'000'000, 0.5)};
  const std::string page = to_html(results, {"1", "crumb", std::nullopt, ""});
  int numbers = 0;
  for_each_number(to_json(results), [&](const auto& number) {
    ++numbers;
    EXPECT_THAT(page, HasSubstr(" " + number.dump())) << "as text of the JSON, or at the end of its line";
  });
  EXPECT_GT(numbers, 100);
  for (const auto& text : {"0.1254 ± 0.0013", "5.50 MB", "2.125"}) EXPECT_THAT(page, HasSubstr(text)) << text;
}

TEST(HtmlReport, ShowsWhatBenchMeasured) {
  const auto bench =
      parse_json(R"({"processor": "<cpu>", "processors": 2, "isa": "avx2", "rounds": 3, "rows": [{"model": "m<1>",
    "activations": "int8", "threads": 2, "measures": [{"name": "tokens_per_second", "tokens": 512, "median": 41.25,
    "least": 40.5, "most": 43.75}, {"name": "load", "tokens": null, "median": 1, "least": 1, "most": 1}]}]})",
                 "bench.json");
  const std::string page = to_html({make_result("a", 1, 0.1)}, {"1", "crumb", bench, "bench.json"});
  EXPECT_EQ(testing::html_fault(page), "");
  EXPECT_THAT(page, AllOf(HasSubstr("&lt;cpu&gt;, 2 processors, avx2; 3 rounds"), HasSubstr("m&lt;1&gt;"),
                          HasSubstr("<td>512</td><td>int8</td><td>2</td><td>41.25</td><td>40.5</td><td>43.75</td>")));
  for (const char* wrong : {"[]", "{}", R"({"rows": [1]})", R"({"rows": [{"measures": [{}]}]})"}) {
    EXPECT_THROW(to_html({make_result("a", 1, 0.1)}, {"1", "crumb", parse_json(wrong, "w"), "w"}), UserError) << wrong;
  }
}

TEST(ParetoFront, HoldsWhatNothingBeats) {
  const std::vector results{make_result("a", 100, 0.5), make_result("b", 200, 0.1), make_result("c", 200, 0.3),
                            make_result("d", 300, 0.1), make_result("e", 50, 0.9),  make_result("f", 50, 0.9)};
  const auto json = to_json(results);
  std::string front;
  for (const auto& one : json) {
    if (one["on_pareto_front"].get<bool>()) front += one["model"]["path"].get<std::string>();
  }
  EXPECT_EQ(front, "abef") << "of equals all";
  EXPECT_THAT(to_markdown(results), HasSubstr("| Pareto front |\n"));
  EXPECT_FALSE(to_json(std::vector{results[0]}).contains("on_pareto_front"));
}

}  // namespace
}  // namespace crumb::eval
