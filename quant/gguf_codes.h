// Tensors of a GGUF that are codes and scales: written by `crumb export` from a codes-and-scales folder, or the like.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "core/formats/gguf.h"
#include "core/formats/row_codes.h"
#include "quant/grid.h"

namespace crumb::quant {

/// The rows of one tensor, in the file's order.
class RowsOfCodes {
 public:
  /// The tensor's type has a formats::level_factor() for the levels of `format`.
  RowsOfCodes(const formats::GgufReader& reader, const formats::GgufTensor& tensor, const QuantFormat& format);
  int64_t blocks_a_row() const { return blocks_; }
  /// Codes [cols] (null: not wanted, but checked) and what the weights of each block share. False if the row is not
  /// levels of the format times scales of 6 significant bits (kernels::round_scale), and minima where it has them.
  bool take_apart(int64_t row, uint8_t* codes, GroupScale* groups) const;

 private:
  const uint8_t* data_;
  int64_t cols_, row_bytes_, blocks_;
  bool has_minima_;
  formats::RowCodes codes_;
};

/// The format of rows [begin, end) every block of which holds exactly levels of its grid with such a scale, of several
/// that of the fewest levels, without minima if it can be; nothing if there is none, which mostly the first block
/// tells. group_size is the largest that describes scales and minima, 0 where every row has one. Reads all of the rows,
/// block by block, and gives its pages back: the type alone tells nothing, as q4_0 and q8_0 hold any integers and other
/// programs write 2-bit types with scales that are not Crumb's.
std::optional<QuantFormat> find_codes(const formats::GgufReader& reader, const formats::GgufTensor& tensor,
                                      int64_t begin, int64_t end);

}  // namespace crumb::quant
