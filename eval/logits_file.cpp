#include "eval/logits_file.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string_view>

#include "core/common/error.h"

namespace crumb::eval {
namespace {

using tokenizer::TokenId;

constexpr std::string_view kMagic = "_logits_";
constexpr float kMostBelow = 16;  // nats below the largest logit

template <class T>
T read_at(std::span<const uint8_t> bytes, int64_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

}  // namespace

void encode_logits(std::span<const float> logits, std::span<uint8_t> row) {
  const auto [smallest, largest] = std::ranges::minmax(logits);
  const float least = std::max(smallest, largest - kMostBelow);
  double sum = 0;
  for (const float x : logits) sum += std::exp(x - largest);
  const auto log_sum = static_cast<float>(std::log(sum));
  const float header[2] = {(largest - least) / 65535.0f, least - largest - log_sum};
  std::ranges::fill(row, uint8_t{0});
  std::memcpy(row.data(), header, sizeof(header));
  if (!(header[0] > 0)) return;  // all logits are equal
  const float inverse = 1 / header[0];
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!(logits[i] > least)) continue;
    const auto code = static_cast<uint16_t>(std::nearbyint(std::min(inverse * (logits[i] - least), 65535.0f)));
    std::memcpy(row.data() + sizeof(header) + 2 * i, &code, sizeof(code));
  }
}

void decode_logits(std::span<const uint8_t> row, std::span<float> out) {
  const auto scale = read_at<float>(row, 0), least = read_at<float>(row, 4);
  for (size_t i = 0; i < out.size(); ++i)
    out[i] = scale * static_cast<float>(read_at<uint16_t>(row, 8 + 2 * static_cast<int64_t>(i))) + least;
}

LogitsFile::LogitsFile(const Path& path) : file_(path) {
  const auto bytes = file_.bytes();
  CRUMB_CHECK(
      file_.size() >= 20 && std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) == 0,
      "{}: not a file of log-probabilities of llama-perplexity: it does not begin with \"{}\" and three numbers",
      path.string(), kMagic);
  shape_ = {read_at<int32_t>(bytes, 8), read_at<int32_t>(bytes, 12), read_at<int32_t>(bytes, 16)};
  CRUMB_CHECK(shape_.context >= 3 && shape_.vocab >= 1 && shape_.windows >= 1,
              "{}: its header says windows of {} tokens, a vocabulary of {} and {} windows: that cannot be",
              path.string(), shape_.context, shape_.vocab, shape_.windows);
  // Each factor is below 2^31 and each product is compared before the next.
  const int64_t ids = shape_.windows * shape_.context, rows = shape_.windows * shape_.rows_of_window();
  const bool fits = ids <= file_.size() / 4 && rows <= file_.size() / shape_.row_bytes() &&
                    shape_.rows_begin() + rows * shape_.row_bytes() <= file_.size();
  CRUMB_CHECK(fits, "{}: truncated: {} bytes, less than its header says ({} windows of {} tokens, a vocabulary of {})",
              path.string(), file_.size(), shape_.windows, shape_.context, shape_.vocab);
  const int64_t size = shape_.rows_begin() + rows * shape_.row_bytes();
  CRUMB_CHECK(size == file_.size(),
              "{}: {} bytes, but its header says {} ({} windows of {} tokens, a vocabulary of {})", path.string(),
              file_.size(), size, shape_.windows, shape_.context, shape_.vocab);
}

std::vector<TokenId> LogitsFile::ids() const {
  std::vector<TokenId> ids(static_cast<size_t>(shape_.windows * shape_.context));
  std::memcpy(ids.data(), file_.bytes().data() + 20, ids.size() * sizeof(TokenId));
  return ids;
}

std::span<const uint8_t> LogitsFile::row(int64_t window, int64_t place) const {
  CRUMB_ASSERT(window < shape_.windows && place < shape_.rows_of_window());
  const int64_t index = window * shape_.rows_of_window() + place;
  return file_.bytes().subspan(static_cast<size_t>(shape_.rows_begin() + index * shape_.row_bytes()),
                               static_cast<size_t>(shape_.row_bytes()));
}

