#include "tests/export/test_models.h"

#include <nlohmann/json.hpp>
#include <random>
#include <vector>

#include "core/arch/hf_config.h"
#include "core/formats/safetensors.h"
#include "quant/codes_folder.h"
#include "quant/scale_search.h"

namespace crumb::testing {
namespace {

using arch::Architecture;
using arch::TensorRole;

std::string utf8(int code_point) {
  if (code_point < 0x80) return {static_cast<char>(code_point)};
  return {static_cast<char>(0xc0 | (code_point >> 6)), static_cast<char>(0x80 | (code_point & 0x3f))};
}

/// GPT-2's alphabet: printable bytes stand for themselves, the other 68 for U+0100 and on.
nlohmann::json byte_vocabulary() {
  nlohmann::json vocabulary;
  int others = 0;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    vocabulary[utf8(printable ? byte : 0x100 + others++)] = byte;
  }
  return vocabulary;
}

void write_tokenizer(const fs::path& folder) {
  auto vocabulary = byte_vocabulary();
  vocabulary["th"] = 256;
  vocabulary["the"] = 257;
  vocabulary["<|endoftext|>"] = 258;
  const nlohmann::json added = {
      {"id", 258},       {"content", "<|endoftext|>"}, {"single_word", false}, {"lstrip", false},
      {"rstrip", false}, {"normalized", false},        {"special", true}};
  const nlohmann::json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  const nlohmann::json model = {{"type", "BPE"},
                                {"dropout", nullptr},
                                {"unk_token", nullptr},
                                {"continuing_subword_prefix", nullptr},
                                {"end_of_word_suffix", nullptr},
                                {"fuse_unk", false},
                                {"byte_fallback", false},
                                {"vocab", vocabulary},
                                {"merges", {"t h", "th e"}}};
  const nlohmann::json tokenizer = {{"version", "1.0"},          {"truncation", nullptr}, {"padding", nullptr},
                                    {"added_tokens", {added}},   {"normalizer", nullptr}, {"pre_tokenizer", byte_level},
                                    {"post_processor", nullptr}, {"decoder", byte_level}, {"model", model}};
  write_file(folder / "tokenizer.json", tokenizer.dump());
  write_file(
      folder / "tokenizer_config.json",
      R"({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>"})");
}

/// Values of a trained model's size: outputs of unit variance, norms near 1.
std::vector<float> random_values(const arch::TensorDesc& desc, std::mt19937& random) {
  const bool is_linear = desc.role == TensorRole::linear;
  std::normal_distribution<float> normal(desc.role == TensorRole::norm ? 1.0f : 0.0f,
                                         is_linear ? 1.0f / std::sqrt(static_cast<float>(desc.cols())) : 0.1f);
  std::vector<float> values(static_cast<size_t>(desc.elements()));
  for (float& value : values) value = normal(random);
  return values;
}

}  // namespace

arch::DecoderSpec small_spec(Architecture architecture, int64_t hidden) {
  arch::DecoderSpec spec;
  spec.architecture = architecture;
  spec.vocab_size = 288;
  spec.hidden_size = hidden;
  spec.context_length = 128;
  spec.tied_head = architecture != Architecture::qwen3;
  arch::GqaSpec attention{4, 2, hidden / 4};
  attention.qkv_bias = architecture == Architecture::qwen2;
  if (architecture == Architecture::qwen3) attention.qk_norm = arch::QkNorm::before_rope;
  if (architecture == Architecture::hunyuan_v1_dense) attention.qk_norm = arch::QkNorm::after_rope;
  arch::LayerSpec layer;
  layer.attention = attention;
  layer.feed_forward = arch::MlpSpec{2 * hidden};
  layer.rope = {attention.head_dim, 10000.0, std::vector<double>(static_cast<size_t>(attention.head_dim / 2), 1.0)};
  spec.layers = {layer, layer};
  return spec;
}

std::map<std::string, quant::QuantFormat> all_linears(const arch::DecoderSpec& spec, const quant::QuantFormat& format) {
  std::map<std::string, quant::QuantFormat> formats;
  for (const auto& desc : arch::tensor_table(spec))
    if (desc.role == TensorRole::linear) formats[desc.hf_name] = format;
  return formats;
}

void write_model(const fs::path& folder, const arch::DecoderSpec& spec, formats::DType dtype) {
  fs::create_directories(folder);
  nlohmann::json config = arch::hf_config_from_spec(spec);
  config["bos_token_id"] = config["eos_token_id"] = 258;
  write_file(folder / "config.json", config.dump(2));
  write_tokenizer(folder);
  std::mt19937 random(7);
  formats::SafetensorsWriter writer;
  const auto table = arch::tensor_table(spec);
  for (const auto& desc : table) writer.declare(desc.hf_name, dtype, desc.shape);
  writer.begin_folder(folder, int64_t{1} << 40);
  for (const auto& desc : table) {
    const auto values = random_values(desc, random);
    std::vector<uint8_t> bytes(values.size() * static_cast<size_t>(formats::dtype_bytes(dtype)));
    formats::from_float(dtype, values.data(), desc.elements(), bytes.data());
    writer.write(bytes.data(), static_cast<int64_t>(bytes.size()));
  }
  writer.finish();
}

void quantize_model(const fs::path& from, const fs::path& to, const quant::QuantFormat& format) {
  const auto base = quant::open_checkpoint(from);
  quant::CodesSource source;
  source.formats = all_linears(base->spec(), format);
  source.rows = [&](const arch::TensorDesc& desc, int64_t begin, int64_t end, float* out) {
    base->read_rows(base->tensor(desc.hf_name), begin, end, out);
  };
  source.codes = [&](const arch::TensorDesc& desc, int64_t begin, int64_t end) {
    std::vector<float> rows(static_cast<size_t>((end - begin) * desc.cols()));
    source.rows(desc, begin, end, rows.data());
    return quant::round_to_nearest(rows.data(), end - begin, desc.cols(), format, quant::ScaleInit::absmax);
  };
  fs::create_directories(to);
  quant::write_codes_folder(to, *base, source, {"lm_head", "embed_tokens"});
}

fs::path quantized_model(const fs::path& parent, const arch::DecoderSpec& spec, const quant::QuantFormat& format) {
  const fs::path plain = parent / "plain", codes = parent / "codes";
  write_model(plain, spec);
  quantize_model(plain, codes, format);
  return codes;
}

}  // namespace crumb::testing
