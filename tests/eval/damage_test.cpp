// The damage map against all it says written out with plain loops, on a small model and on a real one.
#include "eval/damage.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>
#include <set>

#include "core/common/thread_pool.h"
#include "eval/damage_report.h"
#include "eval/evaluate.h"
#include "eval/runtime_scorer.h"
#include "quant/linear_formats.h"
#include "tests/eval/fake_scorer.h"
#include "tests/testing/testing.h"

namespace crumb::eval {
namespace {

using ::testing::HasSubstr;
using testing::random_ids;

/// The linears of a model, some of them rounded to nearest in a format, as a checkpoint with codes.
class Rounded : public quant::Checkpoint {
 public:
  Rounded(const quant::Checkpoint& base, const quant::QuantFormat& format,
          const std::function<bool(const std::string&)>& is_rounded)
      : base_(base), format_(format), tensors_(base.tensors()) {
    for (auto& tensor : tensors_) {
      if (tensor.desc.role != arch::TensorRole::linear || !is_rounded(tensor.desc.module_name())) continue;
      tensor.format = format;
      tensor.dtype = format.type_name();
      tensor.stored_bytes = tensor.desc.elements() * format.bits / 8;
    }
  }
  quant::CheckpointKind kind() const override { return base_.kind(); }
  const Path& path() const override { return base_.path(); }
  const arch::DecoderSpec& spec() const override { return base_.spec(); }
  const std::vector<quant::StoredTensor>& tensors() const override { return tensors_; }
  void read_rows(const quant::StoredTensor& tensor, int64_t begin, int64_t end, float* out) const override {
    if (!tensor.format) return base_.read_rows(base_.tensor(tensor.desc.id), begin, end, out);
    read_codes(tensor, begin, end).dequantize(out);
  }
  quant::QuantizedTensor read_codes(const quant::StoredTensor& tensor, int64_t begin, int64_t end) const override {
    quant::QuantizedTensor codes;
    codes.format = *tensor.format;
    codes.rows = end - begin;
    codes.cols = tensor.desc.cols();
    std::vector<float> w(static_cast<size_t>(codes.rows * codes.cols));
    base_.read_rows(base_.tensor(tensor.desc.id), begin, end, w.data());
    codes.codes.resize(w.size());
    codes.resize_groups();
    for (int64_t row = 0; row < codes.rows; ++row) {
      const float* from = w.data() + row * codes.cols;
      const auto group = codes.format.grid->find_scale(from, codes.cols, codes.format, quant::ScaleInit::absmax);
      codes.set_group(static_cast<size_t>(row), group);
      codes.format.grid->nearest_codes(from, codes.cols, codes.format, group, codes.codes.data() + row * codes.cols);
    }
    return codes;
  }
  quant::StoredRows stored_rows(const quant::StoredTensor& tensor) const override {
    return base_.stored_rows(base_.tensor(tensor.desc.id));
  }
  void release_rows(const quant::StoredTensor&, int64_t, int64_t) const override {}
  nlohmann::json hf_config() const override { return base_.hf_config(); }
  std::unique_ptr<tokenizer::Tokenizer> load_tokenizer() const override { return base_.load_tokenizer(); }
  bool has_tokenizer() const override { return true; }
  void write_companions(const Path&) const override {}
  int64_t file_bytes() const override { return 1; }

