// Activations rounded beside weights, and the scales that make both easy to round.
#include "ptq/smoothquant.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "export/export.h"
#include "ptq/quantize.h"
#include "quant/activations.h"
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
using testing::RandomModel;
using testing::relative_difference;
using torch::Tensor;

const QuantFormat kInt8{Grid::intn, 8, true, 0};
const quant::ActivationRounder& int8_tokens() {
  static const quant::ActivationRounder rounder({Grid::intn, 8});
  return rounder;
}

/// Mean over the sample's tokens of |error|^2 / |y|^2, summed over linears, with scales s [channels], in double.
double error_of_scales(const ScaledGroup& group, const Tensor& s) {
  const Tensor scales = group.columns(s.to(torch::kFloat)), x = group.sample();
  double sum = 0;
  for (const auto& [slot, w] : group.weights()) {
    const Tensor divided = x / scales, scaled = (w * scales).contiguous();
    const Tensor step = divided.abs().amax(1, true) / 127;
    const Tensor read = (divided / step).round() * step;
    const Tensor energy = group.inputs().gram.diagonal() / scales.square();
    const Tensor importance = (energy + 0.01 * energy.mean()).contiguous();
    const Tensor q =
        dequantized(quant::round_to_nearest(scaled.const_data_ptr<float>(), w.size(0), w.size(1), group.format(slot),
                                            quant::ScaleInit::mse, importance.const_data_ptr<float>()));
    const Tensor y = x.to(torch::kDouble).mm(w.to(torch::kDouble).t());
    const Tensor off = read.to(torch::kDouble).mm(q.to(torch::kDouble).t()) - y;
    sum += (off.square().sum(1) / y.square().sum(1)).mean().item<double>();
  }
  return sum;
}

TEST(SmoothQuant, FindsTheAlphaOfAPlainSearch) {
  const RandomModel model(testing::spec_cases()[0].spec);
  for (const Slot slot : {Slot::q, Slot::down}) {
    testing::OneBlock one(model, 0, kInt8);
    one.work().rounder = &int8_tokens();
    const ScaledGroup group = testing::group_of(one.work(), slot);
    const Tensor found = make_smoothquant_search(quant::ScaleInit::mse, std::nullopt, 11)->find(group);
    Tensor largest = torch::zeros_like(group.inputs().max_abs);
    for (const auto& [reader, w] : group.weights()) largest = torch::maximum(largest, w.abs().amax(0));
    const Tensor none = group.fusible(torch::ones_like(found));
    double least = error_of_scales(group, none);
    const double plain = least;
    Tensor best = none;
    for (int i = 0; i <= 10; ++i) {
      const Tensor s = group.fusible(group.inputs().max_abs.pow(i / 10.0) / largest.pow(1 - i / 10.0));
      const double error = error_of_scales(group, s);
      if (error >= least) continue;
      least = error;
      best = s;
    }
    EXPECT_LT(least, 0.95 * plain);
    EXPECT_TRUE(torch::allclose(found, best, 1e-4));
  }
}

TEST(SmoothQuant, TakesTheAlphaThatIsGiven) {
  const RandomModel model(testing::spec_cases()[0].spec);
  testing::OneBlock one(model, 0, kInt8);
  const ScaledGroup group = testing::group_of(one.work(), Slot::down);
  const Tensor found = make_smoothquant_search(quant::ScaleInit::mse, 0.7, 11)->find(group);
  const Tensor expected = group.inputs().max_abs.pow(0.7) / group.weights().at(Slot::down).abs().amax(0).pow(0.3);
  const Tensor quotient = found / expected;  // the same for all but for the common factor
  EXPECT_LT((quotient.max() / quotient.min()).item<double>(), 1.0001);
}

class SmoothJob : public ::testing::Test {
 protected:
  template <class MethodOptions>
  QuantizeJob job(const std::string& output, MethodOptions method, const std::string& activations) const {
    QuantizeJob job = testing::story_job(dir_ / output, 1024, std::move(method), {quant::Grid::intn, 8, true, 0});
    job.activations.grid = activations;
    return job;
  }
  static void run(const QuantizeJob& job) {
    ThreadPool pool(2);
    quantize(job, false, pool);
  }
  static std::string error_of(const QuantizeJob& job) {
    return testing::error_of([&] { run(job); });
  }

