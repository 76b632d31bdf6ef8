// GGUF files under HF names and in HF's row order: arch "llama" holds the rows of q and k permuted per head.
#include <utility>

#include "core/arch/gguf_metadata.h"
#include "core/arch/hf_config.h"
#include "core/common/error.h"
#include "core/common/log.h"
#include "core/formats/block_levels.h"
#include "quant/checkpoint_kinds.h"
#include "quant/gguf_codes.h"

namespace crumb::quant {
namespace {

class GgufCheckpoint : public Checkpoint {
 public:
  GgufCheckpoint(const Path& path, const TableMaker& make_table, Executor& executor, const KnownFormats* known)
      : reader_(path), spec_(arch::spec_from_gguf(reader_)) {
    UsedParts used;
    for (const auto& desc : make_table(spec_)) {
      tensors_.push_back(find_stored(desc));
      used.add(desc.gguf.name, desc.gguf.first_row, desc.elements());
    }
    for (const auto& tensor : reader_.tensors()) {
      if (tensor.name == arch::gguf_name(arch::Slot::rope_freqs)) continue;
      CRUMB_CHECK(used.knows(tensor.name), "{}: tensor {} is not part of a {} model that Crumb knows", path.string(),
                  tensor.name, arch::gguf_architecture_name(spec_.architecture));
      used.check_whole(path, tensor.name, tensor.rows() * tensor.cols());
    }
    known == nullptr ? find_formats(executor) : set_formats(*known);
  }

  CheckpointKind kind() const override { return CheckpointKind::gguf; }
  const Path& path() const override { return reader_.path(); }
  const arch::DecoderSpec& spec() const override { return spec_; }
  const std::vector<StoredTensor>& tensors() const override { return tensors_; }
  int64_t file_bytes() const override { return reader_.file_bytes(); }

  void read_rows(const StoredTensor& tensor, int64_t begin, int64_t end, float* out) const override {
    const auto& desc = tensor.desc;
    const auto& source = reader_.tensor(desc.gguf.name);
    if (desc.shape.size() == 1)
      read_vector(desc, source, out);
    else if (desc.permuted_head_dim == 0)
      reader_.read_rows(source, desc.gguf.first_row + begin, desc.gguf.first_row + end, out);
    else
      read_permuted_rows(desc, source, begin, end, out);
    check_finite(out, (end - begin) * desc.cols(), path(), desc.gguf.name);
  }

  QuantizedTensor read_codes(const StoredTensor& tensor, int64_t begin, int64_t end) const override {
    CRUMB_ASSERT(tensor.format.has_value());
    const auto& source = reader_.tensor(tensor.desc.gguf.name);
    const int64_t cols = tensor.desc.cols(), groups = tensor.format->groups(cols);
    QuantizedTensor out{*tensor.format, end - begin, cols, {}, {}, {}};
    out.codes.resize(static_cast<size_t>(out.rows * cols));
    const RowsOfCodes rows(reader_, source, *tensor.format);
    out.resize_groups();
    std::vector<GroupScale> of_blocks(static_cast<size_t>(rows.blocks_a_row()));
    for (int64_t row = begin; row < end; ++row) {
      const bool same =
          rows.take_apart(tensor.desc.gguf_row(row), out.codes.data() + (row - begin) * cols, of_blocks.data());
      if (!same) run_error("{}: tensor {} has changed while it was read", path().string(), tensor.desc.gguf.name);
      for (int64_t group = 0; group < groups; ++group) {
        out.set_group(static_cast<size_t>((row - begin) * groups + group),
                      of_blocks[static_cast<size_t>(group * rows.blocks_a_row() / groups)]);
      }
    }
    return out;
  }

  void release_rows(const StoredTensor& tensor, int64_t begin, int64_t end) const override {
    const auto& source = reader_.tensor(tensor.desc.gguf.name);
    if (tensor.desc.shape.size() == 1) return reader_.release_rows(source, 0, 1);
    const int64_t head_dim = tensor.desc.permuted_head_dim, first = tensor.desc.gguf.first_row;
    if (head_dim > 0) {  // the rows of a block lie all over their heads
      begin = begin / head_dim * head_dim;
      end = (end + head_dim - 1) / head_dim * head_dim;
    }
    reader_.release_rows(source, first + begin, first + end);
  }

