// llama-perplexity's file of log-probabilities: its bytes, what is lost by them, files that do not fit, and the program
// itself.
#include "eval/logits_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <regex>

#include "tests/eval/fake_scorer.h"
#include "tests/testing/testing.h"

namespace crumb::eval {
namespace {

using crumb::testing::error_of;
using crumb::testing::read_file;
using crumb::testing::TempDir;
using crumb::testing::write_file;
using testing::fake_logits;
using testing::FakeScorer;
using ::testing::HasSubstr;
using testing::plain_softmax;
using testing::random_ids;
using tokenizer::TokenId;

/// 16 nats in 65535 steps, rounded to the nearest; a little for float arithmetic near 16.
constexpr double kRounding = 16.0 / 65535 / 2 + 2e-6;

std::vector<uint8_t> encoded(const std::vector<float>& logits) {
  std::vector<uint8_t> row(8 + 2 * (logits.size() + logits.size() % 2), 0xEE);
  encode_logits(logits, row);
  return row;
}

TEST(EncodeLogits, HoldsScaleLeastAndCodes) {
  // Largest 4, least 4 - 16 (the 12 below is cut away): codes 65535 * (x + 12) / 16.
  const std::vector<float> logits{4, -12.5, -4, 0, -100};
  const auto row = encoded(logits);
  ASSERT_EQ(row.size(), 8u + 12u);
  float header[2];
  uint16_t codes[6];
  std::memcpy(header, row.data(), 8);
  std::memcpy(codes, row.data() + 8, 12);
  const double log_sum = std::log(1 + std::exp(-16.5) + std::exp(-8.0) + std::exp(-4.0));
  EXPECT_FLOAT_EQ(header[0], 16.0f / 65535);
  EXPECT_FLOAT_EQ(header[1], static_cast<float>(-16 - log_sum));
  EXPECT_THAT(codes, ::testing::ElementsAre(65535, 0, 32768, 49151, 0, 0));  // 32767.5 rounds to even; 49151.25
  const auto flat = encoded({2, 2, 2, 2});
  std::vector<float> back(4);
  decode_logits(flat, back);
  EXPECT_THAT(back, ::testing::Each(::testing::FloatEq(std::log(0.25f))));
}

TEST(EncodeLogits, LosesNoMoreThanItsRounding) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    auto logits = fake_logits({static_cast<TokenId>(seed)}, 501, seed, 4);
    std::vector<float> back(logits.size());
    decode_logits(encoded(logits), back);
    const auto p = plain_softmax(logits);
    const float largest = *std::ranges::max_element(logits);
    for (size_t i = 0; i < logits.size(); ++i) {
      if (logits[i] >= largest - 16) {
        EXPECT_NEAR(back[i], std::log(p[i]), kRounding);
      } else {
        EXPECT_LE(back[i], -16);
      }
    }
  }
}

