// Scales of channels, fused: what they leave as it was, and what AWQ chooses.
#include "ptq/awq.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/common/rng.h"
#include "export/export.h"
#include "ptq/channel_scales.h"
#include "ptq/nearest.h"
#include "ptq/quantize.h"
#include "quant/scale_search.h"
#include "tests/ptq/one_block.h"
#include "tests/ptq/spec_cases.h"
#include "tests/ptq/story_job.h"
#include "tests/testing/testing.h"

namespace crumb::ptq {
namespace {

using arch::Slot;
using quant::Grid;
using quant::QuantFormat;
using testing::group_of;
using testing::NoRounding;
using testing::OneBlock;
using testing::RandomModel;
using testing::relative_difference;
using torch::Tensor;

/// Any scales there may be.
class RandomScales : public ChannelScaleSearch {
 public:
  Tensor find(const ScaledGroup& group) const override {
    return group.fusible(torch::exp(3 * torch::randn_like(group.mean(group.inputs().mean_abs))));
  }
};

/// Every block of the model computes the same after its channels have been scaled.
void expect_same_outputs(const quant::Checkpoint& model) {
  for (int layer = 0; layer < static_cast<int>(model.spec().num_layers()); ++layer) {
    OneBlock one(model, layer);
    const Tensor before = one.output(), weight = one.work().linear(Slot::o)->weight.clone();
    make_scaled(std::make_shared<RandomScales>(), std::make_shared<NoRounding>())->quantize(one.work());
    const Tensor after = one.output();
    EXPECT_LE((after - before).abs().max().item<double>(), 2e-6 * before.abs().max().item<double>()) << layer;
    EXPECT_GT((weight - one.work().linear(Slot::o)->weight).abs().max().item<double>(),
              weight.abs().max().item<double>());
  }
}

class ScaledSpecs : public ::testing::TestWithParam<testing::SpecCase> {};
INSTANTIATE_TEST_SUITE_P(Scales, ScaledSpecs, ::testing::ValuesIn(testing::spec_cases()),
                         [](const auto& info) { return info.param.name; });
TEST_P(ScaledSpecs, ComputeWhatTheyDid) { expect_same_outputs(RandomModel(GetParam().spec)); }

class ScaledGoldens : public ::testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Scales, ScaledGoldens, ::testing::ValuesIn(testing::golden_names()),
                         [](const auto& info) { return info.param; });
TEST_P(ScaledGoldens, ComputeWhatTheyDid) {
  expect_same_outputs(*quant::open_checkpoint(testing::golden_folder(GetParam())));
}

TEST(ChannelScales, GainsAndBiasesStayBf16) {
  const RandomModel model(testing::spec_cases()[0].spec);
  OneBlock one(model, 1);  // the layer with biases
  make_scaled(std::make_shared<RandomScales>(), std::make_shared<NoRounding>())->quantize(one.work());
  for (const Slot slot : {Slot::attention_norm, Slot::ffn_norm, Slot::v_bias, Slot::up_bias}) {
    const Tensor now = one.work().block.parameters_by_id().at({slot, 1});
    EXPECT_TRUE(torch::equal(now, model::round_to_bf16(now)));
    const auto& before = const_cast<RandomModel&>(model).values({slot, 1});
    EXPECT_FALSE(torch::equal(now, model::round_to_bf16(torch::tensor(before))));
  }
}

TEST(ChannelScales, OfInputsThatAreAlwaysZeroAreOne) {
  RandomModel model(testing::spec_cases()[0].spec);
  model.values({Slot::attention_norm, 0})[5] = 0;
  OneBlock one(model, 0);
  const Tensor before = one.work().linear(Slot::q)->weight.clone(), output = one.output();
  make_scaled(std::make_shared<RandomScales>(), std::make_shared<NoRounding>())->quantize(one.work());
  const Tensor after = one.work().linear(Slot::q)->weight;
  EXPECT_TRUE(torch::equal(before.select(1, 5), after.select(1, 5)));
  EXPECT_FALSE(torch::equal(before.select(1, 6), after.select(1, 6)));
  EXPECT_TRUE(after.isfinite().all().item<bool>());
  EXPECT_LE((one.output() - output).abs().max().item<double>(), 2e-6 * output.abs().max().item<double>());
}

TEST(ChannelScales, AGroupWithALinearThatStaysInFloatsIsLeftAloneAndNamed) {
  const RandomModel model(testing::spec_cases()[0].spec);
  OneBlock one(model, 0);
  one.work().formats.erase(Slot::v);  // so neither q, k, v nor o
  const Tensor gain = one.work().block.parameters_by_id().at({Slot::attention_norm, 0}).clone(),
               o = one.work().linear(Slot::o)->weight.clone(), down = one.work().linear(Slot::down)->weight.clone();
  ::testing::internal::CaptureStderr();
  make_scaled(std::make_shared<RandomScales>(), std::make_shared<NoRounding>())->quantize(one.work());
  const std::string log = ::testing::internal::GetCapturedStderr();
  EXPECT_TRUE(torch::equal(gain, one.work().block.parameters_by_id().at({Slot::attention_norm, 0})));
  EXPECT_TRUE(torch::equal(o, one.work().linear(Slot::o)->weight));
  EXPECT_FALSE(torch::equal(down, one.work().linear(Slot::down)->weight));
  for (const char* name : {"layers.0.self_attn.q_proj", "layers.0.self_attn.o_proj"})
    EXPECT_THAT(log, ::testing::HasSubstr(std::string(name) + ": its inputs are not scaled, for not all linears on "
                                                              "either side of them are quantized"));
  EXPECT_THAT(log, ::testing::Not(::testing::HasSubstr("down_proj")));
}

// --- the search

/// Sum over linears of |x (w - q)^T|^2 / |x w^T|^2, token by token in double.
double error_of_scales(const ScaledGroup& group, const Tensor& input, const std::vector<double>& s) {
  double sum = 0;
  for (const auto& [slot, weight] : group.weights()) {
    const Tensor x = input.reshape({-1, weight.size(1)}).to(torch::kDouble), w = weight.to(torch::kDouble);
    const Tensor scales = group.columns(torch::tensor(s, torch::kDouble));
    const Tensor scaled = (w * scales).to(torch::kFloat).contiguous();
    const Tensor energy = (x / scales).square().mean(0);
    const Tensor importance = (energy + 0.01 * energy.mean()).to(torch::kFloat).contiguous();
    const Tensor q =
        dequantized(quant::round_to_nearest(scaled.const_data_ptr<float>(), w.size(0), w.size(1), group.format(slot),
                                            quant::ScaleInit::mse, importance.const_data_ptr<float>()))
            .to(torch::kDouble) /
        scales;
    sum += (x.mm((w - q).t()).square().sum() / x.mm(w.t()).square().sum()).item<double>();
  }
  return sum;
}

TEST(Awq, FindsTheScalesOfAPlainSearchInDouble) {
  const RandomModel model(testing::spec_cases()[0].spec);
  int scaled = 0;
  for (const Slot slot : {Slot::o, Slot::down}) {  // without biases: any scale can be fused
    OneBlock one(model, 0);
    Tensor input;
    const ScaledGroup group = group_of(one.work(), slot, &input);
    const Tensor found = make_awq_search(quant::ScaleInit::mse, 20)->find(group);

    const int64_t channels = found.size(0), cols = input.size(2), share = cols / channels, width = 12;
    std::vector<double> x(static_cast<size_t>(channels)), w(x.size());
    const Tensor weight = one.work().linear(slot)->weight;
    for (int64_t j = 0; j < cols; ++j) {
      // of o: 6 heads of 12 columns, 3 of which share each of 2 kv heads
      const auto channel = static_cast<size_t>(slot == Slot::o ? j / (share * width) * width + j % width : j);
      x[channel] += input.select(2, j).abs().to(torch::kDouble).mean().item<double>() / static_cast<double>(share);
      w[channel] += weight.select(1, j).abs().to(torch::kDouble).mean().item<double>() / static_cast<double>(share);
    }
    std::vector<double> best;
    double least = std::numeric_limits<double>::infinity();
    const auto consider = [&](std::vector<double> s) {
      const auto [low, high] = std::ranges::minmax_element(s);
      const double middle = std::sqrt(*low * *high);
      for (double& value : s) value /= middle;
      const double error = error_of_scales(group, input, s);
      if (error >= least) return;
      least = error;
      best = s;
    };
    consider(std::vector<double>(x.size(), 1.0));
    const double plain = least;
    for (int i = 0; i < 20; ++i) {
      std::vector<double> by_input, by_both;
      for (size_t j = 0; j < x.size(); ++j) {
        by_input.push_back(std::pow(x[j], i / 20.0));
        by_both.push_back(by_input.back() / std::pow(w[j], 1 - i / 20.0));
      }
      consider(by_input);
      consider(by_both);
    }
    EXPECT_TRUE(torch::allclose(found.to(torch::kDouble), torch::tensor(best, torch::kDouble), 1e-4, 1e-6));
    scaled += least < 0.95 * plain ? 1 : 0;
  }
  EXPECT_GE(scaled, 1);  // there was something to find
}

TEST(Awq, IsNeverWorseThanRoundingByItsMeasure) {
  for (const auto& one_case : testing::spec_cases()) {
    const RandomModel model(one_case.spec);
    for (const QuantFormat& format : {QuantFormat{Grid::intn, 4, true, 0}, QuantFormat{}}) {
      for (const Slot slot : {Slot::q, Slot::o, Slot::gate, Slot::down}) {
        OneBlock one(model, 0, format);
        Tensor input;
        const ScaledGroup group = group_of(one.work(), slot, &input);
        const Tensor s = make_awq_search(quant::ScaleInit::mse, 5)->find(group).to(torch::kDouble).contiguous();
        const std::vector<double> scales(s.const_data_ptr<double>(), s.const_data_ptr<double>() + s.numel());
        // of float sums against double ones
        EXPECT_LE(error_of_scales(group, input, scales),
                  (1 + 1e-4) * error_of_scales(group, input, std::vector<double>(scales.size(), 1.0)))
            << one_case.name;
      }
    }
  }
}

// --- the whole job

class AwqJob : public ::testing::Test {
 protected:
  QuantizeJob job(const std::string& output, const QuantFormat& format) const {
    return testing::story_job(dir_ / output, 2048, AwqMethod{.grid_points = 8}, format);
  }
  static QuantizeReport run(const QuantizeJob& job) {
    ThreadPool pool(2);
    return quantize(job, false, pool);
  }

