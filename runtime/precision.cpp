#include "runtime/precision.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "core/common/error.h"
#include "runtime/cuda/decoder.h"

namespace crumb::runtime {

namespace {

constexpr std::pair<CacheType, std::string_view> kCacheTypes[] = {
    {CacheType::f32, "f32"}, {CacheType::f16, "f16"}, {CacheType::q8, "q8"}};

}  // namespace

std::string_view name_of(CacheType type) {
  return std::ranges::find(kCacheTypes, type, [](const auto& entry) { return entry.first; })->second;
}

Precision precision_from_names(const std::string& activations, const std::string& cache_type,
                               const std::string& device) {
  Precision precision{.activations = activations_from_name(activations, "--activations")};
  std::vector<std::string_view> known;
  const auto* found = std::ranges::find(kCacheTypes, cache_type, [](const auto& entry) { return entry.second; });
  for (const auto& [type, name] : kCacheTypes) known.push_back(name);
  CRUMB_CHECK(found != std::end(kCacheTypes), "--cache-type: unknown \"{}\"; known: {}", cache_type,
              fmt::join(known, ", "));
  precision.cache_type = found->first;
  CRUMB_CHECK(device == "cpu" || device == "cuda", "--device: unknown \"{}\"; known: cpu, cuda", device);
  if (device == "cpu") return precision;
  precision.device = Device::cuda;
  using enum Activations;
  CRUMB_CHECK(precision.activations == automatic || precision.activations == bf16,
              "--activations {}: --device cuda has kernels for bf16 alone", activations);
  precision.activations = bf16;
  CRUMB_CHECK(precision.cache_type != CacheType::q8, "--cache-type q8: --device cuda has kernels for f32 and f16");
  return precision;
}

Precision resolved(const Precision& precision, const quant::Checkpoint& checkpoint) {
  Precision result = precision;
  result.activations =
      precision.device == Device::cuda ? Activations::bf16 : resolved(precision.activations, checkpoint);
  return result;
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
  if (precision.device == Device::cuda) parts.emplace_back("on a GPU");
  return fmt::format("{}", fmt::join(parts, ", "));
}

std::unique_ptr<Decoder> load_decoder(const quant::Checkpoint& checkpoint, const std::shared_ptr<Executor>& executor,
                                      const Precision& precision, const WeightStores& stores) {
  if (precision.device == Device::cuda) {
    CRUMB_ASSERT(stores.cache == nullptr);
    return load_cuda_decoder(checkpoint, *executor, precision.cache_type);
  }
  const auto activations = resolved(precision.activations, checkpoint);
  return load_decoder(checkpoint, executor, packed_linears(activations, executor, stores), precision.cache_type,
                      stores);
}

}  // namespace crumb::runtime
