// HF folders: config.json, *.safetensors, tokenizer files; the linears plain or as codes and scales (docs/formats.md).
#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "core/arch/hf_config.h"
#include "core/common/error.h"
#include "core/common/json.h"
#include "core/common/log.h"
#include "core/formats/safetensors.h"
#include "quant/checkpoint_kinds.h"
#include "quant/quantization_config.h"
#include "quant/row_blocks.h"

namespace crumb::quant {
namespace {

using formats::DType;
using formats::TensorInfo;
using nlohmann::json;

const std::string kEmbedding = "model.embed_tokens.weight", kHead = "lm_head.weight";

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
  FolderCheckpoint(const Path& path, json config)
      : path_(path),
        config_(std::move(config)),
        is_codes_(is_codes_config(config_, (path / "config.json").string())),
        spec_(arch::spec_from_hf_config(config_, (path / "config.json").string())),
        reader_(path) {
    if (spec_.tied_head && is_stored(kHead)) settle_head();
    for (const auto& desc : arch::tensor_table(spec_)) tensors_.push_back(find_stored(desc));
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
    const auto name = stored_name(tensor.desc);
    reader_.read_rows(reader_.at(name), begin, end, out);
    check_finite(out, (end - begin) * tensor.desc.cols(), path_, name);
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
    return result;
  }

  void release_rows(const StoredTensor& tensor, int64_t begin, int64_t end) const override {
    if (!tensor.format) {
      reader_.release_rows(reader_.at(stored_name(tensor.desc)), begin, end);
      return;
    }
    reader_.release_rows(codes_info(tensor), begin, end);
    reader_.release_rows(scale_info(tensor), begin, end);
  }

  json hf_config() const override { return config_; }
  std::unique_ptr<tokenizer::Tokenizer> load_tokenizer() const override { return tokenizer::load_tokenizer(path_); }

  bool has_tokenizer() const override { return is_there(path_ / "tokenizer.json"); }
  void write_companions(const Path& folder) const override { copy_companions(path_, folder); }

 private:
  const TensorInfo& codes_info(const StoredTensor& tensor) const {
    return reader_.at(stored_name(tensor.desc) + "_codes");
  }
  const TensorInfo& scale_info(const StoredTensor& tensor) const {
    return reader_.at(stored_name(tensor.desc) + "_scale");
  }

  bool is_stored(const std::string& name) const {
    return reader_.find(name) != nullptr || (is_codes_ && reader_.find(name + "_codes") != nullptr);
  }
  /// The name in the file: a tied model may hold its one matrix as the head.
  const std::string& stored_name(const arch::TensorDesc& desc) const {
    return is_head_the_embedding_ && desc.hf_name == kEmbedding ? kHead : desc.hf_name;
  }

  /// A tied model that stores a head, judged as transformers does (PreTrainedModel.tie_weights): the head alone is the
  /// embedding, too; beside an embedding of other values it stays what it is, whatever config.json says.
  void settle_head() {
    is_head_the_embedding_ = !is_stored(kEmbedding);
    if (is_head_the_embedding_) return;
    arch::DecoderSpec untied = spec_;
    untied.tied_head = false;
    const auto table = arch::tensor_table(untied);
    if (have_equal_values(find_stored(table.front()), find_stored(table.back()))) return;
    spec_ = untied;
    config_["tie_word_embeddings"] = false;
    log_warning_once(
        "{}: config.json says tie_word_embeddings: true, but {} is stored and differs from {}: the stored head is used",
        path_.string(), kHead, kEmbedding);
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
    const auto& name = stored_name(desc);
    if (is_codes_ && reader_.find(name + "_codes") != nullptr) return find_quantized(desc);
    const auto* info = reader_.find(name);
    CRUMB_CHECK(info != nullptr, "{}: tensor {} is missing, which a {} model of this configuration has{}",
                path_.string(), name, arch::architecture_name(spec_.architecture),
                name == kHead ? "; if its head is its embedding, config.json must say tie_word_embeddings: true" : "");
    CRUMB_CHECK(is_float(info->dtype), "{}: tensor {} is {}: quantized by another program; give the unquantized model",
                path_.string(), name, formats::dtype_name(info->dtype));
    check_shape(path_, name, info->shape, desc.shape, desc.shape_keys());
    known_.insert(name);
    return {desc, std::string(formats::dtype_name(info->dtype)), info->bytes, std::nullopt};
  }

