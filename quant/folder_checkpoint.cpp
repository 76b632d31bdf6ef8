// HF folders: config.json, *.safetensors, tokenizer files; the linears plain or as codes and scales (docs/formats.md).
#include <algorithm>
#include <cmath>
#include <utility>

#include "core/arch/hf_config.h"
#include "core/common/error.h"
#include "core/common/json.h"
#include "core/common/log.h"
#include "core/formats/safetensors.h"
#include "quant/checkpoint_kinds.h"
#include "quant/codes_parts.h"
#include "quant/quantization_config.h"
#include "quant/row_blocks.h"

namespace crumb::quant {
namespace {

using arch::Slot;
using formats::DType;
using formats::TensorInfo;
using nlohmann::json;

json read_config(const Path& folder) {
  const Path path = folder / "config.json";
  const bool is_run = is_there(folder / "model" / "config.json");
  CRUMB_CHECK(is_there(path), "{}: there is no config.json in this folder{}", folder.string(),
              is_run ? "; its model is in " + (folder / "model").string() : "");
  return read_json(path);
}

bool is_float(DType dtype) {
  switch (dtype) {
    case DType::f8_e5m2:
    case DType::f8_e4m3:
    case DType::f16:
    case DType::bf16:
    case DType::f32:
    case DType::f64:
      return true;
    default:
      return false;
  }
}

class FolderCheckpoint : public Checkpoint {
 public:
  FolderCheckpoint(const Path& path, json config, TableMaker make_table)
      : path_(path),
        config_(std::move(config)),
        make_table_(std::move(make_table)),
        is_codes_(is_codes_config(config_, (path / "config.json").string())),
        spec_(arch::spec_from_hf_config(config_, (path / "config.json").string())),
        head_name_(arch::hf_name(spec_.architecture, Slot::head)),
        reader_(path) {
    if (is_codes_) activations_in(config_, (path / "config.json").string());  // refuses what it does not know
    if (spec_.tied_head && is_stored(head_name_)) settle_head();
    for (const auto& desc : make_table_(spec_)) tensors_.push_back(find_stored(desc));
    check_nothing_left();
  }

  CheckpointKind kind() const override { return is_codes_ ? CheckpointKind::codes : CheckpointKind::hf; }
  const Path& path() const override { return path_; }
  const arch::DecoderSpec& spec() const override { return spec_; }
  const std::vector<StoredTensor>& tensors() const override { return tensors_; }
  int64_t file_bytes() const override { return reader_.file_bytes(); }

  void read_rows(const StoredTensor& tensor, int64_t begin, int64_t end, float* out) const override {
    if (tensor.format) {
      read_codes(tensor, begin, end).dequantize(out);
      return;
    }
    const auto slice = place(tensor.desc);
    if (tensor.desc.shape.size() == 1)
      read_vector(slice, tensor.desc.elements(), out);
    else
      reader_.read_rows(reader_.at(slice.name), slice.first_row + begin, slice.first_row + end, out);
    check_finite(out, (end - begin) * tensor.desc.cols(), path_, slice.name);
  }

  QuantizedTensor read_codes(const StoredTensor& tensor, int64_t begin, int64_t end) const override {
    CRUMB_ASSERT(tensor.format.has_value());
    QuantizedTensor result{*tensor.format, end - begin, tensor.desc.cols(), {}, {}, {}};
    const int bits = result.format.bits;
    const int64_t row_bytes = packed_row_bytes(result.cols, bits);
    result.codes.resize(static_cast<size_t>(result.rows * result.cols));
    const auto* packed = reader_.bytes(codes_info(tensor)).data() + begin * row_bytes;
    for (int64_t row = 0; row < result.rows; ++row) {
      unpack_row(packed + row * row_bytes, result.cols, bits, result.codes.data() + row * result.cols);
    }
    check_codes(tensor, result);
    read_scales(tensor, begin, result);
    if (result.format.has_mask) read_mask(tensor, begin, result);
    return result;
  }

