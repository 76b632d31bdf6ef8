// A trained decoder as a codes-and-scales checkpoint.
#pragma once

#include "core/common/file.h"
#include "model/decoder.h"
#include "quant/checkpoint.h"

namespace crumb::qat {

/// Writes the folder (docs/formats.md) atomically, replacing one that exists: the codes and rounded scales of the
/// quantized linears as the forward pass uses them, norms and biases rounded to bf16, everything else in the dtypes of
/// `base`, whose configuration and tokenizer files are copied. `exclude`: the patterns of linears that stayed in float.
void save_model(const Path& folder, model::Decoder& decoder, const quant::Checkpoint& base,
                const std::vector<std::string>& exclude);

/// One warning that names the quantized linears of which scales are at an end of their range.
void warn_about_clamped_scales(const model::Decoder& decoder);

}  // namespace crumb::qat
