// SmolLM2-135M-Instruct, a model that people have, from the GGUF it comes in: what Crumb, transformers, `tokenizers`
// and stock llama.cpp make of it.
#include <fmt/ranges.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

#include "export/export.h"
#include "runtime/generate.h"
#include "tests/export/peers.h"
#include "tests/testing/testing.h"
#include "tests/tokenizer/samples.h"

namespace crumb::exporting {
namespace {

using nlohmann::json;
using runtime::TokenId;
using testing::run_command;
using testing::TempDir;

const std::string kGguf = "SmolLM2-135M-Instruct.Q4_1.gguf", kFolder = "SmolLM2-135M-Instruct";
const std::string kPrompt = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n";

/// The texts of llama.cpp's tokenizer tests, and some that mix what a chat model sees.
std::vector<std::string> texts_of(const fs::path& samples) {
  std::vector<std::string> texts = {kPrompt, "<|endoftext|>", "a<|im_start|>b <repo_name>", "f(\x14)", "1234567 12.5%"};
  for (auto& text : tokenizer::parity_texts(samples)) texts.push_back(std::move(text));
  return texts;
}

TEST(SmolLM2, TheFolderHasTheIdsOfTokenizers) {
  CRUMB_NEED_PEERS(python);
  CRUMB_NEED_MODEL(folder, kFolder);
  CRUMB_NEED_DATA(samples, "tokenizers/ggml-vocabs/ggml-vocab-gpt-2.gguf.inp");
  const TempDir dir;
  const auto texts = texts_of(samples);
  json hex = json::array();
  for (const auto& text : texts) hex.push_back(tokenizer::to_hex(text));
  testing::write_file(dir / "texts.json", hex.dump());
  const fs::path peer = testing::source_dir() / "tests/tokenizer/tokenizers_peer.py";
  const auto result = run_command(fmt::format("{} {} encode {} {}", python.string(), peer.string(),
                                              (folder / "tokenizer.json").string(), (dir / "texts.json").string()));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  std::istringstream lines(result.out);
  const auto tokenizer = tokenizer::load_tokenizer(folder);
  for (const auto& text : texts) {
    std::string expected;
    std::getline(lines, expected);
    EXPECT_EQ(fmt::format("{}", fmt::join(tokenizer->encode(text), " ")), expected) << text;
  }
}

TEST(SmolLM2, TheGgufHasTheIdsOfLlamaCpp) {
  CRUMB_NEED_PEERS(python);
  CRUMB_NEED_MODEL(gguf, kGguf);
  CRUMB_NEED_DATA(samples, "tokenizers/ggml-vocabs/ggml-vocab-gpt-2.gguf.inp");
  const TempDir dir;
  const auto texts = texts_of(samples);
  const json results = llama_cpp(python, dir, json::array({{{"model", gguf.string()}, {"texts", texts}}}));
  const auto tokenizer = tokenizer::load_tokenizer(gguf);
  for (size_t i = 0; i < texts.size(); ++i)
    EXPECT_EQ(tokenizer->encode(texts[i], true), results[0].at("tokens")[i].get<std::vector<TokenId>>()) << texts[i];
}

TEST(SmolLM2, TransformersGivesTheLogitsAndTheGreedyIdsOfTheFolder) {
  CRUMB_NEED_PEERS(python);
  CRUMB_NEED_MODEL(folder, kFolder);
  const TempDir dir;
  const auto checkpoint = quant::open_checkpoint(folder);
  const auto decoder = runtime::load_decoder(*checkpoint, std::make_shared<ThreadPool>(2));
  auto ids = checkpoint->load_tokenizer()->encode(kPrompt, true);
  const size_t prompt = ids.size();
  const auto generated = runtime::generate(*decoder, {{ids, 24, 0}}, {}, {}, 1, nullptr).at(0).tokens;
  ids.insert(ids.end(), generated.begin(), generated.end());

  const auto result = run_command(fmt::format("{} {} {} {} {}", python.string(), script("transformers_peer.py"),
                                              fmt::join(ids, ","), folder.string(), (dir / "logits").string()));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const std::string bytes = testing::read_file(dir / "logits");
  const auto vocab = static_cast<size_t>(checkpoint->spec().vocab_size);
  ASSERT_EQ(bytes.size(), ids.size() * vocab * sizeof(float));
  const auto* expected = reinterpret_cast<const float*>(bytes.data());
  const auto state = decoder->new_state();
  // Massive activations of 2e4 stand beside ordinary ones of 10 in float32: 1e-3 of logits that spread over 40.
  constexpr float kTolerance = 0.02f;
  size_t clear = 0;
  decoder->forward(std::vector<runtime::SequenceInput>{{state.get(), ids}}, runtime::LogitsFor::all,
                   [&](int64_t, int64_t position, std::span<const float> logits) {
                     const std::span theirs(expected + static_cast<size_t>(position) * vocab, vocab);
                     float most = 0;
                     for (size_t i = 0; i < vocab; ++i) most = std::max(most, std::abs(logits[i] - theirs[i]));
                     EXPECT_LT(most, kTolerance) << "position " << position;
                     const auto next = static_cast<size_t>(position) + 1;
                     if (next < prompt || next >= ids.size()) return;
                     std::vector<float> sorted(theirs.begin(), theirs.end());
                     std::ranges::partial_sort(sorted, sorted.begin() + 2, std::greater{});
                     if (sorted[0] - sorted[1] < 2 * kTolerance) return;
                     ++clear;
                     EXPECT_EQ(theirs[static_cast<size_t>(ids[next])], sorted[0]) << "position " << position;
                   });
  EXPECT_GE(clear, 20u);
}

TEST(SmolLM2, ExportsLoadInLlamaCppAndContinueAlike) {
  CRUMB_NEED_PEERS(python);
  CRUMB_NEED_MODEL(folder, kFolder);
  const TempDir dir;
  const auto prompt = quant::open_checkpoint(folder)->load_tokenizer()->encode(kPrompt, true);
  json jobs = json::array();
  for (const std::string target : {"gguf-q8_0", "gguf-q4_0"}) {
    const fs::path out = dir / (target + ".gguf");
    export_checkpoint(*quant::open_checkpoint(folder), out, {target, "", "", false, 2});
    jobs.push_back({{"model", out.string()}, {"prompt", prompt}, {"tokens", 16}, {"top", 4}, {"context", 128}});
  }
  const json results = llama_cpp(python, dir, jobs);
  for (size_t i = 0; i < results.size(); ++i) {
    const json& steps = results[i].at("steps");
    const auto agreement = next_id_agreement(our_steps(jobs[i]["model"].get<std::string>(), prompt, steps), steps);
    EXPECT_GE(agreement.compared, 8) << jobs[i]["model"];
    EXPECT_EQ(agreement.equal, agreement.compared) << jobs[i]["model"];
  }
}

TEST(Gemma3, IsRefusedByName) {
  CRUMB_NEED_MODEL(gguf, "gemma-3-270m-q4_k_m.gguf");
  for (const std::string& verb :
       std::vector<std::string>{"eval --text " + (testing::source_dir() / "README.md").string(), "generate --prompt a",
                                "export --to hf-bf16 -o out"}) {
    const TempDir dir;
    const auto result = run_command("cd " + dir.path().string() + " && " + testing::program().string() + " " +
                                    verb.substr(0, verb.find(' ')) + " " + gguf.string() + verb.substr(verb.find(' ')));
    EXPECT_EQ(result.exit_code, 2);
    EXPECT_THAT(result.err, ::testing::HasSubstr("architecture 'gemma3' is not supported")) << verb;
  }
}

}  // namespace
}  // namespace crumb::exporting
