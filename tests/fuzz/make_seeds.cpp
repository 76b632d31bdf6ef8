// Writes what the fuzz targets start from: OUT/TARGET/NAME, small whole files of every kind.
//   fuzz_seeds OUT
#include <cstdio>
#include <nlohmann/json.hpp>

#include "core/formats/ggml_types.h"
#include "core/formats/imatrix.h"
#include "core/formats/safetensors.h"
#include "core/text/token_file.h"
#include "export/export.h"
#include "tests/export/test_models.h"
#include "tests/formats/support.h"

namespace crumb::fuzz {
namespace {

using testing::fs::path;

class Seeds {
 public:
  explicit Seeds(path out) : out_(std::move(out)) {}

  void add(const std::string& target, const std::string& name, const std::string& bytes) const {
    testing::fs::create_directories(out_ / target);
    testing::write_file(out_ / target / name, bytes);
  }
  /// Small files of a folder, if it is there, by their paths in it.
  void add_files(const std::string& target, const path& folder, const std::string& extension) const {
    if (folder.empty() || !testing::fs::exists(folder)) return;
    for (const auto& entry : testing::fs::recursive_directory_iterator(folder)) {
      if (entry.path().extension() != extension || entry.file_size() > kMostBytes) continue;
      std::string name = entry.path().lexically_relative(folder).string();
      for (char& c : name) c = c == '/' ? '-' : c;
      add(target, name, testing::read_file(entry.path()));
    }
  }

 private:
  static constexpr uintmax_t kMostBytes = 16 << 10;
  path out_;
};

arch::DecoderSpec one_layer(arch::Architecture architecture) {
  auto spec = testing::small_spec(architecture, 32);
  spec.layers.resize(1);
  return spec;
}

/// A tensor of two rows of two blocks in each of ggml's types.
void add_block_types(const Seeds& seeds) {
  for (uint32_t id = 0; id < 64; ++id) {
    for (const auto& type : formats::ggml_type_readings(id)) {
      testing::RawGguf file;
      const auto cols = static_cast<uint64_t>(2 * type.block_size);
      file.tensor("w", id, {cols, 2}, 0);
      for (const uint8_t byte : testing::random_bytes(static_cast<size_t>(4 * type.block_bytes), id))
        file.data += static_cast<char>(byte);
      file.data.resize((file.data.size() + 31) / 32 * 32);
      seeds.add("gguf", "type-" + std::to_string(id) + "-" + std::string(type.name), file.text());
    }
  }
}

void add_models(const Seeds& seeds) {
  using arch::Architecture;
  const testing::TempDir dir;
  for (const auto architecture : {Architecture::llama, Architecture::mistral, Architecture::qwen2, Architecture::qwen3,
                                  Architecture::hunyuan_v1_dense}) {
    const std::string name(arch::architecture_name(architecture));
    const path folder = dir / name;
    testing::write_model(folder, one_layer(architecture));
    seeds.add("config", name, testing::read_file(folder / "config.json"));
    seeds.add("safetensors", name, testing::read_file(folder / "model.safetensors").substr(0, 60000));
    const auto checkpoint = quant::open_checkpoint(folder);
    for (const char* target : {"gguf-q8_0", "gguf-q4_0"}) {
      exporting::export_checkpoint(*checkpoint, dir / "model.gguf", {target, "q8_0", "q8_0", true, 1});
      seeds.add("gguf", name + "-" + target, testing::read_file(dir / "model.gguf"));
    }
    seeds.add("tokenizer", name,
              testing::read_file(folder / "tokenizer.json") + '\0' + "The theory of <|endoftext|>everything\n" + '\0' +
                  testing::read_file(folder / "tokenizer_config.json"));
  }
  testing::quantize_model(dir / "llama", dir / "codes", {quant::Grid::seq, 2, true, 0});
  const auto config = nlohmann::json::parse(testing::read_file(dir / "codes" / "config.json"));
  seeds.add("config", "codes", config.dump());
  seeds.add("quantization_config", "seq", config.at("quantization_config").dump());
  seeds.add("quantization_config", "modules",
            R"({"quant_method": "crumb", "version": 1, "grid": "int", "bits": 4, "symmetric": true, "group_size": 16,
                "activations": "none", "ignore": ["lm_head"], "modules": {"model.layers.0.self_attn.q_proj":
                {"grid": "seq", "bits": 2, "symmetric": true, "group_size": 0}}})");
}

/// Those of tests/fuzz/seeds, with a text to encode beside each; and a tokenizer.bin.
void add_tokenizers(const Seeds& seeds) {
  const std::string text = "ab a's bbb mask <s> A\xe2\x82\n 1234567  ab,,b";
  for (const auto& entry : testing::fs::directory_iterator(testing::source_dir() / "tests/fuzz/seeds/tokenizer"))
    seeds.add("tokenizer", entry.path().stem().string(), testing::read_file(entry.path()) + '\0' + text);

  std::vector<std::string> pieces = {"<unk>", "\n<s>\n", "\n</s>\n"};
  for (int byte = 0; byte < 256; ++byte) pieces.push_back(fmt::format("<0x{:02X}>", byte));
  for (const char* piece : {" ", "O", "n", "On", "e", " e"}) pieces.emplace_back(piece);
  using testing::RawGguf;
  std::string bin = RawGguf::pod<int32_t>(6);
  for (const auto& piece : pieces)
    bin += RawGguf::pod(-static_cast<float>(piece.size())) + RawGguf::pod(static_cast<int32_t>(piece.size())) + piece;
  seeds.add("tokenizer", "llama2c", bin);
}

void add_texts(const Seeds& seeds) {
  seeds.add("text", "plain", "One document.\n\n\nAnother one: caf\xc3\xa9.\n\n\n\n\n\n\xff\xfe end");
  seeds.add("text", "lines",
            "{\"text\": \"One \\u00e9 \\ud83d\\ude00\"}\n\n{\"text\": \"two\", \"id\": [1, {\"a\": "
            "null}]}\r\n{\"text\": \"\"}");
  seeds.add("text", "chat", R"({"messages": [{"role": "user", "content": "hello"}]})");
  const std::string job = R"(model: {config: m, init: random, tokenizer: t}
teacher: "self"
objective: {kl: 1, hidden_mse: 4, hidden_layers: ["0:3"]}
method: {name: rtn, grid: int, bits: 4, group_size: 32, exclude: [lm_head, "*.down_proj"]}
data:
  train: [{path: a.jsonl, weight: 0.7}, {path: "b.txt", weight: 30%}]
  valid: 1%
  separator: "\n\n\n"
schedule: &s {tokens: 10M, warmup: 0.03, decay: wsd}
evaluate:
  text: &texts [x.txt]
  max_drop: {perplexity: 5%, kl: 1e-2}
output: |
  runs/x
export: [gguf-q2_k, 'hf-bf16']
threads: auto
)";
  seeds.add(
      "yaml", "job",
      job + '\0' + "schedule.tokens=1k" + '\0' + "data.train=[a.txt, b.txt]" + '\0' + "optimizer.betas=[0.9, 0.95]");
}

