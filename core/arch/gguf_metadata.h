// GGUF metadata <-> DecoderSpec.
#pragma once

#include <optional>
#include <vector>

#include "core/arch/tensor_table.h"
#include "core/formats/gguf.h"

namespace crumb::arch {

/// Also reads rope_freqs.weight (llama3 divisors) and the presence of output.weight (untied head). Arch "llama" gives
/// Architecture::llama (a GGUF does not tell Mistral apart) with `window` from attention.sliding_window if the key is
/// there.
DecoderSpec spec_from_gguf(const formats::GgufReader& gguf);
/// UserError for a model of which stock llama.cpp would refuse the file, or that GGUF has no keys for: biases and
/// lengths of heads that its architecture does not have there, scaled frequencies, two sizes of windows, layers that
/// differ in what GGUF says once.
void check_llama_cpp_loads(const DecoderSpec& spec);
/// Sets general.architecture and every <arch>.* key that stock llama.cpp wants. Frequencies that differ are a tensor:
/// see rope_freqs().
void set_gguf_metadata(const DecoderSpec& spec, formats::GgufWriter& writer);
/// RunError naming the first fact in which the file's metadata, parsed, differ from the model it was written from (up
/// to float32), and both values.
void check_read_back(const formats::GgufReader& gguf, const DecoderSpec& spec);
/// The F32 tensor Slot::rope_freqs [dim/2]; empty when all divisors are the same (linear scaling is in the
/// metadata).
std::vector<float> rope_freqs(const DecoderSpec& spec);
/// What it is in the file; nothing when it is empty. It has no hf_name.
std::optional<TensorDesc> rope_freqs_tensor(const DecoderSpec& spec);

}  // namespace crumb::arch