  StoredTensor find_quantized(const arch::TensorDesc& desc) {
    const auto where = (path_ / "config.json").string();
    const auto format = format_of_module(config_, desc.module_name(), where);
    const int64_t rows = desc.rows(), cols = desc.cols(), groups = format.groups(cols);
    CRUMB_CHECK(format.group_size == 0 || cols % format.group_size == 0,
                "{}: group_size {} does not divide the {} columns of {}", where, format.group_size, cols, desc.hf_name);
    int64_t bytes = part(desc, "_codes", DType::u8, {rows, packed_row_bytes(cols, format.bits)});
    bytes += part(desc, "_scale", DType::f32, {rows, groups});
    if (format.has_zero_points()) bytes += part(desc, "_zero_point", DType::i32, {rows, groups});
    if (reader_.find(stored_name(desc) + "_shape") != nullptr) check_stored_shape(desc);
    return {desc, format.type_name(), bytes, format};
  }

  /// Checks one of the tensors a quantized linear consists of; returns its size.
  int64_t part(const arch::TensorDesc& desc, const char* suffix, DType dtype, const std::vector<int64_t>& shape) {
    const auto name = stored_name(desc) + suffix;
    const auto* info = reader_.find(name);
    CRUMB_CHECK(info != nullptr, "{}: tensor {} is missing, though there is {}_codes", path_.string(), name,
                stored_name(desc));
    CRUMB_CHECK(info->dtype == dtype, "{}: tensor {} is {}, not {}", path_.string(), name,
                formats::dtype_name(info->dtype), formats::dtype_name(dtype));
    check_shape(path_, name, info->shape, shape);
    known_.insert(name);
    return info->bytes;
  }

  void check_stored_shape(const arch::TensorDesc& desc) {
    const auto name = stored_name(desc) + "_shape";
    part(desc, "_shape", DType::i64, {static_cast<int64_t>(desc.shape.size())});
    std::vector<int64_t> shape(desc.shape.size());
    const auto bytes = reader_.bytes(reader_.at(name));
    std::copy(bytes.begin(), bytes.end(), reinterpret_cast<uint8_t*>(shape.data()));
    check_shape(path_, stored_name(desc) + " (as " + name + " says)", shape, desc.shape);
  }

  /// A tensor nothing reads means that the model computes something else than the configuration says.
  void check_nothing_left() const {
    for (const auto& info : reader_.tensors()) {
      if (known_.contains(info.name) || info.name.ends_with("rotary_emb.inv_freq")) continue;
      user_error("{}: tensor {} is not part of a {} model of this configuration", path_.string(), info.name,
                 arch::architecture_name(spec_.architecture));
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
    result.scales.resize(static_cast<size_t>(result.rows * groups));
    reader_.read_rows(info, begin, begin + result.rows, result.scales.data());
    for (const float scale : result.scales) {
      CRUMB_CHECK(std::isfinite(scale) && scale > 0, "{}: tensor {} holds the scale {}", path_.string(), info.name,
                  scale);
    }
    if (!result.format.has_zero_points()) return;
    const auto bytes = reader_.bytes(reader_.at(stored_name(tensor.desc) + "_zero_point"));
    result.zero_points.resize(result.scales.size());
    const auto first = bytes.begin() + begin * groups * 4;
    std::copy(first, first + result.rows * groups * 4, reinterpret_cast<uint8_t*>(result.zero_points.data()));
  }

  Path path_;
  json config_;
  bool is_codes_, is_head_the_embedding_ = false;
  arch::DecoderSpec spec_;
  formats::SafetensorsReader reader_;
  std::vector<StoredTensor> tensors_;
  std::set<std::string> known_;
};

}  // namespace

std::unique_ptr<Checkpoint> open_folder_checkpoint(const Path& path) {
  return std::make_unique<FolderCheckpoint>(path, read_config(path));
}

}  // namespace crumb::quant