  testing::TempDir dir_;
};

TEST_F(AwqJob, GivesAStockFolderWhoseNormsAreScaled) {
  CRUMB_NEED_DATA(folder, "models/ref-llama-15m");
  QuantizeJob eight_bits = job("out", {Grid::intn, 8, true, 0});
  eight_bits.model = folder;
  std::get<AwqMethod>(eight_bits.method).grid_points = 3;
  run(eight_bits);
  const auto source = quant::open_checkpoint(folder), saved = quant::open_checkpoint(dir_ / "out");
  EXPECT_LT(relative_difference(testing::logits_of(*saved), testing::logits_of(*source)), 0.01);
  int changed = 0;
  for (const auto& tensor : source->tensors()) {
    if (tensor.desc.role != arch::TensorRole::norm) continue;
    changed += quant::read_all(*saved, saved->tensor(tensor.desc.id)) != quant::read_all(*source, tensor) ? 1 : 0;
  }
  EXPECT_GE(changed, 1);  // where scales win something
  EXPECT_EQ(quant::read_all(*saved, saved->tensor({Slot::final_norm})),
            quant::read_all(*source, source->tensor({Slot::final_norm})));
  exporting::export_checkpoint(*saved, dir_ / "out.gguf", {"gguf-q8_0", "f32", "f32", false, 2});
  EXPECT_EQ(testing::logits_of(*quant::open_checkpoint(dir_ / "out.gguf")), testing::logits_of(*saved));
}

TEST_F(AwqJob, LosesLessOfTheFirstOutputsThanWeightedRounding) {
  CRUMB_NEED_DATA(folder, "models/stories260K-hf");
  const QuantFormat format{Grid::intn, 3, true, 0};
  QuantizeJob awq = job("awq", format), rounding = awq;
  RtnMethod method{.importance = std::string("activations")};
  method.linears = std::get<AwqMethod>(awq.method).linears;
  rounding.method = method;
  rounding.output = dir_ / "rtn";
  const QuantizeReport scaled = run(awq), plain = run(rounding);
  const auto error = [](const QuantizeReport& report) {  // of q, k, v of the first block
    return report.tensors[0].output.relative() + report.tensors[1].output.relative() +
           report.tensors[2].output.relative();
  };
  EXPECT_LT(error(scaled), 0.95 * error(plain));
  EXPECT_EQ(scaled.kept_weights, plain.kept_weights);
}

TEST_F(AwqJob, GptqGoesOnFromTheScaledWeights) {
  CRUMB_NEED_DATA(folder, "models/stories260K-hf");
  const QuantFormat format{Grid::intn, 3, true, 0};
  QuantizeJob awq = job("awq", format), both = job("both", format);
  std::get<AwqMethod>(both.method).rounding = "gptq";
  const QuantizeReport plain = run(awq), fed_on = run(both);
  double plain_error = 0, error = 0;
  for (size_t i = 0; i < plain.tensors.size(); ++i) {
    plain_error += plain.tensors[i].output.relative();
    error += fed_on.tensors[i].output.relative();
  }
  EXPECT_LT(error, 0.9 * plain_error);
}

}  // namespace
}  // namespace crumb::ptq
