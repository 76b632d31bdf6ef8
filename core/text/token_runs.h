// Runs of a token file as one stream: what is trained on, or held out, of a text.
#pragma once

#include <memory>
#include <vector>

#include "core/text/token_file.h"
#include "core/text/windows.h"

namespace crumb::text {

class TokenRuns {
 public:
  struct Run {
    int64_t begin = 0, length = 0;
  };
  TokenRuns(std::shared_ptr<const TokenFile> file, std::vector<Run> runs);

  int64_t size() const { return starts_.back(); }
  /// Windows of `length` tokens and one more to predict, each beginning where the one before ends.
  int64_t num_windows(int64_t length) const { return count_windows(size(), length, length); }
  /// Whether every token of the file is one to predict.
  bool is_all_supervised() const { return file_->is_all_supervised(); }
  /// Whether any token of the runs is.
  bool has_supervised() const;

  /// Tokens [begin, begin + count); `supervised`, unless null, gets 1 for those to predict and 0 for others.
  void copy(int64_t begin, int64_t count, int64_t* ids, float* supervised = nullptr) const;
  /// Where documents begin among these tokens, counted from `begin`, ascending: what a window holds of several
  /// documents can be kept apart by it. Takes time in proportion to the documents found.
  std::vector<int64_t> document_begins(int64_t begin, int64_t count) const;

 private:
  template <class Piece>
  void for_each_piece(int64_t begin, int64_t count, const Piece& piece) const;

  std::shared_ptr<const TokenFile> file_;
  std::vector<Run> runs_;
  std::vector<int64_t> starts_;  // of each run in the stream, and the end
};

}  // namespace crumb::text
