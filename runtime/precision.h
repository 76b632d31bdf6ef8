// What a decoder computes in, where it may be less than the float32 of the model's own arithmetic, and on what.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "runtime/decoder.h"
#include "runtime/packed_linear.h"

namespace crumb::runtime {

enum class Device { cpu, cuda };

struct Precision {
  Activations activations = Activations::floats;  // of packed linears
  CacheType cache_type = CacheType::f32;
  Device device = Device::cpu;

  bool operator==(const Precision&) const = default;
  bool is_exact() const {
    return activations == Activations::floats && cache_type == CacheType::f32 && device == Device::cpu;
  }
};
/// From "auto", "float", "bf16" or "int8", "f32", "f16" or "q8", and "cpu" or "cuda"; UserError that names
/// --activations, --cache-type or --device, also where a GPU has no kernels for one of them.
Precision precision_from_names(const std::string& activations, const std::string& cache_type,
                               const std::string& device = "cpu");
std::string_view name_of(CacheType type);
/// "int8 activations of quantized linears, bfloat16 of bfloat16 ones beside them, keys and values in f16"; "" where it
/// is exact.
std::string to_text(const Precision& precision);

/// With what `automatic` activations are for a model: on a GPU bf16.
Precision resolved(const Precision& precision, const quant::Checkpoint& checkpoint);

/// With packed linears; on a GPU load_cuda_decoder() of runtime/cuda/decoder.h, without stores.
std::unique_ptr<Decoder> load_decoder(const quant::Checkpoint& checkpoint, const std::shared_ptr<Executor>& executor,
                                      const Precision& precision, const WeightStores& stores = {});

}  // namespace crumb::runtime
