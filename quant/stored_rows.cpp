#include "quant/stored_rows.h"

#include <bit>
#include <cstring>
#include <utility>

#include "core/arch/tensor_table.h"
#include "core/common/error.h"

namespace crumb::quant {
namespace {

template <class T>
T number_at(const uint8_t* numbers, int64_t index) {
  T value;
  std::memcpy(&value, numbers + index * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return value;
}

}  // namespace

GroupScale PackedCodes::group(int64_t row, int64_t group) const {
  const int64_t at = row * groups + group;
  GroupScale out{number_at<float>(scales, at)};
  if (zero_points != nullptr) out.zero_point = number_at<int32_t>(zero_points, at);
  if (minima != nullptr) out.minimum = number_at<float>(minima, at);
  return out;
}

StoredRows::StoredRows(RowEncoding encoding, const uint8_t* data, int64_t rows, int64_t cols, int64_t row_bytes,
                       int64_t permuted_head_dim)
    : encoding_(std::move(encoding)),
      data_(data),
      rows_(rows),
      cols_(cols),
      row_bytes_(row_bytes),
      permuted_head_dim_(permuted_head_dim) {}

std::span<const uint8_t> StoredRows::row(int64_t row) const {
  CRUMB_ASSERT(0 <= row && row < rows_);
  const int64_t stored = is_in_order() ? row : arch::gguf_row_of_hf_row(row, permuted_head_dim_);
  return {data_ + stored * row_bytes_, static_cast<size_t>(row_bytes_)};
}

int64_t StoredRows::alignment() const {
  constexpr uintptr_t kMost = 64;
  const auto bits = reinterpret_cast<uintptr_t>(data_) | static_cast<uintptr_t>(row_bytes_) | kMost;
  return int64_t{1} << std::countr_zero(bits);
}

}  // namespace crumb::quant