  StoredRows stored_rows(const StoredTensor& tensor) const override {
    CRUMB_ASSERT(tensor.desc.shape.size() == 2);
    const int64_t rows = tensor.desc.rows(), cols = tensor.desc.cols();
    if (!tensor.format) {
      const auto slice = place(tensor.desc);
      const auto& info = reader_.at(slice.name);
      const int64_t row_bytes = cols * formats::dtype_bytes(info.dtype);
      return {info.dtype, reader_.bytes(info).data() + slice.first_row * row_bytes, rows, cols, row_bytes, 0};
    }
    PackedCodes codes{*tensor.format, tensor.format->groups(cols), reader_.bytes(scale_info(tensor)).data()};
    if (tensor.format->has_minima) codes.minima = reader_.bytes(minimum_info(tensor)).data();
    if (tensor.format->has_zero_points()) codes.zero_points = reader_.bytes(zero_point_info(tensor)).data();
    const int64_t row_bytes = packed_row_bytes(cols, tensor.format->bits);
    return {codes, reader_.bytes(codes_info(tensor)).data(), rows, cols, row_bytes, 0};
  }

  void release_rows(const StoredTensor& tensor, int64_t begin, int64_t end) const override {
    if (!tensor.format) {
      const auto slice = place(tensor.desc);
      const int64_t first = tensor.desc.shape.size() == 1 ? 0 : slice.first_row;
      reader_.release_rows(reader_.at(slice.name), first + begin, first + end);
      return;
    }
    reader_.release_rows(codes_info(tensor), begin, end);
    reader_.release_rows(scale_info(tensor), begin, end);
    if (tensor.format->has_minima) reader_.release_rows(minimum_info(tensor), begin, end);
    if (tensor.format->has_mask) reader_.release_rows(mask_info(tensor), begin, end);
  }

  json hf_config() const override { return config_; }
  std::unique_ptr<tokenizer::Tokenizer> load_tokenizer() const override { return tokenizer::load_tokenizer(path_); }

  bool has_tokenizer() const override { return is_there(path_ / "tokenizer.json"); }
  void write_companions(const Path& folder) const override { copy_companions(path_, folder); }

 private:
  const TensorInfo& codes_info(const StoredTensor& tensor) const {
    return reader_.at(own_name(tensor.desc) + kCodesSuffix);
  }
  const TensorInfo& scale_info(const StoredTensor& tensor) const {
    return reader_.at(own_name(tensor.desc) + kScaleSuffix);
  }
  const TensorInfo& mask_info(const StoredTensor& tensor) const {
    return reader_.at(own_name(tensor.desc) + kMaskSuffix);
  }
  const TensorInfo& minimum_info(const StoredTensor& tensor) const {
    return reader_.at(own_name(tensor.desc) + kMinimumSuffix);
  }
  const TensorInfo& zero_point_info(const StoredTensor& tensor) const {
    return reader_.at(own_name(tensor.desc) + kZeroPointSuffix);
  }

  bool is_stored(const std::string& name) const {
    return reader_.find(name) != nullptr || (is_codes_ && reader_.find(name + kCodesSuffix) != nullptr);
  }
  /// The name of a tensor that is stored alone: a tied model may hold its one matrix as the head.
  const std::string& own_name(const arch::TensorDesc& desc) const {
    return is_head_the_embedding_ && desc.id.slot == Slot::embedding ? head_name_ : desc.hf_name;
  }
  /// Codes folders hold every tensor alone, others as the architecture's files do.
  arch::StoredSlice place(const arch::TensorDesc& desc) const {
    const auto& name = own_name(desc);
    if (reader_.find(name) != nullptr) return {name, 0, desc.shape};
    return desc.hf;
  }

  void read_vector(const arch::StoredSlice& slice, int64_t elements, float* out) const {
    std::vector<float> stored(static_cast<size_t>(slice.shape.front()));
    reader_.read_rows(reader_.at(slice.name), 0, 1, stored.data());
    std::copy_n(stored.begin() + slice.first_row, elements, out);
  }

