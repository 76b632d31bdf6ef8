// GGUF files of tiny models whose matrices are random blocks of any type.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "core/arch/gguf_metadata.h"
#include "core/arch/tensor_table.h"
#include "core/common/rng.h"
#include "core/formats/block_levels.h"
#include "core/formats/gguf.h"

namespace crumb::testing {

/// Every type of more than one weight a block.
inline std::vector<formats::TensorType> block_types() {
  std::vector<formats::TensorType> types;
  for (int i = 0; i <= static_cast<int>(formats::TensorType::nvfp4); ++i) {
    if (formats::block_form(static_cast<formats::TensorType>(i)) != nullptr)
      types.push_back(static_cast<formats::TensorType>(i));
  }
  return types;
}

/// Rows of 512 columns, which are whole blocks of every type.
inline arch::DecoderSpec block_spec(bool tied_head = false) {
  arch::DecoderSpec spec{
      .vocab_size = 40, .hidden_size = 512, .context_length = 64, .tied_head = tied_head, .layers = {}};
  arch::LayerSpec layer{.attention = arch::GqaSpec{.heads = 4, .kv_heads = 1, .head_dim = 128},
                        .feed_forward = arch::MlpSpec{.intermediate = 512},
                        .rope = {.dim = 128, .base = 10000.0, .divisors = std::vector<double>(64, 1.0)}};
  spec.layers.push_back(layer);
  return spec;
}

/// Random bytes of so many blocks, among them only blocks whose largest weight is between 2^-7 and 1/4.
inline std::vector<uint8_t> random_blocks(formats::TensorType type, int64_t count, uint64_t stream) {
  constexpr int kKinds = 16;
  const int64_t bytes = formats::block_bytes(type), size = formats::block_size(type);
  const Rng rng(41, stream);
  std::vector<std::vector<uint8_t>> kinds;
  std::vector<uint8_t> block(static_cast<size_t>(bytes));
  std::vector<float> weights(static_cast<size_t>(size));
  for (uint64_t tried = 0; kinds.size() < kKinds; ++tried) {
    for (size_t i = 0; i < block.size(); ++i) block[i] = static_cast<uint8_t>(rng.below(tried * block.size() + i, 256));
    formats::decode_row(type, block.data(), size, weights.data());
    const auto is_sane = [](float w) { return std::abs(w) <= 0.25f; };  // not NaN
    const auto is_large = [](float w) { return std::abs(w) >= 0x1p-7f; };
    if (std::ranges::all_of(weights, is_sane) && std::ranges::any_of(weights, is_large)) kinds.push_back(block);
  }
  std::vector<uint8_t> out;
  for (int64_t i = 0; i < count; ++i) {
    const auto& kind = kinds[rng.below(static_cast<uint64_t>(i), kKinds)];
    out.insert(out.end(), kind.begin(), kind.end());
  }
  return out;
}

/// The type of each matrix by `type_of`: f32 or a block type. Vectors are f32.
inline void write_block_model(const Path& path, const arch::DecoderSpec& spec,
                              const std::function<formats::TensorType(const arch::TensorDesc&)>& type_of) {
  formats::GgufWriter writer;
  arch::set_gguf_metadata(spec, writer);
  const auto table = arch::tensor_table(spec);
  const auto type = [&](const arch::TensorDesc& desc) {
    return desc.shape.size() == 2 ? type_of(desc) : formats::TensorType::f32;
  };
  for (const auto& desc : table) writer.declare(desc.gguf.name, type(desc), desc.shape);
  writer.begin(path);
  for (const auto& desc : table) {
    const uint64_t stream = hash_name(desc.hf_name);
    if (type(desc) != formats::TensorType::f32) {
      const auto bytes = random_blocks(type(desc), desc.elements() / formats::block_size(type(desc)), stream);
      writer.write(bytes.data(), static_cast<int64_t>(bytes.size()));
      continue;
    }
    std::vector<float> values;
    for (int64_t i = 0; i < desc.elements(); ++i)
      values.push_back(static_cast<float>(0.5 + Rng(42, stream).uniform(static_cast<uint64_t>(i))));
    writer.write(values.data(), static_cast<int64_t>(values.size() * sizeof(float)));
  }
  writer.finish();
  writer.commit();
}

}  // namespace crumb::testing