void add_token_files(const Seeds& seeds) {
  const testing::TempDir dir;
  const auto add = [&](const std::string& name, const std::vector<std::vector<text::TokenId>>& documents,
                       const std::vector<uint8_t>& supervised) {
    text::TokenFileWriter writer(dir / name, 1, 300);
    for (const auto& ids : documents) writer.add(ids, supervised);
    writer.commit();
    seeds.add("token_file", name, testing::read_file(dir / name));
  };
  add("plain", {{1, 2, 3, 299}, {4, 5}}, {});
  add("masked", {{1, 2, 3}, {4, 5, 299}}, {0, 1, 1});
  add("empty", {}, {});
}

void add_imatrices(const Seeds& seeds) {
  const testing::TempDir dir;
  formats::write_imatrix(dir / "gguf", {{"blk.0.attn_q.weight", {1, 2}}, {"blk.0.ffn_down.weight", {3}}},
                         {{"a.txt"}, 2, 8}, Overwrite::no);
  seeds.add("imatrix", "gguf", testing::read_file(dir / "gguf"));
  using testing::RawGguf;
  const std::string name = "blk.0.attn_q.weight";
  const std::string entry = RawGguf::pod(static_cast<int32_t>(name.size())) + name + RawGguf::pod<int32_t>(4) +
                            RawGguf::pod<int32_t>(2) + RawGguf::pod(1.0f) + RawGguf::pod(2.0f);
  seeds.add("imatrix", "dat", RawGguf::pod<int32_t>(1) + entry);
  seeds.add("imatrix", "dat-with-its-text",
            RawGguf::pod<int32_t>(1) + entry + RawGguf::pod<int32_t>(4) + RawGguf::pod<int32_t>(5) + "a.txt");
}

}  // namespace

void write_seeds(const path& out) {
  const Seeds seeds(out);
  add_block_types(seeds);
  add_models(seeds);
  add_tokenizers(seeds);
  add_texts(seeds);
  add_token_files(seeds);
  add_imatrices(seeds);
  const path source = testing::source_dir();
  seeds.add_files("config", source / "tests/cli/fixtures", ".json");
  seeds.add_files("config", source / "tests/runtime/goldens", ".json");
  seeds.add_files("yaml", source / "configs", ".yaml");
  seeds.add_files("gguf", testing::data("vectors"), ".gguf");
  seeds.add_files("config", testing::data("vectors/tiny-hf-fixtures"), ".json");
  seeds.add_files("safetensors", testing::data("vectors"), ".safetensors");
  seeds.add_files("jinja", testing::data("tokenizers/chat-templates"), ".jinja");
  seeds.add("jinja", "small", "{% for m in messages %}{{ m.role | trim ~ m['content'][1:] }}{% endfor %}");
}

}  // namespace crumb::fuzz

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: fuzz_seeds OUT\n");
    return crumb::kExitUser;
  }
  crumb::fuzz::write_seeds(argv[1]);
  return crumb::kExitOk;
}
