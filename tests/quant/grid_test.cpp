#include "quant/grid.h"

#include <gmock/gmock.h>

#include "core/common/rng.h"
#include "quant/codes_folder.h"
#include "quant/linear_formats.h"
#include "quant/scale_search.h"
#include "tests/quant/toy_grid.h"
#include "tests/testing/testing.h"

namespace crumb::quant {
namespace {

using ::testing::ElementsAre;
using testing::error_of;
using ::testing::HasSubstr;
using testing::kToyTernary;
using testing::TempDir;

const QuantFormat kToy{.grid = kToyTernary, .bits = 2, .symmetric = true, .group_size = 8};

std::vector<float> gaussian(int64_t n) {
  const Rng rng(21);
  std::vector<float> out(static_cast<size_t>(n));
  for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<float>(0.02 * rng.normal(i));
  return out;
}

/// Sum over the weights of (w - its value)^2.
double error_of_values(const std::vector<float>& w, const QuantizedTensor& q) {
  std::vector<float> values(w.size());
  q.dequantize(values.data());
  double sum = 0;
  for (size_t i = 0; i < w.size(); ++i) sum += std::pow(static_cast<double>(w[i]) - values[i], 2);
  return sum;
}

// --- What every grid keeps -------------------------------------------------------------------------------------------

struct GridCase {
  const char* name;
  QuantFormat format;
};
class EveryGrid : public ::testing::TestWithParam<GridCase> {};

TEST_P(EveryGrid, HasAscendingLevelsThatItsBitsCanNumber) {
  const auto levels = GetParam().format.levels();
  EXPECT_TRUE(std::ranges::is_sorted(levels));
  EXPECT_GT(levels.size(), size_t{1} << (GetParam().format.bits - 1)) << "fewer bits would do";
  EXPECT_LE(levels.size(), size_t{1} << GetParam().format.bits);
}

TEST_P(EveryGrid, GivesTheNearestLevelOfEveryWeight) {
  const QuantFormat& format = GetParam().format;
  const auto w = gaussian(4 * 48);
  for (const ScaleInit init : format.grid.facts().inits) {
    const auto q = round_to_nearest(w.data(), 4, 48, format, init);
    std::vector<float> values(w.size());
    q.dequantize(values.data());
    for (size_t i = 0; i < w.size(); ++i) {
      const size_t group = i / static_cast<size_t>(format.group_cols(48));
      const double s = q.scales[group], zero = format.has_zero_points() ? q.zero_points[group] : 0;
      EXPECT_EQ(kernels::round_scale(q.scales[group]), q.scales[group]);
      double best = std::numeric_limits<double>::infinity();
      for (const double level : format.levels()) best = std::min(best, std::fabs((level - zero) * s - w[i]));
      EXPECT_LE(std::fabs(static_cast<double>(values[i]) - w[i]), best + 1e-6 * s) << "weight " << i;
    }
  }
}

TEST_P(EveryGrid, IsFoundByTheNameItIsWrittenWith) {
  const AddedGrid added(kToyTernary);
  const QuantFormat& format = GetParam().format;
  EXPECT_EQ(grid_from_name(format.grid.facts().name, "here"), format.grid);
  EXPECT_EQ(format_obstacle(format), "");
  for (const ScaleInit init : format.grid.facts().inits) check_method(format, init);
}

INSTANTIATE_TEST_SUITE_P(Grids, EveryGrid,
                         ::testing::Values(GridCase{"seq", {}}, GridCase{"seq_groups", {.group_size = 16}},
                                           GridCase{"int2", {Grid::intn, 2, true, 0}},
                                           GridCase{"int3_asymmetric", {Grid::intn, 3, false, 16}},
                                           GridCase{"int8", {Grid::intn, 8, true, 0}}, GridCase{"toy", kToy}),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(Grid, NamesOfFormats) {
  EXPECT_EQ(QuantFormat{}.type_name(), "seq2");
  EXPECT_EQ(QuantFormat{}.title(), "SEQ");
  const QuantFormat int4{Grid::intn, 4, false, 0};
  EXPECT_EQ(int4.type_name(), "int4");
  EXPECT_EQ(int4.title(), "INT4 asymmetric");
}

TEST(Grid, AnUnknownNameIsRefusedWithTheKnownOnes) {
  EXPECT_EQ(error_of([] { grid_from_name("fp4", "config.json"); }),
            "config.json: grid 'fp4' is not known; known ones: seq, int");
}

TEST(Grid, SeqHasNoZeroPoints) {
  EXPECT_EQ(format_obstacle({Grid::seq, 2, false, 0}), "grid seq is symmetric, symmetric: false does not exist");
  EXPECT_EQ(format_obstacle({Grid::seq, 3, true, 0}), "grid seq with 3 bits does not exist");
  EXPECT_EQ(format_obstacle({Grid::intn, 9, true, 0}), "grid int with 9 bits does not exist");
  EXPECT_EQ(format_obstacle({Grid::intn, 4, false, -1}), "group_size is -1");
}

// --- A grid from outside ---------------------------------------------------------------------------------------------

TEST(AddedGrid, IsKnownWhileItLives) {
  {
    const AddedGrid added(kToyTernary);
    EXPECT_THAT(grid_names(), ElementsAre("seq", "int", "toy_ternary"));
    const LinearFormats linears{.grid = "toy_ternary", .group_size = 8};
    EXPECT_EQ(linears.format(), kToy);
  }
  EXPECT_THAT(grid_names(), ElementsAre("seq", "int"));
}

TEST(AddedGrid, IsRefusedWhatItDoesNotHaveInTheWordsOfTheOthers) {
  const AddedGrid added(kToyTernary);
  const auto error = [](const LinearFormats& linears, ScaleInit init = ScaleInit::mse) {
    return error_of([&] { linears.check(init); });
  };
  EXPECT_EQ(error({.grid = "toy_ternary", .bits = 3}),
            "method.bits: grid toy_ternary has 2 bits, got 3; grid int has 2 to 8");
  EXPECT_EQ(error({.grid = "toy_ternary", .symmetric = false}),
            "method.symmetric: grid toy_ternary is symmetric; false is for grid int");
  EXPECT_EQ(error({.grid = "toy_ternary"}, ScaleInit::absmean),
            "method.init: absmean is for grid seq; grid toy_ternary knows absmax and mse");
}

TEST(AddedGrid, RoundsWithItsOwnScales) {
  const auto w = gaussian(16 * 64);
  const auto absmax = round_to_nearest(w.data(), 16, 64, kToy, ScaleInit::absmax);
  const auto mse = round_to_nearest(w.data(), 16, 64, kToy, ScaleInit::mse);
  EXPECT_EQ(absmax.scales.size(), 16u * 8u);
  EXPECT_LT(error_of_values(w, mse), error_of_values(w, absmax));
  for (const uint8_t code : mse.codes) EXPECT_LT(code, 3);
}

/// A tiny model with every linear on the toy grid.
void write_toy_model(const Path& folder) {
  const auto base = open_checkpoint(testing::source_dir() / "tests" / "runtime" / "goldens" / "llama");
  CodesSource source;
  for (const auto& tensor : base->tensors()) {
    if (tensor.desc.role == arch::TensorRole::linear) source.formats[tensor.desc.hf_name] = kToy;
  }
  source.rows = [&](const arch::TensorDesc& desc, int64_t begin, int64_t end, float* out) {
    base->read_rows(base->tensor(desc.hf_name), begin, end, out);
  };
  source.codes = [&](const arch::TensorDesc& desc, int64_t begin, int64_t end) {
    std::vector<float> rows(static_cast<size_t>((end - begin) * desc.cols()));
    source.rows(desc, begin, end, rows.data());
    return round_to_nearest(rows.data(), end - begin, desc.cols(), kToy, ScaleInit::mse);
  };
  write_codes_folder(folder, *base, source, {});
}

TEST(AddedGrid, TravelsThroughACodesFolder) {
  const AddedGrid added(kToyTernary);
  const TempDir dir;
  write_toy_model(dir.path());
  const auto base = open_checkpoint(testing::source_dir() / "tests" / "runtime" / "goldens" / "llama");
  const auto model = open_checkpoint(dir.path());
  EXPECT_EQ(model->hf_config().at("quantization_config").at("grid"), "toy_ternary");
  int quantized = 0;
  for (const auto& tensor : model->tensors()) {
    if (!tensor.format) continue;
    ++quantized;
    EXPECT_EQ(tensor.format, kToy);
    EXPECT_EQ(tensor.dtype, "toy_ternary2");
    const auto w = read_all(*base, base->tensor(tensor.desc.hf_name));
    const auto expected = round_to_nearest(w.data(), tensor.desc.rows(), tensor.desc.cols(), kToy, ScaleInit::mse);
    const auto stored = model->read_codes(tensor, 0, tensor.desc.rows());
    EXPECT_EQ(stored.codes, expected.codes);
    EXPECT_EQ(stored.scales, expected.scales);
    std::vector<float> values(w.size());
    expected.dequantize(values.data());
    EXPECT_EQ(read_all(*model, tensor), values);
  }
  EXPECT_EQ(quantized, 14);
}

TEST(AddedGrid, OfAFolderIsUnknownToAProgramWithoutIt) {
  const TempDir dir;
  {
    const AddedGrid added(kToyTernary);
    write_toy_model(dir.path());
  }
  EXPECT_THAT(error_of([&] { open_checkpoint(dir.path()); }),
              HasSubstr("grid 'toy_ternary' is not known; known ones: seq, int"));
}

TEST(AddedGrid, CodesWithoutALevelAreRefused) {
  const AddedGrid added(kToyTernary);
  const TempDir dir;
  write_toy_model(dir.path());
  const std::string name = "model.layers.0.mlp.up_proj.weight";
  Path file = dir / "model.safetensors";
  std::string bytes = testing::read_file(file);
  uint64_t header = 0;
  std::memcpy(&header, bytes.data(), 8);
  const auto info = nlohmann::json::parse(bytes.substr(8, header)).at(name + "_codes");
  bytes[8 + header + info.at("data_offsets")[0].get<size_t>()] = static_cast<char>(0xff);  // four times code 3
  testing::write_file(file, bytes);
  const auto model = open_checkpoint(dir.path());
  EXPECT_THAT(error_of([&] { model->read_codes(model->tensor(name), 0, 1); }),
              HasSubstr("tensor " + name + "_codes holds the code 3; grid toy_ternary has 3 levels"));
}

}  // namespace
}  // namespace crumb::quant
