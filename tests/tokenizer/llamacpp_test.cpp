// Stock llama.cpp gives the same ids for the metadata that set_gguf_metadata writes.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "core/tokenizer/normalizer.h"
#include "core/tokenizer/pre_split.h"
#include "core/tokenizer/tokenizer.h"
#include "tests/testing/testing.h"
#include "tests/tokenizer/samples.h"

namespace crumb::tokenizer {
namespace {

using testing::fs::path;

/// The smallest llama that llama.cpp loads: one layer of 32, all weights zero.
constexpr int64_t kSize = 32;
void write_weights(formats::GgufWriter& writer, int64_t rows, const path& file);

void write_model(const Tokenizer& tokenizer, const path& file) {
  formats::GgufWriter writer;
  writer.set_string("general.architecture", "llama");
  for (const auto& [key, value] : {std::pair<const char*, uint32_t>{"context_length", 64},
                                   {"embedding_length", kSize},
                                   {"block_count", 1},
                                   {"feed_forward_length", kSize},
                                   {"attention.head_count", 1},
                                   {"rope.dimension_count", kSize}}) {
    writer.set_u32(std::string("llama.") + key, value);
  }
  writer.set_f32("llama.attention.layer_norm_rms_epsilon", 1e-5F);
  tokenizer.set_gguf_metadata(tokenizer.vocab_size(), writer);
  write_weights(writer, tokenizer.vocab_size(), file);
}

/// The same file with another name of its split.
void rename_split(const path& model, const std::string& split, const path& file) {
  const formats::GgufReader gguf(model);
  formats::GgufWriter writer;
  for (const auto& [key, value] : gguf.metadata()) {
    if (key == "tokenizer.ggml.pre")
      writer.set_string(key, split);
    else
      writer.set(key, value);
  }
  write_weights(writer, static_cast<int64_t>(gguf.get_strings("tokenizer.ggml.tokens").size()), file);
}

void write_weights(formats::GgufWriter& writer, int64_t rows, const path& file) {
  int64_t values = 0;
  const auto declare = [&](const std::string& name, std::vector<int64_t> shape) {
    int64_t count = 1;
    for (const int64_t size : shape) count *= size;
    values += count;
    writer.declare(name, formats::TensorType::f32, std::move(shape));
  };
  declare("token_embd.weight", {rows, kSize});
  declare("output_norm.weight", {kSize});
  for (const char* name : {"attn_norm", "ffn_norm"}) declare(std::string("blk.0.") + name + ".weight", {kSize});
  for (const char* name : {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"}) {
    declare(std::string("blk.0.") + name + ".weight", {kSize, kSize});
  }
  writer.begin(file);
  const std::vector<float> zeros(static_cast<size_t>(rows * kSize), 0.0F);
  const auto write = [&](int64_t count) { writer.write(zeros.data(), 4 * count); };
  write(rows * kSize);
  for (int i = 0; i < 3; ++i) write(kSize);
  for (int i = 0; i < 7; ++i) write(kSize * kSize);
  writer.finish();
  writer.commit();
}

/// Texts without what llama.cpp is known to do otherwise: it stops at NUL bytes and does not normalize.
std::vector<std::string> texts_for_llamacpp() {
  std::vector<std::string> texts;
  for (uint64_t seed = 0; texts.size() < 150; ++seed) {
    std::string text = random_text(seed, 25);
    if (text.find('\0') == std::string::npos) texts.push_back(std::move(text));
  }
  for (const char* name : {"text/corpus/tech-test.txt", "text/corpus/verse-test.txt"}) {
    const path file = testing::data(name);
    if (!file.empty()) texts.push_back(testing::read_file(file).substr(0, 100'000));
  }
  return texts;
}

void expect_same_ids(const path& python, const Tokenizer& tokenizer, const std::vector<std::string>& texts) {
  const testing::TempDir dir;
  write_model(tokenizer, dir / "model.gguf");
  nlohmann::json items = nlohmann::json::array();
  for (const auto& text : texts) items.push_back(to_hex(text));
  testing::write_file(dir / "texts.json", items.dump());
  const path script = testing::source_dir() / "tests/tokenizer/llamacpp_tokenize.py";
  const auto result = testing::run_command(fmt::format("{} {} {} {} --add-special", python.string(), script.string(),
                                                       (dir / "model.gguf").string(), (dir / "texts.json").string()));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  std::istringstream lines(result.out);
  std::string line;
  for (const auto& text : texts) {
    ASSERT_TRUE(std::getline(lines, line));
    EXPECT_EQ(line, fmt::format("{}", fmt::join(tokenizer.encode(text, true), " "))) << to_hex(text).substr(0, 600);
  }
}

std::vector<std::string> composed(std::vector<std::string> texts) {
  Normalizer nfc;
  nfc.steps.push_back({NormalizerStep::Kind::nfc, "", "", {}});
  for (auto& text : texts) {
    std::string storage;
    text = std::string(nfc.apply(text, storage));
  }
  return texts;
}

/// Texts where splits differ: case, digits, white space of all kinds, marks, scripts.
std::vector<std::string> texts_for_splits() {
  std::vector<std::string> texts = {
      "HelloWorld IMGIMGABCDZ <sentinel:12> 12345678 ABCdef'S \u00e9\u00c9a\u00c0b McDONALD's \u01c5a",
      "1234567 12 1234 \u0663\u0663\u0663\u0663\u0663 x1234y 1000000000000000000",
      std::string(700, ' ') + "a",
      " \n \n  x\n\n\ny   ",
      "a\u0301b\u0301 \u0301x '\u017f '\u0130",
      "tab\tx\t\ty\n    z  ",
      "word, word.word!x (a) \u060c \u06d4 \u3002",
      " \u2028\u3000\u3001 \u2028x"};
  for (uint64_t seed = 900; texts.size() < (runs_long() ? 400U : 40U); ++seed) {
    std::string text = random_text(seed, 16);
    if (text.find('\0') == std::string::npos) texts.push_back(std::move(text));
  }
  return texts;
}

/// Names of one split are the same to Crumb: one of each is asked, all of them where long tests run.
std::vector<std::string> names_to_ask() {
  std::vector<std::string> names;
  const NamedSplit* previous = nullptr;
  for (const NamedSplit& split : named_splits()) {
    const bool is_new = previous == nullptr || previous->as_llamacpp() != split.as_llamacpp() ||
                        previous->ignore_merges != split.ignore_merges;
    if (is_new || runs_long()) names.push_back(split.name);
    previous = &split;
  }
  return names;
}

TEST(LlamaCpp, GivesTheSameIdsForEveryNameOfASplit) {
  CRUMB_NEED_PEERS(python);
  CRUMB_NEED_DATA(folder, "models/ref-llama-15m");
  const testing::TempDir dir;
  const auto tokenizer = load_tokenizer(folder);
  const auto texts = composed(texts_for_splits());  // two names stand for NFC in Crumb
  nlohmann::json items = nlohmann::json::array();
  for (const auto& text : texts) items.push_back(to_hex(text));
  testing::write_file(dir / "texts.json", items.dump());
  std::string files;
  write_model(*tokenizer, dir / "model.gguf");
  for (const auto& name : names_to_ask()) {
    rename_split(dir / "model.gguf", name, dir / (name + ".gguf"));
    files += " " + (dir / (name + ".gguf")).string();
  }
  const path script = testing::source_dir() / "tests/tokenizer/llamacpp_tokenize.py";
  const auto result = testing::run_command(
      fmt::format("{} {}{} {}", python.string(), script.string(), files, (dir / "texts.json").string()));
  ASSERT_EQ(result.exit_code, 0) << result.err.substr(0, 2000);
  std::istringstream lines(result.out);
  for (const auto& name : names_to_ask()) {
    const auto named = load_tokenizer(dir / (name + ".gguf"));
    for (const auto& text : texts) {
      std::string line;
      ASSERT_TRUE(std::getline(lines, line));
      ASSERT_EQ(fmt::format("{}", fmt::join(named->encode(text), " ")), line) << name << ": " << to_hex(text);
    }
  }
}

class LlamaCppTest : public ::testing::TestWithParam<std::string> {};

TEST_P(LlamaCppTest, GivesTheSameIds) {
  CRUMB_NEED_PEERS(python);
  CRUMB_NEED_DATA(file, GetParam());
  expect_same_ids(python, *load_tokenizer(file), texts_for_llamacpp());
}

INSTANTIATE_TEST_SUITE_P(Vocabularies, LlamaCppTest,
                         ::testing::Values("models/ref-llama-15m", "models/stories260K-hf", "tokenizers/gpt2-hf-json",
                                           "tokenizers/llama2-hf-json", "models/stories260K/tok512.bin",
                                           "tokenizers/ggml-vocabs/ggml-vocab-deepseek-llm.gguf",
                                           "tokenizers/ggml-vocabs/ggml-vocab-llama-spm.gguf",
                                           "tokenizers/ggml-vocabs/ggml-vocab-phi-3.gguf"));

/// Added tokens with options that llama.cpp does not know are taken out.
void keep_plain_added_tokens(const path& file) {
  auto json = nlohmann::json::parse(testing::read_file(file));
  nlohmann::json kept = nlohmann::json::array();
  for (const auto& token : json.at("added_tokens")) {
    const auto is_set = [&](const char* option) { return token.at(option).get<bool>(); };
    if (!is_set("lstrip") && !is_set("rstrip") && !is_set("single_word") && !is_set("normalized"))
      kept.push_back(token);
  }
  json["added_tokens"] = kept;
  testing::write_file(file, json.dump());
}

TEST(LlamaCpp, GivesTheSameIdsForSplitsOfWhichNoVocabularyIsAtHand) {
  CRUMB_NEED_PEERS(python);
  CRUMB_NEED_DATA(prose, "text/corpus/prose-test.txt");
  const testing::TempDir dir;
  const path peer = testing::source_dir() / "tests/tokenizer/tokenizers_peer.py";
  const auto trained = testing::run_command(
      fmt::format("{} {} train {} {}", python.string(), peer.string(), dir.path().string(), prose.string()));
  ASSERT_EQ(trained.exit_code, 0) << trained.err;
  for (const char* family : {"llama3", "qwen2", "hunyuan-dense"}) {
    SCOPED_TRACE(family);
    const path file = dir / family / "tokenizer.json";
    keep_plain_added_tokens(file);
    const auto texts = texts_for_llamacpp();
    // llama.cpp does not normalize, Qwen2's tokenizers do.
    expect_same_ids(python, *load_tokenizer(file), family == std::string("qwen2") ? composed(texts) : texts);
  }
}

}  // namespace
}  // namespace crumb::tokenizer
