#include "runtime/held_codes.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <map>
#include <utility>

#include "core/common/error.h"
#include "core/common/quantity.h"
#include "core/formats/block_levels.h"

namespace crumb::runtime {
namespace {

using kernels::kCodePanelRows;

constexpr int64_t kMostZero = 255;   // kernels::CodeMatrix::zeros
constexpr int32_t kTableZero = 128;  // a level of a table is a byte
constexpr size_t kTableLevels = 16;

/// Bits of a code as it lies in memory: no kernel reads 3, 5, 6 or 7.
int bits_of(size_t levels) { return levels <= 4 ? 2 : levels <= kTableLevels ? 4 : 8; }

std::optional<LevelForm> even_form(std::span<const float> levels) {
  const float distance = levels.size() > 1 ? levels[1] - levels[0] : 1.0f;
  for (size_t code = 1; code < levels.size(); ++code) {
    if (levels[code] - levels[code - 1] != distance) return std::nullopt;
  }
  const int bits = bits_of(levels.size());
  for (const float unit : {1.0f, 2.0f}) {
    const float step = distance * unit, zero = -levels.front() * unit;
    const bool is_step = step == 1 || (step == 2 && bits < 8);
    if (is_step && zero == std::round(zero) && zero >= 0 && zero <= kMostZero)
      return LevelForm{bits, static_cast<int32_t>(step), static_cast<int32_t>(zero), unit};
  }
  return std::nullopt;
}

std::optional<LevelForm> table_form(std::span<const float> levels) {
  if (levels.size() > kTableLevels) return std::nullopt;
  LevelForm form{.bits = 4, .zero = kTableZero};
  for (const float level : levels) {
    const float byte = level + kTableZero;
    if (byte != std::round(byte) || byte < 0 || byte > kMostZero) return std::nullopt;
    form.table.push_back(static_cast<uint8_t>(byte));
  }
  form.table.resize(kTableLevels, static_cast<uint8_t>(kTableZero));
  return form;
}

/// What a matrix is made of, wherever it comes from.
struct Parts {
  std::vector<float> levels;
  int64_t group_cols;
  bool has_zeros, has_minima;
};
std::optional<Parts> parts_of(const quant::StoredTensor& tensor) {
  if (tensor.format)
    return Parts{tensor.format->levels(), tensor.format->group_cols(tensor.desc.cols()),
                 tensor.format->has_zero_points(), tensor.format->has_minima};
  if (!tensor.block_type) return std::nullopt;
  const formats::BlockForm& form = *formats::block_form(*tensor.block_type);
  return Parts{{form.levels.begin(), form.levels.end()}, form.group_cols, false, form.has_minima};
}

/// The form, or why there is none.
struct Plan {
  std::optional<HeldForm> form;
  std::string obstacle;
};
Plan plan_of(const quant::StoredTensor& tensor) {
  const auto parts = parts_of(tensor);
  if (!parts) return {};
  const int64_t cols = tensor.desc.cols(), group_cols = parts->group_cols;
  const auto levels = level_form(parts->levels);
  if (!levels) return {std::nullopt, "its levels are not evenly spaced"};
  if (group_cols != cols && group_cols % kernels::kCodeColsMultiple != 0)
    return {std::nullopt,
            fmt::format("groups of {} columns are no multiple of {}", group_cols, kernels::kCodeColsMultiple)};
  if (group_cols > kernels::kMostCodeCols)
    return {std::nullopt, fmt::format("more than {} columns share a scale", kernels::kMostCodeCols)};
  return {HeldForm{*levels, tensor.desc.rows(), cols, group_cols, parts->has_zeros, parts->has_minima}, ""};
}

/// Codes and groups of rows [begin, end); false if a zero point is too large for the kernels.
bool take_codes(const quant::Checkpoint& checkpoint, const quant::StoredTensor& tensor, int64_t begin, int64_t end,
                HeldCodes& held) {
  const auto rows = checkpoint.read_codes(tensor, begin, end);
  held.set_codes(begin, rows.rows, rows.codes.data());
  const int64_t groups = rows.format.groups(rows.cols);
  for (int64_t i = 0; i < rows.rows * groups; ++i) {
    const auto [scale, zero_point, minimum] = rows.group(static_cast<size_t>(i));
    if (!held.set_group(begin + i / groups, i % groups, scale, zero_point, minimum)) return false;
  }
  return true;
}

/// Blocks of a GGUF as codes.
class BlockReader {
 public:
  BlockReader(const quant::Checkpoint& checkpoint, const quant::StoredTensor& tensor)
      : checkpoint_(checkpoint),
        tensor_(tensor),
        form_(*formats::block_form(*tensor.block_type)),
        rows_(checkpoint.stored_rows(tensor)) {
    for (size_t code = 0; code < form_.levels.size(); ++code)
      codes_[static_cast<uint8_t>(form_.levels[code])] = static_cast<uint8_t>(code);
    const auto magnitude = [](int8_t level) { return std::abs(static_cast<float>(level)); };
    most_ = std::max(magnitude(form_.levels.front()), magnitude(form_.levels.back()));
  }

