// A Scorer whose logits are a fixed function of the tokens seen, so that a plain reference can compute them again.
#pragma once

#include <algorithm>
#include <functional>
#include <utility>
#include <vector>

#include "core/common/rng.h"
#include "eval/evaluate.h"
#include "eval/scorer.h"

namespace crumb::eval::testing {

using tokenizer::TokenId;

/// Logits after a prefix: normal numbers times `spread`, drawn from the last two tokens and the length; `noise` mixes
/// in numbers of another seed, so that two scorers with the same seed are near each other.
inline std::vector<float> fake_logits(const std::vector<TokenId>& seen, int64_t vocab, uint64_t seed, double noise) {
  const auto last = static_cast<uint64_t>(seen.back());
  const auto before = seen.size() > 1 ? static_cast<uint64_t>(seen[seen.size() - 2]) : uint64_t{999};
  const uint64_t stream = last * 1000003 + before * 1009 + seen.size();
  const Rng base(7, stream), other(seed, stream);
  std::vector<float> logits(static_cast<size_t>(vocab));
  for (size_t i = 0; i < logits.size(); ++i)
    logits[i] = static_cast<float>(2.0 * base.normal(i) + noise * other.normal(i));
  return logits;
}

class FakeScorer : public Scorer {
 public:
  FakeScorer(int64_t vocab, uint64_t seed, double noise) : vocab_(vocab), seed_(seed), noise_(noise) {}
  int64_t vocab_size() const override { return vocab_; }
  int64_t context_length() const override { return 1 << 20; }
  void restart() override {
    seen_.clear();
    ++restarts;
  }
  void append(std::span<const TokenId> tokens, const RowSink& row) override {
    pieces.emplace_back(static_cast<int64_t>(tokens.size()), static_cast<bool>(row));
    for (const TokenId t : tokens) {
      seen_.push_back(t);
      if (row) row(fake_logits(seen_, vocab_, seed_, noise_));
    }
  }

  int restarts = 0;
  std::vector<std::pair<int64_t, bool>>
      pieces;  // how many tokens came at once, and whether their logits were asked for

 private:
  int64_t vocab_;
  uint64_t seed_;
  double noise_;
  std::vector<TokenId> seen_;
};

inline std::vector<TokenId> random_ids(int64_t count, int64_t vocab, uint64_t seed) {
  const Rng rng(seed, hash_name("ids"));
  std::vector<TokenId> ids(static_cast<size_t>(count));
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<TokenId>(rng.below(i, static_cast<uint64_t>(vocab)));
  return ids;
}

/// The definitions, with probabilities written out in double precision.
struct PlainScore {
  double nll = 0, baseline_nll = 0, kl = 0;
  bool same_top = false;
};
inline std::vector<double> plain_softmax(const std::vector<float>& logits) {
  const double max = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  std::vector<double> p(logits.size());
  for (size_t i = 0; i < p.size(); ++i) sum += p[i] = std::exp(logits[i] - max);
  for (double& x : p) x /= sum;
  return p;
}
inline PlainScore plain_score(const std::vector<float>& model, const std::vector<float>& baseline, TokenId target) {
  const auto q = plain_softmax(model), p = plain_softmax(baseline);
  PlainScore s{-std::log(q[static_cast<size_t>(target)]), -std::log(p[static_cast<size_t>(target)]), 0, false};
  for (size_t i = 0; i < p.size(); ++i) s.kl += p[i] * std::log(p[i] / q[i]);
  s.same_top = std::max_element(q.begin(), q.end()) - q.begin() == std::max_element(p.begin(), p.end()) - p.begin();
  return s;
}

/// score_window() and score_stream() of a single model.
inline std::vector<TokenScore> score_window(Scorer& model, Scorer* baseline, std::span<const TokenId> tokens,
                                            int64_t first_scored, const ParallelFor& parallel_for) {
  Scorer* const models[] = {&model};
  return eval::score_window(models, baseline, tokens, first_scored, parallel_for).at(0);
}
inline StreamScores score_stream(Scorer& model, Scorer* baseline, const text::TokenStream& stream,
                                 const std::vector<text::Window>& windows, int64_t context,
                                 const ParallelFor& parallel_for) {
  Scorer* const models[] = {&model};
  return eval::score_stream(models, baseline, stream, windows, context, parallel_for).at(0);
}

}  // namespace crumb::eval::testing