  StoredRows stored_rows(const StoredTensor& tensor) const override {
    const auto& desc = tensor.desc;
    CRUMB_ASSERT(desc.shape.size() == 2);
    const auto& source = reader_.tensor(desc.gguf.name);
    const int64_t row_bytes = formats::row_bytes(source.type, desc.cols());
    const uint8_t* first = reader_.bytes(source).data() + desc.gguf.first_row * row_bytes;
    return {encoding_of(source.type), first, desc.rows(), desc.cols(), row_bytes, desc.permuted_head_dim};
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
    const auto& slice = desc.gguf;
    const auto* tensor = reader_.find_tensor(slice.name);
    CRUMB_CHECK(tensor != nullptr, "{}: tensor {} is missing, which a {} model of this configuration has",
                path().string(), slice.name, arch::gguf_architecture_name(spec_.architecture));
    CRUMB_CHECK(tensor->readable, "{}: tensor {} has ggml type {}, which Crumb cannot read", path().string(),
                slice.name, tensor->type_name);
    check_shape(path(), slice.name, tensor->shape, slice.shape);
    StoredTensor stored{desc, std::string(formats::type_name(tensor->type)),
                        share_of_bytes(desc, slice, tensor->bytes)};
    if (desc.shape.size() == 2 && formats::block_form(tensor->type) != nullptr) stored.block_type = tensor->type;
    return stored;
  }

  void set_formats(const KnownFormats& known) {
    for (auto& tensor : tensors_) {
      const auto found = known.find(tensor.desc.hf_name);
      if (found != known.end()) tensor.format = found->second;
    }
  }

  /// Of linears, the largest first.
  void find_formats(Executor& executor) {
    std::vector<StoredTensor*> linears;
    for (auto& tensor : tensors_) {
      if (tensor.desc.role == arch::TensorRole::linear && tensor.desc.shape.size() == 2) linears.push_back(&tensor);
    }
    std::ranges::stable_sort(linears, std::ranges::greater{}, &StoredTensor::stored_bytes);
    executor.run_in_turns(static_cast<int64_t>(linears.size()), 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        auto& tensor = *linears[static_cast<size_t>(i)];
        const int64_t first = tensor.desc.gguf.first_row;
        tensor.format = find_codes(reader_, reader_.tensor(tensor.desc.gguf.name), first, first + tensor.desc.rows());
      }
    });
  }

  /// Plain numbers are the same thing in every file.
  static RowEncoding encoding_of(formats::TensorType type) {
    switch (type) {
      case formats::TensorType::f32:
        return formats::DType::f32;
      case formats::TensorType::f16:
        return formats::DType::f16;
      case formats::TensorType::bf16:
        return formats::DType::bf16;
      default:
        return type;
    }
  }

  void read_permuted_rows(const arch::TensorDesc& desc, const formats::GgufTensor& source, int64_t begin, int64_t end,
                          float* out) const {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t from = desc.gguf_row(row);
      reader_.read_rows(source, from, from + 1, out + (row - begin) * desc.cols());
    }
  }

  /// Elements of a bias are permuted as the rows of its matrix are.
  void read_vector(const arch::TensorDesc& desc, const formats::GgufTensor& source, float* out) const {
    std::vector<float> stored(static_cast<size_t>(source.cols()));
    reader_.read_rows(source, 0, 1, stored.data());
    for (int64_t i = 0; i < desc.elements(); ++i) out[i] = stored[static_cast<size_t>(desc.gguf_row(i))];
  }

  formats::GgufReader reader_;
  arch::DecoderSpec spec_;
  std::vector<StoredTensor> tensors_;
};

}  // namespace

std::unique_ptr<Checkpoint> open_gguf_checkpoint(const Path& path, const TableMaker& make_table, Executor& executor,
                                                 const KnownFormats* known) {
  return std::make_unique<GgufCheckpoint>(path, make_table, executor, known);
}

}  // namespace crumb::quant
