// Which tokens a training step sees: documents are packed into windows, windows come in an order that depends on the
// seed and the global sample index only, texts with weights are mixed by shares of tokens.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/text/token_runs.h"
#include "train/objective.h"

namespace crumb::train {

/// The tokens trained on and the tokens held out, of one text.
struct TextSplit {
  text::TokenRuns train, valid;
};
/// At least 100 documents: a share of them, chosen by the seed, at least one and enough for a window of `length`.
/// Fewer: the tail of the tokens, at least one window. UserError, naming `name`, when not one window is left to train
/// on, or not one supervised token. share = 0: nothing is held out.
TextSplit split_text(std::shared_ptr<const text::TokenFile> file, double share, int64_t length, uint64_t seed,
                     const std::string& name);

/// A stream and its share of the windows.
struct MixedStream {
  text::TokenRuns stream;
  double weight = 1;
};

class Sampler {
 public:
  /// `length`: tokens a window. Every stream must hold a window. `isolates_documents`: batches number the documents of
  /// a window (Batch::documents), and the last token of one predicts nothing; what a window cuts off of a document is
  /// one of its own.
  Sampler(std::vector<MixedStream> streams, int64_t length, uint64_t seed, bool isolates_documents = false);

  int64_t length() const { return length_; }
  /// Windows of one pass over all streams.
  int64_t num_windows() const;
  /// Of sample `index`, counted from 0 over the whole run: which stream, and which window of it. Each stream gives all
  /// of its windows in a new order before any of them again; streams take turns so that after n samples each has its
  /// share of n, to within one.
  struct Place {
    int64_t stream = 0, window = 0;
  };
  Place place(int64_t index);
  /// Samples [begin, begin + count) as ids and targets [count, length], with a mask where a stream's text has tokens
  /// that are not supervised.
  Batch batch(int64_t begin, int64_t count);

 private:
  void extend_turns(int64_t count);
  int64_t window_of_turn(int64_t stream, int64_t turn);

  std::vector<MixedStream> streams_;
  int64_t length_;
  bool isolates_, is_masked_;
  uint64_t seed_;
  std::vector<uint32_t> turns_;               // stream of each sample so far
  std::vector<int64_t> turn_numbers_;         // how many of that stream came before
  std::vector<int64_t> taken_;                // samples so far by stream
  std::vector<std::vector<int32_t>> orders_;  // of the current pass, by stream
  std::vector<int64_t> passes_;               // which pass orders_ holds; -1: none
};

/// Fixed windows to validate on.
class ValidationSet {
 public:
  /// At most `windows` of the streams' windows: text::Spread::parts. UserError if none of their tokens is supervised.
  ValidationSet(std::vector<text::TokenRuns> streams, int64_t length, int64_t windows, bool isolates_documents = false);
  int64_t num_windows() const { return static_cast<int64_t>(places_.size()); }
  /// As of Sampler.
  Batch batch(int64_t begin, int64_t count) const;

 private:
  struct Place {
    size_t stream = 0;
    int64_t window = 0;
  };
  std::vector<text::TokenRuns> streams_;
  int64_t length_;
  bool isolates_, is_masked_;
  std::vector<Place> places_;
};

}  // namespace crumb::train
