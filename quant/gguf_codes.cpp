#include "quant/gguf_codes.h"

#include <algorithm>
#include <numeric>

#include "kernels/seq.h"
#include "quant/row_blocks.h"

namespace crumb::quant {

RowsOfCodes::RowsOfCodes(const formats::GgufReader& reader, const formats::GgufTensor& tensor,
                         const QuantFormat& format)
    : data_(reader.bytes(tensor).data()),
      cols_(tensor.shape.back()),
      row_bytes_(formats::row_bytes(tensor.type, cols_)),
      blocks_(cols_ / formats::block_size(tensor.type)),
      has_minima_(format.has_minima),
      codes_(tensor.type, format.levels()) {}

bool RowsOfCodes::take_apart(int64_t row, uint8_t* codes, GroupScale* groups) const {
  thread_local std::vector<float> scales, minima;
  scales.resize(static_cast<size_t>(blocks_));
  minima.resize(has_minima_ ? scales.size() : 0);
  const auto* bytes = data_ + row * row_bytes_;
  if (!codes_.decode(bytes, cols_, codes, scales.data(), has_minima_ ? minima.data() : nullptr)) return false;
  for (size_t i = 0; i < scales.size(); ++i) {
    groups[i] = {scales[i]};
    if (has_minima_) groups[i].minimum = minima[i];
  }
  return std::ranges::all_of(scales, [](float s) { return kernels::round_scale(s) == s; });
}

namespace {

constexpr size_t kMostLevels = 255;

/// Every format whose levels the type can hold, the fewest levels first. Not those of all bytes: q8_0 is held as well
/// as it is, and may be exported to what holds no codes of 8 bits exactly.
std::vector<QuantFormat> candidates(formats::TensorType type) {
  std::vector<QuantFormat> formats;
  const formats::BlockForm* form = formats::block_form(type);
  const bool has_minima = form != nullptr && form->has_minima;
  for (const Grid grid : known_grids()) {
    for (int bits = grid.facts().least_bits; bits <= grid.facts().most_bits; ++bits) {
      const QuantFormat format{.grid = grid, .bits = bits};
      if (format.levels().size() > kMostLevels) continue;
      if (formats::level_factor(type, format.levels())) formats.push_back(format);
      if (!has_minima || !grid.facts().may_be_asymmetric) continue;
      const QuantFormat with_minima{.grid = grid, .bits = bits, .symmetric = false, .has_minima = true};
      if (formats::level_factor(type, with_minima.levels())) formats.push_back(with_minima);
    }
  }
  std::ranges::stable_sort(formats, {}, [](const QuantFormat& format) { return format.levels().size(); });
  return formats;
}

/// `format` with its group size, if every row of the tensor is codes of it.
std::optional<QuantFormat> matched(const formats::GgufReader& reader, const formats::GgufTensor& tensor, int64_t begin,
                                   int64_t end, QuantFormat format) {
  const RowsOfCodes rows(reader, tensor, format);
  const int64_t cols = tensor.cols(), step = rows_per_block(cols);
  std::vector<GroupScale> groups(static_cast<size_t>(rows.blocks_a_row()));
  int64_t shared = rows.blocks_a_row();  // blocks with one scale: divides every place where it or the minimum changes
  for (; begin < end; begin += step) {
    const int64_t last = std::min(begin + step, end);
    for (int64_t row = begin; row < last; ++row) {
      if (!rows.take_apart(row, nullptr, groups.data())) return std::nullopt;
      for (int64_t block = 1; block < rows.blocks_a_row(); ++block) {
        if (groups[static_cast<size_t>(block)] != groups[static_cast<size_t>(block - 1)])
          shared = std::gcd(shared, block);
      }
    }
    reader.release_rows(tensor, begin, last);
  }
  if (shared < rows.blocks_a_row()) format.group_size = shared * formats::block_size(tensor.type);
  return format;
}

}  // namespace

std::optional<QuantFormat> find_codes(const formats::GgufReader& reader, const formats::GgufTensor& tensor,
                                      int64_t begin, int64_t end) {
  for (const QuantFormat& format : candidates(tensor.type)) {
    if (const auto found = matched(reader, tensor, begin, end, format)) return found;
  }
  return std::nullopt;
}

}  // namespace crumb::quant