  /// A tied model that stores a head, judged as transformers does (PreTrainedModel.tie_weights): the head alone is the
  /// embedding, too; beside an embedding of other values it stays what it is, whatever config.json says.
  void settle_head() {
    const auto embedding = arch::hf_name(spec_.architecture, Slot::embedding);
    is_head_the_embedding_ = !is_stored(embedding);
    if (is_head_the_embedding_) return;
    arch::DecoderSpec untied = spec_;
    untied.tied_head = false;
    const auto table = make_table_(untied);
    const auto find = [&](Slot slot) {
      return find_stored(*std::ranges::find(table, arch::TensorId{slot}, &arch::TensorDesc::id));
    };
    if (have_equal_values(find(Slot::embedding), find(Slot::head))) return;
    spec_ = untied;
    config_["tie_word_embeddings"] = false;
    log_warning_once(
        "{}: config.json says tie_word_embeddings: true, but {} is stored and differs from {}: the stored head is used",
        path_.string(), head_name_, embedding);
  }

  bool have_equal_values(const StoredTensor& a, const StoredTensor& b) const {
    const int64_t rows = a.desc.rows(), cols = a.desc.cols(), step = rows_per_block(cols);
    std::vector<float> of_a(static_cast<size_t>(std::min(step, rows) * cols)), of_b(of_a.size());
    for (int64_t begin = 0; begin < rows; begin += step) {
      const int64_t end = std::min(begin + step, rows);
      for (const auto& [tensor, values] : {std::pair{&a, &of_a}, std::pair{&b, &of_b}}) {
        read_rows(*tensor, begin, end, values->data());
        release_rows(*tensor, begin, end);
      }
      if (!std::equal(of_a.begin(), of_a.begin() + (end - begin) * cols, of_b.begin())) return false;
    }
    return true;
  }

  StoredTensor find_stored(const arch::TensorDesc& desc) {
    if (is_codes_ && reader_.find(own_name(desc) + kCodesSuffix) != nullptr) return find_quantized(desc);
    const auto slice = place(desc);
    const auto* info = reader_.find(slice.name);
    CRUMB_CHECK(info != nullptr, "{}: tensor {} is missing, which a {} model of this configuration has{}",
                path_.string(), slice.name, arch::architecture_name(spec_.architecture),
                desc.id.slot == Slot::head
                    ? "; if its head is its embedding, config.json must say tie_word_embeddings: true"
                    : "");
    CRUMB_CHECK(is_float(info->dtype), "{}: tensor {} is {}: quantized by another program; give the unquantized model",
                path_.string(), slice.name, formats::dtype_name(info->dtype));
    check_shape(path_, slice.name, info->shape, slice.shape, slice.shape == desc.shape ? desc.shape_keys() : "");
    used_.add(slice.name, slice.first_row, desc.elements());
    return {desc, std::string(formats::dtype_name(info->dtype)), share_of_bytes(desc, slice, info->bytes),
            std::nullopt};
  }

  StoredTensor find_quantized(const arch::TensorDesc& desc) {
    const auto where = (path_ / "config.json").string();
    const auto format = format_of_module(config_, desc.module_name(), where);
    const int64_t cols = desc.cols();
    CRUMB_CHECK(format.group_size == 0 || cols % format.group_size == 0,
                "{}: group_size {} does not divide the {} columns of {}", where, format.group_size, cols, desc.hf_name);
    int64_t bytes = 0;
    for (const CodesPart& of_codes : codes_parts(desc.rows(), cols, format))
      bytes += part(desc, of_codes.suffix, of_codes.dtype, {of_codes.rows, of_codes.cols});
    if (reader_.find(own_name(desc) + kShapeSuffix) != nullptr) check_stored_shape(desc);
    return {desc, format.type_name(), bytes, format};
  }

  /// Checks one of the tensors a quantized linear consists of; returns its size.
  int64_t part(const arch::TensorDesc& desc, const char* suffix, DType dtype, const std::vector<int64_t>& shape) {
    const auto name = own_name(desc) + suffix;
    const auto* info = reader_.find(name);
    CRUMB_CHECK(info != nullptr, "{}: tensor {} is missing, though there is {}_codes", path_.string(), name,
                own_name(desc));
    CRUMB_CHECK(info->dtype == dtype, "{}: tensor {} is {}, not {}", path_.string(), name,
                formats::dtype_name(info->dtype), formats::dtype_name(dtype));
    check_shape(path_, name, info->shape, shape);
    used_.add(name, 0, info->elements());
    return info->bytes;
  }

