#include "ptq/rotation.h"

#include <algorithm>
#include <mutex>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "core/common/error.h"
#include "core/common/json.h"
#include "ptq/hadamard.h"
#include "quant/checkpoint_kinds.h"

namespace crumb::ptq {
namespace {

using arch::Slot;
using arch::TensorDesc;
using quant::StoredTensor;

constexpr const char* kConfigKey = "crumb_rotation";

/// What is rotated: the residual stream, or the values of each kv head.
enum class Space { none, residual, heads };

/// How a rotation changes a tensor.
struct Rule {
  Slot slot;
  Space columns = Space::none;              // where its rows live, or, of a bias, the vector
  Space rows = Space::none;                 // where its outputs live
  std::optional<Slot> norm = std::nullopt;  // whose gain goes into the columns
  bool is_gain = false;                     // becomes 1
};

constexpr Rule kRules[] = {
    {.slot = Slot::embedding, .columns = Space::residual},
    {.slot = Slot::attention_norm, .is_gain = true},
    {.slot = Slot::ffn_norm, .is_gain = true},
    {.slot = Slot::q_norm},
    {.slot = Slot::k_norm},
    {.slot = Slot::q, .columns = Space::residual, .norm = Slot::attention_norm},
    {.slot = Slot::q_bias},
    {.slot = Slot::k, .columns = Space::residual, .norm = Slot::attention_norm},
    {.slot = Slot::k_bias},
    {.slot = Slot::v, .columns = Space::residual, .rows = Space::heads, .norm = Slot::attention_norm},
    {.slot = Slot::v_bias, .columns = Space::heads},
    {.slot = Slot::o, .columns = Space::heads, .rows = Space::residual},
    {.slot = Slot::o_bias, .columns = Space::residual},
    {.slot = Slot::gate, .columns = Space::residual, .norm = Slot::ffn_norm},
    {.slot = Slot::gate_bias},
    {.slot = Slot::up, .columns = Space::residual, .norm = Slot::ffn_norm},
    {.slot = Slot::up_bias},
    {.slot = Slot::down, .rows = Space::residual},
    {.slot = Slot::down_bias, .columns = Space::residual},
    {.slot = Slot::final_norm, .is_gain = true},
    {.slot = Slot::head, .columns = Space::residual, .norm = Slot::final_norm},
};

/// Columns [begin, end) of a matrix of `cols` columns.
struct Columns {
  int64_t begin, end;
  int64_t count() const { return end - begin; }
};

class RotatedCheckpoint : public quant::Checkpoint {
 public:
  RotatedCheckpoint(const quant::Checkpoint& base, const RotationOptions& options)
      : base_(base), options_(options), spec_(base.spec()), tensors_(base.tensors()) {
    CRUMB_ASSERT(options_.rotates());
    const auto earlier = rotation_of(base_.hf_config(), path().string());
    CRUMB_CHECK(!earlier, "{}: is rotated already (config.json: {}); rotate the model it was made from",
                path().string(), kConfigKey);
    if (options_.residual && spec_.tied_head) untie_head();
    for (auto& tensor : tensors_) {
      check_rule(tensor.desc);
      tensor.format.reset();
      tensor.block_type.reset();
    }
    const auto seed = static_cast<uint64_t>(options_.seed);
    if (options_.residual) residual_.emplace(spec_.hidden_size, Rng(seed, hash_name("rotation.residual")));
    if (options_.heads) make_heads(seed);
  }

  /// Codes become floats.
  quant::CheckpointKind kind() const override {
    return base_.kind() == quant::CheckpointKind::codes ? quant::CheckpointKind::hf : base_.kind();
  }
  const Path& path() const override { return base_.path(); }
  const arch::DecoderSpec& spec() const override { return spec_; }
  const std::vector<StoredTensor>& tensors() const override { return tensors_; }
  int64_t file_bytes() const override { return base_.file_bytes(); }

  void read_rows(const StoredTensor& tensor, int64_t begin, int64_t end, float* out) const override {
    const TensorDesc& desc = tensor.desc;
    const Rule rule = rule_of(desc);
    if (rule.is_gain) {
      std::fill_n(out, desc.elements(), 1.0f);
      return;
    }
    if (rule.rows == Space::residual) {
      const auto matrix = whole_matrix(desc, rule);
      std::copy_n(matrix->values.begin() + begin * desc.cols(), (end - begin) * desc.cols(), out);
    } else if (rule.rows == Space::heads) {
      read_rows_of_heads(desc, rule, begin, end, out);
    } else {
      base_.read_rows(source_of(desc), begin, end, out);
      if (rule.columns != Space::none) rotate_rows(desc, rule, out, end - begin);
    }
    quant::check_finite(out, (end - begin) * desc.cols(), path(), desc.hf_name);
  }
  quant::QuantizedTensor read_codes(const StoredTensor& /*tensor*/, int64_t /*begin*/, int64_t /*end*/) const override {
    CRUMB_ASSERT(false);  // no tensor has a format
  }
  quant::StoredRows stored_rows(const StoredTensor& /*tensor*/) const override {
    CRUMB_ASSERT(false);  // no file holds them
  }
  void release_rows(const StoredTensor& tensor, int64_t begin, int64_t end) const override {
    base_.release_rows(source_of(tensor.desc), begin, end);
  }

