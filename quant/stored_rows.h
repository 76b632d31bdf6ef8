// A matrix as its file holds it: what kernels need that multiply with the stored form, or order it anew when they load.
#pragma once

#include <cstdint>
#include <span>
#include <variant>

#include "core/formats/codec.h"
#include "core/formats/dtype.h"
#include "quant/grid.h"

namespace crumb::quant {

/// Rows of packed codes (unpack_row) of a codes folder, with their scales beside them, in HF's order of rows.
struct PackedCodes {
  QuantFormat format;
  int64_t groups = 1;                    // a row
  const uint8_t* scales = nullptr;       // float32 [rows, groups], at any byte
  const uint8_t* zero_points = nullptr;  // int32, likewise; null where the format has none
  const uint8_t* minima = nullptr;       // float32, likewise

  GroupScale group(int64_t row, int64_t group) const;
};

/// What the bytes of a row are: numbers (formats::to_float), whole blocks of ggml (formats::decode_row), or codes.
/// Blocks that are exactly levels times scales have a StoredTensor::format, too: formats::RowCodes.
using RowEncoding = std::variant<formats::DType, formats::TensorType, PackedCodes>;

/// Mapped memory, which lives as long as the checkpoint; give pages back by Checkpoint::release_rows. Nothing in it was
/// checked: who decodes it looks out for numbers and scales that are not finite and for codes without a level, as
/// read_rows and read_codes do.
class StoredRows {
 public:
  /// `data`: the first row in the file's order. `permuted_head_dim`: as in arch::TensorDesc, 0 for HF's order.
  StoredRows(RowEncoding encoding, const uint8_t* data, int64_t rows, int64_t cols, int64_t row_bytes,
             int64_t permuted_head_dim);

  const RowEncoding& encoding() const { return encoding_; }
  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  int64_t row_bytes() const { return row_bytes_; }
  /// The bytes of HF's row `row`, wherever they lie.
  std::span<const uint8_t> row(int64_t row) const;
  /// Whether row i + 1 lies right behind row i; if not, each head's rows are permuted (arch::hf_row_of_gguf_row).
  bool is_in_order() const { return permuted_head_dim_ == 0; }
  /// The largest power of two, at most 64, that divides the address of every row.
  int64_t alignment() const;

 private:
  RowEncoding encoding_;
  const uint8_t* data_;
  int64_t rows_, cols_, row_bytes_, permuted_head_dim_;
};

}  // namespace crumb::quant