  void check_stored_shape(const arch::TensorDesc& desc) {
    const auto name = own_name(desc) + kShapeSuffix;
    part(desc, kShapeSuffix, DType::i64, {static_cast<int64_t>(desc.shape.size())});
    std::vector<int64_t> shape(desc.shape.size());
    const auto bytes = reader_.bytes(reader_.at(name));
    std::copy(bytes.begin(), bytes.end(), reinterpret_cast<uint8_t*>(shape.data()));
    check_shape(path_, own_name(desc) + " (as " + name + " says)", shape, desc.shape);
  }

  /// A tensor nothing reads means that the model computes something else than the configuration says.
  void check_nothing_left() const {
    for (const auto& info : reader_.tensors()) {
      if (info.name.ends_with("rotary_emb.inv_freq")) continue;
      CRUMB_CHECK(used_.knows(info.name), "{}: tensor {} is not part of a {} model of this configuration",
                  path_.string(), info.name, arch::architecture_name(spec_.architecture));
      used_.check_whole(path_, info.name, info.elements());
    }
  }

  /// A grid may have fewer levels than its bits can number.
  void check_codes(const StoredTensor& tensor, const QuantizedTensor& block) const {
    const size_t levels = block.format.levels().size();
    if (levels == size_t{1} << block.format.bits) return;
    for (const uint8_t code : block.codes) {
      CRUMB_CHECK(code < levels, "{}: tensor {} holds the code {}; grid {} has {} levels", path_.string(),
                  codes_info(tensor).name, code, block.format.grid.facts().name, levels);
    }
  }

  void read_scales(const StoredTensor& tensor, int64_t begin, QuantizedTensor& result) const {
    const int64_t groups = result.format.groups(result.cols);
    const auto& info = scale_info(tensor);
    result.resize_groups();
    reader_.read_rows(info, begin, begin + result.rows, result.scales.data());
    for (const float scale : result.scales) {
      CRUMB_CHECK(std::isfinite(scale) && scale > 0, "{}: tensor {} holds the scale {}", path_.string(), info.name,
                  scale);
    }
    if (result.format.has_minima) {
      reader_.read_rows(minimum_info(tensor), begin, begin + result.rows, result.minima.data());
      for (const float minimum : result.minima) {
        CRUMB_CHECK(std::isfinite(minimum) && round_minimum(minimum) == minimum,
                    "{}: tensor {} holds the minimum {}, which float16 does not", path_.string(),
                    minimum_info(tensor).name, minimum);
      }
    }
    if (!result.format.has_zero_points()) return;
    const auto bytes = reader_.bytes(zero_point_info(tensor));
    const auto first = bytes.begin() + begin * groups * 4;
    std::copy(first, first + result.rows * groups * 4, reinterpret_cast<uint8_t*>(result.zero_points.data()));
  }

  /// What the mask says is pruned must be 0.
  void read_mask(const StoredTensor& tensor, int64_t begin, QuantizedTensor& result) const {
    const int64_t row_bytes = packed_row_bytes(result.cols, 1);
    const auto& info = mask_info(tensor);
    const auto* packed = reader_.bytes(info).data() + begin * row_bytes;
    result.mask.resize(result.codes.size());
    for (int64_t row = 0; row < result.rows; ++row)
      unpack_row(packed + row * row_bytes, result.cols, 1, result.mask.data() + row * result.cols);
    const int64_t broken = result.find_broken_mask();
    CRUMB_CHECK(broken < 0, "{}: tensor {} says that row {}, column {} is pruned, but its value is not 0",
                path_.string(), info.name, begin + broken / result.cols, broken % result.cols);
  }

  Path path_;
  json config_;
  TableMaker make_table_;
  bool is_codes_, is_head_the_embedding_ = false;
  arch::DecoderSpec spec_;
  std::string head_name_;
  formats::SafetensorsReader reader_;
  std::vector<StoredTensor> tensors_;
  UsedParts used_;
};

}  // namespace

std::unique_ptr<Checkpoint> open_folder_checkpoint(const Path& path, TableMaker make_table) {
  return std::make_unique<FolderCheckpoint>(path, read_config(path), std::move(make_table));
}

}  // namespace crumb::quant
