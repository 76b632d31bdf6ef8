#include "runtime/session.h"

#include <gmock/gmock.h>

#include "runtime/generate.h"
#include "tests/runtime/golden.h"

namespace crumb::runtime {
namespace {

using End = Continuation::End;

std::unique_ptr<Decoder> load(const std::string& golden) {
  return load_decoder(*quant::open_checkpoint(testing::golden_folder(golden)), testing::two_threads());
}

std::vector<TokenId> joined(std::vector<TokenId> a, const std::vector<TokenId>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

TEST(Session, GivesTheTokensThatGenerateGives) {
  const auto decoder = load("qwen3");
  for (const double temperature : {0.0, 0.9}) {
    const SamplingOptions options{.temperature = temperature, .repetition_penalty = 1.2, .seed = 3};
    Session session(*decoder);
    const auto result = session.go_on({{4, 9, 33}, 20, {2}, 5}, options, nullptr);
    EXPECT_EQ(result.tokens, generate(*decoder, {{{4, 9, 33}, 20, 5}}, options, {2}, 1, nullptr).at(0).tokens);
  }
}

TEST(Session, GoingOnComputesOnlyNewTokensAndChangesNothing) {
  const auto decoder = load("llama");
  Session session(*decoder);
  const std::vector<TokenId> first = {4, 9, 33, 7};
  const auto answer = session.go_on({first, 6, {}, 0}, {}, nullptr);
  EXPECT_EQ(answer.known_tokens, 0);
  const auto second = joined(joined(first, answer.tokens), {11, 12});
  const auto again = session.go_on({second, 6, {}, 1}, {}, nullptr);
  EXPECT_EQ(again.known_tokens, 4 + 5) << "the last token of an answer has not been through the model";
  EXPECT_EQ(again.tokens, Session(*decoder).go_on({second, 6, {}, 1}, {}, nullptr).tokens);
}

TEST(Session, ATextThatDiffersInTheMiddleIsComputedFromThere) {
  const auto decoder = load("mistral");
  Session session(*decoder);
  session.go_on({{4, 9, 33, 7, 8, 21}, 5, {}, 0}, {}, nullptr);
  const std::vector<TokenId> other = {4, 9, 50, 7};
  const auto result = session.go_on({other, 5, {}, 0}, {}, nullptr);
  EXPECT_EQ(result.known_tokens, 2);
  EXPECT_EQ(result.tokens, Session(*decoder).go_on({other, 5, {}, 0}, {}, nullptr).tokens);
  EXPECT_EQ(session.go_on({other, 5, {}, 0}, {}, nullptr).tokens, result.tokens) << "the same text again";
  EXPECT_EQ(session.go_on({{4, 9}, 5, {}, 0}, {}, nullptr).known_tokens, 1)
      << "the last token is computed for its logits";
}

TEST(Session, SaysWhatEndedIt) {
  const auto decoder = load("llama");  // context 128
  Session session(*decoder);
  const auto free_run = session.go_on({{7, 8}, 12, {}, 0}, {}, nullptr);
  EXPECT_EQ(free_run.end, End::length);
  EXPECT_EQ(free_run.tokens.size(), 12u);
  const auto ended = session.go_on({{7, 8}, 12, {free_run.tokens[5]}, 0}, {}, nullptr);
  EXPECT_EQ(ended.end, End::end_token);
  EXPECT_THAT(ended.tokens, ::testing::Not(::testing::Contains(free_run.tokens[5])));
  const auto full = session.go_on({std::vector<TokenId>(120, 9), 1000, {}, 0}, {}, nullptr);
  EXPECT_EQ(full.end, End::context);
  EXPECT_EQ(full.tokens.size(), 9u);
  int seen = 0;
  const auto cut = session.go_on({{7, 8}, 12, {}, 0}, {}, [&](TokenId) { return ++seen < 3; });
  EXPECT_EQ(cut.end, End::stopped);
  EXPECT_EQ(cut.tokens, (std::vector<TokenId>(free_run.tokens.begin(), free_run.tokens.begin() + 3)));
  std::atomic<bool> stop = true;
  const auto stopped = session.go_on({{9, 9, 9}, 12, {}, 0}, {}, nullptr, &stop);
  EXPECT_EQ(stopped.end, End::stopped);
  EXPECT_TRUE(stopped.tokens.empty());
  stop = false;
  EXPECT_EQ(session.go_on({{7, 8}, 12, {}, 0}, {}, nullptr, &stop).tokens, free_run.tokens)
      << "nothing is left of the stop";
}

TEST(Session, RefusesPromptsThatLeaveNoRoom) {
  const auto decoder = load("llama");
  Session session(*decoder);
  EXPECT_EQ(testing::error_of([&] { session.go_on({{}, 1, {}, 0}, {}, nullptr); }), "the prompt has no tokens");
  EXPECT_EQ(testing::error_of([&] {
              session.go_on({std::vector<TokenId>(128, 9), 1, {}, 0}, {}, nullptr);
            }),
            "a prompt of 128 tokens, the model holds 128");
}

}  // namespace
}  // namespace crumb::runtime
