// A linear on a grid that the program does not know: what trains and writes quantized linears needs the interface
// alone.
#include "qat/quant_linear.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/seq.h"
#include "qat/convert.h"
#include "qat/movement.h"
#include "quant/scale_search.h"
#include "tests/quant/toy_grid.h"
#include "tests/testing/testing.h"

namespace crumb::qat {
namespace {

using testing::TempDir;
using torch::Tensor;

const quant::QuantFormat kToy{.grid = testing::kToyGrid, .bits = 3};

/// Ternary with one trained step a row.
class ToyLinear : public QuantLinear {
 public:
  ToyLinear(Tensor initial_weight, Tensor initial_bias) {
    weight = register_parameter("weight", std::move(initial_weight));
    if (initial_bias.defined()) bias = register_parameter("bias", std::move(initial_bias));
    const auto q = quant::round_to_nearest(weight.const_data_ptr<float>(), weight.size(0), weight.size(1), kToy,
                                           quant::ScaleInit::mse);
    step = register_parameter("step", torch::tensor(q.scales).reshape({-1, 1}));
  }
  Tensor forward(const Tensor& x) override { return torch::linear(x, effective_weight(), bias); }
  Tensor effective_weight() override {
    Tensor out = torch::empty_like(weight, torch::TensorOptions().requires_grad(false));
    QuantLinear::quantized().dequantize(out.mutable_data_ptr<float>());
    return out;
  }
  quant::QuantFormat format() const override { return kToy; }
  quant::QuantizedTensor quantized(int64_t begin, int64_t end) const override {
    quant::QuantizedTensor q{kToy, end - begin, weight.size(1), {}, {}, {}};
    q.codes.resize(static_cast<size_t>(q.rows * q.cols));
    for (int64_t row = 0; row < q.rows; ++row) {
      q.scales.push_back(kernels::round_scale(step.const_data_ptr<float>()[begin + row]));
      kToy.grid->nearest_codes(weight.const_data_ptr<float>() + (begin + row) * q.cols, q.cols, kToy, {q.scales.back()},
                               q.codes.data() + row * q.cols);
    }
    return q;
  }
  Tensor log_scales() const override { return step.detach().log(); }
  void set_scales(const Tensor& scales) override {
    const torch::NoGradGuard no_grad;
    step.copy_(scales);
  }

  Tensor step;  // [rows, 1]
};

struct ToyModel {
  std::unique_ptr<quant::Checkpoint> base =
      quant::open_checkpoint(testing::source_dir() / "tests" / "runtime" / "goldens" / "llama");
  std::shared_ptr<model::Decoder> decoder = std::make_shared<model::Decoder>(
      base->spec(), model::checkpoint_source(*base),
      [](const std::string& name, Tensor weight, Tensor bias) -> std::shared_ptr<model::LinearModule> {
        if (name.ends_with("o_proj")) return model::make_float_linear(name, std::move(weight), std::move(bias));
        return std::make_shared<ToyLinear>(std::move(weight), std::move(bias));
      });
};

TEST(QuantLinears, AreThoseOfTheDecoderInItsOrder) {
  const ToyModel toy;
  std::vector<std::string> expected, actual;
  for (const auto& [name, linear] : toy.decoder->linears()) {
    if (!name.ends_with("o_proj")) expected.push_back(name);
  }
  for (const auto& [name, linear] : quant_linears(*toy.decoder)) {
    actual.push_back(name);
    EXPECT_EQ(linear->format(), kToy);
    EXPECT_TRUE(torch::allclose(linear->scales(), std::dynamic_pointer_cast<ToyLinear>(linear)->step));
  }
  EXPECT_EQ(actual, expected);
  EXPECT_EQ(actual.size(), 12u);
}

TEST(QuantLinears, OfAnyGridAreWrittenAsTheForwardPassUsesThem) {
  const quant::AddedGrid added(testing::kToyGrid);
  const ToyModel toy;
  const TempDir dir;
  save_model(dir / "model", *toy.decoder, *toy.base, {"o_proj"});
  const auto written = quant::open_checkpoint(dir / "model");
  int compared = 0;
  for (const auto& [name, linear] : quant_linears(*toy.decoder)) {
    const auto& tensor = written->tensor(name + ".weight");
    ASSERT_EQ(tensor.format, kToy) << name;
    const Tensor expected = linear->effective_weight().contiguous();
    const auto values = quant::read_all(*written, tensor);
    EXPECT_TRUE(std::equal(values.begin(), values.end(), expected.const_data_ptr<float>())) << name;
    ++compared;
  }
  EXPECT_EQ(compared, 12);
}

TEST(QuantLinears, MoveByTheCodesThatFlip) {
  const ToyModel toy;
  const Movement movement(*toy.decoder, {});
  EXPECT_EQ(movement.report().flipped_share, 0);
  EXPECT_EQ(movement.report().scale_distance, 0);
  const torch::NoGradGuard no_grad;
  int64_t weights = 0;
  for (const auto& [name, linear] : quant_linears(*toy.decoder)) weights += linear->weight.numel();
  const auto& [name, linear] = quant_linears(*toy.decoder).front();
  const auto start = linear->quantized(0, 1).codes;
  linear->weight.slice(0, 0, 1).fill_(-1e3f);  // code 0
  const auto flipped = static_cast<double>(std::ranges::count_if(start, [](uint8_t code) { return code != 0; }));
  EXPECT_GT(flipped, 0);
  EXPECT_DOUBLE_EQ(movement.report().flipped_share, flipped / static_cast<double>(weights));
  for (const auto& [unused, each] : quant_linears(*toy.decoder))
    std::dynamic_pointer_cast<ToyLinear>(each)->step.mul_(std::exp(0.25f));
  EXPECT_NEAR(movement.report().scale_distance, 0.25, 1e-5);
}

TEST(QatMethod, NamesTheGridsThatCanBeTrained) {
  EXPECT_NO_THROW(QatMethod{}.check());
  const QatMethod fp8{.linears = {.grid = "fp8", .bits = 8}}, seq4{.linears = {.bits = 4}},
      mixed{.linears = {.overrides = {{"down_proj", {.grid = "fp8", .bits = 8}}}}};
  EXPECT_EQ(testing::error_of([&] { fp8.check(); }), "method.grid: training knows seq, int, ternary only, got fp8");
  EXPECT_EQ(testing::error_of([&] { mixed.check(); }),
            "method.overrides.down_proj.grid: training knows seq, int, ternary only, got fp8");
  EXPECT_EQ(testing::error_of([&] { quant_linear_maker(fp8); }),
            "method.grid: training knows seq, int, ternary only, got fp8");
  EXPECT_EQ(testing::error_of([&] { seq4.check(); }), "method.bits: grid seq has 2 bits, got 4; grid int has 2 to 8");
}

}  // namespace
}  // namespace crumb::qat