 private:
  const quant::Checkpoint& base_;
  quant::QuantFormat format_;
  std::vector<quant::StoredTensor> tensors_;
};

constexpr int64_t kContext = 24;

struct SmallText {
  explicit SmallText(const quant::Checkpoint& model) : tokenizer(model.load_tokenizer()) {
    stream.ids = random_ids(6 * kContext + 1, model.spec().vocab_size, 3);
    stream.text_begin = {0, stream.size()};
    windows = text::plan_windows(stream.size(), kContext, kContext, 3);
  }
  DamageText text() const { return {stream, windows, kContext, *tokenizer}; }
  std::unique_ptr<tokenizer::Tokenizer> tokenizer;
  text::TokenStream stream;
  std::vector<text::Window> windows;
};

/// The KL of one model against another on the windows.
Estimate plain_kl(const quant::Checkpoint& model, const quant::Checkpoint& baseline, const SmallText& text,
                  const std::shared_ptr<ThreadPool>& pool) {
  RuntimeScorer own(runtime::load_decoder(model, pool)), other(runtime::load_decoder(baseline, pool));
  return testing::score_stream(own, &other, text.stream, text.windows, kContext, serial_for).pooled.at("kl");
}

TEST(Damage, OfALinearOrALayerIsThatOfAModelWithItAloneQuantized) {
  CRUMB_NEED_DATA(path, "models/stories260K-hf");
  const auto pool = std::make_shared<ThreadPool>(1);
  const auto base = quant::open_checkpoint(path);
  const quant::QuantFormat seq;
  const Rounded all(*base, seq, [](const std::string&) { return true; });
  const SmallText text(*base);
  const auto by_linear = map_damage({DamageDepth::linears, 3}, all, *base, text.text(), pool);
  const auto by_layer = map_damage({DamageDepth::layers, 3}, all, *base, text.text(), pool);
  ASSERT_EQ(std::ssize(by_linear.linears), 7 * base->spec().num_layers());
  ASSERT_EQ(std::ssize(by_layer.layers), base->spec().num_layers());
  EXPECT_EQ(by_linear.tokens, 3 * kContext);
  double shares = 0;
  for (const auto& linear : by_linear.linears) shares += linear.share;
  EXPECT_NEAR(shares, 1, 1e-12);
  for (const size_t i : {size_t{0}, size_t{6}, by_linear.linears.size() - 2}) {
    const auto& linear = by_linear.linears[i];
    const Rounded one(*base, seq, [&](const std::string& name) { return name == linear.module; });
    const Estimate want = plain_kl(one, *base, text, pool);
    EXPECT_NEAR(linear.kl->value, want.value, 1e-5 * want.value) << linear.module;
    EXPECT_NEAR(*linear.kl->standard_error, *want.standard_error, 1e-4 * want.value);
  }
  const std::string second = arch::layer_module(1) + ".";
  const Rounded layer(*base, seq, [&](const std::string& name) { return name.starts_with(second); });
  const double want = plain_kl(layer, *base, text, pool).value;
  EXPECT_NEAR(by_layer.layers[1].kl.value, want, 1e-5 * want);
  EXPECT_FALSE(by_layer.linears[0].kl);
}

TEST(Damage, OfWeightsCodesAndOutputsIsThatOfPlainLoops) {
  CRUMB_NEED_DATA(path, "models/stories260K-hf");
  const auto pool = std::make_shared<ThreadPool>(1);
  const auto base = quant::open_checkpoint(path);
  // The first linear alone: its inputs are the normed embeddings, which need no model.
  const auto& tensor = base->tensor({arch::Slot::q, 0});
  const Rounded one(*base, {}, [&](const std::string& name) { return name == tensor.desc.module_name(); });
  const SmallText text(*base);
  const auto map = map_damage({DamageDepth::outputs, 3}, one, *base, text.text(), pool);
  ASSERT_EQ(map.linears.size(), 1u);
  const LinearDamage& got = map.linears[0];
  EXPECT_EQ(got.module, tensor.desc.module_name());
  EXPECT_EQ(got.dtype, "seq2");

  const int64_t rows = tensor.desc.rows(), cols = tensor.desc.cols();
  const auto w = quant::read_all(*base, tensor), q = quant::read_all(one, one.tensor(tensor.desc.id));
  const auto norm = quant::read_all(*base, base->tensor({arch::Slot::attention_norm, 0}));
  const auto embedding = quant::read_all(*base, base->tensor({arch::Slot::embedding}));
  double error = 0, square = 0;
  for (size_t i = 0; i < w.size(); ++i) {
    error += std::pow(double{w[i]} - q[i], 2);
    square += std::pow(double{w[i]}, 2);
  }
  EXPECT_NEAR(got.weight_error, error / square, 1e-12);
  error = square = 0;
  double of_tokens = 0, largest = 0;
  for (const auto& window : text.windows) {
    for (int64_t t = 0; t < kContext; ++t) {
      const auto id = static_cast<size_t>(text.stream.ids[static_cast<size_t>(window.begin + t)]);
      const float* hidden = embedding.data() + id * static_cast<size_t>(cols);
      double mean = 0;
      for (int64_t c = 0; c < cols; ++c) mean += double{hidden[c]} * hidden[c] / static_cast<double>(cols);
      std::vector<double> x(static_cast<size_t>(cols));
      for (int64_t c = 0; c < cols; ++c) {
        x[static_cast<size_t>(c)] =
            hidden[c] / std::sqrt(mean + base->spec().rms_norm_eps) * norm[static_cast<size_t>(c)];
        largest = std::max(largest, std::abs(x[static_cast<size_t>(c)]));
      }
      double token_error = 0, token_square = 0;
      for (int64_t r = 0; r < rows; ++r) {
        double y = 0, difference = 0;
        for (int64_t c = 0; c < cols; ++c) {
          const auto at = static_cast<size_t>(r * cols + c);
          y += x[static_cast<size_t>(c)] * w[at];
          difference += x[static_cast<size_t>(c)] * (double{q[at]} - w[at]);
        }
        token_error += difference * difference;
        token_square += y * y;
      }
      error += token_error;
      square += token_square;
      of_tokens += token_error / token_square;
    }
  }
  EXPECT_NEAR(got.output_error, error / square, 1e-5 * error / square);
  EXPECT_NEAR(got.sqnr_db(), -10 * std::log10(error / square), 1e-4);
  EXPECT_NEAR(got.token_error, of_tokens / (3 * kContext), 1e-5 * got.token_error);
  EXPECT_NEAR(got.largest_input, largest, 1e-5 * largest);

  const auto codes = one.read_codes(one.tensor(tensor.desc.id), 0, rows);
  double entropy = 0;
  for (int level = 0; level < 4; ++level) {
    const double share =
        static_cast<double>(std::ranges::count(codes.codes, level)) / static_cast<double>(codes.codes.size());
    EXPECT_DOUBLE_EQ(got.code_shares[static_cast<size_t>(level)], share);
    entropy -= share > 0 ? share * std::log2(share) : 0;
  }
  EXPECT_NEAR(got.entropy, entropy, 1e-12);
  EXPECT_EQ(got.least_scale, std::ranges::min(codes.scales));
  EXPECT_EQ(got.largest_scale, std::ranges::max(codes.scales));
  EXPECT_TRUE(map.overrides.empty()) << "one linear is not above the median of itself";

  EXPECT_THROW(map_damage({DamageDepth::outputs, 3}, *base, *base, text.text(), pool), UserError);
}

// What is known of the model: the entry 507 of the first token, which layer 11's down_proj makes.
TEST(Damage, FindsTheMassiveActivationsOfARealModel) {
  CRUMB_NEED_MODEL(path, "SmolLM2-135M-Instruct");
  const auto pool = std::make_shared<ThreadPool>(2);
  const auto base = quant::open_checkpoint(path);
  const Rounded all(*base, {}, [](const std::string& name) { return name.ends_with("down_proj"); });
  const auto tokenizer = base->load_tokenizer();
  text::TokenStream stream;
  stream.ids = tokenizer->encode("The history of the lighthouse begins long before the first ships came to the bay.");
  stream.text_begin = {0, stream.size()};
  const DamageText text{stream, text::plan_windows(stream.size(), 12, 12, 1), 12, *tokenizer};
  const auto map = map_damage({DamageDepth::outputs, 1}, all, *base, text, pool);
  ASSERT_GE(map.massive.size(), 2u);
  EXPECT_EQ(map.massive[0].module, "model.layers.11.mlp.down_proj");
  EXPECT_EQ(map.massive[0].channel, 507);
  EXPECT_EQ(map.massive[0].seen, 0);
  EXPECT_EQ(map.massive[0].token, "The");
  EXPECT_GT(std::abs(map.massive[0].value), 10'000);
  for (const auto& massive : map.massive) EXPECT_EQ(massive.channel, 507) << massive.module;
  std::set<std::string> found;
  for (const auto& massive : map.massive) found.insert(massive.module);
  EXPECT_TRUE(found.contains("model.layers.2.mlp.down_proj"));
  EXPECT_LE(found.size(), 8u) << "few";
  EXPECT_THAT(map.outstanding,
              ::testing::Contains(HasSubstr("model.layers.11.mlp.down_proj stands out: its largest input")));
}

TEST(DamageReport, HoldsOverridesThatAJobReads) {
  DamageMap map;
  map.linears.resize(3);
  map.linears[0].module = "model.layers.0.mlp.down_proj";
  map.linears[0].output_error = 0;  // an infinite SQNR is no number of JSON
  map.overrides = "overrides:\n  \"model.layers.0.*\": {grid: int, bits: 4}\n";
  EXPECT_TRUE(damage_json(map)["linears"][0]["output_sqnr_db"].is_null());
  EXPECT_EQ(damage_table(map).size(), 4u);
  EXPECT_EQ(damage_table(map, 2).size(), 3u);
  const auto formats = read_config<quant::LinearFormats>(parse_yaml_text(map.overrides, "o.yaml"));
  EXPECT_EQ(formats.format_of("model.layers.0.mlp.down_proj")->bits, 4);
  EXPECT_EQ(formats.format_of("model.layers.1.mlp.down_proj")->bits, 2);
}

}  // namespace
}  // namespace crumb::eval
