// Which tensor becomes which type: the rules, their reasons, and the sizes of the published files.
#include <gmock/gmock.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "core/arch/hf_config.h"
#include "export/export.h"
#include "tests/export/test_models.h"
#include "tests/quant/toy_grid.h"
#include "tests/testing/testing.h"

namespace crumb::exporting {
namespace {

using arch::TensorRole;
using formats::TensorType;
using quant::Grid;
using quant::QuantFormat;
using testing::all_linears;
using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::error_of;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::small_spec;

const QuantFormat kSeqRow{Grid::seq, 2, true, 0};
const QuantFormat kInt4{Grid::intn, 4, true, 32};
const QuantFormat kInt8{Grid::intn, 8, true, 32};

// Hy-MT2-1.8B, docs: hidden 2048, 32 layers, vocabulary 120818, tied.
arch::DecoderSpec hunyuan_1_8b() {
  return arch::spec_from_hf_config(nlohmann::json::parse(R"({
    "model_type": "hunyuan_v1_dense", "architectures": ["HunYuanDenseV1ForCausalLM"], "hidden_act": "silu",
    "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 32, "num_attention_heads": 16,
    "num_key_value_heads": 4, "head_dim": 128, "vocab_size": 120818, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    "rope_scaling": {"type": "dynamic", "alpha": 1000.0, "factor": 1.0}, "max_position_embeddings": 262144,
    "tie_word_embeddings": true, "attention_bias": false, "use_qk_norm": true})"),
                                   "config.json");
}

ExportPlan plan(const arch::DecoderSpec& spec, const QuantFormat& format, const std::string& target,
                const std::string& embedding = "", const std::string& head = "") {
  return plan_export(spec, all_linears(spec, format), {target, embedding, head});
}

const PlannedTensor& find(const ExportPlan& plan, const std::string& hf_name) {
  const auto it = std::ranges::find_if(plan.tensors, [&](const auto& t) { return t.desc.hf_name == hf_name; });
  if (it == plan.tensors.end()) throw UserError("the plan has no " + hf_name);
  return *it;
}

std::set<TensorType> linear_types(const ExportPlan& plan) {
  std::set<TensorType> types;
  for (const auto& tensor : plan.tensors)
    if (tensor.desc.role == TensorRole::linear) types.insert(tensor.type);
  return types;
}

TEST(Plan, OfTheHunyuanShapeHasTheBytesOfThePublishedFile) {
  const auto p = plan(hunyuan_1_8b(), kSeqRow, "gguf-q2_0c");
  constexpr int64_t kHeaderAndVocabulary = 5'090'112;  // of Hy-MT2-1.8B-2Bit.gguf
  EXPECT_EQ(p.data_bytes, 595'444'768);
  EXPECT_EQ(p.data_bytes + kHeaderAndVocabulary, 600'534'880);
  EXPECT_EQ(p.tensors.size(), 224u + 1u + 129u);
  EXPECT_EQ(p.bytes_of(TensorRole::linear), 32 * 48'234'496LL / 512 * 130);   // 0.39 GB at 2.03 bits
  EXPECT_EQ(p.bytes_of(TensorRole::embedding), 120818LL * 2048 / 256 * 210);  // 0.20 GB of Q6_K
  EXPECT_EQ(find(p, "model.embed_tokens.weight").type, TensorType::q6_k);
  EXPECT_THAT(linear_types(p), ElementsAre(TensorType::q2_0c));
  EXPECT_THAT(p.warnings, IsEmpty());
}

TEST(Plan, OrdersTensorsAsThePublishedFiles) {
  auto spec = small_spec(arch::Architecture::qwen3, 256);
  const auto p = plan(spec, kSeqRow, "gguf-q2_k");
  std::vector<std::string> names;
  for (const auto& tensor : p.tensors) names.push_back(tensor.desc.gguf.name);
  names.resize(15);
  EXPECT_THAT(names, ElementsAre("output_norm.weight", "token_embd.weight", "output.weight", "blk.0.attn_k.weight",
                                 "blk.0.attn_k_norm.weight", "blk.0.attn_norm.weight", "blk.0.attn_output.weight",
                                 "blk.0.attn_q.weight", "blk.0.attn_q_norm.weight", "blk.0.attn_v.weight",
                                 "blk.0.ffn_down.weight", "blk.0.ffn_gate.weight", "blk.0.ffn_norm.weight",
                                 "blk.0.ffn_up.weight", "blk.1.attn_k.weight"));
}

TEST(Plan, OrdersLayersByNumberNotByName) {
  auto spec = small_spec(arch::Architecture::llama, 256);
  spec.layers.resize(12, spec.layers.front());
  const auto p = plan(spec, kSeqRow, "gguf-q2_k");
  EXPECT_TRUE(p.tensors.back().desc.gguf.name.starts_with("blk.11."));
}

TEST(Plan, PutsTheRopeDivisorsFirst) {
  auto spec = small_spec(arch::Architecture::llama, 256);
  for (auto& layer : spec.layers) layer.rope.divisors.back() = 8.0;
  const auto p = plan(spec, kSeqRow, "gguf-q2_k");
  EXPECT_EQ(p.tensors.front().desc.gguf.name, "rope_freqs.weight");
  EXPECT_EQ(p.tensors.front().bytes, 4 * spec.layers.front().rope.dim / 2);
  EXPECT_NE(plan(spec, kSeqRow, "hf-bf16").tensors.front().desc.gguf.name, "rope_freqs.weight");
}

TEST(Plan, CountsThePaddingOfGguf) {
  auto spec = small_spec(arch::Architecture::llama, 256);
  spec.hidden_size = 36;  // a norm of 144 bytes takes 160
  int64_t padded = 0, plain = 0;
  const auto p = plan_export(spec, {}, {"gguf-bf16", "", ""});
  for (const auto& tensor : p.tensors) {
    padded += (tensor.bytes + 31) / 32 * 32;
    plain += tensor.bytes;
  }
  EXPECT_EQ(p.data_bytes, padded);
  EXPECT_GT(padded, plain);
}

struct FallbackCase {
  std::string target;
  int64_t cols, group_size;
  TensorType type;
  std::string reason;
};
class Fallback : public ::testing::TestWithParam<FallbackCase> {};

TEST_P(Fallback, OfSeqGoesByRowLengthAndGroupSize) {
  const auto& c = GetParam();
  auto spec = small_spec(arch::Architecture::llama, 512);
  for (auto& layer : spec.layers) std::get<arch::MlpSpec>(layer.feed_forward).intermediate = c.cols;
  const std::string name = "model.layers.0.mlp.down_proj.weight";  // the matrix whose rows have `intermediate` weights
  const auto p = plan_export(spec, {{name, {Grid::seq, 2, true, c.group_size}}}, {c.target, "", ""});
  EXPECT_EQ(find(p, name).type, c.type) << find(p, name).reason;
  EXPECT_THAT(find(p, name).reason, HasSubstr(c.reason));
  EXPECT_EQ(find(p, name).reason.empty(), c.reason.empty());
}

INSTANTIATE_TEST_SUITE_P(
    Plan, Fallback,
    ::testing::Values(
        FallbackCase{"gguf-q2_0c", 1536, 0, TensorType::q2_0c, ""},
        FallbackCase{"gguf-q2_0c", 1536, 1536, TensorType::q2_0c, ""},
        FallbackCase{"gguf-q2_0c", 1536, 512, TensorType::q2_k, "q2_0c has one scale a row, not one per 512"},
        FallbackCase{"gguf-q2_0c", 768, 0, TensorType::q2_k, "q2_0c needs rows of a multiple of 512, not 768"},
        FallbackCase{"gguf-q2_0c", 1536, 128, TensorType::q4_0, "q2_k has one scale per 256, not per 128"},
        FallbackCase{"gguf-q2_0c", 172, 0, TensorType::bf16, "q4_0 needs rows of a multiple of 32, not 172"},
        FallbackCase{"gguf-q2_k", 1536, 256, TensorType::q2_k, ""},
        FallbackCase{"gguf-q2_k", 1536, 512, TensorType::q2_k, ""},
        FallbackCase{"gguf-q2_k", 1536, 384, TensorType::q4_0, "q2_k has one scale per 256, not per 384"},
        FallbackCase{"gguf-q2_k", 1536, 16, TensorType::bf16, "q4_0 has one scale per 32, not per 16"},
        FallbackCase{"gguf-q2_k", 352, 0, TensorType::q4_0, "q2_k needs rows of a multiple of 256, not 352"},
        FallbackCase{"gguf-q4_0", 352, 32, TensorType::q4_0, ""},
        FallbackCase{"gguf-q4_0", 172, 0, TensorType::bf16, "q4_0 needs rows of a multiple of 32, not 172"},
        FallbackCase{"gguf-q8_0", 352, 0, TensorType::q8_0, ""},
        FallbackCase{"gguf-q8_0", 352, 16, TensorType::bf16, "q8_0 has one scale per 32, not per 16"},
        FallbackCase{"gguf-bf16", 172, 4, TensorType::bf16, ""}, FallbackCase{"hf-bf16", 172, 4, TensorType::bf16, ""}),
    [](const auto& test) {
      std::string name =
          test.param.target + "_" + std::to_string(test.param.cols) + "_group" + std::to_string(test.param.group_size);
      std::ranges::replace(name, '-', '_');
      return name;
    });

TEST(Plan, PutsIntegerGridsWhereTheyAreExact) {
  const auto spec = small_spec(arch::Architecture::llama, 256);
  EXPECT_THAT(linear_types(plan(spec, kInt4, "gguf-q4_0")), ElementsAre(TensorType::q4_0));
  EXPECT_THAT(linear_types(plan(spec, kInt4, "gguf-q8_0")), ElementsAre(TensorType::q8_0));
  EXPECT_THAT(linear_types(plan(spec, kInt8, "gguf-q8_0")), ElementsAre(TensorType::q8_0));
  for (const QuantFormat& format :
       {kInt4, QuantFormat{Grid::intn, 4, false, 64}, QuantFormat{Grid::intn, 3, false, 32, false, true}})
    EXPECT_THAT(linear_types(plan(spec, format, "gguf-q4_1")), ElementsAre(TensorType::q4_1)) << format.title();
  const QuantFormat int3{Grid::intn, 3, true, 0}, int2_asymmetric{Grid::intn, 2, false, 0};
  EXPECT_THAT(linear_types(plan(spec, int3, "hf-bf16")), ElementsAre(TensorType::bf16));  // 2 + 6 bits fit in 8
  EXPECT_THAT(linear_types(plan(spec, int2_asymmetric, "gguf-bf16")), ElementsAre(TensorType::bf16));
}

TEST(Plan, RefusesIntegerGridsItCannotHoldExactly) {
  const auto spec = small_spec(arch::Architecture::llama, 256);
  const auto refusal = [&](const QuantFormat& format, const std::string& target) {
    return error_of([&] { plan(spec, format, target); });
  };
  const std::string name = "model.layers.0.self_attn.q_proj.weight";
  EXPECT_THAT(refusal(kInt8, "gguf-q4_0"), AllOf(HasSubstr(name), HasSubstr("q4_0 has 4 bits"),
                                                 HasSubstr("INT8 symmetric"), HasSubstr("use gguf-q8_0")));
  EXPECT_THAT(refusal(kInt4, "hf-bf16"), AllOf(HasSubstr("bf16 has 8 significant bits, its values need up to 9"),
                                               HasSubstr("use gguf-q4_0, gguf-q4_1, gguf-q8_0")));
  EXPECT_THAT(refusal(kInt4, "gguf-q2_k"), HasSubstr("q2_k holds the SEQ grid only"));
  EXPECT_THAT(refusal({Grid::intn, 4, false, 32}, "gguf-q4_0"),
              AllOf(HasSubstr("INT4 asymmetric"), HasSubstr("q4_0 has no zero points"), HasSubstr("use gguf-q4_1")));
  const QuantFormat floats{Grid::intn, 4, false, 32, false, true};
  EXPECT_THAT(refusal(floats, "gguf-q4_0"),
              AllOf(HasSubstr("INT4 float zero point"), HasSubstr("q4_0 has no zero points"),
                    HasSubstr("bf16 has 8 significant bits, and its minima have more"), HasSubstr("use gguf-q4_1")));
  EXPECT_THAT(refusal(floats, "hf-bf16"), HasSubstr("its minima have more; use gguf-q4_1"));
  EXPECT_THAT(refusal({Grid::intn, 5, false, 32, false, true}, "gguf-q4_1"),
              AllOf(HasSubstr("q4_1 has 4 bits"), HasSubstr("no target")));
  EXPECT_THAT(refusal({Grid::intn, 2, false, 32, false, true}, "gguf-q2_k"), HasSubstr("q2_k has no zero points"));
  EXPECT_THAT(refusal({Grid::intn, 4, true, 16}, "gguf-q4_0"), HasSubstr("q4_0 has one scale per 32, not per 16"));
  auto odd = spec;
  for (auto& layer : odd.layers) std::get<arch::MlpSpec>(layer.feed_forward).intermediate = 172;
  EXPECT_THAT(error_of([&] {
                plan(odd, {Grid::intn, 4, true, 0}, "gguf-q4_0");
              }),
              AllOf(HasSubstr("mlp.down_proj.weight"), HasSubstr("q4_0 needs rows of a multiple of 32, not 172")));
}

// Two bits are no promise: what counts is whether the type holds the levels.
TEST(Plan, LinearsWithMoreBitsThanTheOthersTakeATypeOfTheirOwn) {
  const auto spec = small_spec(arch::Architecture::llama, 256);
  auto formats = all_linears(spec, kSeqRow);
  for (auto& [name, format] : formats) {
    if (name.find("down_proj") != std::string::npos) format = kInt4;
    if (name.find("o_proj") != std::string::npos) format = kInt8;
    if (name.find("gate_proj") != std::string::npos) format = {Grid::intn, 4, false, 32, false, true};
  }
  const auto type_of = [](const ExportPlan& plan, const std::string& name) { return find(plan, name).type; };
  const std::string layer = "model.layers.0.";
  const ExportPlan two = plan_export(spec, formats, {"gguf-q2_k", "", ""});
  EXPECT_EQ(type_of(two, layer + "mlp.up_proj.weight"), TensorType::q2_k);
  EXPECT_EQ(type_of(two, layer + "mlp.down_proj.weight"), TensorType::q4_0);
  EXPECT_EQ(type_of(two, layer + "mlp.gate_proj.weight"), TensorType::q4_1);
  EXPECT_EQ(type_of(two, layer + "self_attn.o_proj.weight"), TensorType::q8_0);
  EXPECT_THAT(two.warnings,
              ::testing::Contains(AllOf(HasSubstr("become q4_0, not q2_k: q2_k holds the SEQ grid only"))));
  const ExportPlan four = plan_export(spec, formats, {"gguf-q4_0", "", ""});
  EXPECT_EQ(type_of(four, layer + "mlp.up_proj.weight"), TensorType::q4_0);
  EXPECT_EQ(type_of(four, layer + "mlp.down_proj.weight"), TensorType::q4_0);
  EXPECT_EQ(type_of(four, layer + "self_attn.o_proj.weight"), TensorType::q8_0);
}

TEST(Plan, PutsAGridFromOutsideWhereItsLevelsFit) {
  const auto spec = small_spec(arch::Architecture::llama, 256);
  const QuantFormat toy{testing::kToyGrid, 3, true, 32};
  EXPECT_THAT(linear_types(plan(spec, toy, "gguf-q4_0")), ElementsAre(TensorType::q4_0));
  EXPECT_THAT(linear_types(plan(spec, toy, "hf-bf16")), ElementsAre(TensorType::bf16));
  EXPECT_THAT(error_of([&] { plan(spec, toy, "gguf-q2_k"); }),
              AllOf(HasSubstr("TOY, one scale per 32"), HasSubstr("q2_k holds the SEQ grid only"),
                    HasSubstr("use gguf-q4_0, gguf-q4_1, gguf-q8_0, gguf-bf16, hf-bf16")));
}

TEST(Plan, PutsTernaryWhereItsLevelsFitAndFp8Nowhere) {
  const auto spec = small_spec(arch::Architecture::llama, 256);
  const QuantFormat ternary{Grid::ternary, 2, true, 32}, fp8{Grid::fp8, 8, true, 0};
  EXPECT_THAT(linear_types(plan(spec, ternary, "gguf-q4_0")), ElementsAre(TensorType::q4_0));
  EXPECT_THAT(linear_types(plan(spec, ternary, "hf-bf16")), ElementsAre(TensorType::bf16));
  EXPECT_THAT(error_of([&] { plan(spec, fp8, "gguf-q8_0"); }),
              AllOf(HasSubstr("(FP8, one scale a row)"), HasSubstr("q8_0 has 8 bits for evenly spaced levels"),
                    HasSubstr("no target holds it exactly yet")));
  EXPECT_THAT(error_of([&] { plan(spec, fp8, "hf-bf16"); }),
              HasSubstr("bf16 has 8 significant bits, its values need up to 10; no target holds it exactly yet"));
}

TEST(Plan, KeepsLinearsInFloatThatAQuantizedModelLeftOut) {
  const auto spec = small_spec(arch::Architecture::llama, 256);
  auto formats = all_linears(spec, kSeqRow);
  const std::string name = "model.layers.1.mlp.up_proj.weight";
  formats.erase(name);
  for (const std::string target : {"gguf-q2_k", "gguf-q4_0", "gguf-q8_0"}) {
    const auto p = plan_export(spec, formats, {target, "", ""});
    EXPECT_EQ(find(p, name).type, TensorType::bf16) << target;
    EXPECT_EQ(find(p, name).reason, "not quantized, kept in float") << target;
  }
}

TEST(Plan, OfAPlainModelTakesTheOrdinaryEncoders) {
  const auto spec = small_spec(arch::Architecture::llama, 256);
  EXPECT_THAT(linear_types(plan_export(spec, {}, {"gguf-q4_0", "", ""})), ElementsAre(TensorType::q4_0));
  EXPECT_THAT(linear_types(plan_export(spec, {}, {"gguf-q8_0", "", ""})), ElementsAre(TensorType::q8_0));
  EXPECT_THAT(linear_types(plan_export(spec, {}, {"gguf-bf16", "", ""})), ElementsAre(TensorType::bf16));
  for (const std::string target : {"gguf-q2_k", "gguf-q2_0c"})
    EXPECT_THAT(error_of([&] {
                  plan_export(spec, {}, {target, "", ""});
                }),
                AllOf(HasSubstr(target + " needs a quantized model"), HasSubstr("crumb quantize")));
}

TEST(Plan, ChoosesEmbeddingAndHeadByTargetRowLengthAndWish) {
  const auto wide = small_spec(arch::Architecture::qwen3, 256);
  const auto type = [](const ExportPlan& p, const std::string& name) { return find(p, name).type; };
  const std::string embedding = "model.embed_tokens.weight", head = "lm_head.weight";
  EXPECT_EQ(type(plan(wide, kSeqRow, "gguf-q2_k"), embedding), TensorType::q6_k);
  EXPECT_EQ(type(plan(wide, kSeqRow, "gguf-q8_0"), head), TensorType::q6_k);
  EXPECT_EQ(type(plan(wide, kSeqRow, "gguf-bf16"), embedding), TensorType::bf16);
  EXPECT_EQ(type(plan(wide, kSeqRow, "hf-bf16"), head), TensorType::bf16);
  const auto small = plan(wide, kSeqRow, "gguf-q2_k", "q4_0", "q4_0");
  EXPECT_EQ(type(small, embedding), TensorType::q4_0);
  EXPECT_EQ(type(small, head), TensorType::q4_0);
  const auto mixed = plan(wide, kSeqRow, "gguf-q2_k", "f32", "q8_0");
  EXPECT_EQ(type(mixed, embedding), TensorType::f32);
  EXPECT_EQ(type(mixed, head), TensorType::q8_0);

  auto narrow = wide;
  narrow.hidden_size = 64;
  EXPECT_EQ(type(plan_export(narrow, {}, {"gguf-q8_0", "", ""}), embedding), TensorType::q8_0);
  EXPECT_EQ(find(plan_export(narrow, {}, {"gguf-q8_0", "", ""}), embedding).reason,
            "q6_k needs rows of a multiple of 256, not 64");
  narrow.hidden_size = 36;
  EXPECT_EQ(type(plan_export(narrow, {}, {"gguf-q8_0", "", ""}), embedding), TensorType::bf16);
}

TEST(Plan, RefusesTypesThatDoNotExistOrFit) {
  auto spec = small_spec(arch::Architecture::qwen3, 256);
  EXPECT_THAT(error_of([&] { plan(spec, kSeqRow, "gguf-q2k"); }),
              AllOf(HasSubstr("unknown export target \"gguf-q2k\""), HasSubstr("gguf-q2_k")));
  EXPECT_THAT(error_of([&] { plan(spec, kSeqRow, "gguf-q2_k", "q5_k"); }),
              AllOf(HasSubstr("--embedding-type: unknown type \"q5_k\""), HasSubstr("q6_k, q8_0")));
  EXPECT_THAT(error_of([&] { plan(spec, kSeqRow, "gguf-q2_k", "q2_k"); }), HasSubstr("unknown type \"q2_k\""));
  EXPECT_THAT(error_of([&] { plan(spec, kSeqRow, "hf-bf16", "q8_0"); }), HasSubstr("hf-bf16 holds bf16 only"));
  EXPECT_THAT(error_of([&] {
                plan_export(spec, {{"model.layers.9.x", kSeqRow}}, {"hf-bf16", "", ""});
              }),
              HasSubstr("no tensor model.layers.9.x"));
  spec.hidden_size = 64;
  EXPECT_THAT(error_of([&] {
                plan_export(spec, {}, {"gguf-q8_0", "q6_k", ""});
              }),
              HasSubstr("--embedding-type: q6_k needs rows of a multiple of 256, not 64"));
  spec.tied_head = true;
  EXPECT_THAT(error_of([&] { plan_export(spec, {}, {"gguf-q8_0", "", "f16"}); }), HasSubstr("use --embedding-type"));
}

TEST(Plan, SaysHowManyLinearsFallBackToWhat) {
  auto spec = small_spec(arch::Architecture::llama, 576);  // as SmolLM2: rows of 576, but of 1536 in down_proj
  for (auto& layer : spec.layers) layer.feed_forward = arch::MlpSpec{1536};
  const auto p = plan(spec, kSeqRow, "gguf-q2_k");
  EXPECT_THAT(p.warnings, ElementsAre("12 of 14 linears become q4_0, not q2_k: q2_k needs rows of a multiple of 256, "
                                      "not 576"));
  EXPECT_EQ(p.totals_by_type().at("q4_0").tensors, 12);
  EXPECT_EQ(p.totals_by_type().at("q2_k").tensors, 2);
  EXPECT_THAT(p.summary(), AllOf(HasSubstr("gguf-q2_k: "), HasSubstr("2 q2_k"), HasSubstr("12 q4_0")));
  auto formats = all_linears(small_spec(arch::Architecture::llama, 256), kSeqRow);
  formats.erase("model.layers.1.mlp.up_proj.weight");  // left out by choice
  EXPECT_THAT(plan_export(small_spec(arch::Architecture::llama, 256), formats, {"gguf-q2_k", "", ""}).warnings,
              IsEmpty());
}

TEST(Plan, CallsTheFileByATypeThatItsLinearsHave) {
  auto spec = small_spec(arch::Architecture::llama, 576);
  EXPECT_EQ(plan(spec, kSeqRow, "gguf-q2_k").main_type(), TensorType::q4_0);  // no row of 576 is q2_k
  for (auto& layer : spec.layers) layer.feed_forward = arch::MlpSpec{1536};
  EXPECT_EQ(plan(spec, kSeqRow, "gguf-q2_k").main_type(), TensorType::q2_k);  // a few are
  EXPECT_EQ(plan(spec, kSeqRow, "gguf-q8_0").main_type(), TensorType::q8_0);
}

TEST(Plan, RefusesModelsOfWhichStockLlamaCppLoadsNoFile) {
  for (const auto architecture : {arch::Architecture::qwen3, arch::Architecture::hunyuan_v1_dense}) {
    auto spec = small_spec(architecture, 256);
    for (auto& layer : spec.layers) {
      auto& gqa = std::get<arch::GqaSpec>(layer.attention);
      gqa.qkv_bias = gqa.output_bias = true;
    }
    for (const std::string target : {"gguf-q2_k", "gguf-bf16"})
      EXPECT_THAT(error_of([&] { plan(spec, kSeqRow, target); }), HasSubstr("o_proj.bias"));
    EXPECT_EQ(error_of([&] { plan(spec, kSeqRow, "hf-bf16"); }), "");
  }
}

TEST(Plan, WarnsThatStockLlamaCppIgnoresAWindow) {
  auto spec = small_spec(arch::Architecture::mistral, 256);
  for (auto& layer : spec.layers) layer.window = 64;
  EXPECT_THAT(plan(spec, kSeqRow, "gguf-q2_k").warnings,
              ElementsAre(AllOf(HasSubstr("ignores the sliding window of 64"), HasSubstr("mistral"),
                                HasSubstr("context 128"))));
  EXPECT_THAT(plan(spec, kSeqRow, "hf-bf16").warnings, IsEmpty());
  for (auto& layer : spec.layers) layer.window = spec.context_length;
  EXPECT_THAT(plan(spec, kSeqRow, "gguf-q2_k").warnings, IsEmpty());
}

}  // namespace
}  // namespace crumb::exporting
