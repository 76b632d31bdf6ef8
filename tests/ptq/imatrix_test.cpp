// Importance matrices of llama.cpp as what weighs rounding, and as a result.
#include "core/formats/imatrix.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "ptq/quantize.h"
#include "tests/testing/testing.h"

namespace crumb::ptq {
namespace {

using ::testing::HasSubstr;

class Importance : public ::testing::Test {
 protected:
  void SetUp() override { setenv("CRUMB_CACHE", (dir_ / "cache").c_str(), 1); }

  QuantizeJob job(const std::string& output, std::variant<std::string, Path> importance) const {
    QuantizeJob job;
    job.model = testing::data("models/stories260K-hf");
    job.output = dir_ / output;
    job.method = RtnMethod{.importance = std::move(importance)};
    return job;
  }
  QuantizeJob calibrated(const std::string& output) const {
    QuantizeJob job = this->job(output, std::string("activations"));
    job.calibration.text = {testing::data("text/tinystories-valid-sample/tinystories_valid_1911.txt")};
    job.calibration.separator = "<|endoftext|>";
    job.calibration.tokens = 2048;
    job.calibration.sequence_length = 128;
    job.calibration.imatrix = file_;
    return job;
  }
  static QuantizeReport run(const QuantizeJob& job, bool force = false) {
    ThreadPool pool(2);
    return quantize(job, force, pool);
  }
  static std::string error_of(const QuantizeJob& job) {
    return testing::error_of([&] { plan_quantize(job, false); });
  }
  void write(const formats::MeanSquares& squares) const {
    formats::write_imatrix(file_, squares, {{"a.txt"}, 1, 128}, Overwrite::yes);
  }

  testing::TempDir dir_;
  testing::fs::path file_ = dir_ / "imatrix.gguf";
};

TEST_F(Importance, AFileWeighsAsTheActivationsItWasWrittenFrom) {
  CRUMB_NEED_DATA(folder, "models/stories260K-hf");
  CRUMB_NEED_DATA(text, "text/tinystories-valid-sample/tinystories_valid_1911.txt");
  const QuantizeJob measured = calibrated("measured"), read = job("read", file_),
                    plain = job("plain", std::string("none"));
  run(measured);
  const auto squares = formats::read_imatrix(file_);
  EXPECT_EQ(squares.size(), 5 * 7u);
  EXPECT_EQ(squares.at("blk.4.ffn_down.weight").size(), 172u);
  EXPECT_EQ(squares.at("blk.0.attn_q.weight"), squares.at("blk.0.attn_v.weight"));
  run(read);
  run(plain);
  const auto weights = [](const QuantizeJob& job) { return testing::read_file(job.output / "model.safetensors"); };
  EXPECT_TRUE(weights(read) == weights(measured));
  EXPECT_FALSE(weights(read) == weights(plain));
}

TEST_F(Importance, AMatrixOfAnotherModelIsRefusedByName) {
  CRUMB_NEED_DATA(folder, "models/stories260K-hf");
  write({{"blk.0.attn_q.weight", std::vector<float>(64, 1)}});
  EXPECT_THAT(error_of(job("out", file_)),
              ::testing::AllOf(HasSubstr("method.importance: " + file_.string() + ": lacks 34 of 35 linears"),
                               HasSubstr("blk.0.attn_k.weight, ")));
  write({{"blk.0.attn_q.weight", std::vector<float>(32, 1)}});
  EXPECT_THAT(error_of(job("out", file_)), HasSubstr("blk.0.attn_q.weight has 32 inputs there, and 64 in"));
  EXPECT_THAT(error_of(job("out", dir_ / "activation")),
              HasSubstr("does not exist; it is none, activations, or a file of llama.cpp's imatrix"));
  QuantizeJob rotated = job("out", file_);
  rotated.rotation.heads = true;
  EXPECT_THAT(error_of(rotated), HasSubstr("rotation changes what its linears read"));
}

TEST_F(Importance, IsWrittenOnlyWhereItMeansSomethingAndNothingIsLost) {
  CRUMB_NEED_DATA(folder, "models/stories260K-hf");
  CRUMB_NEED_DATA(text, "text/tinystories-valid-sample/tinystories_valid_1911.txt");
  QuantizeJob blind = calibrated("out"), rotated = blind, taken = blind;
  blind.method = RtnMethod{};
  EXPECT_EQ(error_of(blind), "calibration.imatrix: method rtn does not look at what the linears read");
  rotated.rotation.heads = true;
  EXPECT_THAT(error_of(rotated), HasSubstr("calibration.imatrix: rotation changes what the linears read"));
  QuantizeJob inside = calibrated("out"), capped = inside;
  inside.calibration.imatrix = dir_ / "out/imatrix.gguf";
  EXPECT_THAT(error_of(inside), HasSubstr("lies in the output, which appears as a whole"));
  EXPECT_FALSE(testing::fs::exists(dir_ / "out"));
  GptqMethod gptq;
  gptq.gptq.token_cap = 2;
  capped.method = gptq;
  EXPECT_THAT(error_of(capped), HasSubstr("calibration.imatrix: with method.token_cap"));
  testing::write_file(file_, "mine");
  EXPECT_THAT(error_of(taken), HasSubstr(file_.string() + " exists"));
  EXPECT_EQ(testing::read_file(file_), "mine");
}

TEST(TensorErrorNote, BringsWhatTheInputsWereBackBitForBit) {
  const TensorError error{.module = "a", .error = {}, .input_squares = {0.1f, 1e-30f, 3}};
  EXPECT_EQ(from_note(nlohmann::json::parse(to_note(error).dump())).input_squares, error.input_squares);
  EXPECT_FALSE(to_note(TensorError{.module = "a", .error = {}}).contains("input_squares"));
}

}  // namespace
}  // namespace crumb::ptq