TEST(LogitsFile, GivesTheScoresOfTheModelThatWroteIt) {
  constexpr int64_t kVocab = 29, kContext = 12, kWindows = 30;
  const TempDir dir;
  text::TokenStream stream;
  stream.ids = random_ids(kContext * kWindows + 5, kVocab, 4);
  stream.text_begin = {0, stream.size()};
  std::vector<text::Window> windows;
  for (int64_t w = 0; w < kWindows; ++w) windows.push_back({w * kContext, kContext / 2});
  const LogitsShape shape{kContext, kVocab, kWindows};
  const auto ids = std::span(stream.ids).first(kContext * kWindows);
  FakeScorer model(kVocab, 1, 0.5), baseline(kVocab, 2, 0.5);
  SavingScorer saver(baseline, dir / "b.logits", Overwrite::no, shape, ids);
  Scorer* const models[] = {&model};
  // Windows of several batches, whose rows come by turns.
  const auto direct = score_stream(models, &saver, stream, windows, kContext - 1, serial_for).at(0);
  saver.commit();

  const LogitsFile file(dir / "b.logits");
  EXPECT_TRUE(std::ranges::equal(file.ids(), ids));
  file.require_ids(ids, "text");
  LogitsFileScorer scorer(file);
  const auto read = score_stream(models, &scorer, stream, windows, kContext - 1, serial_for).at(0);
  // The definition, on what the file holds.
  double kl = 0;
  std::vector<float> row(kVocab);
  for (int64_t w = 0; w < kWindows; ++w) {
    for (int64_t i = 0; i < shape.rows_of_window(); ++i) {
      const auto begin = stream.ids.begin() + w * kContext;
      const std::vector<TokenId> seen(begin, begin + kContext / 2 + 1 + i);
      decode_logits(file.row(w, i), row);
      const auto q = plain_softmax(fake_logits(seen, kVocab, 1, 0.5));
      for (size_t v = 0; v < row.size(); ++v)
        kl += row[v] > -16 ? std::exp(static_cast<double>(row[v])) * (row[v] - std::log(q[v])) : 0;
    }
  }
  const int64_t tokens = kWindows * (kContext - 1 - kContext / 2);
  EXPECT_EQ(read.pooled.tokens, tokens);
  EXPECT_NEAR(read.pooled.at("kl").value, kl / static_cast<double>(tokens), 1e-12);
  EXPECT_NEAR(read.pooled.at("kl").value, direct.pooled.at("kl").value, 2 * kRounding);
  EXPECT_NEAR(std::log(read.pooled.at("baseline_perplexity").value),
              std::log(direct.pooled.at("baseline_perplexity").value), kRounding);
  EXPECT_NEAR(read.pooled.at("delta_p").value, direct.pooled.at("delta_p").value, kRounding);
  EXPECT_EQ(read.pooled.at("top1").value, direct.pooled.at("top1").value);
  EXPECT_EQ(read.pooled.at("perplexity").value, direct.pooled.at("perplexity").value);
  EXPECT_GT(read.pooled.at("kl").value, 0.05);
}

class LogitsOfAText : public ::testing::Test {
 protected:
  void SetUp() override {
    CRUMB_NEED_DATA(stories, "models/stories260K-hf");
    model_ = stories;
    std::string text;
    for (int i = 0; i < 60; ++i) text += "Once upon a time there was a cat. ";
    write_file(dir_ / "cats.txt", text);
    options_.model = model_;
    options_.texts = {dir_ / "cats.txt"};
    options_.protocol = PerplexityProtocol::llamacpp;
    options_.context = 64;
    options_.save_logits = dir_ / "cats.logits";
    saved_ = evaluate(options_);
    options_.context = {};
    options_.save_logits.clear();
    options_.baseline_logits = dir_ / "cats.logits";
    bytes_ = read_file(dir_ / "cats.logits");
  }
  std::string error() {
    return error_of([&] { evaluate(options_); });
  }
  std::string error_of_bytes(const std::string& bytes) {
    write_file(dir_ / "cats.logits", bytes);
    return error();
  }
  TempDir dir_;
  Path model_;
  EvalOptions options_;
  EvalResult saved_;
  std::string bytes_;
};

TEST_F(LogitsOfAText, AreABaseline) {
  const EvalResult read = evaluate(options_);
  EXPECT_EQ(read.protocol.context, 64);
  EXPECT_EQ(read.protocol.windows, saved_.protocol.windows);
  EXPECT_EQ(read.pooled.at("perplexity").value, saved_.pooled.at("perplexity").value);
  EXPECT_NEAR(read.pooled.at("perplexity_change").value, 0, kRounding);
  EXPECT_NEAR(read.pooled.at("kl").value, 0, kRounding);
  EXPECT_EQ(read.pooled.at("top1").value, 1);
  EXPECT_EQ(read.baseline->file_bytes, std::ssize(bytes_));
  options_.max_windows = 2;
  EXPECT_EQ(evaluate(options_).pooled.windows, 2);
}

