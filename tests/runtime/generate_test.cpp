#include "runtime/generate.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <map>
#include <set>

#include "tests/runtime/golden.h"

namespace crumb::runtime {
namespace {

using testing::error_of;
using testing::golden_folder;

std::unique_ptr<Decoder> load(const std::string& golden) {
  return load_decoder(*quant::open_checkpoint(golden_folder(golden)), testing::two_threads());
}

/// Greedy decoding written out: the whole text again for every token.
std::vector<TokenId> greedy_reference(Decoder& decoder, std::vector<TokenId> text, int64_t count) {
  std::vector<TokenId> result;
  const auto vocab = decoder.spec().vocab_size;
  for (int64_t i = 0; i < count; ++i) {
    const auto logits = testing::all_logits(decoder, text);
    const auto last = logits.end() - vocab;
    result.push_back(static_cast<TokenId>(std::max_element(last, logits.end()) - last));
    text.push_back(result.back());
  }
  return result;
}

std::vector<GenerateRequest> many_requests(int64_t count) {
  std::vector<GenerateRequest> requests;
  for (int64_t i = 0; i < count; ++i) {
    GenerateRequest request;
    for (int64_t t = 0; t < 1 + i % 5; ++t) request.prompt.push_back(static_cast<TokenId>((17 * i + 5 * t) % 96));
    request.max_tokens = 3 + 7 * i % 11;
    request.stream = static_cast<uint64_t>(i);
    requests.push_back(request);
  }
  return requests;
}

std::vector<std::vector<TokenId>> tokens_of(const std::vector<GenerateResult>& results) {
  std::vector<std::vector<TokenId>> tokens;
  for (const auto& result : results) tokens.push_back(result.tokens);
  return tokens;
}

TEST(Generate, GreedyIsTheLikeliestTokenOfTheWholeTextSoFar) {
  const auto decoder = load("mistral");
  const std::vector<TokenId> prompt{4, 90, 33};
  const auto results = generate(*decoder, {{prompt, 20, 0}}, {}, {}, 1, nullptr);
  EXPECT_EQ(results.at(0).tokens, greedy_reference(*decoder, prompt, 20));
  EXPECT_FALSE(results.at(0).stopped);
}

TEST(Generate, ABatchWithRefillGivesWhatEachRequestGivesAlone) {
  const auto decoder = load("qwen3");
  const auto requests = many_requests(23);
  for (const double temperature : {0.0, 0.9}) {
    SamplingOptions options;
    options.temperature = temperature;
    options.seed = 7;
    const auto together = generate(*decoder, requests, options, {2}, 4, nullptr);
    std::vector<std::vector<TokenId>> alone;
    for (const auto& request : requests) {
      alone.push_back(generate(*decoder, {request}, options, {2}, 1, nullptr).at(0).tokens);
    }
    EXPECT_EQ(tokens_of(together), alone);
  }
}

TEST(Generate, SeedAndStreamDecideTheText) {
  const auto decoder = load("llama");
  SamplingOptions options;
  options.temperature = 1.0;
  const std::vector<GenerateRequest> requests{{{5}, 24, 1}, {{5}, 24, 2}, {{5}, 24, 1}};
  const auto first = tokens_of(generate(*decoder, requests, options, {}, 3, nullptr));
  EXPECT_EQ(first[0], first[2]);
  EXPECT_NE(first[0], first[1]);
  EXPECT_EQ(first, tokens_of(generate(*decoder, requests, options, {}, 2, nullptr)));
  options.seed = 1;
  EXPECT_NE(first[0], generate(*decoder, requests, options, {}, 3, nullptr)[0].tokens);
}

TEST(Generate, StopsAtAnEndTokenAndLeavesItOut) {
  const auto decoder = load("hunyuan");
  const std::vector<TokenId> prompt{7, 8};
  const auto free_run = greedy_reference(*decoder, prompt, 12);
  const TokenId end = free_run[5];
  const auto before_end = std::find(free_run.begin(), free_run.end(), end);
  const auto result = generate(*decoder, {{prompt, 12, 0}}, {}, {end}, 1, nullptr).at(0);
  EXPECT_TRUE(result.stopped);
  EXPECT_EQ(result.tokens, std::vector<TokenId>(free_run.begin(), before_end));
}

TEST(Generate, StopsWhenTheContextIsFull) {
  const auto decoder = load("llama");  // context 128
  const auto result = generate(*decoder, {{std::vector<TokenId>(120, 9), 1000, 0}}, {}, {}, 1, nullptr).at(0);
  EXPECT_EQ(result.tokens.size(), 9u);  // the last one needs no place of its own
  EXPECT_FALSE(result.stopped);
}

TEST(Generate, ReportsTokensAsTheyComeAndCanBeStopped) {
  const auto decoder = load("llama");
  std::map<int64_t, std::vector<TokenId>> seen;
  std::atomic<bool> stop = false;
  const auto on_token = [&](int64_t request, TokenId token) {
    seen[request].push_back(token);
    if (seen[1].size() == 4) stop = true;
    return true;
  };
  const auto results = generate(*decoder, {{{1}, 50, 0}, {{2}, 50, 0}}, {}, {}, 2, on_token, &stop);
  EXPECT_EQ(results[0].tokens, seen[0]);
  EXPECT_EQ(results[1].tokens, seen[1]);
  EXPECT_EQ(results[1].tokens.size(), 4u);
}

TEST(Generate, EndsARequestThatOnTokenHasEnoughOf) {
  const auto decoder = load("llama");
  const std::vector<GenerateRequest> requests{{{1}, 20, 0}, {{2}, 20, 0}, {{3}, 5, 0}};
  const auto whole = generate(*decoder, requests, {}, {}, 2, nullptr);
  int64_t made = 0;
  const auto results =
      generate(*decoder, requests, {}, {}, 2, [&](int64_t request, TokenId) { return request != 0 || ++made < 3; });
  EXPECT_EQ(results[0].tokens, std::vector<TokenId>(whole[0].tokens.begin(), whole[0].tokens.begin() + 3));
  EXPECT_EQ(results[1].tokens, whole[1].tokens);
  EXPECT_EQ(results[2].tokens, whole[2].tokens);
}

TEST(Generate, NothingIsAskedForWithoutTokensToMake) {
  const auto decoder = load("llama");
  const auto results = generate(*decoder, {{{1}, 0, 0}, {{2}, 1, 0}}, {}, {}, 1, nullptr);
  EXPECT_TRUE(results[0].tokens.empty());
  EXPECT_EQ(results[1].tokens.size(), 1u);
  EXPECT_EQ(error_of([&] {
              generate(*decoder, {{{}, 1, 0}}, {}, {}, 1, nullptr);
            }),
            "request 0: the prompt has no tokens");
}

std::set<TokenId> sampled_tokens(const std::vector<float>& logits, const SamplingOptions& options) {
  std::set<TokenId> tokens;
  for (uint64_t i = 0; i < 2000; ++i) tokens.insert(sample(logits, options, 0, i));
  return tokens;
}

// Probabilities 0.1, 0.4, 0.2, 0.3.
const std::vector<float> kLogits{std::log(0.1f), std::log(0.4f), std::log(0.2f), std::log(0.3f)};

TEST(Sample, GreedyTakesTheFirstOfTheLargest) {
  EXPECT_EQ(sample(kLogits, {}, 0, 0), 1);
  EXPECT_EQ(sample(std::vector<float>{1, 3, 3, 2}, {}, 0, 0), 1);
  EXPECT_EQ(sample(std::vector<float>{1, 2, 9, 9}, {.vocab_size = 2}, 0, 0), 1) << "rows that pad the embedding";
  EXPECT_EQ(sample(std::vector<float>{1, 2}, {.vocab_size = 5}, 0, 0), 1);
}

TEST(Sample, FrequenciesFollowTheProbabilities) {
  SamplingOptions options;
  options.temperature = 1.0;
  std::vector<double> counts(4);
  constexpr int kDraws = 40000;
  for (uint64_t i = 0; i < kDraws; ++i) counts[static_cast<size_t>(sample(kLogits, options, 3, i))] += 1;
  const double expected[] = {0.1, 0.4, 0.2, 0.3};
  double chi_square = 0.0;
  for (size_t i = 0; i < 4; ++i) chi_square += std::pow(counts[i] - kDraws * expected[i], 2) / (kDraws * expected[i]);
  EXPECT_LT(chi_square, 16.3);  // exceeded once in a thousand with 3 degrees of freedom; the draws are fixed
}

TEST(Sample, TemperatureSharpensTheDistribution) {
  SamplingOptions options;
  options.temperature = 0.5;  // probabilities go with their squares: 0.01, 0.16, 0.04, 0.09 of 0.30
  int likeliest = 0;
  for (uint64_t i = 0; i < 20000; ++i) likeliest += sample(kLogits, options, 0, i) == 1;
  EXPECT_NEAR(likeliest / 20000.0, 0.16 / 0.30, 0.015);
}

TEST(Sample, TopKKeepsTheKLikeliest) {
  SamplingOptions options;
  options.temperature = 1.0;
  options.top_k = 2;
  EXPECT_THAT(sampled_tokens(kLogits, options), ::testing::ElementsAre(1, 3));
  options.top_k = 100;
  EXPECT_EQ(sampled_tokens(kLogits, options).size(), 4u);
}

TEST(Sample, TopPKeepsTheSmallestSetWithThatProbability) {
  SamplingOptions options;
  options.temperature = 1.0;
  options.top_p = 0.65;  // 0.4 + 0.3
  EXPECT_THAT(sampled_tokens(kLogits, options), ::testing::ElementsAre(1, 3));
  options.top_p = 0.75;
  EXPECT_THAT(sampled_tokens(kLogits, options), ::testing::ElementsAre(1, 2, 3));
  options.top_p = 0.0;
  EXPECT_THAT(sampled_tokens(kLogits, options), ::testing::ElementsAre(1));
}

TEST(Sample, RefusesLogitsThatAreNotFinite) {
  EXPECT_EQ(error_of([] {
              sample(std::vector<float>{INFINITY, 1.0f}, {}, 0, 0);
            }),
            "the model's logits are not finite");
  EXPECT_EQ(error_of([] { sample(std::vector<float>{1.0f, NAN}, {}, 0, 0); }), "the model's logits are not finite");
}

}  // namespace
}  // namespace crumb::runtime