void LogitsFile::require_ids(std::span<const TokenId> judged, const std::string& text) const {
  const auto own = ids();
  CRUMB_ASSERT(judged.size() <= own.size());
  const auto index = std::ranges::mismatch(judged, own).in1 - judged.begin();
  if (index == std::ssize(judged)) return;
  const auto at = static_cast<size_t>(index);
  user_error("{}: its token {} is {}, that of {} is {}: it was made of another text, or with another tokenizer",
             file_.path().string(), index, own[at], text, judged[at]);
}

void LogitsFileScorer::begin(std::span<const ScoreRequest> requests) {
  if (end_ > first_) {  // what was read is not read again
    const auto done = file_.row(first_, 0);
    file_.file().release(done.data() - file_.file().bytes().data(),
                         (end_ - first_) * file_.shape().rows_of_window() * file_.shape().row_bytes());
  }
  first_ = end_;
  end_ += std::ssize(requests);
}

void LogitsFileScorer::require_distribution(std::span<const float> row, int64_t window, int64_t place) const {
  double sum = 0;
  for (const float x : row) sum += std::exp(x);
  // Codes are rounded by 1.2e-4 at most, and each logit that was cut away is less than exp(-16) = 1.13e-7.
  const double cut = 1.13e-7 * static_cast<double>(row.size());
  if (sum > 1 - 1e-3 - cut && sum < 1 + 1e-3 + cut) return;
  user_error("{}: the probabilities of row {} of window {} add up to {:.6g}: the file is broken",
             file_.file().path().string(), place, window, sum);
}

void LogitsFileScorer::score(std::span<const ScorePiece> pieces, const RowSink& row) {
  std::vector<float> values(static_cast<size_t>(vocab_size()));
  for (const auto& piece : pieces) {
    for (int64_t i = piece.first; i < piece.first + piece.count; ++i) {
      decode_logits(file_.row(first_ + piece.request, i), values);
      require_distribution(values, first_ + piece.request, i);
      row(piece.request, i, values);
    }
  }
}

SavingScorer::SavingScorer(Scorer& inner, const Path& path, Overwrite overwrite, const LogitsShape& shape,
                           std::span<const TokenId> ids)
    : inner_(inner), shape_(shape), file_(path, overwrite) {
  CRUMB_ASSERT(std::ssize(ids) == shape.windows * shape.context && inner.vocab_size() == shape.vocab);
  file_.write(kMagic);
  const int32_t header[3] = {static_cast<int32_t>(shape.context), static_cast<int32_t>(shape.vocab),
                             static_cast<int32_t>(shape.windows)};
  file_.write(header, sizeof(header));
  file_.write(ids.data(), static_cast<int64_t>(ids.size_bytes()));
}

void SavingScorer::begin(std::span<const ScoreRequest> requests) {
  inner_.begin(requests);
  batch_begin_ = file_.position();
  file_.write_zeros(std::ssize(requests) * shape_.rows_of_window() * shape_.row_bytes());
}

void SavingScorer::score(std::span<const ScorePiece> pieces, const RowSink& row) {
  std::vector<uint8_t> bytes(static_cast<size_t>(shape_.row_bytes()));
  inner_.score(pieces, [&](int64_t request, int64_t position, std::span<const float> logits) {
    encode_logits(logits, bytes);
    // Rows of several windows come by turns.
    const int64_t index = request * shape_.rows_of_window() + position;
    file_.rewrite(batch_begin_ + index * shape_.row_bytes(), bytes.data(), shape_.row_bytes());
    row(request, position, logits);
  });
}

void SavingScorer::commit() {
  CRUMB_ASSERT(file_.position() == shape_.rows_begin() + shape_.windows * shape_.rows_of_window() * shape_.row_bytes());
  file_.commit();
}

}  // namespace crumb::eval
