#include "runtime/passes.h"

#include <algorithm>

#include "core/common/error.h"

namespace crumb::runtime {

std::vector<std::vector<Slice>> cut_into_passes(std::span<const SequenceInput> inputs, int64_t most_tokens) {
  std::vector<std::vector<Slice>> passes;
  int64_t room = 0;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const auto size = static_cast<int64_t>(inputs[i].tokens.size());
    for (int64_t begin = 0; begin < size;) {
      if (room == 0) {
        passes.emplace_back();
        room = most_tokens;
      }
      const int64_t count = std::min(room, size - begin);
      passes.back().push_back({static_cast<int64_t>(i), begin, count});
      begin += count;
      room -= count;
    }
  }
  return passes;
}

void list_wanted(std::span<const SequenceInput> inputs, std::span<const Slice> pass, LogitsFor which,
                 std::vector<Wanted>& wanted) {
  wanted.clear();
  int64_t first = 0;  // token of the slice in the pass
  for (const auto& slice : pass) {
    const auto& input = inputs[static_cast<size_t>(slice.sequence)];
    const bool ends = slice.begin + slice.count == static_cast<int64_t>(input.tokens.size());
    const int64_t from = which == LogitsFor::all ? 0 : ends ? slice.count - 1 : slice.count;
    for (int64_t t = from; t < slice.count; ++t)
      wanted.push_back({slice.sequence, input.state->length() + t, first + t});
    first += slice.count;
  }
}

void check_text(const SequenceInput& input, const arch::DecoderSpec& spec) {
  const int64_t length = input.state->length() + static_cast<int64_t>(input.tokens.size());
  CRUMB_CHECK(length <= spec.context_length, "a text of {} tokens is longer than the model's context of {}", length,
              spec.context_length);
  for (const auto id : input.tokens) {
    CRUMB_CHECK(id >= 0 && id < spec.vocab_size, "token id {} is outside the model's vocabulary of {}", id,
                spec.vocab_size);
  }
}

}  // namespace crumb::runtime
