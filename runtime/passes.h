// How the tokens of several sequences become passes of a decoder, the same on every device.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/arch/decoder_spec.h"
#include "runtime/decoder.h"

namespace crumb::runtime {

/// Tokens [begin, begin + count) of inputs[sequence].
struct Slice {
  int64_t sequence, begin, count;
};

/// Passes of at most `most_tokens` tokens, in order.
std::vector<std::vector<Slice>> cut_into_passes(std::span<const SequenceInput> inputs, int64_t most_tokens);

/// A place in a pass whose logits are wanted.
struct Wanted {
  int64_t sequence, position, token;  // of inputs; in the sequence; in the pass
};
/// All of them into `wanted`, before the states have gone on by the pass.
void list_wanted(std::span<const SequenceInput> inputs, std::span<const Slice> pass, LogitsFor which,
                 std::vector<Wanted>& wanted);

/// UserError: a text longer than the context, ids outside the vocabulary.
void check_text(const SequenceInput& input, const arch::DecoderSpec& spec);

/// Bounds the logits that exist at once.
inline constexpr int64_t kLogitFloats = int64_t{8} << 20;

}  // namespace crumb::runtime
