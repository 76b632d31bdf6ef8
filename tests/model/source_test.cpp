#include "model/decoder.h"
#include "tests/model/models.h"

namespace crumb::model {
namespace {

using testing::small_spec;

arch::DecoderSpec wide_spec() {
  auto spec = small_spec(8, 500, 64);
  return spec;
}

const arch::TensorDesc& find(const std::vector<arch::TensorDesc>& table, const std::string& name) {
  for (const auto& desc : table) {
    if (desc.hf_name == name) return desc;
  }
  throw std::runtime_error("no tensor " + name);
}

TEST(RandomSource, HasTheDeviationOfEachRole) {
  const auto spec = wide_spec();
  const auto table = arch::tensor_table(spec);
  const TensorSource source = random_source(spec, 1);
  const auto deviation = [&](const std::string& name) { return source(find(table, name)).std().item<double>(); };
  // The deviation of n normal values is known to 1 / sqrt(2 n); n >= 1280 here, five sigmas.
  EXPECT_NEAR(deviation("model.embed_tokens.weight"), 0.02, 0.02 * 0.03);
  EXPECT_NEAR(deviation("model.layers.3.mlp.up_proj.weight"), 0.02, 0.02 * 0.1);
  EXPECT_NEAR(deviation("model.layers.3.mlp.down_proj.weight"), 0.02 / 4, 0.005 * 0.1);  // sqrt(2 * 8 layers) = 4
  EXPECT_NEAR(deviation("model.layers.7.self_attn.o_proj.weight"), 0.02 / 4, 0.005 * 0.1);
  EXPECT_TRUE(torch::equal(source(find(table, "model.norm.weight")), torch::ones({64})));
}

TEST(RandomSource, IsAFunctionOfSeedAndNameOnly) {
  const auto spec = wide_spec();
  const auto table = arch::tensor_table(spec);
  const auto& q0 = find(table, "model.layers.0.self_attn.q_proj.weight");
  const auto& q1 = find(table, "model.layers.1.self_attn.q_proj.weight");
  const TensorSource a = random_source(spec, 1);
  const torch::Tensor first = a(q0);
  a(q1);
  EXPECT_TRUE(torch::equal(a(q0), first));
  EXPECT_TRUE(torch::equal(random_source(spec, 1)(q0), first));
  EXPECT_FALSE(torch::equal(random_source(spec, 2)(q0), first));
  EXPECT_FALSE(torch::equal(a(q1), first));
}

TEST(CheckpointSource, GivesTheStoredValues) {
  const auto checkpoint = quant::open_checkpoint(testing::source_dir() / "tests/runtime/goldens/qwen2");
  const TensorSource source = checkpoint_source(*checkpoint);
  for (const auto& stored : checkpoint->tensors()) {
    const torch::Tensor values = source(stored.desc);
    EXPECT_EQ(values.sizes().vec(), stored.desc.shape);
    const std::vector<float> expected = quant::read_all(*checkpoint, stored);
    EXPECT_EQ(std::vector<float>(values.data_ptr<float>(), values.data_ptr<float>() + values.numel()), expected)
        << stored.desc.hf_name;
  }
}

}  // namespace
}  // namespace crumb::model
