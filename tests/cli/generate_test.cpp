// crumb generate as its user sees it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/common/file.h"
#include "tests/testing/testing.h"

namespace crumb {
namespace {

using crumb::testing::read_file;
using crumb::testing::run_crumb;
using crumb::testing::TempDir;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

class GenerateVerb : public ::testing::Test {
 protected:
  void SetUp() override {
    model_ = crumb::testing::data("models/stories260K-hf");
    if (model_.empty())
      CRUMB_CANNOT_RUN("CRUMB_REQUIRE_DATA", "needs the data file models/stories260K-hf; set CRUMB_DATA");
  }
  testing::CommandResult generate(const std::string& arguments) {
    return run_crumb("generate -q " + model_.string() + " " + arguments);
  }
  testing::CommandResult sample(const std::string& name, const std::string& arguments) {
    return generate("-o " + (dir_ / name).string() + " " + arguments);
  }
  std::vector<std::string> texts(const std::string& name) {
    std::istringstream in(read_file(dir_ / name));
    std::vector<std::string> out;
    for (std::string line; std::getline(in, line);)
      out.push_back(nlohmann::json::parse(line)["text"].get<std::string>());
    return out;
  }
  void expect_error(const testing::CommandResult& r, const std::string& message) {
    EXPECT_EQ(r.exit_code, 2);
    EXPECT_EQ(r.err, "crumb: " + message + "\n");
  }
  TempDir dir_;
  Path model_;
};

TEST_F(GenerateVerb, ContinuesAPromptWithTheLikeliestTokens) {
  const auto r = generate("--prompt 'Once upon a time' --max-tokens 12");
  EXPECT_EQ(r.exit_code, 0) << r.err;
  EXPECT_THAT(r.out, StartsWith("Once upon a time, there was a little girl"));
  EXPECT_EQ(r.out.back(), '\n');
  EXPECT_EQ(generate("--prompt 'Once upon a time' --max-tokens 12").out, r.out);
}

TEST_F(GenerateVerb, ActivationsAreFloatOrInt8) {
  const auto r = generate("--prompt 'Once upon a time' --max-tokens 12");
  EXPECT_EQ(generate("--activations float --prompt 'Once upon a time' --max-tokens 12").out, r.out);
  EXPECT_EQ(generate("--activations int8 --prompt 'Once upon a time' --max-tokens 12").out, r.out)
      << "no linear of this model is quantized";
  EXPECT_THAT(generate("--activations int8 --prompt 'Once' --max-tokens 1").err,
              ::testing::HasSubstr("int8 activations are for quantized linears, and it has none"));
  expect_error(generate("--activations int4 --prompt ''"),
               "--activations: unknown \"int4\"; known: auto, float, bf16, int8");
}

#ifdef CRUMB_WITH_TORCH
TEST_F(GenerateVerb, WhatIsNotGivenIsFastWhereTheModelIsQuantized) {
  const std::string codes = (dir_ / "codes").string(), eight = (dir_ / "fp8_inputs").string();
  ASSERT_EQ(run_crumb("quantize -q " + model_.string() + " --method rtn -o " + codes).exit_code, 0);
  const auto told = [](const std::string& model, const std::string& options) {
    return run_crumb("generate " + model + " --prompt Once --max-tokens 2 --verbose" + options).err;
  };
  EXPECT_THAT(told(codes, ""), HasSubstr("computed with int8 activations of quantized linears, bfloat16 of bfloat16 "
                                         "ones beside them, keys and values in f16"));
  EXPECT_THAT(told(codes, " --activations float"), HasSubstr("computed with keys and values in f16\n"));
  EXPECT_THAT(told(codes, " --activations float --cache-type f32"), Not(HasSubstr("computed with")));
  EXPECT_THAT(told(model_.string(), ""), HasSubstr("computed with keys and values in f16\n"));
  EXPECT_THAT(told(model_.string(), ""), Not(HasSubstr("warning")));
  ASSERT_EQ(
      run_crumb("quantize -q " + model_.string() + " --method rtn --grid int --bits 8 activations.grid=fp8 -o " + eight)
          .exit_code,
      0);
  EXPECT_THAT(told(eight, ""), AllOf(HasSubstr("computed with keys and values in f16\n"), Not(HasSubstr("warning"))))
      << "it rounds its activations itself";
  EXPECT_EQ(run_crumb("generate -q " + eight + " --prompt Once --activations int8").exit_code, 2);
}
#endif

TEST_F(GenerateVerb, VerboseSaysHowQuantizedMatricesAreHeld) {
  const std::string gguf = (dir_ / "model.gguf").string();
  ASSERT_EQ(run_crumb("export -q " + model_.string() + " --to gguf-q8_0 -o " + gguf).exit_code, 0);
  const auto told = run_crumb("generate " + gguf + " --prompt 'Once upon a time' --max-tokens 12 --verbose");
  EXPECT_THAT(told.err,
              ::testing::HasSubstr("31 q8_0 held as codes of 8 bits: 232.7 kB in memory, 217.1 kB in the file\n"));
  EXPECT_THAT(run_crumb("generate " + gguf + " --prompt 'Once upon a time' --max-tokens 12").err,
              ::testing::Not(::testing::HasSubstr("held as")));
}

TEST_F(GenerateVerb, JsonHoldsTokensAndTheTextThatWasStreamed) {
  const auto r = generate("--json --prompt 'Once upon a time' --max-tokens 12");
  ASSERT_EQ(r.exit_code, 0) << r.err;
  const auto json = nlohmann::json::parse(r.out);
  EXPECT_EQ(json["tokens"].size(), 12u);
  EXPECT_FALSE(json["stopped"].get<bool>());
  EXPECT_EQ(generate("--prompt 'Once upon a time' --max-tokens 12").out,
            json["prompt"].get<std::string>() + json["text"].get<std::string>() + "\n");
}

TEST_F(GenerateVerb, SaysThatTheContextIsFull) {
  std::string prompt;
  for (int i = 0; i < 80; ++i) prompt += "the cat sat. ";  // nearly the model's 512 tokens
  const auto full = generate("--json --prompt '" + prompt + "' --max-tokens 400");
  ASSERT_EQ(full.exit_code, 0) << full.err;
  const auto json = nlohmann::json::parse(full.out);
  const size_t tokens = json["tokens"].size();
  EXPECT_EQ(json["finish_reason"], "context");
  EXPECT_LT(tokens, 400u);
  EXPECT_EQ(full.err, "warning: the model's context of 512 tokens is full: " + std::to_string(tokens) +
                          " of the 400 tokens asked for were generated\n");
  const auto cut = generate("--json --prompt 'Once upon a time' --max-tokens 12");
  EXPECT_EQ(nlohmann::json::parse(cut.out)["finish_reason"], "length");
  EXPECT_EQ(cut.err, "");
}

TEST_F(GenerateVerb, ADraftChangesNothingOfGreedyTextsAndIsReported) {
  const std::string draft = (dir_ / "draft.gguf").string();
  ASSERT_EQ(run_crumb("export -q " + model_.string() + " --to gguf-q4_0 -o " + draft).exit_code, 0);
  for (const std::string options :
       {"", "--cache-type f16", "--cache-type q8", "--repetition-penalty 1.2 --stop 'very happy'"}) {
    const std::string base = "--json --prompt 'Once upon a time' --max-tokens 200 " + options;
    const auto plain = nlohmann::json::parse(generate(base).out);
    EXPECT_TRUE(plain["draft"].is_null());
    for (const std::string most : {"", " --draft-max 1", " --draft-max 20"}) {
      const auto drafted = nlohmann::json::parse(generate(base + " --draft " + draft + most).out);
      for (const char* key : {"tokens", "text", "finish_reason", "stop_text"})
        EXPECT_EQ(drafted[key], plain[key]) << options << most;
      const auto& report = drafted["draft"];
      EXPECT_GT(report["accepted"].get<int64_t>(), 0);
      EXPECT_LT(report["accepted"].get<int64_t>(), report["proposed"].get<int64_t>()) << "or nothing was rolled back";
      EXPECT_LE(report["proposed"].get<int64_t>(), report["passes"].get<int64_t>() * (most == " --draft-max 1" ? 1
                                                                                      : most.empty()           ? 8
                                                                                                               : 20));
    }
  }
}

TEST_F(GenerateVerb, ADraftWithASeedIsRepeatableAndUsesThePromptCache) {
  const std::string draft = (dir_ / "draft.gguf").string(), cache = (dir_ / "cache").string();
  ASSERT_EQ(run_crumb("export -q " + model_.string() + " --to gguf-q4_0 -o " + draft).exit_code, 0);
  const std::string base = "--json --prompt 'Once upon a time there was' --max-tokens 60 --temperature 0.9 --draft " +
                           draft + " --prompt-cache " + cache + " --seed ";
  const auto tokens_of = [&](const std::string& seed) { return nlohmann::json::parse(generate(base + seed).out); };
  const auto first = tokens_of("1"), again = tokens_of("1");
  EXPECT_EQ(first["known_tokens"], 0);
  EXPECT_GT(again["known_tokens"].get<int64_t>(), 0);
  EXPECT_EQ(again["tokens"], first["tokens"]);
  EXPECT_NE(tokens_of("2")["tokens"], first["tokens"]);
}

TEST_F(GenerateVerb, VerboseSaysWhatADraftWasWorthAndWhatIsShared) {
  const Path copy = dir_ / "copy";
  testing::fs::copy(model_, copy, testing::fs::copy_options::recursive);
  const std::string base =
      "generate " + model_.string() + " --prompt 'Once upon a time' --max-tokens 40 --verbose --draft ";
  const auto told = run_crumb(base + copy.string()), itself = run_crumb(base + model_.string());
  EXPECT_THAT(itself.err, HasSubstr("warning: --draft: " + model_.string() +
                                    " drafts for itself, which would only take time; it is left out\n"));
  EXPECT_EQ(itself.out, told.out);
  EXPECT_THAT(told.err,
              ::testing::ContainsRegex(
                  "1\\.[0-9]+ MB of weights are in both models\n"
                  "draft: ([0-9]+) of [0-9]+ tokens accepted \\(100 %\\), [0-9.]+ tokens a pass of the model; [0-9.]+ "
                  "tokens/s, [0-9.]+ without a draft: [0-9.]+x; [0-9.]+ s went into drafting\n"));
}

TEST_F(GenerateVerb, RefusesDraftsThatDoNotFit) {
  const auto copy = [&](const std::string& name, const std::string& file, const std::string& from,
                        const std::string& to) {
    testing::fs::copy(model_, dir_ / name, testing::fs::copy_options::recursive);
    std::string text = read_file(dir_ / name / file);
    const size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos);
    testing::write_file(dir_ / name / file, text.replace(at, from.size(), to));
    return (dir_ / name).string();
  };
  const auto shorter =
      copy("shorter", "config.json", "\"max_position_embeddings\": 512", "\"max_position_embeddings\": 256");
  const std::string prompt = "--prompt 'Once' --max-tokens 5 ";
  expect_error(
      generate(prompt + "--draft " + shorter),
      "--draft: " + shorter + " holds 256 tokens, " + model_.string() + " holds 512; a draft must hold as long a text");
  const auto other = copy("other", "tokenizer.json", "\"<0xFF>\"", "\"<0xZZ>\"");
  expect_error(generate(prompt + "--draft " + other), "--draft: id 258 is \"<0xZZ>\" in the vocabulary of " + other +
                                                          " and \"<0xFF>\" in that of " + model_.string() +
                                                          "; a draft must have the model's vocabulary");
  expect_error(generate(prompt + "--draft " + (dir_ / "none").string()),
               (dir_ / "none").string() + ": no such file or folder");
  for (const std::string& arguments : {"--corpus 1k -o x --draft " + model_.string(), prompt + "--draft-max 3",
                                       prompt + "--draft-max 0 --draft " + model_.string()}) {
    const auto r = generate(arguments);
    EXPECT_EQ(r.exit_code, 2) << arguments;
    EXPECT_THAT(r.err, HasSubstr("--draft")) << arguments;
  }
}

TEST_F(GenerateVerb, SamplesBySeed) {
  const std::string base = "--prompt 'The' --max-tokens 30 --temperature 1 --top-p 0.95 --top-k 100 --seed ";
  EXPECT_EQ(generate(base + "1").out, generate(base + "1").out);
  EXPECT_NE(generate(base + "1").out, generate(base + "2").out);
}

TEST_F(GenerateVerb, StopTextsEndItAndAreNotShown) {
  const auto r = generate("--prompt 'Once upon a time' --max-tokens 30 --stop never --stop 'was a' --json");
  ASSERT_EQ(r.exit_code, 0) << r.err;
  const auto json = nlohmann::json::parse(r.out);
  EXPECT_EQ(json["text"], ", there ");
  EXPECT_EQ(json["stop_text"], "was a");
  EXPECT_EQ(json["finish_reason"], "stop");
  EXPECT_EQ(generate("--prompt 'Once upon a time' --max-tokens 30 --stop 'was a'").out, "Once upon a time, there \n");
  expect_error(generate("--prompt a --stop ''"), "--stop: a text that ends the generation cannot be empty");
}

TEST_F(GenerateVerb, ARepetitionPenaltyAndMinPChangeWhatIsPicked) {
  const std::string base = "--prompt 'The' --max-tokens 40 ";
  EXPECT_NE(generate(base + "--repetition-penalty 1.5").out, generate(base).out);
  EXPECT_EQ(generate(base + "--temperature 2 --min-p 1").out, generate(base).out)
      << "the likeliest token alone is left";
  EXPECT_NE(generate(base + "--temperature 2").out, generate(base).out);
}

TEST_F(GenerateVerb, APromptCacheSavesThePromptAndChangesNothing) {
  const std::string cache = (dir_ / "prompt.cache").string(), base = "--json --max-tokens 12 --prompt-cache " + cache;
  const auto known = [](const testing::CommandResult& r) {
    return nlohmann::json::parse(r.out)["known_tokens"].get<int>();
  };
  const auto text = [](const testing::CommandResult& r) {
    return nlohmann::json::parse(r.out)["text"].get<std::string>();
  };
  const std::string prompt = " --prompt 'Once upon a time there was a cat. '";
  const auto first = generate(base + prompt);
  ASSERT_EQ(first.exit_code, 0) << first.err;
  EXPECT_EQ(known(first), 0);
  const auto tokens = static_cast<int>(nlohmann::json::parse(first.out)["prompt_tokens"].size());
  const auto written = read_file(cache);
  const auto again = generate(base + prompt);
  EXPECT_EQ(known(again), tokens - 1) << "the last token is computed for its logits";
  EXPECT_EQ(text(again), text(first));
  EXPECT_EQ(read_file(cache), written);
  EXPECT_GT(known(generate(base + " --prompt 'Once upon a time there was a dog.'")), 3);
  EXPECT_NE(read_file(cache), written) << "it holds the last prompt";
  EXPECT_EQ(generate(base + prompt + " --cache-type f32").exit_code, 2) << "computed in another way";
  testing::write_file(dir_ / "prompt.cache", "no cache");
  const auto r = generate(base + prompt);
  EXPECT_EQ(r.exit_code, 2);
  EXPECT_THAT(r.err, StartsWith("crumb: " + cache + ": "));
  EXPECT_EQ(read_file(cache), "no cache");
  const auto nowhere = generate("--prompt Once --prompt-cache " + (dir_ / "prompt.cache" / "a").string());
  EXPECT_EQ(nowhere.exit_code, 2);
  EXPECT_EQ(nowhere.out, "") << "said before anything is computed";
  const auto unnamed = generate("--prompt Once --prompt-cache ''");
  EXPECT_EQ(unnamed.exit_code, 2);
  EXPECT_EQ(unnamed.err, "crumb: --prompt-cache: name a file\n");
}

TEST_F(GenerateVerb, AWeightCacheIsOfTheModelAsItIs) {
  testing::fs::copy(model_, dir_ / "model", testing::fs::copy_options::recursive);
  const Path weights = dir_ / "model" / "model.safetensors";
  const std::string run = "generate " + (dir_ / "model").string() + " --prompt 'The' --max-tokens 8 --weight-cache " +
                          (dir_ / "weights").string();
  const auto first = run_crumb(run);
  ASSERT_EQ(first.exit_code, 0) << first.err;
  const auto cached = read_file(dir_ / "weights");
  const auto again = run_crumb(run);
  EXPECT_EQ(again.out, first.out);
  EXPECT_THAT(again.err, ::testing::Not(HasSubstr("warning")));
  EXPECT_EQ(read_file(dir_ / "weights"), cached);
  testing::write_file(weights, read_file(weights));
  testing::fs::last_write_time(weights, testing::fs::last_write_time(weights) + std::chrono::seconds(1));
  const auto written = run_crumb(run);
  EXPECT_EQ(written.out, first.out);
  EXPECT_THAT(written.err, HasSubstr("weights: weights of another model, of a file that has changed since"));
  EXPECT_NE(read_file(dir_ / "weights"), cached);
  EXPECT_THAT(run_crumb(run).err, ::testing::Not(HasSubstr("warning")));
  const auto own = run_crumb("generate " + (dir_ / "model").string() + " --prompt 'The' --weight-cache " +
                             (dir_ / "model").string());
  EXPECT_EQ(own.exit_code, 2) << "not the model itself";
  const auto inside = run_crumb("generate " + (dir_ / "model").string() + " --prompt 'The' --weight-cache " +
                                (dir_ / "model" / "cache").string());
  EXPECT_THAT(inside.err, HasSubstr("lies in the model's folder"));
  const std::string both = (dir_ / "both").string();
  const auto one = generate("--prompt 'The' --weight-cache " + both + " --prompt-cache " + both);
  EXPECT_EQ(one.exit_code, 2);
  EXPECT_THAT(one.err, HasSubstr("are one file"));
  EXPECT_FALSE(testing::fs::exists(both));
}

TEST_F(GenerateVerb, TellsWhatItTookWhenAsked) {
  const auto r = run_crumb("generate " + model_.string() + " --prompt 'The' --max-tokens 4 --verbose");
  EXPECT_THAT(r.err, ::testing::ContainsRegex(
                         "loaded in [0-9.]+ s; prompt: 2 tokens, 2 of them new, in [0-9.]+ s \\([0-9.]+ tokens/s\\); "
                         "then [0-9.]+ tokens/s\n"));
}

TEST_F(GenerateVerb, SamplesACorpusOfExactlyTheTokensAskedFor) {
  const auto r = sample("a.jsonl", "--corpus 4k --json");
  ASSERT_EQ(r.exit_code, 0) << r.err;
  const auto json = nlohmann::json::parse(r.out);
  const auto documents = texts("a.jsonl");
  EXPECT_EQ(json["tokens"], 4096);
  EXPECT_EQ(json["documents"], documents.size());
  EXPECT_GT(documents.size(), 8u);  // none is longer than the context of 512
  std::string all;
  for (const auto& d : documents) {
    EXPECT_FALSE(d.empty());
    all += d;
  }
  EXPECT_THAT(all, HasSubstr(" the "));
  // 4096 tokens of this vocabulary are two to three bytes each.
  EXPECT_GT(all.size(), 4096u * 3 / 2);
  EXPECT_LT(all.size(), 4096u * 4);
}

TEST_F(GenerateVerb, SamplesTheSameCorpusAgainAndAnotherByAnotherSeed) {
  EXPECT_EQ(sample("a.jsonl", "--corpus 2000 --seed 3").exit_code, 0);
  EXPECT_EQ(sample("b.jsonl", "--corpus 2000 --seed 3").exit_code, 0);
  EXPECT_EQ(sample("c.jsonl", "--corpus 2000 --seed 4").exit_code, 0);
  EXPECT_EQ(read_file(dir_ / "a.jsonl"), read_file(dir_ / "b.jsonl"));
  EXPECT_NE(read_file(dir_ / "a.jsonl"), read_file(dir_ / "c.jsonl"));
}

TEST_F(GenerateVerb, SkipsDocumentsForASampleOfItsOwn) {
  const auto first = sample("a.jsonl", "--corpus 1500 --json");
  ASSERT_EQ(first.exit_code, 0) << first.err;
  ASSERT_EQ(sample("b.jsonl", "--corpus 1500 --skip-documents 2").exit_code, 0);
  const auto a = texts("a.jsonl"), b = texts("b.jsonl");
  ASSERT_GE(a.size(), 4u);
  EXPECT_EQ(b[0], a[2]);
  const auto next = nlohmann::json::parse(first.out)["next_document"].get<int64_t>();
  ASSERT_EQ(sample("c.jsonl", "--corpus 1500 --skip-documents " + std::to_string(next)).exit_code, 0);
  for (const auto& text : texts("c.jsonl")) EXPECT_EQ(std::count(a.begin(), a.end(), text), 0);
}

TEST_F(GenerateVerb, RefusesBadInputInOneLine) {
  const std::string out = (dir_ / "a.jsonl").string();
  expect_error(generate(""), "generate: give --prompt TEXT or --corpus TOKENS");
  expect_error(generate("--corpus 4k"), "--corpus: --out FILE.jsonl must be given");
  expect_error(sample("a.jsonl", "--corpus many"), "--corpus: \"many\" is not a number of tokens, such as 256k");
  expect_error(sample("a.jsonl", "--corpus 0"), "--corpus: \"0\" is not a number of tokens, such as 256k");
  testing::write_file(out, "old");
  expect_error(sample("a.jsonl", "--corpus 10"), out + " exists; give another name, or --force to replace it");
  EXPECT_EQ(read_file(out), "old");
  EXPECT_EQ(sample("a.jsonl", "--corpus 10 --force").exit_code, 0);
  EXPECT_NE(read_file(out), "old");
  std::string prompt;
  for (int i = 0; i < 600; ++i) prompt += "cat ";
  const auto r = generate("--prompt '" + prompt + "'");
  EXPECT_EQ(r.exit_code, 2);
  EXPECT_THAT(r.err, ::testing::MatchesRegex(
                         "crumb: --prompt: [0-9]+ tokens, which leave no room for a new one in the model's 512; "
                         "give a shorter prompt\n"));
  EXPECT_EQ(generate("--prompt a --corpus 4k").exit_code, 2);
  EXPECT_EQ(run_crumb("generate " + (dir_ / "none").string() + " --prompt a").exit_code, 2);
}

TEST_F(GenerateVerb, SaysInOneLineThatThereIsNoGpu) {
  const auto r = generate("--prompt Once --max-tokens 1 --device cuda");
  if (r.exit_code == 0) GTEST_SKIP() << "there is one";
  EXPECT_EQ(r.exit_code, 2);
  EXPECT_THAT(r.err, AllOf(StartsWith("crumb: --device cuda: "),
                           ::testing::AnyOf(HasSubstr("was built without CUDA"), HasSubstr("there is no GPU to use")),
                           ::testing::EndsWith("use --device cpu\n")));
  EXPECT_EQ(std::ranges::count(r.err, '\n'), 1);
  expect_error(generate("--prompt Once --device tpu"), "--device: unknown \"tpu\"; known: cpu, cuda");
  expect_error(generate("--prompt Once --device cuda --activations int8"),
               "--activations int8: --device cuda has kernels for bf16 alone");
}

TEST(Help, ShowsWhatOptionsAreWithoutBeingGiven) {
  const std::string generate = run_crumb("generate --help").out;
  for (const char* option :
       {"--max-tokens NUMBER.128", "--top-p NUMBER.1", "--top-k NUMBER.0", "--seed NUMBER.0", "--min-p NUMBER.0",
        "--repetition-penalty NUMBER.1", "--skip-documents NUMBER.0", "--batch NUMBER.64"})
    EXPECT_THAT(generate, ::testing::ContainsRegex(option));
  EXPECT_THAT(run_crumb("--help").out, ::testing::ContainsRegex("--threads NUMBER.0"));
  const std::string eval = run_crumb("eval --help").out;
  for (const char* text :
       {"one document", "if less", "default: the context", "default: all", "no limit", "made from; "})
    EXPECT_THAT(eval, HasSubstr(text));
  EXPECT_THAT(run_crumb("tokenize --help").out, HasSubstr("a byte order mark before it is no part of it"));
#ifdef CRUMB_WITH_TORCH
  const std::string quantize = run_crumb("quantize --help").out;
  for (const char* option : {"--method TEXT.rtn", "--grid TEXT.seq", "--bits TEXT.2", "--group-size TEXT.0",
                             "--init TEXT.mse", "--exclude TEXT.lm_head, embed_tokens"})
    EXPECT_THAT(quantize, ::testing::ContainsRegex(option));
#endif
}

}  // namespace
}  // namespace crumb
