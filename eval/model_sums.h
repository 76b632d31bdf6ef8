// What the windows of one model add up to: all together, by text and by position in the context, and the tokens where
// it is farthest from the baseline.
#pragma once

#include <map>
#include <span>
#include <utility>
#include <vector>

#include "core/text/token_stream.h"
#include "core/text/windows.h"
#include "eval/bootstrap.h"
#include "eval/perplexity.h"

namespace crumb::eval {

/// Predictions that saw at least `least` and at most `most` tokens of their window.
struct PositionScores {
  int64_t least = 0, most = 0;
  Scores scores;
};

/// A predicted token: ids[index] of the stream, seen ids[begin .. index).
struct WorstToken {
  int64_t begin = 0, index = 0;
  TokenScore score;
};
/// So many of them are kept.
inline constexpr size_t kWorstTokens = 20;

struct StreamScores {
  Scores pooled;
  std::vector<Scores> texts;
  std::vector<PositionScores> positions = {};  // 1, 2, 3..4, 5..8, ...; those with tokens; none without a baseline
  std::vector<WorstToken> worst = {};          // the largest KL first; none without a baseline
};

class ModelSums {
 public:
  /// `document_begin`: of the stream, where documents are the clusters; else empty.
  ModelSums(size_t num_texts, bool with_baseline, std::span<const int64_t> document_begin = {},
            const BootstrapOptions& bootstrap = {})
      : with_baseline_(with_baseline), document_begin_(document_begin), bootstrap_(bootstrap), by_text_(num_texts) {}

  /// The windows added until the next call are one cluster, of a text, whose bytes and words these are.
  void begin_document(size_t text, int64_t bytes, int64_t words);
  /// Scores of the predictions of one window; token_bytes: by id, or empty. Each is a cluster by itself unless clusters
  /// are documents. With a baseline the KL of each token is
  /// kept as a float for the percentiles: 4 bytes a token.
  void add(const std::vector<TokenScore>& scores, const text::Window& window, const text::TokenStream& stream,
           std::span<const int32_t> token_bytes);
  /// With intervals, where they were asked for, of all tokens and of each text.
  StreamScores summary() const;

 private:
  void compare(const TokenScore& score, int64_t begin, int64_t index, size_t text);
  /// The KL of the tokens of a text, or of a range of positions, or (both negative) of all.
  std::vector<float> divergences(int64_t text, int64_t range) const;

  void begin_cluster();

  Scores scores_of(const std::vector<WindowSums>& clusters, std::vector<float> divergences, bool has_intervals) const;
  /// Where the cluster of a token is its document: begins one at the first token of each.
  void enter_document(int64_t index);

  bool with_baseline_, is_by_document_ = false;
  std::span<const int64_t> document_begin_;
  BootstrapOptions bootstrap_;
  int64_t document_end_ = 0;  // of the document that is summed
  std::vector<WindowSums> pooled_;
  std::vector<std::vector<WindowSums>> by_text_, by_position_;
  std::map<std::pair<int64_t, int64_t>, std::vector<float>> kl_;  // by text and range of positions
  std::vector<WorstToken> worst_;                                 // a heap, the least of them in front
};

}  // namespace crumb::eval
