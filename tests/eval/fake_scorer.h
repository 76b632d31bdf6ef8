// A Scorer whose logits are a fixed function of the tokens seen, so that a plain reference can compute them again.
#pragma once

#include <gtest/gtest.h>

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
  void begin(std::span<const ScoreRequest> requests) override {
    requests_.assign(requests.begin(), requests.end());
    done_.assign(requests.size(), 0);
    ++begins;
  }
  void score(std::span<const ScorePiece> some, const RowSink& row) override {
    for (const ScorePiece& piece : some) {
      pieces.push_back(piece);
      auto& done = done_[static_cast<size_t>(piece.request)];
      EXPECT_EQ(piece.first, done) << "pieces of a request come one after the other";
      const auto& request = requests_[static_cast<size_t>(piece.request)];
      for (int64_t i = piece.first; i < piece.first + piece.count; ++i) {
        std::vector<TokenId> seen(request.context.begin(), request.context.end());
        seen.insert(seen.end(), request.continuation.begin(), request.continuation.begin() + i);
        row(piece.request, i, fake_logits(seen, vocab_, seed_, noise_));
      }
      done += piece.count;
    }
  }

  int begins = 0;
  std::vector<ScorePiece> pieces;  // that were asked for

 private:
  int64_t vocab_;
  uint64_t seed_;
  double noise_;
  std::vector<ScoreRequest> requests_;
  std::vector<int64_t> done_;
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

/// Scores one window: `tokens` are its inputs and one more; the first `first_scored` predictions do not count.
inline std::vector<TokenScore> score_window(Scorer& model, Scorer* baseline, std::span<const TokenId> tokens,
                                            int64_t first_scored, const ParallelFor& parallel_for) {
  Scorer* const models[] = {&model};
  const auto given = static_cast<size_t>(first_scored + 1);
  const ScoreRequest request{tokens.first(given), tokens.subspan(given)};
  return score_requests(models, baseline, {&request, 1}, parallel_for).at(0).at(0);
}

/// score_stream() of a single model.
inline StreamScores score_stream(Scorer& model, Scorer* baseline, const text::TokenStream& stream,
                                 const std::vector<text::Window>& windows, int64_t context,
                                 const ParallelFor& parallel_for) {
  Scorer* const models[] = {&model};
  return eval::score_stream(models, baseline, stream, windows, context, parallel_for).at(0);
}

}  // namespace crumb::eval::testing
