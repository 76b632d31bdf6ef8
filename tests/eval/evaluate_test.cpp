#include "eval/evaluate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/formats/safetensors.h"
#include "eval/report.h"
#include "eval/runtime_scorer.h"
#include "quant/checkpoint.h"
#include "tests/eval/fake_scorer.h"
#include "tests/testing/testing.h"

namespace crumb::eval {
namespace {

using crumb::testing::error_of;
using crumb::testing::TempDir;
using crumb::testing::write_file;
using testing::fake_logits;
using testing::FakeScorer;
using testing::plain_score;
using testing::random_ids;
using testing::score_stream;
using testing::score_window;
using tokenizer::TokenId;

TEST(ScoreStream, CountsATokenForTheTextItBelongsTo) {
  constexpr int64_t kContext = 16;
  text::TokenStream stream;
  stream.ids = random_ids(5 * kContext + 1, 29, 4);
  stream.text_begin = {0, 23, 23, 5 * kContext + 1};  // the second text is empty
  FakeScorer model(29, 1, 0.5), baseline(29, 2, 0.5);
  const auto got = score_stream(model, &baseline, stream, text::plan_windows(stream.size(), kContext, kContext, 0),
                                kContext, serial_for);

  double kl[3] = {0, 0, 0}, nll[3] = {0, 0, 0}, tokens[3] = {0, 0, 0};
  for (int64_t t = 1; t < stream.size(); ++t) {
    const auto begin = stream.ids.begin() + (t - 1) / kContext * kContext;
    const std::vector<TokenId> seen(begin, stream.ids.begin() + t);
    const auto s =
        plain_score(fake_logits(seen, 29, 1, 0.5), fake_logits(seen, 29, 2, 0.5), stream.ids[static_cast<size_t>(t)]);
    for (const int i : {t < 23 ? 0 : 1, 2}) {
      kl[i] += s.kl;
      nll[i] += s.nll;
      ++tokens[i];
    }
  }
  ASSERT_EQ(got.texts.size(), 3u);
  EXPECT_EQ(got.texts[1].tokens, 0);
  const auto expect = [&](const Scores& scores, int i) {
    EXPECT_EQ(scores.tokens, static_cast<int64_t>(tokens[i]));
    EXPECT_NEAR(scores.at("kl").value, kl[i] / tokens[i], 1e-12);
    EXPECT_NEAR(scores.at("perplexity").value, std::exp(nll[i] / tokens[i]), 1e-10);
  };
  expect(got.texts[0], 0);
  expect(got.texts[2], 1);
  expect(got.pooled, 2);
  EXPECT_EQ(got.texts[0].windows, 2);
  EXPECT_EQ(got.pooled.windows, 5);
}

class BrokenScorer : public FakeScorer {
 public:
  BrokenScorer() : FakeScorer(29, 1, 0.5) {}
  void score(std::span<const ScorePiece> pieces, const RowSink& row) override {
    FakeScorer::score(pieces, [&](int64_t request, int64_t position, std::span<const float> logits) {
      std::vector<float> copy(logits.begin(), logits.end());
      if (position == 7) copy[3] = std::nanf("");
      row(request, position, copy);
    });
  }
};

TEST(ScoreStream, StopsAtValuesThatAreNotFinite) {
  text::TokenStream stream;
  stream.ids = random_ids(17, 29, 4);
  stream.text_begin = {0, 17};
  const auto windows = text::plan_windows(17, 16, 16, 0);
  BrokenScorer broken;
  FakeScorer good(29, 1, 0.5);
  EXPECT_EQ(error_of([&] { score_stream(broken, &good, stream, windows, 16, serial_for); }),
            "the model computes values that are not finite (token 8 of the text); its weights are broken");
  EXPECT_EQ(error_of([&] { score_stream(good, &broken, stream, windows, 16, serial_for); }),
            "the baseline computes values that are not finite (token 8 of the text); its weights are broken");
}

TEST(CheckDrops, MeasuresEachLimitInItsOwnUnit) {
  const Scores scores{.measures = {{.name = "perplexity", .drop = 0.12},
                                   {.name = "kl", .drop = 0.03},
                                   {.name = "top1", .drop = 0.2},
                                   {.name = "seconds"}}};
  const auto checks = check_drops({{"kl", 0.05}, {"perplexity", 0.05}, {"seconds", 1}, {"top1", 0.25}}, scores);
  ASSERT_EQ(checks.size(), 3u);
  EXPECT_EQ(checks[0].measure, "kl");
  EXPECT_EQ(checks[0].drop, 0.03);
  EXPECT_FALSE(checks[0].exceeded());
  EXPECT_EQ(checks[1].drop, 0.12);
  EXPECT_TRUE(checks[1].exceeded());
  EXPECT_EQ(checks[2].drop, 0.2);
  EXPECT_FALSE(checks[2].exceeded());
}

TEST(EvalOptions, AreTheSectionEvaluateOfAJob) {
  const auto o = read_config<EvalOptions>(parse_yaml_text(
      "text: [a.txt]\ncontext: 2k\nmax_drop: {perplexity: 5%, kl: 0.05}\nseparator: \"\\n\\x1e\\n\"\nmax_windows: 96\n",
      "job.yaml", "/jobs"));
  EXPECT_EQ(o.texts, std::vector<Path>{"/jobs/a.txt"});
  EXPECT_EQ(o.context.value, 2048);
  EXPECT_TRUE(o.stride.is_auto());
  EXPECT_EQ(o.separator, "\n\x1e\n");
  EXPECT_EQ(o.max_drop.at("perplexity"), 0.05);
  EXPECT_EQ(error_of([] {
              read_config<EvalOptions>(
                  parse_yaml_text("context: 1\nmax_drop: {perplexty: 5%, kl: -1}\n", "job.yaml", "/jobs"));
            }),
            "job.yaml:1:10: context: 1 is out of range, expected at least 2\n"
            "job.yaml:2:23: max_drop.perplexty: unknown value \"perplexty\"; did you mean \"perplexity\"?; known: "
            "perplexity, kl, top1\n"
            "job.yaml:2:31: max_drop.kl: -1 is out of range, expected at least 0");
}

// ---- with real models ----

// The model with every linear weight rounded to a multiple of 1/64, as in golden_ref_llama.py.
void write_rounded_model(const Path& source, const Path& folder) {
  const auto checkpoint = quant::open_checkpoint(source);
  std::filesystem::create_directories(folder);
  for (const char* name : {"config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"}) {
    std::filesystem::copy_file(source / name, folder / name);
  }
  formats::SafetensorsWriter writer;
  for (const auto& t : checkpoint->tensors()) writer.declare(t.desc.hf_name, formats::DType::f32, t.desc.shape);
  writer.begin_file(folder / "model.safetensors");
  for (const auto& t : checkpoint->tensors()) {
    auto values = quant::read_all(*checkpoint, t);
    if (t.desc.role == arch::TensorRole::linear) {
      for (float& v : values) v = std::nearbyint(v * 64.0f) / 64.0f;
    }
    writer.write(values.data(), static_cast<int64_t>(values.size() * sizeof(float)));
  }
  writer.finish();
}

std::vector<Path> corpus_texts(const Path& corpus) {
  return {corpus / "tech-test.txt", corpus / "prose-test.txt", corpus / "verse-test.txt"};
}

TEST(Evaluate, EqualsTransformersOnARealModel) {
  CRUMB_NEED_DATA(model, "models/ref-llama-15m");
  CRUMB_NEED_DATA(corpus, "text/corpus");
  const TempDir dir;
  write_rounded_model(model, dir / "rounded");
  EvalOptions options;
  options.model = dir / "rounded";
  options.baseline = model;
  options.texts = corpus_texts(corpus);
  options.separator = "\n\x1e\n";
  options.context = 256;
  options.max_windows = 8;
  const EvalResult result = evaluate(options);

  const auto golden = nlohmann::json::parse(
      crumb::testing::read_file(crumb::testing::source_dir() / "tests/eval/ref_llama_golden.json"));
  const auto mean = [&](const char* key) { return golden["mean"][key].get<double>(); };
  const auto error = [&](const char* key) { return golden["standard_error"][key].get<double>(); };
  EXPECT_EQ(result.protocol.text_tokens, golden["tokens"].get<int64_t>());
  EXPECT_EQ(result.protocol.windows, 8);
  EXPECT_EQ(result.protocol.scored_tokens, 8 * 256);
  // Both forward passes are float32: logits agree to a few 1e-5.
  const Scores& c = result.pooled;
  EXPECT_NEAR(result.pooled.at("cross_entropy").value, mean("nll"), 1e-5);
  EXPECT_NEAR(std::log(c.at("baseline_perplexity").value), mean("baseline_nll"), 1e-5);
  EXPECT_NEAR(c.at("kl").value, mean("kl"), 1e-5);
  EXPECT_NEAR(c.at("top1").value, mean("top1"), 1.5 / (8 * 256));  // a near tie may turn
  EXPECT_NEAR(*result.pooled.at("cross_entropy").standard_error, error("nll"), 1e-5);
  EXPECT_NEAR(*c.at("kl").standard_error, error("kl"), 1e-6);

  EXPECT_EQ(result.model.linear_dtypes, "F32");
  EXPECT_EQ(result.baseline->linear_dtypes, "BF16");
  EXPECT_EQ(result.baseline->parameters, 14'684'672);
  EXPECT_EQ(result.baseline->bits_per_weight, 16.0);
  EXPECT_EQ(result.baseline->bits_per_weight_without_embeddings, 16.0);
  EXPECT_EQ(result.baseline->file_bytes, static_cast<int64_t>(std::filesystem::file_size(model / "model.safetensors")));
}

// The protocol of the golden perplexities: stories cut in windows of their own, each begun with BOS, the end of a story
// not scored.
TEST(RuntimeScorer, GivesTheGoldenPerplexityOfStories260K) {
  CRUMB_NEED_DATA(path, "models/stories260K-hf");
  CRUMB_NEED_DATA(text, "text/tinystories-valid-sample");
  CRUMB_NEED_DATA(results, "vectors/golden/RESULTS.txt");
  std::string file;
  for (const auto& entry : std::filesystem::directory_iterator(text)) {
    if (entry.path().extension() == ".txt" && entry.path().filename() != "SOURCE.txt")
      file = crumb::testing::read_file(entry.path());
  }
  const auto checkpoint = quant::open_checkpoint(path);
  const auto tokenizer = checkpoint->load_tokenizer();
  RuntimeScorer scorer(runtime::load_decoder(*checkpoint, std::make_shared<ThreadPool>()));
  const size_t inputs = static_cast<size_t>(scorer.context_length()) - 1;
  const std::string separator = "<|endoftext|>";
  size_t at = file.find(separator) + separator.size();
  double nll = 0;
  int64_t tokens = 0;
  for (int story = 0; story < 40; ++story) {
    const size_t end = file.find(separator, at);
    std::string document = file.substr(at, end - at);
    document = document.substr(document.find_first_not_of(" \n"));
    document.resize(document.find_last_not_of(" \n") + 1);
    const auto ids = tokenizer->encode(document, false);
    for (size_t i = 0; i < ids.size(); i += inputs) {
      std::vector<TokenId> window{*tokenizer->special().bos};
      window.insert(window.end(), ids.begin() + static_cast<std::ptrdiff_t>(i),
                    ids.begin() + static_cast<std::ptrdiff_t>(std::min(ids.size(), i + inputs)));
      for (const auto& s : score_window(scorer, nullptr, window, 0, serial_for)) nll += s.nll;
      tokens += static_cast<int64_t>(window.size()) - 1;
    }
    at = end + separator.size();
  }
  EXPECT_EQ(tokens, 15445);
  EXPECT_NEAR(nll / static_cast<double>(tokens), 1.546921,
              2e-6);  // printed to six digits, computed in double precision
}

class EvaluateErrors : public ::testing::Test {
 protected:
  void SetUp() override {
    CRUMB_NEED_DATA(stories, "models/stories260K-hf");
    model_ = stories;
    std::string text;
    for (int i = 0; i < 300; ++i) text += "Once upon a time there was a cat. ";
    write_file(dir_ / "cats.txt", text);
    options_.model = model_;
    options_.texts = {dir_ / "cats.txt"};
    options_.context = 64;
    options_.max_windows = 1;
  }
  std::string error() {
    return error_of([&] { evaluate(options_); });
  }
  TempDir dir_;
  Path model_;
  EvalOptions options_;
};

TEST_F(EvaluateErrors, AreOneClearLineEach) {
  EXPECT_EQ(error(), "");
  EvalOptions good = options_;

  options_.texts.clear();
  EXPECT_EQ(error(), "text: no text to judge by was given");
  options_.texts = {dir_ / "none.txt"};
  EXPECT_EQ(error(), "cannot read " + (dir_ / "none.txt").string() + ": No such file or directory");
  write_file(dir_ / "empty.txt", "");
  options_.texts = {dir_ / "empty.txt"};
  EXPECT_EQ(error(), (dir_ / "empty.txt").string() + ": the text is empty");
  write_file(dir_ / "short.txt", "Once upon a time");
  options_.texts = {dir_ / "short.txt"};
  EXPECT_THAT(error(), ::testing::MatchesRegex(
                           ".*/short.txt: [0-9]+ tokens, shorter than one window \\(64 tokens and one to predict\\); "
                           "give more text or a smaller context"));
  options_.texts = {dir_ / "short.txt", dir_ / "short.txt"};
  EXPECT_THAT(error(), ::testing::StartsWith("the 2 texts together: "));

  options_ = good;
  options_.context = 1024;
  EXPECT_EQ(error(), "context: 1024 is longer than the 512 that " + model_.string() + " was made for");
  options_ = good;
  options_.stride = 65;
  EXPECT_EQ(error(), "stride: 65 is longer than the context (64): tokens between windows would not count");
  options_ = good;
  options_.max_drop = {{"kl", 0.1}};
  EXPECT_EQ(error(), "max_drop: a drop needs a baseline to compare with");
  options_ = good;
  options_.model = dir_ / "none";
  EXPECT_THAT(error(), ::testing::HasSubstr((dir_ / "none").string()));
}

TEST_F(EvaluateErrors, RefuseABaselineOfAnotherVocabulary) {
  CRUMB_NEED_DATA(other, "models/ref-llama-15m");
  options_.baseline = other;
  EXPECT_EQ(error(), model_.string() + " has a vocabulary of 512, the baseline " + other.string() +
                         " one of 4096: their predictions cannot be compared");
}

TEST_F(EvaluateErrors, RefuseABaselineWhoseTokenizerDiffers) {
  const Path copy = dir_ / "copy";
  std::filesystem::copy(model_, copy);
  auto json = nlohmann::json::parse(crumb::testing::read_file(copy / "tokenizer.json"));
  auto& merges = json["model"]["merges"];
  merges.erase(merges.begin(), merges.begin() + 20);
  std::filesystem::remove(copy / "tokenizer.json");
  write_file(copy / "tokenizer.json", json.dump());
  options_.baseline = copy;
  EXPECT_THAT(
      error(),
      ::testing::ContainsRegex(
          "cats.txt: the tokenizers of model and baseline differ: token [0-9]+ is [0-9]+ for the model, [0-9]+ for the "
          "baseline; they cannot be compared"));
}

TEST_F(EvaluateErrors, OfAModelAgainstItselfAreNone) {
  options_.baseline = model_;
  options_.max_drop = {{"kl", 0}, {"perplexity", 0}, {"top1", 0}};
  options_.max_windows = 0;
  options_.stride = 32;
  const EvalResult r = evaluate(options_);
  EXPECT_EQ(r.pooled.at("kl").value, 0);
  EXPECT_EQ(r.pooled.at("perplexity_change").value, 0);
  EXPECT_EQ(r.pooled.at("top1").value, 1);
  EXPECT_FALSE(r.exceeded());
  EXPECT_GT(r.pooled.windows, 10);
  EXPECT_EQ(r.protocol.scored_tokens, 64 + (r.pooled.windows - 1) * 32);
}

// protocols_golden.json: by the loop of GPTQ's authors in float32, and by llama-perplexity, whose products of bfloat16
// weights round activations to bfloat16 (golden_protocols.py).
TEST(Evaluate, EqualsTheProgramsOfItsProtocols) {
  CRUMB_NEED_DATA(model, "models/ref-llama-15m");
  CRUMB_NEED_DATA(text, "text/wikitext-2-raw/wiki.test.raw");
  const auto golden = nlohmann::json::parse(
      crumb::testing::read_file(crumb::testing::source_dir() / "tests/eval/protocols_golden.json"));
  const TempDir dir;
  write_file(dir / "wiki.raw", crumb::testing::read_file(text).substr(0, golden["bytes"].get<size_t>()));
  EvalOptions options;
  options.model = model;
  options.texts = {dir / "wiki.raw"};
  options.context = golden["context"].get<int64_t>();
  options.max_windows = golden["windows"].get<int64_t>();
  options.protocol = protocol_from_name("gptq");
  const EvalResult gptq = evaluate(options);
  EXPECT_EQ(gptq.protocol.text_tokens, golden["gptq"]["tokens"].get<int64_t>());
  EXPECT_EQ(gptq.protocol.scored_tokens, 12 * 127);
  const double expected = golden["gptq"]["perplexity"].get<double>();
  EXPECT_NEAR(gptq.pooled.at("perplexity").value, expected, 2e-6 * expected);
  options.protocol = protocol_from_name("llama.cpp");
  const EvalResult llamacpp = evaluate(options);
  EXPECT_EQ(llamacpp.protocol.scored_tokens, 12 * 63);
  const double stock = golden["llama.cpp"]["perplexity"].get<double>();
  EXPECT_NEAR(llamacpp.pooled.at("perplexity").value, stock, 1e-3 * stock);

  options.stride = 64;
  EXPECT_EQ(error_of([&] { evaluate(options); }),
            "--protocol llama.cpp: --separator, --stride and --bos have no meaning with it");
  EXPECT_EQ(error_of([] { protocol_from_name("gtpq"); }),
            "--protocol: unknown \"gtpq\"; known: windows, gptq, llama.cpp, rolling");
}

// rolling_golden.json: by the rolling log-likelihoods of lm-evaluation-harness in float32 (golden_rolling.py).
TEST(Evaluate, EqualsTheRollingLogLikelihoodsOfLmEvaluationHarness) {
  CRUMB_NEED_DATA(model, "models/ref-llama-15m");
  const auto golden =
      nlohmann::json::parse(crumb::testing::read_file(crumb::testing::source_dir() / "tests/eval/rolling_golden.json"));
  const TempDir dir;
  EvalOptions options;
  options.model = model;
  options.protocol = protocol_from_name("rolling");
  options.context = golden["context"].get<int64_t>();
  std::string all;
  for (const auto& document : golden["documents"]) {
    all += nlohmann::json{{"text", document}}.dump() + "\n";
    const Path one = dir / (std::to_string(options.texts.size()) + ".jsonl");
    write_file(one, nlohmann::json{{"text", document}}.dump() + "\n");
    options.texts.push_back(one);
  }
  // Each document as a text of its own.
  const EvalResult by_text = evaluate(options);
  double nll = 0, tokens = 0;
  for (size_t i = 0; i < by_text.texts.size(); ++i) {
    const Scores& scores = by_text.texts[i].scores;
    const double words = golden["words"][i].get<double>(), sum = -golden["log_likelihoods"][i].get<double>();
    EXPECT_EQ(count_words(golden["documents"][i].get<std::string>()), words);
    EXPECT_EQ(scores.windows, 1) << "a document is one cluster";
    EXPECT_NEAR(scores.at("word_perplexity").value / std::exp(sum / words), 1, 1e-4);
    nll += sum;
    tokens += static_cast<double>(scores.tokens);
  }
  options.texts = {dir / "all.jsonl"};
  write_file(options.texts[0], all);
  const EvalResult result = evaluate(options);
  EXPECT_EQ(result.texts[0].documents, 5);
  EXPECT_NEAR(result.pooled.at("cross_entropy").value, nll / tokens, 1e-5);
  for (const char* name : {"word_perplexity", "byte_perplexity", "bits_per_byte"}) {
    const double expected = golden["results"][name].get<double>();
    EXPECT_NEAR(result.pooled.at(name).value, expected, 1e-4 * expected) << name;
    EXPECT_EQ(by_text.pooled.at(name).value, result.pooled.at(name).value);
    EXPECT_EQ(*by_text.pooled.at(name).standard_error, *result.pooled.at(name).standard_error);
  }
  options.max_windows = 3;
  EXPECT_EQ(error_of([&] { evaluate(options); }),
            "--protocol rolling: --stride, --max-windows and --bos have no meaning with it");
}

TEST(RollingWindows, FollowEachOtherAndTheLastReachesBack) {
  // Prefix and 3 tokens, prefix and 10, prefix and 4.
  const std::vector<RollingDocument> documents{{0, 4, 1, 1}, {4, 15, 1, 1}, {15, 20, 1, 1}};
  const std::vector<text::Window> expected{{0, 0}, {4, 0}, {8, 0}, {10, 2}, {15, 0}};
  EXPECT_EQ(rolling_windows(documents, 4), expected);
  EXPECT_EQ(count_words("one"), 1);
  EXPECT_EQ(count_words(" one  two\xE3\x80\x80three\n"), 5);  // empty parts before and after count, as in Python
}

// With all windows of a text each token but the first is predicted once, so their bytes are those of the text.
TEST(Evaluate, BitsPerByteAreOfTheBytesOfTheText) {
  CRUMB_NEED_DATA(model, "models/stories260K-hf");
  const TempDir dir;
  std::string text;
  while (text.size() < 900) text += "Tom saw a bird. \xC3\xA4\xC3\xB6 ";
  write_file(dir / "a.txt", text);
  EvalOptions options;
  options.model = model;
  options.texts = {dir / "a.txt"};
  options.context = 2;
  options.bos = true;
  const EvalResult result = evaluate(options);
  const double nats = result.pooled.at("cross_entropy").value * static_cast<double>(result.pooled.tokens);
  const double bytes = nats / std::log(2.0) / result.pooled.at("bits_per_byte").value;
  EXPECT_NEAR(bytes, static_cast<double>(text.size()),
              4);  // SentencePiece puts a space first; the last window may lack a token
}

}  // namespace
}  // namespace crumb::eval