  void take(int64_t begin, int64_t end, HeldCodes& held) const {
    const int64_t cols = rows_.cols(), groups = cols / form_.group_cols;
    std::vector<int8_t> levels(static_cast<size_t>((end - begin) * cols));
    std::vector<formats::LevelGroup> of_row(static_cast<size_t>(groups));
    for (int64_t row = begin; row < end; ++row) {
      formats::decode_levels(*tensor_.block_type, rows_.row(row).data(), cols, levels.data() + (row - begin) * cols,
                             of_row.data());
      if (!std::ranges::all_of(of_row, [&](const auto& group) { return is_surely_finite(group); })) check_row(row);
      for (int64_t group = 0; group < groups; ++group) {
        const auto& [scale, minimum] = of_row[static_cast<size_t>(group)];
        held.set_group(row, group, scale, 0, minimum);
      }
    }
    std::vector<uint8_t> codes(levels.size());
    std::ranges::transform(levels, codes.begin(), [&](int8_t level) { return codes_[static_cast<uint8_t>(level)]; });
    held.set_codes(begin, end - begin, codes.data());
  }

 private:
  bool is_surely_finite(const formats::LevelGroup& group) const {
    return std::isfinite(std::abs(group.scale) * most_ + std::abs(group.minimum));
  }
  /// Says what reading floats says of weights that are not finite; returns if only levels that do not occur would be.
  void check_row(int64_t row) const {
    std::vector<float> weights(static_cast<size_t>(rows_.cols()));
    checkpoint_.read_rows(tensor_, row, row + 1, weights.data());
  }

