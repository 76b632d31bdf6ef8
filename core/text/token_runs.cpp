#include "core/text/token_runs.h"

#include <algorithm>
#include <utility>

#include "core/common/error.h"

namespace crumb::text {

TokenRuns::TokenRuns(std::shared_ptr<const TokenFile> file, std::vector<Run> runs)
    : file_(std::move(file)), runs_(std::move(runs)) {
  starts_.push_back(0);
  for (const auto& run : runs_) starts_.push_back(starts_.back() + run.length);
}

/// Calls piece(first token in the file, how many, how many of the stream's came before).
template <class Piece>
void TokenRuns::for_each_piece(int64_t begin, int64_t count, const Piece& piece) const {
  CRUMB_ASSERT(begin >= 0 && begin + count <= size());
  auto run = static_cast<size_t>(std::upper_bound(starts_.begin(), starts_.end(), begin) - starts_.begin()) - 1;
  for (int64_t done = 0; done < count; ++run) {
    const int64_t offset = begin + done - starts_[run], taken = std::min(count - done, runs_[run].length - offset);
    piece(runs_[run].begin + offset, taken, done);
    done += taken;
  }
}

bool TokenRuns::has_supervised() const {
  if (is_all_supervised()) return size() > 0;
  return std::any_of(runs_.begin(), runs_.end(), [&](const Run& run) {
    for (int64_t i = run.begin; i < run.begin + run.length; ++i) {
      if (file_->is_supervised(i)) return true;
    }
    return false;
  });
}

void TokenRuns::copy(int64_t begin, int64_t count, int64_t* ids, float* supervised) const {
  for_each_piece(begin, count, [&](int64_t first, int64_t taken, int64_t done) {
    for (int64_t i = 0; i < taken; ++i) ids[done + i] = file_->id(first + i);
    if (supervised == nullptr) return;
    for (int64_t i = 0; i < taken; ++i) supervised[done + i] = file_->is_supervised(first + i) ? 1.0F : 0.0F;
  });
}

std::vector<int64_t> TokenRuns::document_begins(int64_t begin, int64_t count) const {
  std::vector<int64_t> begins;
  for_each_piece(begin, count, [&](int64_t first, int64_t taken, int64_t done) {
    for (int64_t i = file_->first_document_from(first);
         i < file_->num_documents() && file_->document_begin(i) < first + taken; ++i)
      begins.push_back(done + file_->document_begin(i) - first);
  });
  return begins;
}

}  // namespace crumb::text
