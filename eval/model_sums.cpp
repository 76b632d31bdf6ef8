#include "eval/model_sums.h"

#include <algorithm>
#include <bit>
#include <limits>

namespace crumb::eval {
namespace {

/// 0: one token was seen; r: (2^(r-1), 2^r] were.
size_t range_of(int64_t seen) { return static_cast<size_t>(std::bit_width(static_cast<uint64_t>(seen - 1))); }

/// The worse first; of equals the earlier.
bool is_worse(const WorstToken& a, const WorstToken& b) {
  return a.score.kl != b.score.kl ? a.score.kl > b.score.kl : a.index < b.index;
}

}  // namespace

void ModelSums::begin_cluster() {
  pooled_.emplace_back();
  for (auto& sums : by_text_) sums.emplace_back();
  for (auto& sums : by_position_) sums.emplace_back();
}

void ModelSums::enter_document(int64_t index) {
  if (document_begin_.empty() || index < document_end_) return;
  const auto next = std::ranges::upper_bound(document_begin_, index);
  document_end_ = next == document_begin_.end() ? std::numeric_limits<int64_t>::max() : *next;
  begin_cluster();
}

void ModelSums::begin_document(size_t text, int64_t bytes, int64_t words) {
  is_by_document_ = true;
  begin_cluster();
  for (WindowSums* sums : {&pooled_.back(), &by_text_[text].back()}) {
    sums->bytes = bytes;
    sums->words = words;
  }
}

void ModelSums::add(const std::vector<TokenScore>& scores, const text::Window& window, const text::TokenStream& stream,
                    std::span<const int32_t> token_bytes) {
  if (!is_by_document_ && document_begin_.empty()) begin_cluster();
  for (size_t i = 0; i < scores.size(); ++i) {
    const int64_t target = window.begin + window.first_scored + static_cast<int64_t>(i) + 1;
    const auto id = static_cast<size_t>(stream.ids[static_cast<size_t>(target)]);
    const int64_t bytes = token_bytes.empty() ? 0 : token_bytes[id];
    const auto text = static_cast<size_t>(stream.text_of(target));
    enter_document(target);
    pooled_.back().add(scores[i], bytes);
    by_text_[text].back().add(scores[i], bytes);
    if (with_baseline_) compare(scores[i], window.begin, target, text);
  }
}

void ModelSums::compare(const TokenScore& score, int64_t begin, int64_t index, size_t text) {
  const size_t range = range_of(index - begin);
  while (by_position_.size() <= range) by_position_.emplace_back(pooled_.size());
  by_position_[range].back().add(score);
  kl_[{static_cast<int64_t>(text), static_cast<int64_t>(range)}].push_back(static_cast<float>(score.kl));
  worst_.push_back({begin, index, score});
  std::ranges::push_heap(worst_, is_worse);
  if (worst_.size() <= kWorstTokens) return;
  std::ranges::pop_heap(worst_, is_worse);
  worst_.pop_back();
}

std::vector<float> ModelSums::divergences(int64_t text, int64_t range) const {
  std::vector<float> all;
  for (const auto& [key, values] : kl_) {
    if ((text < 0 || key.first == text) && (range < 0 || key.second == range))
      all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}

Scores ModelSums::scores_of(const std::vector<WindowSums>& clusters, std::vector<float> divergences,
                            bool has_intervals) const {
  Scores scores = summarize(clusters, with_baseline_, std::move(divergences));
  if (has_intervals) add_intervals(clusters, with_baseline_, bootstrap_, scores);
  return scores;
}

StreamScores ModelSums::summary() const {
  StreamScores out{scores_of(pooled_, divergences(-1, -1), true), {}};
  for (size_t i = 0; i < by_text_.size(); ++i)
    out.texts.push_back(scores_of(by_text_[i], divergences(static_cast<int64_t>(i), -1), true));
  for (size_t r = 0; r < by_position_.size(); ++r) {
    auto scores = scores_of(by_position_[r], divergences(-1, static_cast<int64_t>(r)), false);
    const int64_t most = int64_t{1} << r;
    if (scores.tokens > 0) out.positions.push_back({most / 2 + 1, most, std::move(scores)});
  }
  out.worst = worst_;
  std::ranges::sort(out.worst, is_worse);
  return out;
}

}  // namespace crumb::eval
