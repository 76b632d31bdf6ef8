#include "runtime/cuda/linears.h"

#include <algorithm>
#include <atomic>
#include <bit>

#include "core/common/error.h"
#include "core/common/log.h"
#include "kernels/matmul.h"
#include "runtime/held_codes.h"
#include "runtime/packed_floats.h"

namespace crumb::runtime::cuda {
namespace {

using formats::DType;
using kernels::Bf16;

constexpr int64_t kChunkRows = 64;  // that a thread reads at once

int64_t bytes_of(DType type) { return type == DType::f32 ? 4 : 2; }

/// Floats that `type` holds, in it.
void convert(std::span<const float> from, DType type, uint8_t* to) {
  if (type == DType::f32) {
    std::ranges::copy(from, reinterpret_cast<float*>(to));
    return;
  }
  auto* const words = reinterpret_cast<uint16_t*>(to);
  std::ranges::transform(from, words, [&](float x) {
    return type == DType::f16 ? to_f16(x) : static_cast<uint16_t>(std::bit_cast<uint32_t>(x) >> 16);
  });
}

bool is_bf16(float x) { return (std::bit_cast<uint32_t>(x) & 0xFFFF) == 0; }

/// Whether matrices can lie one under the other.
bool is_one_form(const TileForm& a, const TileForm& b) {
  return a.shape.bits == b.shape.bits && a.shape.cols == b.shape.cols && a.shape.group_cols == b.shape.group_cols &&
         a.shape.step == b.shape.step && a.shape.zero == b.shape.zero && a.unit == b.unit && a.shift == b.shift;
}

}  // namespace

std::optional<TileForm> tile_form(const quant::StoredTensor& tensor, const kernels::MatmulDevice& device,
                                  std::string* obstacle) {
  const auto refuse = [&](const std::string& why) {
    if (obstacle != nullptr) *obstacle = why;
    return std::nullopt;
  };
  if (!is_quantized(tensor)) return refuse("");
  if (!tensor.format) return refuse("there are kernels for codes and scales, not for blocks of this type");
  const auto held = held_form(tensor);
  if (!held) return refuse(obstacle_to_held(tensor));
  if (held->has_zeros || held->has_minima) return refuse("there are kernels for symmetric grids only");
  if (!held->levels.table.empty()) return refuse("there are kernels for evenly spaced levels only");
  TileForm form{{.bits = held->levels.bits,
                 .rows = held->rows,
                 .cols = held->cols,
                 .group_cols = held->group_cols,
                 .step = held->levels.step,
                 .zero = held->levels.zero},
                held->levels.unit};
  constexpr int kBits = 8, kZero = 128;  // of codes of 8 bits
  if (form.shape.bits == kBits && form.shape.zero < kZero) {
    form.shift = kZero - form.shape.zero;
    if (tensor.format->levels().size() + static_cast<size_t>(form.shift) > 256)
      return refuse("its levels reach further from 0 than a byte around 128");
    form.shape.zero = kZero;
  }
  if (const char* why = kernels::packing_obstacle(form.shape)) return refuse(why);
  for (int64_t tokens = 1; tokens <= kMostTokens; ++tokens) {
    const auto plan = kernels::plan_matmul(kernels::packed_shape(form.shape), tokens, false, device);
    if (plan.obstacle != nullptr) return refuse(plan.obstacle);
  }
  return form;
}

int64_t least_bytes(const quant::StoredTensor& tensor, const kernels::MatmulDevice& device) {
  if (const auto form = tile_form(tensor, device)) {
    const auto shape = kernels::packed_shape(form->shape);
    return 4 * (shape.code_words() + shape.scale_words());
  }
  return tensor.desc.elements() * (tensor.dtype == formats::dtype_name(DType::f32) ? 4 : 2);
}

DeviceFloats::DeviceFloats(const Device& device, const quant::Checkpoint& checkpoint,
                           std::span<const quant::StoredTensor* const> stacked, Executor& executor)
    : cols_(stacked.front()->desc.cols()) {
  std::vector<HeldFloats> held;
  bool all_bf16 = true, all_f16 = true;
  for (const auto* tensor : stacked) {
    held.push_back(read_packed(checkpoint, *tensor, executor));
    rows_ += tensor->desc.rows();
    all_bf16 = all_bf16 && type_of(held.back()) == DType::bf16;
    all_f16 = all_f16 && type_of(held.back()) == DType::f16;
  }
  type_ = all_bf16 ? DType::bf16 : all_f16 ? DType::f16 : DType::f32;
  const int64_t row_bytes = cols_ * bytes_of(type_);
  memory_ = device.allocate(rows_ * row_bytes, stacked.front()->desc.hf_name);
  auto* to = memory_.as<uint8_t>();
  std::vector<uint8_t> block(static_cast<size_t>(kChunkRows * row_bytes));
  std::vector<float> row(static_cast<size_t>(cols_));
  for (size_t i = 0; i < held.size(); ++i) {
    const int64_t rows = stacked[i]->desc.rows();
    for (int64_t first = 0; first < rows; first += kChunkRows) {
      const int64_t count = std::min(kChunkRows, rows - first);
      for (int64_t r = 0; r < count; ++r) {
        std::visit([&](const auto& packed) { kernels::read_packed_row(packed.data(), cols_, first + r, row.data()); },
                   held[i]);
        convert(row, type_, block.data() + r * row_bytes);
      }
      device.copy_to_device(to, block.data(), count * row_bytes);
      to += count * row_bytes;
    }
    held[i] = HeldFloats();
  }
}

void DeviceFloats::read_rows(const int32_t* ids, int64_t tokens, float* out, kernels::CudaStream stream) const {
  if (type_ == DType::bf16) return kernels::embed(memory_.as<Bf16>(), ids, tokens, cols_, out, stream);
  if (type_ == DType::f16) return kernels::embed(memory_.as<Half>(), ids, tokens, cols_, out, stream);
  kernels::embed(memory_.as<float>(), ids, tokens, cols_, out, stream);
}

void DeviceFloats::multiply(const void* x, bool x_is_bf16, int64_t tokens, const float* bias, float* y,
                            kernels::CudaStream stream) const {
  const auto by = [&](const auto* weights) {
    if (x_is_bf16)
      kernels::dense_matmul(static_cast<const Bf16*>(x), weights, bias, tokens, rows_, cols_, y, stream);
    else if constexpr (!std::is_same_v<decltype(weights), const Bf16*>)
      kernels::dense_matmul(static_cast<const float*>(x), weights, bias, tokens, rows_, cols_, y, stream);
  };
  CRUMB_ASSERT(x_is_bf16 || type_ != DType::bf16);
  if (type_ == DType::bf16) return by(static_cast<const Bf16*>(memory_.data()));
  if (type_ == DType::f16) return by(static_cast<const Half*>(memory_.data()));
  by(static_cast<const float*>(memory_.data()));
}

DeviceLinears::DeviceLinears(const Device& device, const quant::Checkpoint& checkpoint,
                             std::span<const LinearTensors> members, Executor& executor)
    : device_(device), cols_(members.front().weight->desc.cols()) {
  std::vector<std::optional<TileForm>> forms;
  for (const auto& member : members) forms.push_back(tile_form(*member.weight, device.matmul()));
  const bool is_one = std::ranges::all_of(forms, [&](const auto& form) {
    return form.has_value() == forms.front().has_value() && (!form || is_one_form(*form, *forms.front()));
  });
  if (is_one)
    add_part(checkpoint, members, forms.front(), executor);
  else
    for (size_t i = 0; i < members.size(); ++i) add_part(checkpoint, members.subspan(i, 1), forms[i], executor);
  for (const auto& part : parts_) {
    const auto* floats = std::get_if<DeviceFloats>(&part.weights);
    reads_bf16_ = reads_bf16_ || floats == nullptr || floats->is_bf16();
  }
}

/// Members one under the other.
void DeviceLinears::add_part(const quant::Checkpoint& checkpoint, std::span<const LinearTensors> members,
                             const std::optional<TileForm>& form, Executor& executor) {
  int64_t rows = 0;
  bool has_bias = false;
  std::vector<const quant::StoredTensor*> weights;
  for (const auto& member : members) {
    members_.push_back({parts_.size(), rows});
    rows += member.weight->desc.rows();
    has_bias = has_bias || member.bias != nullptr;
    weights.push_back(member.weight);
  }
  auto tiles = form ? read_tiles(checkpoint, members, *form, executor) : std::nullopt;
  if (tiles)
    parts_.push_back({std::move(*tiles), {}, rows_, rows});
  else
    parts_.push_back({DeviceFloats(device_, checkpoint, weights, executor), {}, rows_, rows});
  rows_ += rows;
  if (!has_bias) return;
  std::vector<float> bias;
  for (const auto& member : members) {
    const auto of_member = member.bias != nullptr ? quant::read_all(checkpoint, *member.bias)
                                                  : std::vector<float>(static_cast<size_t>(member.weight->desc.rows()));
    bias.insert(bias.end(), of_member.begin(), of_member.end());
  }
  const int64_t bytes = rows * static_cast<int64_t>(sizeof(float));
  parts_.back().bias = device_.allocate(
      bytes, members.front().bias != nullptr ? members.front().bias->desc.hf_name : weights.front()->desc.hf_name);
  device_.copy_to_device(parts_.back().bias.data(), bias.data(), bytes);
}

/// Codes go to the device as bytes and are packed there. Nothing where a scale is no bfloat16.
std::optional<DeviceLinears::Tiles> DeviceLinears::read_tiles(const quant::Checkpoint& checkpoint,
                                                              std::span<const LinearTensors> members, TileForm form,
                                                              Executor& executor) const {
  auto& shape = form.shape;
  shape.rows = 0;
  for (const auto& member : members) shape.rows += member.weight->desc.rows();
  const int64_t groups = shape.cols / shape.group_cols;
  std::vector<uint8_t> codes(static_cast<size_t>(shape.rows * shape.cols));
  std::vector<float> scales(static_cast<size_t>(shape.rows * groups));
  std::atomic<bool> fits{true};
  int64_t above = 0;
  for (const auto& member : members) {
    const auto& weight = *member.weight;
    const int64_t rows = weight.desc.rows();
    executor.run_in_turns((rows + kChunkRows - 1) / kChunkRows, 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t chunk = begin; chunk < end; ++chunk) {
        const int64_t first = chunk * kChunkRows, last = std::min(first + kChunkRows, rows);
        const auto some = checkpoint.read_codes(weight, first, last);
        std::ranges::transform(some.codes, codes.begin() + (above + first) * shape.cols,
                               [&](uint8_t code) { return static_cast<uint8_t>(code + form.shift); });
        for (size_t i = 0; i < some.scales.size(); ++i) {
          const float scale = some.scales[i] / form.unit;
          if (!is_bf16(scale)) fits = false;
          scales[static_cast<size_t>((above + first) * groups) + i] = scale;
        }
      }
    });
    checkpoint.release_rows(weight, 0, rows);
    above += rows;
  }
  const std::string& name = members.front().weight->desc.hf_name;
  if (!fits) {
    log_warning_once("{}: {} and others like it are held as floats on the GPU: their scales are no bfloat16",
                     checkpoint.path().string(), name);
    return std::nullopt;
  }
  Tiles tiles{kernels::packed_shape(shape), {}, {}};
  tiles.codes = device_.allocate(4 * tiles.shape.code_words(), name);
  tiles.scales = device_.allocate(4 * tiles.shape.scale_words(), name);
  const auto code_bytes = static_cast<int64_t>(codes.size());
  const auto scale_bytes = static_cast<int64_t>(scales.size() * sizeof(float));
  const DeviceMemory raw_codes = device_.allocate(code_bytes, name + " before it is packed");
  const DeviceMemory raw_scales = device_.allocate(scale_bytes, name + " before it is packed");
  device_.copy_to_device(raw_codes.data(), codes.data(), code_bytes);
  device_.copy_to_device(raw_scales.data(), scales.data(), scale_bytes);
  kernels::pack_tiles(shape, raw_codes.as<uint8_t>(), raw_scales.as<float>(), tiles.codes.as<uint32_t>(),
                      tiles.scales.as<uint32_t>(), device_.stream());
  device_.wait();
  return tiles;
}

