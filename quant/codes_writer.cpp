#include "quant/codes_writer.h"

#include <algorithm>
#include <utility>

#include "core/common/error.h"
#include "core/common/json.h"
#include "core/formats/safetensors.h"
#include "quant/checkpoint_kinds.h"
#include "quant/quantization_config.h"

namespace crumb::quant {
namespace {

using arch::TensorDesc;
using arch::TensorRole;
using formats::DType;
using formats::SafetensorsWriter;

constexpr int64_t kBlockFloats = int64_t{4} << 20;
constexpr int64_t kShardBytes = int64_t{5'000'000'000};

bool is_small(TensorRole role) { return role == TensorRole::norm || role == TensorRole::bias; }

/// Of a tensor that is not quantized. Types that hold no more than bf16 become bf16, those of block types are rounded
/// to it.
DType plain_dtype(const StoredTensor& tensor) {
  if (is_small(tensor.desc.role)) return DType::f32;
  std::string name = tensor.dtype;
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::toupper(c); });
  const auto dtype = formats::dtype_from_name(name);
  if (dtype == DType::f8_e4m3 || dtype == DType::f8_e5m2) return DType::bf16;
  const bool writable = dtype == DType::f16 || dtype == DType::bf16 || dtype == DType::f32 || dtype == DType::f64;
  return writable ? *dtype : DType::bf16;
}

class CodesWriter {
 public:
  CodesWriter(const Checkpoint& base, const CodesSource& source) : base_(base), source_(source) {}

  void write(const Path& folder) {
    for (const auto& tensor : base_.tensors()) declare(tensor);
    writer_.begin_folder(folder, kShardBytes);
    for (const auto& tensor : base_.tensors()) {
      const auto* format = find_format(tensor.desc);
      if (format != nullptr) {
        write_quantized(tensor.desc, *format);
      } else {
        write_plain(tensor);
      }
    }
    writer_.finish();
  }

 private:
  const QuantFormat* find_format(const TensorDesc& desc) const {
    const auto it = source_.formats.find(desc.hf_name);
    return it == source_.formats.end() ? nullptr : &it->second;
  }

  void declare(const StoredTensor& tensor) {
    const auto& desc = tensor.desc;
    const auto* format = find_format(desc);
    if (format == nullptr) {
      writer_.declare(desc.hf_name, plain_dtype(tensor), desc.shape);
      return;
    }
    const int64_t groups = format->groups(desc.cols());
    writer_.declare(desc.hf_name + "_codes", DType::u8, {desc.rows(), packed_row_bytes(desc.cols(), format->bits)});
    writer_.declare(desc.hf_name + "_scale", DType::f32, {desc.rows(), groups});
    if (format->has_zero_points()) writer_.declare(desc.hf_name + "_zero_point", DType::i32, {desc.rows(), groups});
    writer_.declare(desc.hf_name + "_shape", DType::i64, {2});
  }

  void write_quantized(const TensorDesc& desc, const QuantFormat& format) {
    std::vector<float> scales;  // come with the codes, but stand after them in the file
    std::vector<int32_t> zero_points;
    const int64_t step = rows_per_block(desc.cols());
    for (int64_t begin = 0; begin < desc.rows(); begin += step) {
      const auto block = source_.codes(desc, begin, std::min(begin + step, desc.rows()));
      CRUMB_ASSERT(block.format == format && block.cols == desc.cols());
      write_packed(block);
      scales.insert(scales.end(), block.scales.begin(), block.scales.end());
      zero_points.insert(zero_points.end(), block.zero_points.begin(), block.zero_points.end());
    }
    check_finite(scales.data(), static_cast<int64_t>(scales.size()), base_.path(), desc.hf_name + "_scale");
    write_vector(scales);
    if (format.has_zero_points()) write_vector(zero_points);
    write_vector(desc.shape);
  }

  void write_packed(const QuantizedTensor& block) {
    const int64_t row_bytes = packed_row_bytes(block.cols, block.format.bits);
    std::vector<uint8_t> packed(static_cast<size_t>(block.rows * row_bytes));
    for (int64_t row = 0; row < block.rows; ++row) {
      pack_row(block.codes.data() + row * block.cols, block.cols, block.format.bits, packed.data() + row * row_bytes);
    }
    write_vector(packed);
  }

  void write_plain(const StoredTensor& tensor) {
    const auto& desc = tensor.desc;
    const auto dtype = plain_dtype(tensor);
    const int64_t step = rows_per_block(desc.cols());
    std::vector<float> values(static_cast<size_t>(std::min(step, desc.rows()) * desc.cols()));
    std::vector<uint8_t> bytes(values.size() * static_cast<size_t>(formats::dtype_bytes(dtype)));
    for (int64_t begin = 0; begin < desc.rows(); begin += step) {
      const int64_t end = std::min(begin + step, desc.rows()), count = (end - begin) * desc.cols();
      source_.rows(desc, begin, end, values.data());
      check_finite(values.data(), count, base_.path(), desc.hf_name);
      if (is_small(desc.role)) std::transform(values.begin(), values.end(), values.begin(), formats::round_to_bf16);
      formats::from_float(dtype, values.data(), count, bytes.data());
      writer_.write(bytes.data(), count * formats::dtype_bytes(dtype));
    }
  }

  template <class T>
  void write_vector(const std::vector<T>& values) {
    writer_.write(values.data(), static_cast<int64_t>(values.size() * sizeof(T)));
  }

  const Checkpoint& base_;
  const CodesSource& source_;
  SafetensorsWriter writer_;
};

void write_config(const Path& folder, const Checkpoint& base, const CodesSource& source,
                  const std::vector<std::string>& ignore) {
  std::map<std::string, QuantFormat> by_module;
  for (const auto& tensor : base.tensors()) {
    const auto it = source.formats.find(tensor.desc.hf_name);
    if (it != source.formats.end()) by_module[tensor.desc.module_name()] = it->second;
  }
  auto config = base.hf_config();
  config["quantization_config"] = make_quantization_config(by_module, ignore);
  write_text(folder / "config.json", dump_json(config, 2) + "\n");
}

}  // namespace

void write_codes_folder(const Path& folder, const Checkpoint& base, const CodesSource& source,
                        const std::vector<std::string>& ignore) {
  CodesWriter(base, source).write(folder);
  write_config(folder, base, source, ignore);
  base.write_companions(folder);
}

int64_t rows_per_block(int64_t cols) { return std::max<int64_t>(1, kBlockFloats / cols); }

}  // namespace crumb::quant