  nlohmann::json hf_config() const override {
    auto config = base_.hf_config();
    config.erase("quantization_config");
    if (spec_.tied_head != base_.spec().tied_head) config["tie_word_embeddings"] = spec_.tied_head;
    config[kConfigKey] = {{"residual", options_.residual}, {"heads", options_.heads}, {"seed", options_.seed}};
    return config;
  }
  std::unique_ptr<tokenizer::Tokenizer> load_tokenizer() const override { return base_.load_tokenizer(); }
  bool has_tokenizer() const override { return base_.has_tokenizer(); }
  void write_companions(const Path& folder) const override { base_.write_companions(folder); }

 private:
  struct Matrix {
    arch::TensorId id;
    std::vector<float> values;
  };

  void untie_head() {
    StoredTensor head = base_.tensor(arch::TensorId{Slot::embedding});
    spec_.tied_head = false;
    head.desc = arch::tensor_table(spec_).back();
    CRUMB_ASSERT(head.desc.id.slot == Slot::head);
    tensors_.push_back(std::move(head));
  }

  void check_rule(const TensorDesc& desc) const {
    const bool is_known = std::ranges::find(kRules, desc.id.slot, &Rule::slot) != std::end(kRules);
    CRUMB_CHECK(is_known, "{}: rotation: it is not known how one changes {}", path().string(), desc.hf_name);
  }

  void make_heads(uint64_t seed) {
    for (int64_t layer = 0; layer < spec_.num_layers(); ++layer) {
      const auto& gqa = spec_.layers[static_cast<size_t>(layer)].gqa();
      auto& of_layer = heads_.emplace_back();
      for (int64_t head = 0; head < gqa.kv_heads; ++head)
        of_layer.emplace_back(gqa.head_dim, Rng(seed, hash_name(fmt::format("rotation.heads.{}.{}", layer, head))));
    }
  }

  /// What the options leave of the rule.
  Rule rule_of(const TensorDesc& desc) const {
    Rule rule = *std::ranges::find(kRules, desc.id.slot, &Rule::slot);
    for (Space* space : {&rule.columns, &rule.rows}) {
      const bool is_rotated = *space == Space::residual ? options_.residual : options_.heads;
      if (!is_rotated) *space = Space::none;
    }
    if (!options_.residual) {
      rule.norm.reset();
      rule.is_gain = false;
    }
    return rule;
  }

  /// The tensor that it is made of.
  const StoredTensor& source_of(const TensorDesc& desc) const {
    const auto* found = base_.find(desc.id);
    return found != nullptr ? *found : base_.tensor(arch::TensorId{Slot::embedding});  // a head that was tied
  }

  /// What the columns are multiplied by; empty for 1.
  std::vector<float> gain_of(const TensorDesc& desc, const Rule& rule) const {
    if (!rule.norm) return {};
    return quant::read_all(base_, base_.tensor(arch::TensorId{*rule.norm, desc.id.layer}));
  }

  const std::vector<RandomHadamard>& heads_of(const TensorDesc& desc) const {
    return heads_[static_cast<size_t>(desc.id.layer)];
  }

  /// x [rows, columns.count()], those columns of the tensor's rows: whole heads where heads are rotated.
  void rotate_columns(const TensorDesc& desc, const Rule& rule, Columns columns, double* x, int64_t rows) const {
    if (rule.columns == Space::residual) residual_->rotate_rows(x, rows, columns.count());
    if (rule.columns != Space::heads) return;
    const auto& of_layer = heads_of(desc);
    const int64_t head_dim = of_layer.front().size();
    const int64_t group = desc.cols() / head_dim / std::ssize(of_layer);  // heads that share a kv head
    for (int64_t begin = columns.begin; begin < columns.end; begin += head_dim) {
      const auto& rotation = of_layer[static_cast<size_t>(begin / head_dim / group)];
      rotation.rotate_rows(x + begin - columns.begin, rows, columns.count());
    }
  }

  /// Rows without mixing them, in place.
  void rotate_rows(const TensorDesc& desc, const Rule& rule, float* values, int64_t rows) const {
    constexpr int64_t kBlock = 64;  // rows in double at a time
    const int64_t cols = desc.cols();
    const auto gain = gain_of(desc, rule);
    std::vector<double> x;
    for (int64_t begin = 0; begin < rows; begin += kBlock) {
      const int64_t count = std::min(kBlock, rows - begin);
      float* block = values + begin * cols;
      x.assign(block, block + count * cols);
      multiply_columns(x, gain);
      rotate_columns(desc, rule, {0, cols}, x.data(), count);
      std::transform(x.begin(), x.end(), block, [](double value) { return static_cast<float>(value); });
    }
  }

