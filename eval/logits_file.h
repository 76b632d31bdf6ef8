// The file of log-probabilities of llama.cpp's llama-perplexity (--kl-divergence-base), so that a KL divergence can be
// computed with either program from what the other wrote. Little-endian:
//
//   "_logits_"; int32 context, vocabulary, windows; int32 ids[windows * context]
//   a row for each scored token of --protocol llama.cpp, context - 1 - context / 2 of them a window:
//     float32 scale, float32 least; uint16 code[vocabulary, rounded up to even]
//
// The logarithm of a probability is least + scale * code. Logits more than 16 below the largest have code 0, and
// logarithms of -16 and less count as no probability at all, so a row is known to 16 / 65535 / 2 = 1.2e-4 nats at most,
// and sums to 1 but for what is cut away.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/common/file.h"
#include "eval/scorer.h"

namespace crumb::eval {

struct LogitsShape {
  int64_t context = 0, vocab = 0, windows = 0;

  int64_t rows_of_window() const { return context - 1 - context / 2; }
  int64_t row_bytes() const { return 8 + 2 * (vocab + vocab % 2); }
  int64_t rows_begin() const { return 20 + 4 * windows * context; }
};

/// What the file holds of a row of logits, and back: out [vocab] logarithms of probabilities. Logits that are not
/// finite give codes without meaning.
void encode_logits(std::span<const float> logits, std::span<uint8_t> row);
void decode_logits(std::span<const uint8_t> row, std::span<float> out);

class LogitsFile {
 public:
  /// UserError: not such a file, or one whose size is not what it says.
  explicit LogitsFile(const Path& path);
  const LogitsShape& shape() const { return shape_; }
  const MappedFile& file() const { return file_; }
  /// [windows * context], as the text was cut, without a BOS that takes the place of a first token.
  std::vector<tokenizer::TokenId> ids() const;
  std::span<const uint8_t> row(int64_t window, int64_t place) const;
  /// UserError unless the windows that are judged, the first of `ids`, are those of the file. `text`: its name.
  void require_ids(std::span<const tokenizer::TokenId> ids, const std::string& text) const;

 private:
  MappedFile file_;
  LogitsShape shape_;
};

/// A baseline from a file: the requests are its windows in their order. score(): UserError where a row is no
/// distribution.
class LogitsFileScorer : public Scorer {
 public:
  explicit LogitsFileScorer(const LogitsFile& file) : file_(file) {}
  int64_t vocab_size() const override { return file_.shape().vocab; }
  int64_t context_length() const override { return file_.shape().context; }
  bool gives_log_probabilities() const override { return true; }
  void begin(std::span<const ScoreRequest> requests) override;
  void score(std::span<const ScorePiece> pieces, const RowSink& row) override;

 private:
  void require_distribution(std::span<const float> row, int64_t window, int64_t place) const;

  const LogitsFile& file_;
  int64_t first_ = 0, end_ = 0;  // windows that are at work
};

/// Another scorer, whose rows are written to a file as they come: the requests are the windows in their order.
class SavingScorer : public Scorer {
 public:
  /// ids [windows * context].
  SavingScorer(Scorer& inner, const Path& path, Overwrite overwrite, const LogitsShape& shape,
               std::span<const tokenizer::TokenId> ids);
  int64_t vocab_size() const override { return inner_.vocab_size(); }
  int64_t context_length() const override { return inner_.context_length(); }
  void begin(std::span<const ScoreRequest> requests) override;
  void score(std::span<const ScorePiece> pieces, const RowSink& row) override;
  /// After all windows.
  void commit();

 private:
  Scorer& inner_;
  LogitsShape shape_;
  AtomicFile file_;
  int64_t batch_begin_ = 0;
};

}  // namespace crumb::eval