int64_t DeviceLinears::weight_bytes() const {
  int64_t bytes = 0;
  for (const auto& part : parts_) {
    bytes += part.bias.bytes();
    if (const auto* tiles = std::get_if<Tiles>(&part.weights))
      bytes += tiles->codes.bytes() + tiles->scales.bytes();
    else
      bytes += std::get<DeviceFloats>(part.weights).bytes();
  }
  return bytes;
}

int64_t DeviceLinears::workspace_bytes() const {
  size_t most = 0;
  for (const auto& part : parts_) {
    const auto* tiles = std::get_if<Tiles>(&part.weights);
    for (int64_t tokens = 1; tiles != nullptr && tokens <= kMostTokens; ++tokens)
      most = std::max(most, kernels::plan_matmul(tiles->shape, tokens, false, device_.matmul()).workspace_bytes);
  }
  return static_cast<int64_t>(most);
}

void DeviceLinears::multiply(const void* x, int64_t tokens, float* y, void* workspace) const {
  for (const auto& part : parts_) {
    float* const to = y + tokens * part.first_row;
    const float* const bias = part.bias.as<float>();
    if (const auto* floats = std::get_if<DeviceFloats>(&part.weights)) {
      floats->multiply(x, reads_bf16_, tokens, bias, to, device_.stream());
      continue;
    }
    const auto& tiles = std::get<Tiles>(part.weights);
    const auto plan = kernels::plan_matmul(tiles.shape, tokens, false, device_.matmul());
    CRUMB_ASSERT(plan.obstacle == nullptr);
    kernels::packed_matmul({.matrix = {tiles.shape, tiles.codes.as<uint32_t>(), tiles.scales.as<uint32_t>()},
                            .tokens = tokens,
                            .x = static_cast<const Bf16*>(x),
                            .x_stride = cols_,
                            .bias = bias,
                            .y = to,
                            .workspace = workspace,
                            .weights_are_ready = true},
                           plan, device_.stream());
  }
}

kernels::HeadRows DeviceLinears::output(size_t member, float* y, int64_t tokens) const {
  const auto& [index, first_row] = members_[member];
  const auto& part = parts_[index];
  return {y + tokens * part.first_row + first_row, part.rows};
}

}  // namespace crumb::runtime::cuda
