// The rows of one planned tensor as the bytes of its file, by blocks of rows; and the same for the check.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/common/thread_pool.h"
#include "export/export.h"
#include "quant/checkpoint.h"

namespace crumb::exporting {

enum class RowOrder { hf, gguf };  // gguf: q and k of architecture "llama" are permuted inside each head

/// "q4_0 of model.layers.0.mlp.up_proj.weight" is read from the checkpoint in HF's row order and given out in the
/// file's.
class TensorRows {
 public:
  TensorRows(const quant::Checkpoint& checkpoint, const PlannedTensor& planned, RowOrder order, ThreadPool& pool);

  int64_t rows() const { return planned_.desc.rows(); }
  /// Rows a block: about 16 MB of floats, whole heads where rows are permuted.
  int64_t block_rows() const { return block_rows_; }
  int64_t row_bytes() const { return row_bytes_; }

  /// The bytes of rows [begin, end) of the file; valid until the next call. begin is a multiple of block_rows().
  /// UserError: a value that the type turns into infinity.
  std::span<const uint8_t> encode(int64_t begin, int64_t end);
  /// Compares rows [begin, end) read back: a quantized linear must decode to exactly codes x scales, everything else
  /// must be exactly what its encoder gives. RunError names the tensor and the row.
  void check(int64_t begin, int64_t end, std::span<const uint8_t> bytes);
  /// A 16-bit type could not hold some value exactly (float32 sources).
  bool was_rounded() const { return rounded_; }
  /// Rows of which an ordinary block encoder kept less than nine tenths (of the sum of squares): smaller or larger than
  /// its 16-bit scales are.
  int64_t lost_rows() const { return lost_rows_; }

 private:
  void load(int64_t begin, int64_t end);
  int64_t source_row(int64_t file_row) const;
  void encode_row(int64_t file_row, uint8_t* out) const;
  void encode_codes(int64_t source, uint8_t* out) const;
  void note_loss(const float* values, const uint8_t* encoded);
  void check_row(int64_t file_row, const uint8_t* bytes) const;

  const quant::Checkpoint& checkpoint_;
  const PlannedTensor& planned_;
  const quant::StoredTensor& stored_;
  ThreadPool& pool_;
  int64_t cols_, head_dim_, row_bytes_, block_rows_;
  quant::QuantizedTensor codes_;  // the loaded block, when the tensor is quantized
  std::vector<float> levels_;     // of its codes
  std::vector<float> values_;     // and as floats, when they are needed
  std::vector<uint8_t> bytes_;
  std::atomic<bool> rounded_ = false;
  std::atomic<int64_t> lost_rows_ = 0;
};

}  // namespace crumb::exporting
