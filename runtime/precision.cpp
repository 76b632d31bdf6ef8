#include "runtime/precision.h"

#include <fmt/ranges.h>

#include <vector>

#include "core/common/error.h"

namespace crumb::runtime {

std::string_view name_of(CacheType type) { return type == CacheType::f16 ? "f16" : "f32"; }

Precision precision_from_names(const std::string& activations, const std::string& cache_type) {
  for (const auto type : {CacheType::f32, CacheType::f16}) {
    if (cache_type == name_of(type)) return {activations_from_name(activations, "--activations"), type};
  }
  user_error("--cache-type: unknown \"{}\"; known: {}, {}", cache_type, name_of(CacheType::f32),
             name_of(CacheType::f16));
}

std::string to_text(const Precision& precision) {
  std::vector<std::string> parts;
  if (precision.activations == Activations::automatic)
    parts.emplace_back("int8 activations of quantized linears where a model has them");
  if (precision.activations == Activations::int8)
    parts.emplace_back("int8 activations of quantized linears, bfloat16 of bfloat16 ones");
  if (precision.activations == Activations::bf16) parts.emplace_back("bfloat16 activations of linears");
  if (precision.cache_type == CacheType::f16) parts.emplace_back("keys and values in f16");
  return fmt::format("{}", fmt::join(parts, ", "));
}

std::unique_ptr<Decoder> load_decoder(const quant::Checkpoint& checkpoint, const std::shared_ptr<Executor>& executor,
                                      const Precision& precision, const std::shared_ptr<WeightPool>& pool) {
  const auto activations = resolved(precision.activations, checkpoint);
  return load_decoder(checkpoint, executor, packed_linears(activations, executor, pool), precision.cache_type,
                      pool.get());
}

}  // namespace crumb::runtime
