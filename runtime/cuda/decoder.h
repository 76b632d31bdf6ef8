// The decoder on a CUDA device: weights packed once into the tiles of its kernels, activations, keys and values in its
// memory. Passes in which every sequence goes on by one token are recorded once and launched as graphs.
#pragma once

#include <memory>
#include <string>

#include "core/common/executor.h"
#include "quant/checkpoint.h"
#include "runtime/decoder.h"

namespace crumb::runtime {

/// Linears of codes, and those of bfloat16 weights, read their input rounded to bfloat16; sums, the residual stream and
/// norms are float32. A token's row depends, in its last bits, on how many tokens a pass has: other kernels multiply
/// few than many. `executor`: reads the weights. `cache`: f32 or f16.
///
/// UserError: a program that was built without CUDA; no device, or one for which the program has no code; a model with
/// features that have no kernels, by name. RunError: not enough memory on the device, with how much is needed.
std::unique_ptr<Decoder> load_cuda_decoder(const quant::Checkpoint& checkpoint, Executor& executor, CacheType cache);

/// Of the device that would be used. UserError as above.
std::string cuda_device_name();

}  // namespace crumb::runtime
