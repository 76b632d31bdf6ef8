// Writes the codes-and-scales checkpoint (docs/formats.md): an HF folder whose quantized linears are NAME.weight_codes
// (uint8, packed rows), NAME.weight_scale (float32) and, for asymmetric integers, NAME.weight_zero_point (int32).
// Untouched matrices keep the source's dtype; norms and biases are float32 holding bf16 values. Streams: tensors come
// in the order of tensor_table(), by blocks of rows.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "core/common/file.h"
#include "quant/checkpoint.h"
#include "quant/quantized_tensor.h"

namespace crumb::quant {

/// Where the weights of the new checkpoint come from. One of the two is called for each tensor, by ascending blocks of
/// rows.
struct CodesSource {
  /// Formats of the quantized linears by hf_name; every other tensor is written as it is.
  std::map<std::string, QuantFormat> formats;
  std::function<QuantizedTensor(const arch::TensorDesc&, int64_t begin, int64_t end)> codes;
  std::function<void(const arch::TensorDesc&, int64_t begin, int64_t end, float* out)> rows;
};

/// Writes DIR (its temporary folder: the caller commits an AtomicFolder). `base` gives spec, config.json, companion
/// files and the dtypes of untouched matrices. `ignore`: the exclude patterns, for quantization_config.
void write_codes_folder(const Path& folder, const Checkpoint& base, const CodesSource& source,
                        const std::vector<std::string>& ignore);

/// Rows a block, so that one holds about 16 MB of floats.
int64_t rows_per_block(int64_t cols);

}  // namespace crumb::quant
