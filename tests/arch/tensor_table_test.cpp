#include "core/arch/tensor_table.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>
#include <set>

#include "core/arch/hf_config.h"
#include "core/arch/spec_compare.h"
#include "tests/testing/testing.h"

namespace crumb::arch {
namespace {

using nlohmann::json;

/// HY-1.8B.
json hunyuan_config() {
  return {{"model_type", "hunyuan_v1_dense"},
          {"hidden_size", 2048},
          {"intermediate_size", 6144},
          {"num_hidden_layers", 32},
          {"num_attention_heads", 16},
          {"num_key_value_heads", 4},
          {"attention_head_dim", 128},
          {"vocab_size", 120818},
          {"max_position_embeddings", 262144},
          {"rms_norm_eps", 1e-5},
          {"rope_theta", 10000.0},
          {"rope_scaling", {{"type", "dynamic"}, {"alpha", 1000.0}, {"factor", 1.0}}},
          {"tie_word_embeddings", true},
          {"use_qk_norm", true}};
}

std::vector<std::string> hf_names(const DecoderSpec& spec) {
  std::vector<std::string> names;
  for (const auto& desc : tensor_table(spec)) names.push_back(desc.hf_name);
  return names;
}

TEST(TensorTable, ListsHunyuanUnderBothNames) {
  const auto spec = spec_from_hf_config(hunyuan_config(), "HY");
  const auto table = tensor_table(spec);
  EXPECT_EQ(table.size(), 2u + 32u * 11u);
  EXPECT_EQ(table.front().hf_name, "model.embed_tokens.weight");
  EXPECT_EQ(table.front().gguf.name, "token_embd.weight");
  EXPECT_EQ(table.back().hf_name, "model.norm.weight");
  EXPECT_EQ(table.back().gguf.name, "output_norm.weight");
  const auto find = [&](const std::string& name) {
    return *std::find_if(table.begin(), table.end(), [&](const auto& d) { return d.hf_name == name; });
  };
  const auto norm = find("model.layers.31.self_attn.query_layernorm.weight");
  EXPECT_EQ(norm.gguf.name, "blk.31.attn_q_norm.weight");
  EXPECT_EQ(norm.role, TensorRole::norm);
  EXPECT_THAT(norm.shape, ::testing::ElementsAre(128));
  const auto key = find("model.layers.3.self_attn.k_proj.weight");
  EXPECT_EQ(key.gguf.name, "blk.3.attn_k.weight");
  EXPECT_EQ(key.module_name(), "model.layers.3.self_attn.k_proj");
  EXPECT_EQ(key.id, (TensorId{Slot::k, 3}));
  EXPECT_EQ(key.permuted_head_dim, 0);  // hunyuan-dense rotates halves, as HF does
  EXPECT_THAT(key.shape, ::testing::ElementsAre(512, 2048));
}

TEST(TensorTable, CountsTheParametersOfHunyuan) {
  // 120818*2048 + 32*(2*2048*2048 + 2*512*2048 + 3*6144*2048 + 2*2048 + 2*128) + 2048
  EXPECT_EQ(parameter_count(spec_from_hf_config(hunyuan_config(), "HY")), 1791080448);
}

TEST(TensorTable, HasAHeadAndBiasesWhereTheModelHasThem) {
  auto config = hunyuan_config();
  config["model_type"] = "qwen2";
  config["tie_word_embeddings"] = false;
  const auto names = hf_names(spec_from_hf_config(config, "Qwen"));
  EXPECT_EQ(names.back(), "lm_head.weight");
  EXPECT_THAT(names, ::testing::Contains("model.layers.0.self_attn.v_proj.bias"));
  EXPECT_THAT(names, ::testing::Not(::testing::Contains("model.layers.0.self_attn.o_proj.bias")));
  EXPECT_THAT(names, ::testing::Not(::testing::Contains("model.layers.0.self_attn.q_norm.weight")));
  EXPECT_EQ(names.size(), std::set<std::string>(names.begin(), names.end()).size());
}

TEST(TensorTable, MarksTheRowsThatGgufPermutes) {
  auto config = hunyuan_config();
  config["model_type"] = "mistral";
  for (const auto& desc : tensor_table(spec_from_hf_config(config, "Mistral"))) {
    const bool is_permuted =
        desc.hf_name.find("q_proj") != std::string::npos || desc.hf_name.find("k_proj") != std::string::npos;
    EXPECT_EQ(desc.permuted_head_dim, is_permuted ? 128 : 0) << desc.hf_name;
  }
}

TEST(RowPermutation, InterleavesTheHalvesOfEachHead) {
  std::vector<int64_t> rows;
  for (int64_t row = 0; row < 12; ++row) rows.push_back(hf_row_of_gguf_row(row, 6));
  EXPECT_THAT(rows, ::testing::ElementsAre(0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11));
}

TEST(RowPermutation, TheInverseFindsEveryRowAgain) {
  TensorDesc desc;
  desc.permuted_head_dim = 6;
  desc.gguf.first_row = 30;
  for (int64_t row = 0; row < 24; ++row) {
    EXPECT_EQ(gguf_row_of_hf_row(hf_row_of_gguf_row(row, 6), 6), row);
    EXPECT_EQ(hf_row_of_gguf_row(desc.gguf_row(row) - 30, 6), row);
  }
  desc.permuted_head_dim = 0;
  EXPECT_EQ(desc.gguf_row(7), 37);
}

TEST(TensorTable, EverySlotIsFoundByItsIdAndABiasByItsLinear) {
  auto config = hunyuan_config();
  config["model_type"] = "llama";
  config["attention_bias"] = config["mlp_bias"] = true;
  config["tie_word_embeddings"] = false;
  const auto table = tensor_table(spec_from_hf_config(config, "Llama"));
  std::set<TensorId> ids;
  for (const auto& desc : table) {
    EXPECT_TRUE(ids.insert(desc.id).second) << desc.hf_name;
    EXPECT_EQ(desc.gguf.name, gguf_name(desc.id.slot, desc.id.layer));
    EXPECT_EQ(desc.hf_name, hf_name(Architecture::llama, desc.id.slot, desc.id.layer));
    if (desc.role != TensorRole::linear) continue;
    const auto bias = std::ranges::find(table, TensorId{*bias_slot(desc.id.slot), desc.id.layer}, &TensorDesc::id);
    ASSERT_NE(bias, table.end()) << desc.hf_name;
    EXPECT_EQ(bias->hf_name, desc.module_name() + ".bias");
    EXPECT_EQ(bias->shape, std::vector<int64_t>{desc.rows()});
    EXPECT_EQ(bias->permuted_head_dim, desc.permuted_head_dim);
  }
  EXPECT_EQ(ids.size(), 3u + 32u * (2u + 7u + 7u));
  EXPECT_FALSE(bias_slot(Slot::head).has_value());
}

TEST(TensorTable, NamesTheKeysBehindAShape) {
  const auto table = tensor_table(spec_from_hf_config(hunyuan_config(), "HY"));
  const auto keys = [&](Slot slot, int layer) {
    return std::ranges::find(table, TensorId{slot, layer}, &TensorDesc::id)->shape_keys();
  };
  EXPECT_EQ(keys(Slot::embedding, -1), "vocab_size, hidden_size");
  EXPECT_EQ(keys(Slot::final_norm, -1), "hidden_size");
  EXPECT_EQ(keys(Slot::q_norm, 3), "head_dim");
  EXPECT_EQ(keys(Slot::q, 3), "num_attention_heads x head_dim, hidden_size");
  EXPECT_EQ(keys(Slot::v, 3), "num_key_value_heads x head_dim, hidden_size");
  EXPECT_EQ(keys(Slot::o, 3), "hidden_size, num_attention_heads x head_dim");
  EXPECT_EQ(keys(Slot::up, 3), "intermediate_size, hidden_size");
  EXPECT_EQ(keys(Slot::down, 3), "hidden_size, intermediate_size");
}

TEST(TensorTable, ATensorWithinALargerOneIsNotWritten) {
  auto table = tensor_table(spec_from_hf_config(hunyuan_config(), "HY"));
  EXPECT_EQ(testing::error_of([&] { check_stored_alone(table, &TensorDesc::hf, "an HF folder"); }), "");
  table[5].gguf = {"blk.0.attn_qkv.weight", 0, {4096, 2048}};
  EXPECT_EQ(testing::error_of([&] { check_stored_alone(table, &TensorDesc::hf, "an HF folder"); }), "");
  EXPECT_EQ(testing::error_of([&] { check_stored_alone(table, &TensorDesc::gguf, "GGUF"); }),
            "GGUF keeps model.layers.0.self_attn.q_proj.weight within blk.0.attn_qkv.weight, which holds other tensors "
            "too: Crumb reads such models, it does not write them");
}

TEST(SpecCompare, AFactIsOnceWhereLayersAgreeAndForEachWhereTheyDoNot) {
  auto spec = spec_from_hf_config(hunyuan_config(), "HY");
  spec.layers.resize(3);
  const auto heads = [&] { return values_of_layers(spec, [](const auto& layer) { return layer.gqa().heads; }); };
  EXPECT_THAT(heads(), ::testing::ElementsAre(16));
  std::get<GqaSpec>(spec.layers[1].attention).heads = 8;
  EXPECT_THAT(heads(), ::testing::ElementsAre(16, 8, 16));
}

TEST(SpecCompare, EveryFactOfALayerIsCompared) {
  const auto spec = spec_from_hf_config(hunyuan_config(), "HY");
  const LayerSpec& layer = spec.layers.front();
  const std::pair<const char*, std::function<void(LayerSpec&, GqaSpec&, MlpSpec&)>> changes[] = {
      {"attention.heads", [](auto&, auto& gqa, auto&) { ++gqa.heads; }},
      {"attention.kv_heads", [](auto&, auto& gqa, auto&) { ++gqa.kv_heads; }},
      {"attention.head_dim", [](auto&, auto& gqa, auto&) { ++gqa.head_dim; }},
      {"attention.qkv_bias", [](auto&, auto& gqa, auto&) { gqa.qkv_bias = true; }},
      {"attention.output_bias", [](auto&, auto& gqa, auto&) { gqa.output_bias = true; }},
      {"attention.qk_norm", [](auto&, auto& gqa, auto&) { gqa.qk_norm = QkNorm::none; }},
      {"feed_forward.intermediate", [](auto&, auto&, auto& mlp) { ++mlp.intermediate; }},
      {"feed_forward.bias", [](auto&, auto&, auto& mlp) { mlp.bias = true; }},
      {"window", [](auto& other, auto&, auto&) { ++other.window; }},
      {"rope.dim", [](auto& other, auto&, auto&) { ++other.rope.dim; }},
      {"rope.base", [](auto& other, auto&, auto&) { other.rope.base *= 1 + 1e-9; }},
      {"number of rope.divisors", [](auto& other, auto&, auto&) { other.rope.divisors.pop_back(); }},
      {"rope.divisors[7]", [](auto& other, auto&, auto&) { other.rope.divisors[7] = 1 + 1e-9; }},
  };
  EXPECT_TRUE(differences(layer, layer).empty());
  for (const auto& [field, change] : changes) {
    LayerSpec other = layer;
    change(other, std::get<GqaSpec>(other.attention), std::get<MlpSpec>(other.feed_forward));
    const auto found = differences(layer, other);
    ASSERT_EQ(found.size(), 1u) << field;
    EXPECT_EQ(found[0].field, field);
    EXPECT_NE(found[0].field.starts_with("rope.") ? "" : found[0].first, found[0].second);
    const bool is_small = found[0].field == "rope.base" || found[0].field == "rope.divisors[7]";
    EXPECT_EQ(differences(layer, other, {1e-6, 1e-6}).empty(), is_small) << field;
  }
}

}  // namespace
}  // namespace crumb::arch