  const quant::Checkpoint& checkpoint_;
  const quant::StoredTensor& tensor_;
  const formats::BlockForm& form_;
  quant::StoredRows rows_;
  std::array<uint8_t, 256> codes_{};  // of levels, as bytes
  float most_;                        // magnitude of a level
};

}  // namespace

std::optional<LevelForm> level_form(std::span<const float> levels) {
  auto form = even_form(levels);
  return form ? form : table_form(levels);
}

int64_t HeldForm::bytes() const {
  const int64_t panels = (rows + kCodePanelRows - 1) / kCodePanelRows;
  const int64_t groups = panels * kCodePanelRows * (cols / group_cols), of_group = 4 * (1 + has_zeros + has_minima);
  return panels * kernels::code_panel_bytes(cols, levels.bits) + groups * of_group;
}

std::optional<HeldForm> held_form(const quant::StoredTensor& tensor) { return plan_of(tensor).form; }
std::string obstacle_to_held(const quant::StoredTensor& tensor) { return plan_of(tensor).obstacle; }
bool is_quantized(const quant::StoredTensor& tensor) { return tensor.format || tensor.block_type; }

bool is_multiplied(const quant::Checkpoint& checkpoint, const quant::StoredTensor& tensor) {
  using enum arch::TensorRole;
  const auto role = tensor.desc.role;
  return role == linear || role == (checkpoint.spec().tied_head ? embedding : head);
}

bool has_quantized_linears(const quant::Checkpoint& checkpoint) {
  return std::ranges::any_of(checkpoint.tensors(), [&](const auto& tensor) {
    return is_quantized(tensor) && is_multiplied(checkpoint, tensor);
  });
}

HeldCodes::HeldCodes(const HeldForm& form, std::vector<float> bias)
    : form_(form), panel_bytes_(kernels::code_panel_bytes(form.cols, form.levels.bits)), bias_(std::move(bias)) {
  const LevelForm& levels = form_.levels;
  matrix_ = {.bits = levels.bits,
             .rows = form.rows,
             .cols = form.cols,
             .group_cols = form.group_cols,
             .step = levels.step,
             .zero = levels.zero};
  codes_.resize(static_cast<size_t>(matrix_.panels() * panel_bytes_));
  scales_.resize(static_cast<size_t>(matrix_.panels() * matrix_.groups() * kCodePanelRows));
  if (form.has_zeros) zeros_.resize(scales_.size());
  if (form.has_minima) minima_.resize(scales_.size());
  matrix_.codes = codes_.data();
  matrix_.scales = scales_.data();
  matrix_.zeros = zeros_.empty() ? nullptr : zeros_.data();
  matrix_.minima = minima_.empty() ? nullptr : minima_.data();
  matrix_.levels = levels.table.empty() ? nullptr : levels.table.data();
}

bool same_bits(const HeldCodes& a, const HeldCodes& b) {
  return a.form_ == b.form_ && same_bits(a.codes_, b.codes_) && same_bits(a.scales_, b.scales_) &&
         same_bits(a.zeros_, b.zeros_) && same_bits(a.minima_, b.minima_) && same_bits(a.bias_, b.bias_);
}

void HeldCodes::set_codes(int64_t begin, int64_t rows, const uint8_t* codes) {
  for (int64_t row = 0; row < rows; row += kCodePanelRows) {
    uint8_t* const panel = codes_.data() + (begin + row) / kCodePanelRows * panel_bytes_;
    kernels::pack_code_panel(codes + row * form_.cols, std::min(kCodePanelRows, rows - row), form_.cols,
                             form_.levels.bits, panel);
  }
}

bool HeldCodes::set_group(int64_t row, int64_t group, float scale, int32_t zero_point, float minimum) {
  const int64_t panel_group = row / kCodePanelRows * matrix_.groups() + group;
  const auto at = static_cast<size_t>(panel_group * kCodePanelRows + row % kCodePanelRows);
  scales_[at] = scale / form_.levels.unit;
  if (!minima_.empty()) minima_[at] = minimum;
  if (zeros_.empty()) return true;
  const int64_t zero = int64_t{zero_point} * static_cast<int64_t>(form_.levels.unit) + form_.levels.zero;
  zeros_[at] = static_cast<int32_t>(std::clamp(zero, int64_t{0}, kMostZero));
  return zero == zeros_[at];
}

WeightParts HeldCodes::parts() { return {bytes_in(codes_), bytes_in(scales_), bytes_in(zeros_), bytes_in(minima_)}; }

std::shared_ptr<const HeldCodes> hold_codes(const quant::Checkpoint& checkpoint, const LinearTensors& tensors,
                                            Executor& executor, WeightCache* cache) {
  constexpr int64_t kRows = 4 * kCodePanelRows;  // read at once
  const auto& weight = *tensors.weight;
  const std::string& name = weight.desc.hf_name;
  const bool is_cached = cache != nullptr && cache->is_read();
  if (is_cached && cache->type_of(name) != formats::DType::u8) return nullptr;
  auto bias = tensors.bias == nullptr ? std::vector<float>() : quant::read_all(checkpoint, *tensors.bias);
  auto held = std::make_shared<HeldCodes>(held_form(weight).value(), std::move(bias));
  if (is_cached) {
    cache->read(name, held->parts(), executor);
    return held;
  }
  std::optional<BlockReader> blocks;
  if (!weight.format) blocks.emplace(checkpoint, weight);
  const int64_t rows = weight.desc.rows();
  std::atomic<bool> fits{true};
  executor.run_in_turns((rows + kRows - 1) / kRows, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i * kRows, last = std::min(first + kRows, rows);
      if (blocks)
        blocks->take(first, last, *held);
      else if (!take_codes(checkpoint, weight, first, last, *held))
        fits = false;
    }
  });
  checkpoint.release_rows(weight, 0, rows);
  if (!fits) return nullptr;
  if (cache != nullptr) {
    const auto parts = held->parts();
    cache->keep(name, formats::DType::u8, {parts.begin(), parts.end()}, held);
  }
  return held;
}

std::vector<std::string> describe_held(const quant::Checkpoint& checkpoint) {
  struct Kind {
    int64_t tensors = 0, held_bytes = 0, stored_bytes = 0;
  };
  std::map<std::pair<std::string, std::string>, Kind> kinds;  // by type and how it is held
  for (const auto& tensor : checkpoint.tensors()) {
    if (!is_quantized(tensor) || !is_multiplied(checkpoint, tensor)) continue;
    const auto [form, obstacle] = plan_of(tensor);
    const std::string how = form ? fmt::format("codes of {} bits", form->levels.bits) : "floats, as " + obstacle;
    Kind& kind = kinds[{tensor.dtype, how}];
    ++kind.tensors;
    kind.held_bytes += form ? form->bytes() : tensor.desc.elements() * static_cast<int64_t>(sizeof(float));
    kind.stored_bytes += tensor.stored_bytes;
  }
  std::vector<std::string> lines;
  for (const auto& [names, kind] : kinds) {
    lines.push_back(fmt::format("{} {} held as {}: {} in memory, {} in the file", kind.tensors, names.first,
                                names.second, format_bytes(kind.held_bytes), format_bytes(kind.stored_bytes)));
  }
  return lines;
}

}  // namespace crumb::runtime
