#include "train/sampler.h"

#include <algorithm>

#include "core/common/error.h"
#include "core/common/permutation.h"
#include "core/common/rng.h"

namespace crumb::train {
namespace {

using text::TokenFile;
using text::TokenRuns;

constexpr int64_t kManyDocuments = 100;

/// The documents with (held_out) or without the mark, neighbours joined.
std::vector<TokenRuns::Run> runs_of(const TokenFile& file, const std::vector<bool>& is_held_out, bool held_out) {
  std::vector<TokenRuns::Run> runs;
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

/// Where a window begins in which stream.
struct Source {
  const TokenRuns* stream;
  int64_t begin;
};

/// Numbers the documents of a window of `count` tokens; the last of a document has nothing to predict.
void number_documents(const Source& source, int64_t count, int64_t* documents, float* supervised) {
  std::fill_n(documents, count, 0);
  for (const int64_t begin : source.stream->document_begins(source.begin, count)) {
    if (begin == 0) continue;
    for (int64_t i = begin; i < count; ++i) ++documents[i];
    supervised[begin] = 0;
  }
}

/// `source(i)`: of window i, which has length + 1 tokens.
template <class Find>
Batch make_batch(int64_t count, int64_t length, bool is_masked, bool isolates, const Find& source) {
  const torch::Tensor tokens = torch::empty({count, length + 1}, torch::kInt64);
  const torch::Tensor supervised = torch::empty({is_masked ? count : 0, length + 1}, torch::kFloat32);
  const torch::Tensor documents = torch::empty({isolates ? count : 0, length + 1}, torch::kInt64);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t at = i * (length + 1);
    const Source from = source(i);
    float* marks = is_masked ? supervised.data_ptr<float>() + at : nullptr;
    from.stream->copy(from.begin, length + 1, tokens.data_ptr<int64_t>() + at, marks);
    if (isolates) number_documents(from, length + 1, documents.data_ptr<int64_t>() + at, marks);
  }
  Batch batch{.ids = tokens.slice(1, 0, length).contiguous(),
              .targets = tokens.slice(1, 1, length + 1).contiguous(),
              .mask = {}};
  if (is_masked) batch.mask = supervised.slice(1, 1, length + 1).contiguous();  // of the targets
  if (isolates) batch.documents = documents.slice(1, 0, length).contiguous();
  return batch;
}

}  // namespace

TextSplit split_text(std::shared_ptr<const TokenFile> file, double share, int64_t length, uint64_t seed,
                     const std::string& name) {
  const auto stream = [&file](std::vector<TokenRuns::Run> runs) { return TokenRuns(file, std::move(runs)); };
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
  CRUMB_CHECK(
      split.train.has_supervised(),
      "{}: no token of it is supervised: there is nothing to learn (data.roles says which turns of conversations are)",
      name);
  return split;
}

Sampler::Sampler(std::vector<MixedStream> streams, int64_t length, uint64_t seed, bool isolates_documents)
    : streams_(std::move(streams)),
      length_(length),
      isolates_(isolates_documents),
      is_masked_(isolates_ || std::any_of(streams_.begin(), streams_.end(),
                                          [](const MixedStream& mixed) { return !mixed.stream.is_all_supervised(); })),
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
  return make_batch(count, length_, is_masked_, isolates_, [&](int64_t i) {
    const Place at = place(begin + i);
    return Source{&streams_[static_cast<size_t>(at.stream)].stream, at.window * length_};
  });
}

ValidationSet::ValidationSet(std::vector<TokenRuns> streams, int64_t length, int64_t windows, bool isolates_documents)
    : streams_(std::move(streams)),
      length_(length),
      isolates_(isolates_documents),
      is_masked_(isolates_ || std::any_of(streams_.begin(), streams_.end(),
                                          [](const TokenRuns& stream) { return !stream.is_all_supervised(); })) {
  int64_t total = 0;
  for (const auto& stream : streams_) total += stream.num_windows(length);
  size_t stream = 0;
  int64_t first = 0;  // number of the stream's first window
  for (const int64_t window : text::spread_evenly(total, windows, text::Spread::parts)) {
    for (; window - first >= streams_[stream].num_windows(length); ++stream)
      first += streams_[stream].num_windows(length);
    places_.push_back({stream, window - first});
  }
  CRUMB_CHECK(!is_masked_ || places_.empty() || batch(0, num_windows()).num_supervised() > 0,
              "data.valid: no token of the {} windows to validate on is supervised; give another text, or more "
              "validate.windows",
              num_windows());
}

Batch ValidationSet::batch(int64_t begin, int64_t count) const {
  return make_batch(count, length_, is_masked_, isolates_, [&](int64_t i) {
    const Place& at = places_[static_cast<size_t>(begin + i)];
    return Source{&streams_[at.stream], at.window * length_};
  });
}

}  // namespace crumb::train