  testing::TempDir dir_;
};

TEST_F(SmoothJob, GivesAFolderThatRunsWithRoundedActivations) {
  CRUMB_NEED_DATA(folder, "models/stories260K-hf");
  run(job("out", SmoothQuantMethod{.grid_points = 5}, "int"));
  const auto saved = quant::open_checkpoint(dir_ / "out"), source = quant::open_checkpoint(folder);
  EXPECT_EQ(quant::activations_of(*saved), (quant::ActivationFormat{Grid::intn, 8}));
  const auto logits = testing::logits_of(*saved);
  EXPECT_LT(relative_difference(logits, testing::logits_of(*source)), 0.03);
  // without the key the same weights read floats
  auto config = nlohmann::json::parse(testing::read_file(dir_ / "out/config.json"));
  config["quantization_config"]["activations"] = "none";
  config["quantization_config"]["version"] = 1;
  testing::write_file(dir_ / "out/config.json", config.dump());
  EXPECT_GT(relative_difference(logits, testing::logits_of(*quant::open_checkpoint(dir_ / "out"))), 1e-4);
}

TEST_F(SmoothJob, AnyMethodMayHaveActivations) {
  CRUMB_NEED_DATA(folder, "models/stories260K-hf");
  run(job("rtn", RtnMethod{}, "fp8"));
  EXPECT_EQ(quant::activations_of(*quant::open_checkpoint(dir_ / "rtn")), (quant::ActivationFormat{Grid::fp8, 8}));
  run(job("gptq", GptqMethod{}, "int"));
  run(job("floats", GptqMethod{}, "none"));
  // what it is calibrated on is what its linears read
  const auto codes = [&](const char* name) {
    const auto model = quant::open_checkpoint(dir_ / name);
    return model->read_codes(model->tensor({Slot::q, 0}), 0, model->tensor({Slot::q, 0}).desc.rows()).codes;
  };
  EXPECT_NE(codes("gptq"), codes("floats"));
}

TEST_F(SmoothJob, WantsToKnowHowActivationsAreRounded) {
  CRUMB_NEED_DATA(folder, "models/stories260K-hf");
  EXPECT_EQ(error_of(job("out", SmoothQuantMethod{}, "none")),
            "method: smoothquant makes activations easier to round; say how they are: activations.grid=int or fp8");
}

TEST_F(SmoothJob, AnExportSaysThatItsFileDoesNotRoundActivations) {
  CRUMB_NEED_DATA(folder, "models/ref-llama-15m");
  QuantizeJob eight_bits = job("out", RtnMethod{}, "int");
  eight_bits.model = folder;
  run(eight_bits);
  const auto result = exporting::export_checkpoint(*quant::open_checkpoint(dir_ / "out"), dir_ / "out.gguf",
                                                   {"gguf-q8_0", "f32", "f32", false, 2});
  EXPECT_THAT(result.plan.warnings,
              ::testing::Contains("no file says that activations are quantized (INT8 symmetric, a scale a token): "
                                  "whoever runs it reads them as floats, or rounds them in its own way"));
}

TEST_F(SmoothJob, TrainingRefusesToBeginWithRoundedActivations) {
  CRUMB_NEED_DATA(folder, "models/ref-llama-15m");
  QuantizeJob eight_bits = job("out", RtnMethod{}, "int");
  eight_bits.model = folder;
  run(eight_bits);
  testing::write_file(dir_ / "text.txt", "Once upon a time");
  const std::string out = "'" + (dir_ / "out").string() + "'", text = "'" + (dir_ / "text.txt").string() + "'";
  const auto start = testing::run_crumb("train '" + (testing::source_dir() / "configs/qat/seq_w2.yaml").string() +
                                        "' model='" + folder.string() + "' method.init=" + out + " data.train=" + text +
                                        " output='" + (dir_ / "run").string() + "' --dry-run");
  EXPECT_EQ(start.exit_code, 2);
  EXPECT_THAT(start.err, ::testing::HasSubstr("method.init: " + (dir_ / "out").string() +
                                              " rounds activations (INT8 symmetric, a scale a token), which training "
                                              "does not; make it without `activations`"));
}

}  // namespace
}  // namespace crumb::ptq
