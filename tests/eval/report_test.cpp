#include "eval/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/testing.h"

namespace crumb::eval {
namespace {

using ::testing::HasSubstr;

Scores make_scores(int64_t tokens, double perplexity, bool compared, bool known = true) {
  const auto estimate = [&](double value, double error) {
    return known ? Estimate{value, error} : Estimate{value, std::nullopt};
  };
  Scores s{tokens, tokens / 512, {}};
  if (tokens == 0) return s;
  s.measures = {{"cross_entropy", estimate(std::log(perplexity), 0.01)},
                {"perplexity", estimate(perplexity, 0.5), {"perplexity", 1, 3}}};
  if (!compared) return s;
  s.measures.push_back({"baseline_perplexity", estimate(40.0, 0.25), {"baseline", 1, 3}});
  s.measures.push_back({"perplexity_change", estimate(perplexity / 40 - 1, 0.002), {"change %", 100, 2, true}});
  s.measures.push_back({"perplexity_increase", estimate(perplexity - 40, 0.1)});
  s.measures.push_back({"kl", estimate(0.125, 0.001), {"KL, nats/token", 1, 4}});
  s.measures.push_back({"top1", estimate(0.75, 0.004), {"same top-1 %", 100, 2}});
  return s;
}

EvalResult make_result() {
  EvalResult r;
  r.model = {"m.gguf", "GGUF", 14'684'672, 5'500'000, 2.996, 2.125, "Q2_K", "Q6_K", ""};
  r.baseline = ModelFacts{"ref", "HF folder", 14'684'672, 29'371'000, 16.0, 16.0, "BF16", "BF16", ""};
  r.protocol = {512, 512, 96, 1084, 49152, 555257, "\n\x1e\n", false, true, "float32"};
  r.pooled = make_scores(49152, 44, true);
  r.texts = {{"x/tech-test.txt", 97, 300000, make_scores(30000, 42, true)},
             {"x/verse-test.txt", 92, 100, make_scores(0, 40, false)}};
  r.checks = {{"kl", 0.125, 0.2}, {"perplexity", 0.1, 0.05}};
  return r;
}

TEST(Report, TableSaysModelProtocolAndNumbersWithTheirErrors) {
  EXPECT_EQ(
      to_table(make_result()),
      "model      m.gguf (GGUF: linears Q2_K, embedding Q6_K), 5.50 MB, 2.996 bits a weight, 2.125 without embeddings\n"
      "baseline   ref (HF folder: BF16), 29.37 MB, 16.000 bits a weight, 16.000 without embeddings\n"
      "documents  plain files split at \"\\n\\u001e\\n\"; EOS after each document, no BOS\n"
      "windows    96 of 1,084 windows of 512 tokens, spread evenly; without overlap; 49,152 of 555,257 "
      "tokens scored; "
      "float32 arithmetic\n"
      "\n"
      "text            tokens      perplexity        baseline       change %   KL, nats/token  same top-1 %\n"
      "all             49,152  44.000 ± 0.500  40.000 ± 0.250  +10.00 ± 0.20  0.1250 ± 0.0010  75.00 ± 0.40\n"
      "tech-test.txt   30,000  42.000 ± 0.500  40.000 ± 0.250   +5.00 ± 0.20  0.1250 ± 0.0010  75.00 ± 0.40\n"
      "verse-test.txt       0               -               -              -                -             -\n"
      "± one standard error, windows as clusters; that of the change is paired\n"
      "perplexity: worse (paired, p below 1e-99)\n"
      "kl drop 0.125 nats/token is within the limit of 0.2 nats/token\n"
      "perplexity drop 10 % exceeds the limit of 5 %\n");
}

TEST(Report, WithoutABaselineHasPerplexityAlone) {
  auto r = make_result();
  r.baseline.reset();
  r.checks.clear();
  r.texts = {{"x/tech-test.txt", 97, 300000, make_scores(30000, 42, false, false)}};
  r.pooled = r.texts[0].scores;
  const std::string table = to_table(r);
  EXPECT_THAT(table, HasSubstr("\ntext           tokens  perplexity\ntech-test.txt  30,000      42.000\n"));
  EXPECT_EQ(table.find("baseline"), std::string::npos);
  const auto json = to_json(r);
  EXPECT_FALSE(json.contains("baseline"));
  EXPECT_FALSE(json["pooled"].contains("kl"));
  EXPECT_TRUE(json["pooled"]["perplexity"]["standard_error"].is_null());
}

TEST(Report, JsonHoldsEveryNumber) {
  const auto json = to_json(make_result());
  EXPECT_EQ(json["protocol"]["context"], 512);
  EXPECT_EQ(json["protocol"]["stride"], 512);
  EXPECT_EQ(json["protocol"]["windows"], 96);
  EXPECT_EQ(json["protocol"]["scored_tokens"], 49152);
  EXPECT_EQ(json["protocol"]["separator"], "\n\x1e\n");
  EXPECT_EQ(json["protocol"]["compute"], "float32");
  EXPECT_EQ(json["model"]["file_bytes"], 5'500'000);
  EXPECT_EQ(json["model"]["bits_per_weight_without_embeddings"], 2.125);
  EXPECT_EQ(json["baseline"]["dtypes"]["linears"], "BF16");
  EXPECT_EQ(json["pooled"]["perplexity"]["value"], 44.0);
  EXPECT_EQ(json["pooled"]["perplexity_change"]["standard_error"], 0.002);
  EXPECT_EQ(json["pooled"]["kl"]["value"], 0.125);
  EXPECT_EQ(json["texts"].size(), 2u);
  EXPECT_EQ(json["texts"][0]["documents"], 97);
  EXPECT_EQ(json["texts"][1]["tokens"], 0);
  EXPECT_EQ(json["max_drop"]["perplexity"]["exceeded"], true);
  EXPECT_EQ(json["max_drop"]["kl"]["exceeded"], false);
}

TEST(Report, MarkdownIsATable) {
  const std::string text = to_markdown(make_result());
  EXPECT_THAT(text, HasSubstr("| text | tokens | perplexity | baseline | change % | KL, nats/token | same top-1 % "
                              "|\n|---|---:|---:|---:|---:|---:|---:|\n"
                              "| all | 49,152 | 44.000 ± 0.500 |"));
  EXPECT_THAT(text, HasSubstr("- model: m.gguf (GGUF"));
}

TEST(Report, NamesTheLimitsThatAreExceeded) {
  auto r = make_result();
  EXPECT_TRUE(r.exceeded());
  EXPECT_EQ(exceeded_text(r), "perplexity drop 10 % exceeds the limit of 5 %");
  r.checks[0].limit = 0.1;
  EXPECT_EQ(
      exceeded_text(r),
      "kl drop 0.125 nats/token exceeds the limit of 0.1 nats/token; perplexity drop 10 % exceeds the limit of 5 %");
  r.checks[0].limit = 0.125;  // a drop of just the limit is accepted
  r.checks[1].limit = 1;
  EXPECT_FALSE(r.exceeded());
  EXPECT_EQ(exceeded_text(r), "");
}

}  // namespace
}  // namespace crumb::eval
