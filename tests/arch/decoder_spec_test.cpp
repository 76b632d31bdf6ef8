#include "core/arch/decoder_spec.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "core/arch/hf_config.h"
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
  EXPECT_EQ(table.front().gguf_name, "token_embd.weight");
  EXPECT_EQ(table.back().hf_name, "model.norm.weight");
  EXPECT_EQ(table.back().gguf_name, "output_norm.weight");
  const auto find = [&](const std::string& name) {
    return *std::find_if(table.begin(), table.end(), [&](const auto& d) { return d.hf_name == name; });
  };
  const auto norm = find("model.layers.31.self_attn.query_layernorm.weight");
  EXPECT_EQ(norm.gguf_name, "blk.31.attn_q_norm.weight");
  EXPECT_EQ(norm.role, TensorRole::norm);
  EXPECT_THAT(norm.shape, ::testing::ElementsAre(128));
  const auto key = find("model.layers.3.self_attn.k_proj.weight");
  EXPECT_EQ(key.gguf_name, "blk.3.attn_k.weight");
  EXPECT_EQ(key.module_name(), "model.layers.3.self_attn.k_proj");
  EXPECT_EQ(key.layer, 3);
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

}  // namespace
}  // namespace crumb::arch
