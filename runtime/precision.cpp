#include "runtime/precision.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "core/common/error.h"

namespace crumb::runtime {

namespace {

constexpr std::pair<CacheType, std::string_view> kCacheTypes[] = {
    {CacheType::f32, "f32"}, {CacheType::f16, "f16"}, {CacheType::q8, "q8"}};

}  // namespace

std::string_view name_of(CacheType type) {
  return std::ranges::find(kCacheTypes, type, [](const auto& entry) { return entry.first; })->second;
}

Precision precision_from_names(const std::string& activations, const std::string& cache_type) {
  std::vector<std::string_view> known;
  for (const auto& [type, name] : kCacheTypes) {
    if (cache_type == name) return {activations_from_name(activations, "--activations"), type};
    known.push_back(name);
  }
  user_error("--cache-type: unknown \"{}\"; known: {}", cache_type, fmt::join(known, ", "));
}

std::string to_text(const Precision& precision) {
  std::vector<std::string> parts;
  if (precision.activations == Activations::automatic)
    parts.emplace_back(
        "int8 activations of quantized linears and bfloat16 of bfloat16 ones beside them, where a model has such");
  if (precision.activations == Activations::int8)
    parts.emplace_back("int8 activations of quantized linears, bfloat16 of bfloat16 ones beside them");
  if (precision.activations == Activations::bf16)
    parts.emplace_back("bfloat16 activations of codes and of bfloat16 linears");
  if (precision.cache_type != CacheType::f32)
    parts.push_back(fmt::format("keys and values in {}", name_of(precision.cache_type)));
  return fmt::format("{}", fmt::join(parts, ", "));
}

std::unique_ptr<Decoder> load_decoder(const quant::Checkpoint& checkpoint, const std::shared_ptr<Executor>& executor,
                                      const Precision& precision, const WeightStores& stores) {
  const auto activations = resolved(precision.activations, checkpoint);
  return load_decoder(checkpoint, executor, packed_linears(activations, executor, stores), precision.cache_type,
                      stores);
}

}  // namespace crumb::runtime
