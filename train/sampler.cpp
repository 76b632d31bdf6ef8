#include "train/sampler.h"

#include <algorithm>
#include <numeric>

#include "core/common/error.h"
#include "core/common/rng.h"

namespace crumb::train {
namespace {

constexpr int64_t kManyDocuments = 100;

/// A permutation of 0..n-1 that is a function of `rng` alone (Fisher and Yates).
std::vector<int32_t> permutation(int64_t n, const Rng& rng) {
  std::vector<int32_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  for (int64_t i = n - 1; i > 0; --i)
    std::swap(order[static_cast<size_t>(i)], order[rng.below(static_cast<uint64_t>(i), static_cast<uint64_t>(i) + 1)]);
  return order;
}

/// The documents with (held_out) or without the mark, neighbours joined.
std::vector<TokenStream::Run> runs_of(const TokenFile& file, const std::vector<bool>& is_held_out, bool held_out) {
  std::vector<TokenStream::Run> runs;
  for (int64_t i = 0; i < file.num_documents(); ++i) {
    if (is_held_out[static_cast<size_t>(i)] != held_out) continue;
    const int64_t begin = file.document_begin(i), length = file.document_end(i) - begin;
    if (!runs.empty() && runs.back().begin + runs.back().length == begin) {
      runs.back().length += length;
    } else {
      runs.push_back({begin, length});
    }
  }
  return runs;
}

std::vector<bool> choose_documents(const TokenFile& file, double share, int64_t length, uint64_t seed) {
  const auto order = permutation(file.num_documents(), Rng(seed, hash_name("validation documents")));
  const auto wanted =
      std::max<int64_t>(1, static_cast<int64_t>(share * static_cast<double>(file.num_documents()) + 0.5));
  std::vector<bool> is_held_out(order.size(), false);
  int64_t documents = 0, tokens = 0;
  for (size_t i = 0; i < order.size() && (documents < wanted || tokens < length + 1); ++i) {
    is_held_out[static_cast<size_t>(order[i])] = true;
    ++documents;
    tokens += file.document_end(order[i]) - file.document_begin(order[i]);
  }
  return is_held_out;
}

Batch make_batch(int64_t count, int64_t length, const std::function<void(int64_t, int64_t*)>& window) {
  torch::Tensor tokens = torch::empty({count, length + 1}, torch::kInt64);
  for (int64_t i = 0; i < count; ++i) window(i, tokens.data_ptr<int64_t>() + i * (length + 1));
  return {.ids = tokens.slice(1, 0, length).contiguous(),
          .targets = tokens.slice(1, 1, length + 1).contiguous(),
          .mask = {}};
}

}  // namespace

TokenStream::TokenStream(std::shared_ptr<const TokenFile> file, std::vector<Run> runs)
    : file_(std::move(file)), runs_(std::move(runs)) {
  starts_.push_back(0);
  for (const auto& run : runs_) starts_.push_back(starts_.back() + run.length);
}

void TokenStream::copy(int64_t begin, int64_t count, int64_t* out) const {
  CRUMB_ASSERT(begin >= 0 && begin + count <= size());
  auto run = static_cast<size_t>(std::upper_bound(starts_.begin(), starts_.end(), begin) - starts_.begin()) - 1;
  while (count > 0) {
    const int64_t offset = begin - starts_[run], taken = std::min(count, runs_[run].length - offset);
    const auto* ids = file_->ids().data() + runs_[run].begin + offset;
    std::copy(ids, ids + taken, out);
    out += taken;
    begin += taken;
    count -= taken;
    ++run;
  }
}

TextSplit split_text(std::shared_ptr<const TokenFile> file, double share, int64_t length, uint64_t seed,
                     const std::string& name) {
  const auto stream = [&file](std::vector<TokenStream::Run> runs) { return TokenStream(file, std::move(runs)); };
  const int64_t tokens = file->num_tokens();
  TextSplit split{stream({{0, tokens}}), stream({})};
  if (share > 0 && file->num_documents() >= kManyDocuments) {
    const auto is_held_out = choose_documents(*file, share, length, seed);
    split = {stream(runs_of(*file, is_held_out, false)), stream(runs_of(*file, is_held_out, true))};
  } else if (share > 0) {
    const auto tail = std::max(length + 1, static_cast<int64_t>(share * static_cast<double>(tokens)));
    const int64_t kept = std::max<int64_t>(0, tokens - tail);
    split = {stream({{0, kept}}), stream({{kept, tokens - kept}})};
  }
  CRUMB_CHECK(
      split.train.num_windows(length) > 0,
      "{}: {} tokens are too few for a window of {} and one more{}; give more text or a smaller data.sequence_length",
      name, tokens, length, share > 0 ? " beside the text held out for validation" : "");
  return split;
}

Sampler::Sampler(std::vector<MixedStream> streams, int64_t length, uint64_t seed)
    : streams_(std::move(streams)),
      length_(length),
      seed_(seed),
      taken_(streams_.size(), 0),
      orders_(streams_.size()),
      passes_(streams_.size(), -1) {
  double sum = 0;
  for (const auto& mixed : streams_) {
    CRUMB_ASSERT(mixed.stream.num_windows(length) > 0);
    sum += mixed.weight;
  }
  for (auto& mixed : streams_) mixed.weight /= sum;
}

int64_t Sampler::num_windows() const {
  int64_t windows = 0;
  for (const auto& mixed : streams_) windows += mixed.stream.num_windows(length_);
  return windows;
}

void Sampler::extend_turns(int64_t count) {
  while (static_cast<int64_t>(turns_.size()) < count) {
    const auto n = static_cast<double>(turns_.size() + 1);
    size_t next = 0;  // the stream that is furthest behind its share
    double largest = -1;
    for (size_t i = 0; i < streams_.size(); ++i) {
      const double behind = streams_[i].weight * n - static_cast<double>(taken_[i]);
      if (behind > largest) {
        largest = behind;
        next = i;
      }
    }
    turns_.push_back(static_cast<uint32_t>(next));
    turn_numbers_.push_back(taken_[next]++);
  }
}

int64_t Sampler::window_of_turn(int64_t stream, int64_t turn) {
  const auto i = static_cast<size_t>(stream);
  const int64_t windows = streams_[i].stream.num_windows(length_), pass = turn / windows;
  if (passes_[i] != pass) {
    const uint64_t number = hash_name(fmt::format("order of stream {} in pass {}", stream, pass));
    orders_[i] = permutation(windows, Rng(seed_, number));
    passes_[i] = pass;
  }
  return orders_[i][static_cast<size_t>(turn % windows)];
}

Sampler::Place Sampler::place(int64_t index) {
  extend_turns(index + 1);
  const int64_t stream = turns_[static_cast<size_t>(index)];
  return {stream, window_of_turn(stream, turn_numbers_[static_cast<size_t>(index)])};
}

Batch Sampler::batch(int64_t begin, int64_t count) {
  return make_batch(count, length_, [&](int64_t i, int64_t* out) {
    const Place at = place(begin + i);
    streams_[static_cast<size_t>(at.stream)].stream.copy(at.window * length_, length_ + 1, out);
  });
}

ValidationSet::ValidationSet(const std::vector<TokenStream>& streams, int64_t length, int64_t windows)
    : length_(length) {
  int64_t total = 0;
  for (const auto& stream : streams) total += stream.num_windows(length);
  const int64_t chosen = std::min(windows, total);
  int64_t next = 0, first = 0;  // number of the next chosen window; of the stream's first window
  for (const auto& stream : streams) {
    const int64_t here = stream.num_windows(length);
    for (; next < chosen && next * total / chosen < first + here; ++next) {
      windows_.emplace_back(static_cast<size_t>(length + 1));
      stream.copy((next * total / chosen - first) * length, length + 1, windows_.back().data());
    }
    first += here;
  }
}

Batch ValidationSet::batch(int64_t begin, int64_t count) const {
  return make_batch(count, length_, [&](int64_t i, int64_t* out) {
    std::copy_n(windows_[static_cast<size_t>(begin + i)].data(), length_ + 1, out);
  });
}

}  // namespace crumb::train