TEST_F(LogitsOfAText, ThatDoNotFitAreOneLine) {
  const std::string name = (dir_ / "cats.logits").string(), text = (dir_ / "cats.txt").string();
  const EvalOptions good = options_;
  options_.context = 32;
  EXPECT_EQ(error(), "--context: 32, but " + name + " is of windows of 64 tokens");
  options_ = good;
  options_.max_windows = 500;
  EXPECT_THAT(error(), HasSubstr("--max-windows: 500, but " + name + " has "));
  options_ = good;
  options_.protocol = PerplexityProtocol::gptq;
  EXPECT_EQ(error(), "--baseline-logits: the file is of the windows of a text by --protocol llama.cpp; give both");
  options_ = good;
  options_.baseline = model_;
  EXPECT_EQ(error(), "--baseline-logits is in place of --baseline; give one of them");
  options_ = good;
  options_.save_logits = dir_ / "again.logits";
  EXPECT_EQ(error(), "--save-logits: the baseline is such a file already; give --baseline");
  options_ = good;
  const auto other = crumb::testing::data("models/ref-llama-15m");
  if (!other.empty()) {
    options_.model = other;
    EXPECT_EQ(error(), other.string() + " has a vocabulary of 4096, the baseline " + name +
                           " one of 512: their predictions cannot be compared");
    options_ = good;
  }
  std::string dogs = read_file(text);
  dogs.replace(dogs.find("cat", 100), 3, "dog");
  write_file(dir_ / "dogs.txt", dogs);
  options_.texts = {dir_ / "dogs.txt"};
  EXPECT_THAT(error(),
              ::testing::MatchesRegex(name + ": its token [0-9]+ is [0-9]+, that of " + (dir_ / "dogs.txt").string() +
                                      " is [0-9]+: it was made of another "
                                      "text, or with another tokenizer"));
  write_file(dir_ / "short.txt", dogs.substr(0, 1000));
  options_.texts = {dir_ / "short.txt"};
  EXPECT_THAT(error(), HasSubstr(" windows, " + (dir_ / "short.txt").string() + " only "));
  options_ = good;

  for (const size_t size : {size_t{0}, size_t{7}, size_t{19}})
    EXPECT_THAT(error_of_bytes(bytes_.substr(0, size)), HasSubstr("not a file of log-probabilities")) << size;
  for (const size_t size : {size_t{20}, size_t{100}, bytes_.size() / 2, bytes_.size() - 1})
    EXPECT_THAT(error_of_bytes(bytes_.substr(0, size)), ::testing::StartsWith(name + ": truncated: ")) << size;
  EXPECT_THAT(error_of_bytes(bytes_ + "x"), HasSubstr(" bytes, but its header says "));
  std::string broken = bytes_;
  std::memset(broken.data() + 8, 0x7F, 12);  // counts whose products do not fit in 64 bits
  EXPECT_THAT(error_of_bytes(broken), ::testing::StartsWith(name + ": truncated: "));
  std::memset(broken.data() + 8, 0xFF, 12);
  EXPECT_THAT(error_of_bytes(broken), HasSubstr("that cannot be"));
  broken = bytes_;
  broken.replace(broken.size() - 1032, 4, std::string(4, '\0'));  // the scale of the last row
  EXPECT_THAT(
      error_of_bytes(broken),
      ::testing::MatchesRegex(name + ": the probabilities of row 30 of window [0-9]+ add up to [^ ]+: the file is "
                                     "broken"));
}

/// The number after a label in what llama-perplexity prints.
double number_after(const std::string& output, const std::string& label) {
  std::smatch found;
  const bool is_there = std::regex_search(output, found, std::regex(label + R"( *[:=] *(-?[0-9.]+))"));
  EXPECT_TRUE(is_there) << label;
  return is_there ? std::stod(found[1]) : 0;
}

/// The baseline of every row becomes softer: temperature 1.5. Then the KL is far from 0, so that what the two programs
/// differ in (llama-perplexity rounds activations to 8 bits) is small beside it.
std::string softened(const Path& path) {
  const LogitsFile file(path);
  const LogitsShape& shape = file.shape();
  std::string bytes = read_file(path);
  std::vector<float> row(static_cast<size_t>(shape.vocab));
  std::vector<uint8_t> out(static_cast<size_t>(shape.row_bytes()));
  for (int64_t w = 0; w < shape.windows; ++w) {
    for (int64_t i = 0; i < shape.rows_of_window(); ++i) {
      decode_logits(file.row(w, i), row);
      for (float& x : row) x /= 1.5f;
      encode_logits(row, out);
      const int64_t index = w * shape.rows_of_window() + i;
      std::memcpy(bytes.data() + shape.rows_begin() + index * shape.row_bytes(), out.data(), out.size());
    }
  }
  return bytes;
}

