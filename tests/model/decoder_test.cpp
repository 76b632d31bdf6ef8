#include "model/decoder.h"

#include <algorithm>
#include <set>

#include "core/formats/safetensors.h"
#include "model/block.h"
#include "tests/model/models.h"

namespace crumb::model {
namespace {

using testing::all_logits;
using testing::lively_source;
using testing::random_ids;
using testing::relative_distance;
using testing::share_of_range;
using testing::small_spec;

constexpr size_t kGoldens = 14;
constexpr double kGoldenShare = 1e-4;  // of the range of the logits: float32 sums in another order

std::vector<testing::fs::path> golden_folders() {
  std::vector<testing::fs::path> folders;
  for (const auto& entry : testing::fs::directory_iterator(testing::source_dir() / "tests/runtime/goldens"))
    folders.push_back(entry.path());
  std::sort(folders.begin(), folders.end());
  return folders;
}

struct Golden {
  torch::Tensor ids, logits;  // [1, n], [n, vocab]
};

Golden read_golden(const testing::fs::path& folder) {
  const formats::SafetensorsReader reader(folder / "golden.safetensors");
  const auto& logits = reader.at("logits");
  Golden golden{torch::empty({1, logits.shape[0]}, torch::kInt64), torch::empty(logits.shape)};
  const auto ids = reader.bytes(reader.at("ids"));
  std::memcpy(golden.ids.data_ptr(), ids.data(), ids.size());
  reader.read_rows(logits, 0, logits.shape[0], golden.logits.data_ptr<float>());
  return golden;
}

TEST(Decoder, MatchesTransformersOnEveryArchitecture) {
  const auto folders = golden_folders();
  EXPECT_GE(folders.size(), kGoldens);
  for (const auto& folder : folders) {
    const auto decoder = testing::load_decoder(folder);
    const Golden golden = read_golden(folder);
    const torch::NoGradGuard no_grad;
    EXPECT_LE(share_of_range(all_logits(*decoder, golden.ids)[0], golden.logits), kGoldenShare) << folder;
  }
}

TEST(Decoder, TheGoldensTellAnOptionLeftOut) {  // a test that cannot fail is none: without its window, mistral's logits
                                                // are others
  const auto folder = testing::source_dir() / "tests/runtime/goldens/mistral";
  const auto checkpoint = quant::open_checkpoint(folder);
  arch::DecoderSpec spec = checkpoint->spec();
  for (auto& layer : spec.layers) layer.window = 0;
  Decoder decoder(spec, checkpoint_source(*checkpoint));
  const Golden golden = read_golden(folder);
  EXPECT_GT(share_of_range(all_logits(decoder, golden.ids)[0], golden.logits), 100 * kGoldenShare);
}

/// Logits of a trained model, computed in double precision elsewhere.
void expect_matches_vectors(const std::string& model, const std::string& vectors) {
  CRUMB_NEED_DATA(folder, "models/" + model);
  CRUMB_NEED_DATA(golden, "vectors/golden/" + vectors + ".logits.f32");
  std::vector<int64_t> ids;
  std::ifstream in(testing::data("vectors/golden/" + vectors + ".ids.txt"));
  for (int64_t id = 0; in >> id;) ids.push_back(id);
  const auto decoder = testing::load_decoder(folder);
  const std::string bytes = testing::read_file(golden);
  const auto n = static_cast<int64_t>(ids.size()), vocab = decoder->spec().vocab_size;
  ASSERT_EQ(static_cast<int64_t>(bytes.size()), n * vocab * 4);
  const torch::Tensor expected = torch::from_blob(const_cast<char*>(bytes.data()), {n, vocab}, torch::kFloat32);
  EXPECT_LE(share_of_range(all_logits(*decoder, torch::tensor(ids).unsqueeze(0))[0], expected), 1e-5);
}
TEST(Decoder, MatchesDoublePrecisionOnStories260K) { expect_matches_vectors("stories260K-hf", "stories260K"); }
TEST(Decoder, MatchesDoublePrecisionOnTiny1M) { expect_matches_vectors("tiny1m-hf", "tiny1m"); }

TEST(Decoder, RowsOfABatchEqualRowsAlone) {
  Decoder decoder(small_spec(), lively_source(1));
  const torch::Tensor ids = random_ids(3, 17, 61);
  const torch::NoGradGuard no_grad;
  const torch::Tensor together = all_logits(decoder, ids);
  for (int64_t row = 0; row < 3; ++row) {
    EXPECT_LE(share_of_range(all_logits(decoder, ids.narrow(0, row, 1))[0], together[row]), 1e-6);
  }
}

TEST(Decoder, DocumentsThatAreKeptApartAreAsTheyAreAlone) {
  const std::vector<int64_t> lengths = {5, 1, 9, 2};
  for (const auto qk_norm : {arch::QkNorm::none, arch::QkNorm::before_rope, arch::QkNorm::after_rope}) {
    for (const int64_t window : {0, 3}) {
      auto spec = small_spec();
      for (auto& layer : spec.layers) {
        layer.window = window;
        std::get<arch::GqaSpec>(layer.attention).qk_norm = qk_norm;
      }
      Decoder decoder(spec, lively_source(1));
      const torch::Tensor ids = random_ids(2, 17, 61);
      torch::Tensor documents = torch::zeros({2, 17}, torch::kInt64);
      for (int64_t i = 0, at = 0; i < std::ssize(lengths); at += lengths[static_cast<size_t>(i++)])
        documents[0].slice(0, at).fill_(i);  // the second row is one document
      const torch::NoGradGuard no_grad;
      const torch::Tensor packed = decoder.forward(ids, {}, documents).final_hidden;
      int64_t at = 0;
      for (const int64_t length : lengths) {
        const torch::Tensor alone = decoder.forward(ids.slice(0, 0, 1).slice(1, at, at + length)).final_hidden;
        EXPECT_LE(share_of_range(packed.slice(0, 0, 1).slice(1, at, at + length), alone), 2e-6) << at;
        at += length;
      }
      EXPECT_LE(share_of_range(packed.slice(0, 1), decoder.forward(ids.slice(0, 1)).final_hidden), 2e-6);
      EXPECT_GT(share_of_range(packed, decoder.forward(ids).final_hidden), 1e-2);
    }
  }
}

TEST(Decoder, LaterTokensDoNotReachEarlierOnes) {
  for (const int64_t window : {0, 4}) {
    auto spec = small_spec();
    for (auto& layer : spec.layers) layer.window = window;
    Decoder decoder(spec, lively_source(1));
    const torch::Tensor ids = random_ids(1, 20, 61);
    torch::Tensor changed = ids.clone();
    changed[0][12] = (ids[0][12] + 1) % 61;
    const torch::NoGradGuard no_grad;
    const torch::Tensor difference = (all_logits(decoder, ids) - all_logits(decoder, changed))[0].abs().amax(1);
    EXPECT_LT(difference.narrow(0, 0, 12).max().item<double>(), 1e-5);
    EXPECT_GT(difference[12].item<double>(), 1e-2);
    // Two layers with a window of 4 see back 6 tokens.
    if (window > 0)
      EXPECT_LT(difference.narrow(0, 12 + 7, 1).max().item<double>(), 1e-5);
    else
      EXPECT_GT(difference.narrow(0, 12 + 7, 1).max().item<double>(), 1e-5);
  }
}

TEST(Decoder, AWindowAsLongAsTheTextIsNone) {
  EXPECT_FALSE(make_window_mask(20, 20).defined());
  EXPECT_FALSE(make_window_mask(0, 20).defined());
  const torch::Tensor mask = make_window_mask(2, 3);
  const float hidden = -std::numeric_limits<float>::infinity();
  const torch::Tensor expected = torch::tensor({{0.0f, hidden, hidden}, {0.0f, 0.0f, hidden}, {hidden, 0.0f, 0.0f}});
  EXPECT_TRUE(torch::equal(mask, expected));
}

TEST(Decoder, ParametersBearTheCheckpointsNamesAndShapes) {
  for (const auto& folder : golden_folders()) {
    const auto decoder = testing::load_decoder(folder);
    std::set<std::string> expected, names;
    for (const auto& desc : arch::tensor_table(decoder->spec())) {
      expected.insert(desc.hf_name);
      EXPECT_EQ(decoder->parameter(desc).sizes().vec(), desc.shape) << desc.hf_name;
    }
    for (const auto& item : decoder->named_parameters()) names.insert(item.key());
    EXPECT_EQ(names, expected) << folder;
  }
}

TEST(Decoder, TheFactoryMakesEveryLinearInTableOrder) {
  const auto checkpoint = quant::open_checkpoint(testing::source_dir() / "tests/runtime/goldens/llama_bias");
  std::vector<std::string> made, expected, listed;
  Decoder decoder(checkpoint->spec(), checkpoint_source(*checkpoint),
                  [&](const std::string& name, torch::Tensor weight, torch::Tensor bias) {
                    made.push_back(name);
                    EXPECT_TRUE(bias.defined()) << name;
                    return make_float_linear(name, weight, bias);
                  });
  for (const auto& desc : arch::tensor_table(checkpoint->spec())) {
    if (desc.role == arch::TensorRole::linear) expected.push_back(desc.module_name());
  }
  for (const auto& [name, linear] : decoder.linears()) listed.push_back(name);
  EXPECT_EQ(made, expected);
  EXPECT_EQ(listed, expected);
}

TEST(Decoder, GivesTheHiddenStatesAskedFor) {
  Decoder decoder(small_spec(3), lively_source(1));
  const DecoderOutput out = decoder.forward(random_ids(2, 9, 61), {0, 2});
  ASSERT_EQ(out.hidden.size(), 2U);
  EXPECT_EQ(out.hidden.at(2).sizes().vec(), (std::vector<int64_t>{2, 9, 24}));
  // The last block's state, normalised, is the final hidden state.
  const torch::Tensor x = out.hidden.at(2), norm = decoder.named_parameters()["model.norm.weight"];
  const torch::Tensor expected = x * (x.square().mean(-1, true) + decoder.spec().rms_norm_eps).rsqrt() * norm;
  EXPECT_LT(relative_distance(out.final_hidden, expected), 1e-6);
}

TEST(Decoder, ABlockRunsAlone) {
  const auto spec = small_spec(1);
  Decoder decoder(spec, lively_source(1));
  const Block& reference = *decoder.blocks()[0];
  Block block(spec.layers[0], spec.rms_norm_eps, 0, arch::tensor_table(spec), lively_source(1), make_float_linear);
  const torch::Tensor ids = random_ids(2, 9, 61);
  const torch::Tensor x = torch::embedding(decoder.named_parameters()["model.embed_tokens.weight"], ids);
  const BlockContext context{.rotary = make_rotary_table(reference.spec().rope, 9), .mask = {}};
  EXPECT_TRUE(torch::equal(block.forward(x, context), decoder.forward(ids, {0}).hidden.at(0)));
}

/// Gradients of a scalar by every parameter, by name.
std::map<std::string, torch::Tensor> gradients(Decoder& decoder, const torch::Tensor& ids) {
  decoder.zero_grad();
  const torch::Tensor logits = all_logits(decoder, ids);
  (logits.log_softmax(-1).select(-1, 3).mean() + logits.square().mean()).backward();
  std::map<std::string, torch::Tensor> out;
  for (const auto& item : decoder.named_parameters()) out[item.key()] = item.value().grad().clone();
  return out;
}

TEST(Decoder, FloatGradientsMatchDoublePrecision) {  // the kernels against Torch's own operations and autograd
  for (const std::string name : {"llama_bias", "mistral", "qwen3_bias", "hunyuan"}) {
    const auto decoder = testing::load_decoder(testing::source_dir() / "tests/runtime/goldens" / name);
    const torch::Tensor ids = random_ids(2, 21, 96);
    const auto floats = gradients(*decoder, ids);
    decoder->to(torch::kFloat64);
    decoder->compute = torch::kFloat64;
    const auto doubles = gradients(*decoder, ids);
    for (const auto& [parameter, gradient] : doubles)
      EXPECT_LT(relative_distance(floats.at(parameter), gradient), 3e-5) << name << " " << parameter;
  }
}

TEST(Decoder, DoublePrecisionGradientsMatchFiniteDifferences) {
  Decoder decoder(small_spec(), lively_source(3));
  decoder.to(torch::kFloat64);
  decoder.compute = torch::kFloat64;
  const torch::Tensor ids = random_ids(1, 8, 61);
  const auto value = [&] {
    const torch::NoGradGuard no_grad;
    const torch::Tensor logits = all_logits(decoder, ids);
    return (logits.log_softmax(-1).select(-1, 3).mean() + logits.square().mean()).item<double>();
  };
  const auto analytic = gradients(decoder, ids);
  for (const auto& item : decoder.named_parameters()) {
    torch::Tensor parameter = item.value().detach();
    torch::manual_seed(5);
    const torch::Tensor direction = torch::randn_like(parameter) * 1e-5;
    parameter.add_(direction);
    const double above = value();
    parameter.sub_(direction, 2);
    const double below = value();
    parameter.add_(direction);
    const double expected = (analytic.at(item.key()) * direction).sum().item<double>();
    EXPECT_NEAR((above - below) / 2, expected, 1e-6 * std::abs(expected) + 1e-12) << item.key();
  }
}

TEST(Decoder, RoundsSmallTensorsStraightThrough) {
  const auto checkpoint = quant::open_checkpoint(testing::source_dir() / "tests/runtime/goldens/qwen3_bias");
  const TensorSource off_grid = [&](const arch::TensorDesc& desc) {
    return checkpoint_source(*checkpoint)(desc) * 1.001;
  };
  Decoder rounding(checkpoint->spec(), off_grid);
  rounding.round_small_tensors = true;
  Decoder rounded(checkpoint->spec(), [&](const arch::TensorDesc& desc) {
    const bool is_small = arch::is_small(desc.role);
    return is_small ? off_grid(desc).to(torch::kBFloat16).to(torch::kFloat32) : off_grid(desc);
  });
  const torch::Tensor ids = random_ids(1, 12, 96);
  EXPECT_TRUE(torch::equal(all_logits(rounding, ids), all_logits(rounded, ids)));
  const auto through = gradients(rounding, ids), direct = gradients(rounded, ids);
  for (const auto& [name, gradient] : direct) EXPECT_TRUE(torch::equal(through.at(name), gradient)) << name;
  for (const auto& desc : arch::tensor_table(checkpoint->spec())) {
    EXPECT_TRUE(torch::equal(rounding.value(desc), rounded.parameter(desc))) << desc.hf_name;
    EXPECT_TRUE(torch::equal(rounding.parameter(desc), off_grid(desc))) << desc.hf_name;
  }
}

TEST(Decoder, Bfloat16ComputeStaysNearFloat) {
  for (const std::string name : {"llama_bias", "mistral", "qwen3_bias", "hunyuan"}) {
    const auto decoder = testing::load_decoder(testing::source_dir() / "tests/runtime/goldens" / name);
    const torch::Tensor ids = random_ids(2, 21, 96);
    const auto exact = gradients(*decoder, ids);
    const torch::Tensor logits = all_logits(*decoder, ids);
    decoder->compute = torch::kBFloat16;
    const torch::Tensor coarse = all_logits(*decoder, ids);
    EXPECT_EQ(decoder->forward(ids).final_hidden.scalar_type(), torch::kFloat32);
    // 8 bits of mantissa, a few dozen roundings: two-sided, for exact results would mean that float32 was used.
    EXPECT_LT(relative_distance(coarse, logits), 0.03) << name;
    EXPECT_GT(relative_distance(coarse, logits), 1e-4) << name;
    std::vector<torch::Tensor> mine,
        expected;  // all as one vector: the gradient of a key's bias alone is a small rest of a cancellation
    for (const auto& [parameter, gradient] : gradients(*decoder, ids)) {
      EXPECT_EQ(gradient.scalar_type(), torch::kFloat32) << parameter;
      mine.push_back(gradient.flatten());
      expected.push_back(exact.at(parameter).flatten());
    }
    EXPECT_LT(relative_distance(torch::cat(mine), torch::cat(expected)), 0.05) << name;
  }
}

TEST(Decoder, FrozenParametersGetNoGradient) {
  Decoder decoder(small_spec(), lively_source(1));
  for (const auto& desc : arch::tensor_table(decoder.spec())) {
    if (desc.role != arch::TensorRole::linear) decoder.parameter(desc).set_requires_grad(false);
  }
  all_logits(decoder, random_ids(1, 8, 61)).square().mean().backward();
  for (const auto& desc : arch::tensor_table(decoder.spec())) {
    EXPECT_EQ(decoder.parameter(desc).grad().defined(), desc.role == arch::TensorRole::linear) << desc.hf_name;
  }
}

}  // namespace
}  // namespace crumb::model