  static void multiply_columns(std::vector<double>& x, const std::vector<float>& gain) {
    if (gain.empty()) return;
    for (size_t i = 0; i < x.size(); ++i) x[i] *= gain[i % gain.size()];
  }

  /// Rows that are mixed within their kv head.
  void read_rows_of_heads(const TensorDesc& desc, const Rule& rule, int64_t begin, int64_t end, float* out) const {
    const auto& of_layer = heads_of(desc);
    const int64_t head_dim = of_layer.front().size(), cols = desc.cols();
    const auto gain = gain_of(desc, rule);
    std::vector<float> values(static_cast<size_t>(head_dim * cols));
    for (int64_t head = begin / head_dim; head * head_dim < end; ++head) {
      const int64_t first = head * head_dim;
      base_.read_rows(source_of(desc), first, first + head_dim, values.data());
      std::vector<double> x(values.begin(), values.end());
      multiply_columns(x, gain);
      rotate_columns(desc, rule, {0, cols}, x.data(), head_dim);
      of_layer[static_cast<size_t>(head)].rotate_columns(x.data(), cols);
      for (int64_t row = std::max(begin, first); row < std::min(end, first + head_dim); ++row) {
        const auto from = x.begin() + (row - first) * cols;
        std::transform(from, from + cols, out + (row - begin) * cols,
                       [](double value) { return static_cast<float>(value); });
      }
    }
  }

  /// A matrix whose rows are all mixed: made once for all of its blocks of rows, by whoever asks first.
  std::shared_ptr<const Matrix> whole_matrix(const TensorDesc& desc, const Rule& rule) const {
    const std::lock_guard lock(mutex_);
    if (matrix_ == nullptr || matrix_->id != desc.id) {
      matrix_.reset();  // first: two of them at a time would be one too many
      auto matrix = std::make_shared<Matrix>(Matrix{desc.id, quant::read_all(base_, source_of(desc))});
      mix_rows(desc, rule, matrix->values.data());
      matrix_ = std::move(matrix);
    }
    return matrix_;
  }

  void mix_rows(const TensorDesc& desc, const Rule& rule, float* values) const {
    constexpr int64_t kStrip = 32;  // columns in double at a time
    const int64_t rows = desc.rows(), cols = desc.cols();
    const int64_t strip = rule.columns == Space::heads ? heads_of(desc).front().size() : kStrip;
    std::vector<double> x(static_cast<size_t>(rows * strip));
    for (int64_t begin = 0; begin < cols; begin += strip) {
      const Columns columns{begin, std::min(begin + strip, cols)};
      const int64_t width = columns.count();
      for (int64_t row = 0; row < rows; ++row) std::copy_n(values + row * cols + begin, width, x.begin() + row * width);
      rotate_columns(desc, rule, columns, x.data(), rows);
      residual_->rotate_columns(x.data(), width);
      for (int64_t row = 0; row < rows; ++row)
        for (int64_t j = 0; j < width; ++j)
          values[row * cols + begin + j] = static_cast<float>(x[static_cast<size_t>(row * width + j)]);
    }
  }

  const quant::Checkpoint& base_;
  RotationOptions options_;
  arch::DecoderSpec spec_;
  std::vector<StoredTensor> tensors_;
  std::optional<RandomHadamard> residual_;
  std::vector<std::vector<RandomHadamard>> heads_;  // [layers][kv heads]

  mutable std::mutex mutex_;  // for:
  mutable std::shared_ptr<const Matrix> matrix_;
};

}  // namespace

std::unique_ptr<quant::Checkpoint> rotate(const quant::Checkpoint& base, const RotationOptions& options) {
  return std::make_unique<RotatedCheckpoint>(base, options);
}

std::optional<RotationOptions> rotation_of(const nlohmann::json& hf_config, const std::string& where) {
  if (!hf_config.is_object() || !hf_config.contains(kConfigKey)) return std::nullopt;
  const JsonObject said(hf_config.at(kConfigKey), where + ": " + kConfigKey);
  const RotationOptions options{said.get<bool>("residual"), said.get<bool>("heads"), said.get<int64_t>("seed")};
  for (const auto& [key, value] : said.object().items()) {
    CRUMB_CHECK(key == "residual" || key == "heads" || key == "seed",
                "{}: unknown key {}; known: heads, residual, seed", said.where(), key);
  }
  CRUMB_CHECK(options.rotates(), "{}: residual and heads are both false: nothing was rotated", said.where());
  return options;
}

}  // namespace crumb::ptq
