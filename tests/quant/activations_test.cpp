#include "quant/activations.h"

#include <gmock/gmock.h>

#include "core/common/rng.h"
#include "tests/quant/codes_model.h"
#include "tests/testing/testing.h"

namespace crumb::quant {
namespace {

using ::testing::ElementsAre;
using testing::error_of;

const ActivationFormat kInt8{Grid::intn, 8}, kFp8{Grid::fp8, 8};

std::vector<float> rounded(const ActivationFormat& format, std::vector<float> x) {
  ActivationRounder(format).round(x.data(), 1, std::ssize(x), x.data());
  return x;
}

TEST(Activations, AreTheNearestLevelsOfTheLargestEntry) {
  // scale 1, ties to even
  EXPECT_THAT(rounded(kInt8, {-127, 3.4f, 0.5f, 1.5f, -2.6f}), ElementsAre(-127, 3, 0, 2, -3));
  EXPECT_THAT(rounded({Grid::intn, 4}, {3.5f, 0.2f, 0.3f, -3.5f}), ElementsAre(3.5f, 0, 0.5f, -3.5f));
  // E4M3: steps of 2 from 16 on, of 2^-9 below 2^-6; scale 1
  EXPECT_THAT(rounded(kFp8, {448, 17, 19, -17.5f, 0.001f, -0.0009f}), ElementsAre(448, 16, 20, -18, 0x1p-9f, 0));
  EXPECT_THAT(rounded(kInt8, {0, 0, 0}), ElementsAre(0, 0, 0));
}

// The scale is no number of 6 bits, as stored ones are: the largest entry stays what it is.
TEST(Activations, KeepTheirLargestEntry) {
  const float largest = 1.2345678f;
  for (const auto& format : {kInt8, kFp8}) {
    const auto out = rounded(format, {0.1f, -largest, 0.7f});
    EXPECT_FLOAT_EQ(out[1], -largest);
    EXPECT_NEAR(out[2], 0.7f, format == kInt8 ? largest / 254 : 0.7f / 16);
  }
}

// A model that overflows must not look sound.
TEST(Activations, ThatAreNotFiniteMakeTheirTokenNaN) {
  for (const Grid grid : {Grid::intn, Grid::fp8}) {
    for (const float value : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
      const std::vector<float> x = {1.0f, value, -2.0f, 1.0f, 0.5f, -2.0f};
      std::vector<float> out(x.size());
      ActivationRounder({grid, 8}).round(x.data(), 2, 3, out.data());
      for (int i = 0; i < 3; ++i) EXPECT_TRUE(std::isnan(out[static_cast<size_t>(i)]));
      for (int i = 3; i < 6; ++i) EXPECT_TRUE(std::isfinite(out[static_cast<size_t>(i)]));
    }
  }
}

TEST(Activations, OfATokenDoNotDependOnTheOthers) {
  constexpr int64_t kTokens = 5, kCols = 37;
  std::vector<float> x;
  for (int64_t i = 0; i < kTokens * kCols; ++i)
    x.push_back(static_cast<float>(Rng(1).normal(static_cast<uint64_t>(i)) * (i < kCols ? 1000 : 1)));
  for (const auto& format : {kInt8, kFp8}) {
    const ActivationRounder rounder(format);
    std::vector<float> together(x.size()), alone(x.size());
    rounder.round(x.data(), kTokens, kCols, together.data());
    for (int64_t token = 0; token < kTokens; ++token)
      rounder.round(x.data() + token * kCols, 1, kCols, alone.data() + token * kCols);
    EXPECT_EQ(together, alone);
  }
}

/// A finished folder of CodesModel.
void write_folder(const Path& path, const std::optional<ActivationFormat>& activations) {
  const CodesModel model;
  std::filesystem::create_directories(path);
  CodesFolder folder(path, *model.base, model.source().formats, {}, "", Masters::left_out, activations);
  model.write(folder);
}

TEST(Activations, AreWhatTheFolderSays) {
  const testing::TempDir dir;
  write_folder(dir / "int", kInt8);
  write_folder(dir / "fp8", kFp8);
  write_folder(dir / "none", std::nullopt);
  EXPECT_EQ(activations_of(*open_checkpoint(dir / "int")), kInt8);
  EXPECT_EQ(activations_of(*open_checkpoint(dir / "fp8")), kFp8);
  EXPECT_EQ(activations_of(*open_checkpoint(dir / "none")), std::nullopt);
  EXPECT_EQ(activations_of(*open_checkpoint(tiny_model("llama"))), std::nullopt);
  const auto said = open_checkpoint(dir / "fp8")->hf_config()["quantization_config"];
  EXPECT_EQ(said["activations"], (nlohmann::json{{"grid", "fp8"}, {"bits", 8}, {"per", "token"}}));
  EXPECT_EQ(said["version"], 2);  // which programs that would leave them out refuse
  EXPECT_EQ(open_checkpoint(dir / "none")->hf_config()["quantization_config"]["version"], 1);
}

TEST(Activations, ThatAreNotKnownAreRefusedWhenTheFolderIsOpened) {
  const testing::TempDir dir;
  write_folder(dir / "out", kInt8);
  const auto config = nlohmann::json::parse(testing::read_file(dir / "out/config.json"));
  const auto error = [&](const nlohmann::json& activations, int version = 2) {
    auto changed = config;
    changed["quantization_config"]["activations"] = activations;
    changed["quantization_config"]["version"] = version;
    testing::write_file(dir / "out/config.json", changed.dump());
    return error_of([&] { open_checkpoint(dir / "out"); });
  };
  const nlohmann::json good = config["quantization_config"]["activations"];
  const auto with = [&](const char* key, const nlohmann::json& value) {
    auto out = good;
    out[key] = value;
    return out;
  };
  const std::string where = (dir / "out/config.json").string() + ": quantization_config";
  EXPECT_EQ(error(with("per", "tensor")), where + ": activations: per is tensor; this program knows token");
  EXPECT_EQ(error(with("grid", "seq")), where + ": activations: grid is seq; activations are int or fp8");
  EXPECT_EQ(error(with("bits", 3)), where + ": activations: int has no 3 bits");
  EXPECT_EQ(error(with("static", true)), where + ": activations: unknown key static; known: bits, grid, per");
  EXPECT_EQ(error(good, 1), where + ": version 1 has no rounded activations, and the entry activations says otherwise");
  EXPECT_EQ(error("none"), where + ": version 2 has rounded activations, and the entry activations says otherwise");
  EXPECT_EQ(error(good, 3),
            (dir / "out/config.json").string() + ": quantization_config has version 3; this program reads 1 and 2");
  EXPECT_THAT(error("int8"), ::testing::HasSubstr("activations"));
  EXPECT_EQ(error(good), "");
}

}  // namespace
}  // namespace crumb::quant
