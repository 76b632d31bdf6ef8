// Rows of block types as the codes and scales they were written from (encode_codes_row), where they still are that.
#pragma once

#include <cstdint>
#include <span>

#include "core/formats/codec.h"

namespace crumb::formats {

/// Takes one row of `cols` weights apart: codes [cols] and one scale a block, scales [cols / block_size(type)]. False,
/// with both left unspecified, if a block holds anything but `levels` times a positive finite scale. Types with a
/// level_factor() for `levels`.
bool decode_codes_row(TensorType type, const void* data, int64_t cols, std::span<const float> levels, uint8_t* codes,
                      float* scales);

}  // namespace crumb::formats
