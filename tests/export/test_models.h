// Small random models for the tests of export: HF folders, and codes-and-scales folders made from them.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "core/arch/tensor_table.h"
#include "core/formats/dtype.h"
#include "quant/checkpoint.h"
#include "quant/quantized_tensor.h"
#include "tests/testing/testing.h"

namespace crumb::testing {

/// Two layers, 4 query and 2 key/value heads, intermediate = 2 * hidden, vocabulary 288, context 128. qwen3 has a head
/// of its own, the others are tied; biases and q/k norms as the architecture has them.
arch::DecoderSpec small_spec(arch::Architecture architecture, int64_t hidden);

/// The same format for every linear.
std::map<std::string, quant::QuantFormat> all_linears(const arch::DecoderSpec& spec, const quant::QuantFormat& format);

/// Writes config.json, model.safetensors (random values, rounded to `dtype`) and a byte-level tokenizer.
void write_model(const fs::path& folder, const arch::DecoderSpec& spec, formats::DType dtype = formats::DType::bf16);

/// Rounds every linear of the model to nearest and writes codes and scales.
void quantize_model(const fs::path& from, const fs::path& to, const quant::QuantFormat& format);

/// Both at once, under `parent`.
fs::path quantized_model(const fs::path& parent, const arch::DecoderSpec& spec, const quant::QuantFormat& format);

}  // namespace crumb::testing
