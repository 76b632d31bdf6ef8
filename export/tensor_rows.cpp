#include "export/tensor_rows.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/common/error.h"
#include "quant/row_blocks.h"

namespace crumb::exporting {
namespace {

using formats::TensorType;

constexpr int64_t kGrain = 1 << 16;  // weights a thread takes at least

bool packs_codes(TensorType type) {
  return type == TensorType::q2_0c || type == TensorType::q2_k || type == TensorType::q4_0 ||
         type == TensorType::q4_1 || type == TensorType::q8_0;
}

/// Permutes the values of a bias, which is one row.
void permute_elements(std::vector<float>& values, int64_t head_dim) {
  const std::vector<float> source = values;
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = source[static_cast<size_t>(arch::hf_row_of_gguf_row(static_cast<int64_t>(i), head_dim))];
}

}  // namespace

TensorRows::TensorRows(const quant::Checkpoint& checkpoint, const PlannedTensor& planned, RowOrder order,
                       ThreadPool& pool)
    : checkpoint_(checkpoint),
      planned_(planned),
      stored_(checkpoint.tensor(planned.desc.id)),
      pool_(pool),
      cols_(planned.desc.cols()),
      head_dim_(order == RowOrder::gguf ? planned.desc.permuted_head_dim : 0),
      row_bytes_(formats::row_bytes(planned.type, cols_)),
      block_rows_(std::max<int64_t>(1, quant::rows_per_block(cols_))) {
  if (planned.format) levels_ = planned.format->levels();
  if (head_dim_ > 0) block_rows_ = std::max(head_dim_, block_rows_ / head_dim_ * head_dim_);
}

void TensorRows::load(int64_t begin, int64_t end) {
  const auto count = static_cast<size_t>((end - begin) * cols_);
  if (planned_.format) {
    codes_ = checkpoint_.read_codes(stored_, begin, end);
  } else {
    values_.resize(count);
    checkpoint_.read_rows(stored_, begin, end, values_.data());
    if (head_dim_ > 0 && planned_.desc.shape.size() == 1) permute_elements(values_, head_dim_);
  }
  checkpoint_.release_rows(stored_, begin, end);
}

int64_t TensorRows::source_row(int64_t file_row) const {
  const bool permuted = head_dim_ > 0 && planned_.desc.shape.size() == 2;
  return permuted ? arch::hf_row_of_gguf_row(file_row, head_dim_) : file_row;
}

std::span<const uint8_t> TensorRows::encode(int64_t begin, int64_t end) {
  load(begin, end);
  if (planned_.format && !packs_codes(planned_.type)) {
    values_.resize(codes_.codes.size());
    codes_.dequantize(values_.data());
  }
  bytes_.resize(static_cast<size_t>((end - begin) * row_bytes_));
  pool_.parallel_for(end - begin, std::max<int64_t>(1, kGrain / cols_), [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      uint8_t* out = bytes_.data() + row * row_bytes_;
      encode_row(row, out);
      if (!planned_.format) note_loss(values_.data() + source_row(row) * cols_, out);
    }
  });
  return bytes_;
}

void TensorRows::encode_row(int64_t file_row, uint8_t* out) const {
  const int64_t source = source_row(file_row);
  if (planned_.format && packs_codes(planned_.type))
    encode_codes(source, out);
  else
    formats::encode_row(planned_.type, values_.data() + source * cols_, cols_, out);
}

void TensorRows::encode_codes(int64_t source, uint8_t* out) const {
  const auto& format = codes_.format;
  const uint8_t* codes = codes_.codes.data() + source * cols_;
  const int64_t groups = format.groups(cols_);
  const float* scales = codes_.scales.data() + source * groups;
  std::vector<float> minima;  // what level 0 is: zero points are minima, too
  if (!format.symmetric) {
    for (int64_t i = 0; i < groups; ++i)
      minima.push_back(codes_.group(static_cast<size_t>(source * groups + i)).value(0));
  }
  try {
    formats::encode_codes_row(planned_.type, codes, levels_, scales, cols_, format.group_cols(cols_), out,
                              minima.empty() ? nullptr : minima.data());
  } catch (const UserError& error) {
    user_error("{}: {}; choose another target", planned_.desc.hf_name, error.what());
  }
}

void TensorRows::note_loss(const float* values, const uint8_t* encoded) {
  constexpr double kMostLoss = 0.1;
  if (planned_.type == TensorType::f32) return;
  std::vector<float> decoded(static_cast<size_t>(cols_));
  formats::decode_row(planned_.type, encoded, cols_, decoded.data());
  double loss = 0, sum = 0;
  for (int64_t i = 0; i < cols_; ++i) {
    const double value = values[i], error = decoded[static_cast<size_t>(i)] - value;
    CRUMB_CHECK(std::isfinite(error), "{}: {} is too large for {}; choose another type", planned_.desc.hf_name,
                values[i], formats::type_name(planned_.type));
    loss += error * error;
    sum += value * value;
  }
  const bool is_16_bit = planned_.type == TensorType::bf16 || planned_.type == TensorType::f16;
  if (is_16_bit && loss > 0) rounded_ = true;
  if (loss > kMostLoss * sum) ++lost_rows_;
}

void TensorRows::check(int64_t begin, int64_t end, std::span<const uint8_t> bytes) {
  CRUMB_ASSERT(static_cast<int64_t>(bytes.size()) == (end - begin) * row_bytes_);
  load(begin, end);
  if (planned_.format) {
    values_.resize(codes_.codes.size());
    codes_.dequantize(values_.data());
  }
  pool_.parallel_for(end - begin, std::max<int64_t>(1, kGrain / cols_), [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) check_row(row, bytes.data() + row * row_bytes_);
  });
}

void TensorRows::check_row(int64_t file_row, const uint8_t* bytes) const {
  bool same = false;
  if (planned_.format) {
    std::vector<float> decoded(static_cast<size_t>(cols_));
    formats::decode_row(planned_.type, bytes, cols_, decoded.data());
    same = std::equal(decoded.begin(), decoded.end(), values_.begin() + source_row(file_row) * cols_);
  } else {
    std::vector<uint8_t> again(static_cast<size_t>(row_bytes_));
    encode_row(file_row, again.data());
    same = std::memcmp(again.data(), bytes, again.size()) == 0;
  }
  if (!same)
    run_error("read-back of {} ({}): a row differs from what was written; nothing was kept", planned_.desc.hf_name,
              formats::type_name(planned_.type));
}

}  // namespace crumb::exporting
