#include "qat/convert.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "core/formats/dtype.h"
#include "qat/linear_factory.h"
#include "qat/movement.h"
#include "qat/seq_linear.h"
#include "tests/testing/testing.h"

namespace crumb::qat {
namespace {

struct Trained {
  std::unique_ptr<quant::Checkpoint> base;
  QatMethod method;
  std::shared_ptr<model::Decoder> decoder;
};

Trained load(const testing::fs::path& folder, int64_t group_size) {
  Trained t;
  t.base = quant::open_checkpoint(folder);
  t.method.linears.group_size = group_size;
  t.method.linears.exclude = {"o_proj"};
  t.decoder =
      std::make_shared<model::Decoder>(t.base->spec(), model::checkpoint_source(*t.base), linear_factory(t.method));
  t.decoder->round_small_tensors = true;
  return t;
}

void perturb(model::Decoder& decoder, double amount) {
  const torch::NoGradGuard no_grad;
  torch::manual_seed(9);
  for (auto& parameter : decoder.parameters()) parameter.mul_(1 + amount * torch::randn_like(parameter));
}

TEST(ClampedScales, OfADecoderAreNamed) {
  CRUMB_NEED_DATA(folder, "models/stories260K-hf");
  const Trained t = load(folder, 0);
  const auto words = [&] {
    ::testing::internal::CaptureStderr();
    warn_about_clamped_scales(*t.decoder);
    return ::testing::internal::GetCapturedStderr();
  };
  EXPECT_EQ(words(), "");
  const std::string name = "model.layers.1.mlp.down_proj";
  {
    const torch::NoGradGuard no_grad;
    for (const auto& [module, linear] : t.decoder->linears()) {
      if (module == name) std::dynamic_pointer_cast<SeqLinearImpl>(linear)->log_scale.slice(0, 0, 3).fill_(-20);
    }
  }
  EXPECT_NE(words().find(name + " (3 of 64)"), std::string::npos) << words();
}

TEST(SaveModel, ReadsBackAsWhatTheForwardPassUses) {
  CRUMB_NEED_DATA(folder, "models/stories260K-hf");
  for (const int64_t group_size : {0, 4}) {  // rows of 64 and 172
    const testing::TempDir dir;
    const Trained t = load(folder, group_size);
    perturb(*t.decoder, 0.05);
    save_model(dir / "model", *t.decoder, *t.base, t.method.linears.exclude);
    const auto saved = quant::open_checkpoint(dir / "model");
    EXPECT_EQ(saved->kind(), quant::CheckpointKind::codes);
    int64_t quantized = 0;
    for (const auto& stored : saved->tensors()) {
      auto expected = t.decoder->value(stored.desc).reshape({-1}).contiguous();
      if (stored.desc.role == arch::TensorRole::linear) quantized += stored.format.has_value();
      const auto actual = quant::read_all(*saved, stored);
      // other matrices keep the dtype of the source, here float32
      ASSERT_EQ(static_cast<int64_t>(actual.size()), expected.numel());
      EXPECT_TRUE(std::equal(actual.begin(), actual.end(), expected.data_ptr<float>())) << stored.desc.hf_name;
    }
    EXPECT_EQ(quantized, t.base->spec().num_layers() * 6) << "o_proj is excluded";
    EXPECT_NO_THROW(saved->load_tokenizer());
  }
}

TEST(SaveModel, DecoderBuiltFromTheFolderGivesTheSameLogits) {
  CRUMB_NEED_DATA(folder, "models/stories260K-hf");
  const testing::TempDir dir;
  const Trained t = load(folder, 0);
  save_model(dir / "model", *t.decoder, *t.base, t.method.linears.exclude);
  const auto saved = quant::open_checkpoint(dir / "model");
  model::Decoder plain(saved->spec(), model::checkpoint_source(*saved));
  const torch::NoGradGuard no_grad;
  const auto ids = torch::arange(1, 40).reshape({1, -1});
  EXPECT_TRUE(torch::equal(plain.forward(ids).final_hidden, t.decoder->forward(ids).final_hidden));
}

std::vector<train::TrainedParameter> weights_of(model::Decoder& decoder) {
  std::vector<train::TrainedParameter> out;
  for (const auto& [name, linear] : decoder.linears())
    out.push_back({name, linear->weight, train::ParameterKind::weight, {}});
  return out;
}

TEST(Movement, IsZeroAtTheStartAndCountsFlippedCodes) {
  CRUMB_NEED_DATA(folder, "models/stories260K-hf");
  const Trained t = load(folder, 0);
  const Movement movement(*t.decoder, weights_of(*t.decoder));
  const auto start = movement.report();
  EXPECT_EQ(start.flipped_share, 0);
  EXPECT_EQ(start.weight_distance, 0);
  EXPECT_EQ(start.scale_distance, 0);

  std::map<std::string, torch::Tensor> codes;
  for (const auto& [name, linear] : t.decoder->linears()) codes[name] = linear->effective_weight().clone();
  perturb(*t.decoder, 0.1);
  const auto moved = movement.report();
  double flipped = 0, all = 0;
  for (const auto& [name, linear] : t.decoder->linears()) {
    const auto seq = std::dynamic_pointer_cast<SeqLinearImpl>(linear);
    if (seq == nullptr) continue;
    // a code is the level over its row's scale: rows change their scale, codes are what is compared
    const auto code = [](const torch::Tensor& level) { return torch::round(level / level.abs().amin(1, true)); };
    flipped += (code(codes.at(name)) != code(linear->effective_weight())).sum().item<double>();
    all += static_cast<double>(seq->weight.numel());
  }
  EXPECT_GT(moved.flipped_share, 0);
  EXPECT_NEAR(moved.flipped_share, flipped / all, 1e-12);
  EXPECT_NEAR(moved.weight_distance, 0.1, 0.01);
  EXPECT_GT(moved.scale_distance, 0);
}

TEST(Movement, OfAFloatDecoderIsOfItsWeightsAlone) {
  CRUMB_NEED_DATA(folder, "models/stories260K-hf");
  const auto base = quant::open_checkpoint(folder);
  model::Decoder decoder(base->spec(), model::checkpoint_source(*base));
  const Movement movement(decoder, weights_of(decoder));
  EXPECT_FALSE(movement.has_codes());
  const torch::NoGradGuard no_grad;
  for (const auto& p : weights_of(decoder)) torch::Tensor(p.value).mul_(1.25);
  EXPECT_EQ(movement.report().flipped_share, 0);
  EXPECT_NEAR(movement.report().weight_distance, 0.25, 1e-6);
}

}  // namespace
}  // namespace crumb::qat