/// Of the tokens of a file, by its rows.
double perplexity_in(const Path& path) {
  const LogitsFile file(path);
  const LogitsShape& shape = file.shape();
  const auto ids = file.ids();
  std::vector<float> row(static_cast<size_t>(shape.vocab));
  double nll = 0;
  for (int64_t w = 0; w < shape.windows; ++w) {
    for (int64_t i = 0; i < shape.rows_of_window(); ++i) {
      decode_logits(file.row(w, i), row);
      nll -= row[static_cast<size_t>(ids[static_cast<size_t>(w * shape.context + shape.context / 2 + 1 + i)])];
    }
  }
  return std::exp(nll / static_cast<double>(shape.windows * shape.rows_of_window()));
}

TEST(LogitsFile, IsThatOfLlamaPerplexity) {
  CRUMB_NEED_MODEL(model, "SmolLM2-135M-Instruct.Q4_1.gguf");
  CRUMB_NEED_DATA(text, "text/wikitext-2-raw/wiki.test.raw");
  const Path program = crumb::testing::source_dir() / "build/peers/bin/llama-perplexity";
  if (!crumb::testing::fs::exists(program)) GTEST_SKIP() << "needs " << program << " (scripts/setup.sh --peers)";
  const TempDir dir;
  write_file(dir / "wiki.raw", read_file(text).substr(0, 6000));
  const auto stock = [&](const std::string& options) {
    const auto run =
        crumb::testing::run_command(program.string() + " -m " + model.string() + " -t 2 -c 128 " + options);
    EXPECT_EQ(run.exit_code, 0) << run.err;
    return run.out + run.err;
  };
  EvalOptions options;
  options.model = model;
  options.texts = {dir / "wiki.raw"};
  options.protocol = PerplexityProtocol::llamacpp;
  options.context = 128;
  options.max_windows = 2;

  // What it writes is read here.
  const std::string told = stock("--chunks 2 -f " + (dir / "wiki.raw").string() + " --kl-divergence-base " +
                                 (dir / "stock.logits").string());
  const double perplexity = number_after(told, "Final estimate: PPL");
  EXPECT_NEAR(perplexity_in(dir / "stock.logits"), perplexity, perplexity * kRounding + 5e-5);

  // What is written here is the same file but for the arithmetic of the model, and is read there.
  options.save_logits = dir / "own.logits";
  const double own = evaluate(options).pooled.at("perplexity").value;
  EXPECT_NEAR(perplexity_in(dir / "own.logits"), own, own * kRounding);
  const std::string own_bytes = read_file(dir / "own.logits"), stock_bytes = read_file(dir / "stock.logits");
  ASSERT_EQ(own_bytes.size(), stock_bytes.size());
  EXPECT_EQ(own_bytes.substr(0, 20 + 4 * 256), stock_bytes.substr(0, 20 + 4 * 256));
  write_file(dir / "soft.logits", softened(dir / "own.logits"));
  options.save_logits.clear();
  options.baseline_logits = dir / "soft.logits";
  const EvalResult here = evaluate(options);
  const std::string there = stock("--kl-divergence --kl-divergence-base " + (dir / "soft.logits").string());
  const auto both = [&](const char* name, const std::string& label, double unit, double tolerance) {
    const double value = here.pooled.at(name).value * unit;
    EXPECT_NEAR(number_after(there, label), value, tolerance * std::abs(value)) << label;
  };
  EXPECT_NEAR(number_after(there, "Mean PPL\\(base\\)"), here.pooled.at("baseline_perplexity").value,
              1e-4);  // no model
  both("perplexity", "Mean PPL\\(Q\\)", 1, 0.01);
  both("kl", "Mean +KLD", 1, 0.02);
  both("kl_p50", "Median +KLD", 1, 0.05);
  both("kl_p90", "90.0% +KLD", 1, 0.05);
  both("kl_p99", "99.0% +KLD", 1, 0.05);
  both("kl_max", "Maximum KLD", 1, 0.05);
  both("delta_p", "Mean +Δp", 100, 0.02);
  both("delta_p_rms", "RMS Δp", 100, 0.02);
  both("top1", "Same top p", 100, 0.08);  // 8 bits turn near ties
  EXPECT_GT(here.pooled.at("kl").value, 0.1);
}

}  // namespace
}  // namespace crumb::eval
