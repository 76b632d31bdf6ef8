// GGUF files under HF names and in HF's row order: arch "llama" holds the rows of q and k permuted per head.
#include <set>
#include <utility>

#include "core/arch/gguf_metadata.h"
#include "core/arch/hf_config.h"
#include "core/common/error.h"
#include "core/common/log.h"
#include "quant/checkpoint_kinds.h"
#include "quant/gguf_codes.h"

namespace crumb::quant {
namespace {

class GgufCheckpoint : public Checkpoint {
 public:
  explicit GgufCheckpoint(const Path& path) : reader_(path), spec_(arch::spec_from_gguf(reader_)) {
    std::set<std::string> known{"rope_freqs.weight"};
    for (const auto& desc : arch::tensor_table(spec_)) {
      tensors_.push_back(find_stored(desc));
      known.insert(desc.gguf_name);
    }
    for (const auto& tensor : reader_.tensors()) {
      CRUMB_CHECK(known.contains(tensor.name), "{}: tensor {} is not part of a {} model that Crumb knows",
                  path.string(), tensor.name, arch::gguf_architecture_name(spec_.architecture));
    }
  }

  CheckpointKind kind() const override { return CheckpointKind::gguf; }
  const Path& path() const override { return reader_.path(); }
  const arch::DecoderSpec& spec() const override { return spec_; }
  const std::vector<StoredTensor>& tensors() const override { return tensors_; }
  int64_t file_bytes() const override { return reader_.file_bytes(); }

  void read_rows(const StoredTensor& tensor, int64_t begin, int64_t end, float* out) const override {
    const auto& source = reader_.tensor(tensor.desc.gguf_name);
    if (tensor.desc.permuted_head_dim == 0) {
      reader_.read_rows(source, begin, end, out);
    } else if (tensor.desc.shape.size() == 1) {
      read_permuted_vector(tensor, source, out);
    } else {
      read_permuted_rows(tensor, source, begin, end, out);
    }
    check_finite(out, (end - begin) * tensor.desc.cols(), path(), tensor.desc.gguf_name);
  }

  QuantizedTensor read_codes(const StoredTensor& tensor, int64_t begin, int64_t end) const override {
    CRUMB_ASSERT(tensor.format.has_value());
    const auto& source = reader_.tensor(tensor.desc.gguf_name);
    const int64_t cols = tensor.desc.cols(), groups = tensor.format->groups(cols);
    QuantizedTensor out{*tensor.format, end - begin, cols, {}, {}, {}};
    out.codes.resize(static_cast<size_t>(out.rows * cols));
    const RowsOfCodes rows(reader_, source, *tensor.format);
    std::vector<float> of_blocks(static_cast<size_t>(rows.blocks_a_row()));
    for (int64_t row = begin; row < end; ++row) {
      const bool same =
          rows.take_apart(stored_row(tensor.desc, row), out.codes.data() + (row - begin) * cols, of_blocks.data());
      if (!same) run_error("{}: tensor {} has changed while it was read", path().string(), tensor.desc.gguf_name);
      for (int64_t group = 0; group < groups; ++group)
        out.scales.push_back(of_blocks[static_cast<size_t>(group * rows.blocks_a_row() / groups)]);
    }
    return out;
  }

  void release_rows(const StoredTensor& tensor, int64_t begin, int64_t end) const override {
    const auto& source = reader_.tensor(tensor.desc.gguf_name);
    const int64_t head_dim = tensor.desc.permuted_head_dim;
    if (head_dim > 0 && tensor.desc.shape.size() == 2) {  // the rows of a block lie all over their heads
      begin = begin / head_dim * head_dim;
      end = (end + head_dim - 1) / head_dim * head_dim;
    }
    reader_.release_rows(source, begin, end);
  }

  nlohmann::json hf_config() const override {
    auto config = arch::hf_config_from_spec(spec_);
    for (const char* name : {"bos", "eos"}) {
      const std::string key = std::string("tokenizer.ggml.") + name + "_token_id";
      if (reader_.find(key) != nullptr) config[std::string(name) + "_token_id"] = reader_.get_int(key);
    }
    return config;
  }
  std::unique_ptr<tokenizer::Tokenizer> load_tokenizer() const override { return tokenizer::load_tokenizer(reader_); }
  bool has_tokenizer() const override { return reader_.find("tokenizer.ggml.model") != nullptr; }
  void write_companions(const Path& folder) const override {
    if (has_tokenizer())
      load_tokenizer()->write_hf_files(folder);
    else
      log_warning("{}: tokenizer.ggml.model is missing, so no tokenizer is written", path().string());
  }

 private:
  StoredTensor find_stored(const arch::TensorDesc& desc) const {
    const auto* tensor = reader_.find_tensor(desc.gguf_name);
    CRUMB_CHECK(tensor != nullptr, "{}: tensor {} is missing, which a {} model of this configuration has",
                path().string(), desc.gguf_name, arch::gguf_architecture_name(spec_.architecture));
    CRUMB_CHECK(tensor->readable, "{}: tensor {} has ggml type {}, which Crumb cannot read", path().string(),
                desc.gguf_name, tensor->type_name);
    check_shape(path(), desc.gguf_name, tensor->shape, desc.shape);
    const bool may_be_codes = desc.role == arch::TensorRole::linear && desc.shape.size() == 2;
    return {desc, std::string(formats::type_name(tensor->type)), tensor->bytes,
            may_be_codes ? find_codes(reader_, *tensor) : std::nullopt};
  }

  void read_permuted_rows(const StoredTensor& tensor, const formats::GgufTensor& source, int64_t begin, int64_t end,
                          float* out) const {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t from = stored_row(tensor.desc, row);
      reader_.read_rows(source, from, from + 1, out + (row - begin) * tensor.desc.cols());
    }
  }

  /// A bias: its elements are permuted as the rows of its matrix are.
  void read_permuted_vector(const StoredTensor& tensor, const formats::GgufTensor& source, float* out) const {
    std::vector<float> stored(static_cast<size_t>(tensor.desc.elements()));
    reader_.read_rows(source, 0, 1, stored.data());
    for (int64_t i = 0; i < tensor.desc.elements(); ++i) {
      out[arch::hf_row_of_gguf_row(i, tensor.desc.permuted_head_dim)] = stored[static_cast<size_t>(i)];
    }
  }

  /// The inverse of arch::hf_row_of_gguf_row.
  static int64_t stored_row(const arch::TensorDesc& desc, int64_t hf_row) {
    const int64_t head_dim = desc.permuted_head_dim;
    if (head_dim == 0) return hf_row;
    const int64_t in_head = hf_row % head_dim, half = head_dim / 2;
    return hf_row - in_head + in_head % half * 2 + in_head / half;
  }

  formats::GgufReader reader_;
  arch::DecoderSpec spec_;
  std::vector<StoredTensor> tensors_;
};

}  // namespace

std::unique_ptr<Checkpoint> open_gguf_checkpoint(const Path& path) { return std::make_unique<GgufCheckpoint>(path); }

}  // namespace crumb::quant
