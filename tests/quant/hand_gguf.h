// A checkpoint written to GGUF by hand, every tensor F32: names, metadata and the row permutation, nothing else.
#pragma once

#include <string>
#include <vector>

#include "core/arch/gguf_metadata.h"
#include "core/formats/gguf.h"
#include "quant/checkpoint.h"

namespace crumb::testing {

inline void write_f32_gguf(const quant::Checkpoint& checkpoint, const Path& path) {
  formats::GgufWriter writer;
  arch::set_gguf_metadata(checkpoint.spec(), writer);
  const auto freqs = arch::rope_freqs(checkpoint.spec());
  if (!freqs.empty()) {
    writer.declare("rope_freqs.weight", formats::TensorType::f32, {static_cast<int64_t>(freqs.size())});
  }
  for (const auto& tensor : checkpoint.tensors()) {
    writer.declare(tensor.desc.gguf.name, formats::TensorType::f32, tensor.desc.shape);
  }
  writer.begin(path);
  if (!freqs.empty()) writer.write(freqs.data(), static_cast<int64_t>(freqs.size() * sizeof(float)));
  for (const auto& tensor : checkpoint.tensors()) {
    const auto values = quant::read_all(checkpoint, tensor);
    // A bias moves element by element as its matrix moves row by row.
    const int64_t rows = tensor.desc.shape.front(), cols = tensor.desc.elements() / rows;
    const int64_t head_dim = tensor.desc.permuted_head_dim;
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t from = head_dim > 0 ? arch::hf_row_of_gguf_row(row, head_dim) : row;
      writer.write(values.data() + from * cols, cols * static_cast<int64_t>(sizeof(float)));
    }
  }
  writer.finish();
  writer.commit();
}

}  // namespace crumb::testing
