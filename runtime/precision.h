// What a decoder computes in, where it may be less than the float32 of the model's own arithmetic.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "runtime/decoder.h"
#include "runtime/packed_linear.h"

namespace crumb::runtime {

struct Precision {
  Activations activations = Activations::floats;  // of packed linears
  CacheType cache_type = CacheType::f32;

  bool operator==(const Precision&) const = default;
  bool is_exact() const { return activations == Activations::floats && cache_type == CacheType::f32; }
};
/// From "auto", "float", "bf16" or "int8" and "f32", "f16" or "q8"; UserError that names --activations or --cache-type.
Precision precision_from_names(const std::string& activations, const std::string& cache_type);
std::string_view name_of(CacheType type);
/// "int8 activations of quantized linears, bfloat16 of bfloat16 ones beside them, keys and values in f16"; "" where it
/// is exact.
std::string to_text(const Precision& precision);

/// With packed linears.
std::unique_ptr<Decoder> load_decoder(const quant::Checkpoint& checkpoint, const std::shared_ptr<Executor>& executor,
                                      const Precision& precision, const WeightStores& stores = {});

}  // namespace crumb::runtime
