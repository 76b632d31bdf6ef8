// What a model has computed of a text, in a file: tokens, keys and values (docs/formats.md, "Prompt caches").
#pragma once

#include <span>
#include <string>
#include <vector>

#include "core/common/file.h"
#include "runtime/decoder.h"

namespace crumb::runtime {

/// `tokens`: those that `state` begins with, as many as are to be kept. `model`: tells it from others. Replaces a file.
void save_prompt_cache(const Path& path, const SequenceState& state, std::span<const TokenId> tokens,
                       const std::string& model);

/// Fills `state`, a new one of `decoder`; returns the tokens it holds then. UserError naming the file: no prompt cache,
/// one of another model or of other shapes, or damaged (every byte is checked).
std::vector<TokenId> load_prompt_cache(const Path& path, const Decoder& decoder, SequenceState& state,
                                       const std::string& model);

}  // namespace crumb::runtime
