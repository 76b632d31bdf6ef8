#include "quant/grid.h"

#include <gmock/gmock.h>

#include "core/common/rng.h"
#include "quant/codes_folder.h"
#include "quant/linear_formats.h"
#include "quant/scale_search.h"
#include "tests/quant/codes_model.h"
#include "tests/quant/toy_grid.h"
#include "tests/testing/testing.h"

namespace crumb::quant {
namespace {

using ::testing::ElementsAre;
using testing::error_of;
using ::testing::HasSubstr;
using testing::kToyGrid;
using testing::TempDir;

const QuantFormat kToy{.grid = kToyGrid, .bits = 3, .symmetric = true, .group_size = 8};

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

/// The tiny model with every linear in the format.
void write_model(const Path& folder, const QuantFormat& format) {
  const auto base = open_checkpoint(tiny_model("llama"));
  CodesSource source;
  for (const auto& tensor : base->tensors()) {
    if (tensor.desc.role == arch::TensorRole::linear) source.formats[tensor.desc.hf_name] = format;
  }
  source.rows = [&](const arch::TensorDesc& desc, int64_t begin, int64_t end, float* out) {
    base->read_rows(base->tensor(desc.hf_name), begin, end, out);
  };
  source.codes = [&](const arch::TensorDesc& desc, int64_t begin, int64_t end) {
    std::vector<float> rows(static_cast<size_t>((end - begin) * desc.cols()));
    source.rows(desc, begin, end, rows.data());
    return round_to_nearest(rows.data(), end - begin, desc.cols(), format, ScaleInit::mse);
  };
  write_codes_folder(folder, *base, source, {});
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
      const double s = q.scales[group], zero = format.has_zero_points() ? q.zero_points[group] : 0,
                   minimum = format.has_minima ? q.minima[group] : 0;
      EXPECT_EQ(kernels::round_scale(q.scales[group]), q.scales[group]);
      double best = std::numeric_limits<double>::infinity();
      for (const double level : format.levels()) best = std::min(best, std::fabs((level - zero) * s + minimum - w[i]));
      EXPECT_LE(std::fabs(static_cast<double>(values[i]) - w[i]), best + 1e-6 * s) << "weight " << i;
    }
  }
}

TEST_P(EveryGrid, IsFoundByTheNameItIsWrittenWith) {
  const AddedGrid added(kToyGrid);
  const QuantFormat& format = GetParam().format;
  EXPECT_EQ(grid_from_name(format.grid.facts().name, "here"), format.grid);
  EXPECT_EQ(format_obstacle(format), "");
  for (const ScaleInit init : format.grid.facts().inits) check_method(format, init);
}

TEST_P(EveryGrid, TravelsThroughACodesFolder) {
  const AddedGrid added(kToyGrid);
  const QuantFormat& format = GetParam().format;
  const TempDir dir;
  write_model(dir.path(), format);
  const auto base = open_checkpoint(tiny_model("llama")), model = open_checkpoint(dir.path());
  EXPECT_EQ(model->hf_config().at("quantization_config").at("grid"), format.grid.facts().name);
  int quantized = 0;
  for (const auto& tensor : model->tensors()) {
    if (!tensor.format) continue;
    ++quantized;
    EXPECT_EQ(tensor.format, format);
    EXPECT_EQ(tensor.dtype, format.type_name());
    const auto w = read_all(*base, base->tensor(tensor.desc.hf_name));
    const auto expected = round_to_nearest(w.data(), tensor.desc.rows(), tensor.desc.cols(), format, ScaleInit::mse);
    const auto stored = model->read_codes(tensor, 0, tensor.desc.rows());
    EXPECT_EQ(stored.codes, expected.codes);
    EXPECT_EQ(stored.scales, expected.scales);
    EXPECT_EQ(stored.zero_points, expected.zero_points);
    EXPECT_EQ(stored.minima, expected.minima);
    std::vector<float> values(w.size());
    expected.dequantize(values.data());
    EXPECT_EQ(read_all(*model, tensor), values);
  }
  EXPECT_EQ(quantized, 14);
}

INSTANTIATE_TEST_SUITE_P(Grids, EveryGrid,
                         ::testing::Values(GridCase{"seq", {}}, GridCase{"seq_groups", {.group_size = 16}},
                                           GridCase{"int2", {Grid::intn, 2, true, 0}},
                                           GridCase{"int3", {Grid::intn, 3, true, 16}},
                                           GridCase{"int3_asymmetric", {Grid::intn, 3, false, 16}},
                                           GridCase{"int4_float_zero_point", {Grid::intn, 4, false, 16, false, true}},
                                           GridCase{"int2_float_zero_point", {Grid::intn, 2, false, 0, false, true}},
                                           GridCase{"int8", {Grid::intn, 8, true, 0}},
                                           GridCase{"ternary", {Grid::ternary, 2, true, 0}},
                                           GridCase{"ternary_groups", {Grid::ternary, 2, true, 16}},
                                           GridCase{"fp8", {Grid::fp8, 8, true, 0}},
                                           GridCase{"fp8_groups", {Grid::fp8, 8, true, 8}}, GridCase{"toy", kToy}),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(Grid, NamesOfFormats) {
  EXPECT_EQ(QuantFormat{}.type_name(), "seq2");
  EXPECT_EQ(QuantFormat{}.title(), "SEQ");
  const QuantFormat int4{Grid::intn, 4, false, 0};
  EXPECT_EQ(int4.type_name(), "int4");
  EXPECT_EQ(int4.title(), "INT4 asymmetric");
  const QuantFormat with_minima{Grid::intn, 4, false, 0, false, true};
  EXPECT_EQ(with_minima.type_name(), "int4+min");
  EXPECT_EQ(with_minima.title(), "INT4 float zero point");
}

TEST(Grid, SymmetricIntegersHaveOneLevelMoreBelowZero) {
  EXPECT_THAT((QuantFormat{Grid::intn, 2, true, 0}.levels()), ElementsAre(-2, -1, 0, 1));
  EXPECT_THAT((QuantFormat{Grid::intn, 3, true, 0}.levels()), ElementsAre(-4, -3, -2, -1, 0, 1, 2, 3));
}

TEST(Grid, AnUnknownNameIsRefusedWithTheKnownOnes) {
  EXPECT_EQ(error_of([] { grid_from_name("fp4", "config.json"); }),
            "config.json: grid 'fp4' is not known; known ones: seq, int, ternary, fp8");
}

TEST(Grid, FormatsThatDoNotExistAreNamed) {
  EXPECT_EQ(format_obstacle({Grid::seq, 2, false, 0}), "grid seq is symmetric, symmetric: false does not exist");
  EXPECT_EQ(format_obstacle({Grid::seq, 3, true, 0}), "grid seq with 3 bits does not exist");
  EXPECT_EQ(format_obstacle({Grid::intn, 9, true, 0}), "grid int with 9 bits does not exist");
  EXPECT_EQ(format_obstacle({Grid::ternary, 1, true, 0}), "grid ternary with 1 bits does not exist");
  EXPECT_EQ(format_obstacle({Grid::ternary, 2, false, 0}),
            "grid ternary is symmetric, symmetric: false does not exist");
  EXPECT_EQ(format_obstacle({Grid::fp8, 4, true, 0}), "grid fp8 with 4 bits does not exist");
  EXPECT_EQ(format_obstacle({Grid::intn, 4, false, -1}), "group_size is -1");
  EXPECT_EQ(format_obstacle({Grid::seq, 2, false, 0, false, true}),
            "grid seq is symmetric, symmetric: false does not exist");
  EXPECT_EQ(format_obstacle({Grid::intn, 4, false, 0, true, true}),
            "grid int with a float zero point has no level 0 for pruned weights, mask: true does not exist");
}

// --- A grid from outside ---------------------------------------------------------------------------------------------

TEST(AddedGrid, IsKnownWhileItLives) {
  {
    const AddedGrid added(kToyGrid);
    EXPECT_THAT(grid_names(), ElementsAre("seq", "int", "ternary", "fp8", "toy"));
    const LinearFormats linears{.grid = "toy", .bits = 3, .group_size = 8};
    EXPECT_EQ(linears.format(), kToy);
  }
  EXPECT_THAT(grid_names(), ElementsAre("seq", "int", "ternary", "fp8"));
}

TEST(AddedGrid, IsRefusedWhatItDoesNotHaveInTheWordsOfTheOthers) {
  const AddedGrid added(kToyGrid);
  const auto error = [](const LinearFormats& linears, ScaleInit init = ScaleInit::mse) {
    return error_of([&] { linears.check(init); });
  };
  EXPECT_EQ(error({.grid = "toy", .bits = 4}), "method.bits: grid toy has 3 bits, got 4; grid int has 2 to 8");
  EXPECT_EQ(error({.grid = "toy", .bits = 3, .symmetric = false}),
            "method.symmetric: grid toy is symmetric; false is for grid int");
  EXPECT_EQ(error({.grid = "toy", .bits = 3}, ScaleInit::absmean),
            "method.init: absmean is for grid seq, ternary; grid toy knows absmax and mse");
}

TEST(AddedGrid, RoundsWithItsOwnScales) {
  const auto w = gaussian(16 * 64);
  const auto absmax = round_to_nearest(w.data(), 16, 64, kToy, ScaleInit::absmax);
  const auto mse = round_to_nearest(w.data(), 16, 64, kToy, ScaleInit::mse);
  EXPECT_EQ(absmax.scales.size(), 16u * 8u);
  EXPECT_LT(error_of_values(w, mse), error_of_values(w, absmax));
  for (const uint8_t code : mse.codes) EXPECT_LT(code, 5);
}

TEST(AddedGrid, OfAFolderIsUnknownToAProgramWithoutIt) {
  const TempDir dir;
  {
    const AddedGrid added(kToyGrid);
    write_model(dir.path(), kToy);
  }
  EXPECT_THAT(error_of([&] { open_checkpoint(dir.path()); }),
              HasSubstr("grid 'toy' is not known; known ones: seq, int, ternary, fp8"));
}

TEST(Grid, CodesWithoutALevelAreRefused) {
  const AddedGrid added(kToyGrid);
  const struct {
    QuantFormat format;
    std::string words;
  } cases[] = {{kToy, "code 7; grid toy has 5 levels"},
               {{Grid::ternary, 2, true, 0}, "code 3; grid ternary has 3 levels"},
               {{Grid::fp8, 8, true, 0}, "code 255; grid fp8 has 253 levels"}};
  for (const auto& [format, words] : cases) {
    const TempDir dir;
    write_model(dir.path(), format);
    const std::string name = "model.layers.0.mlp.up_proj.weight";
    const Path file = dir / "model.safetensors";
    std::string bytes = testing::read_file(file);
    uint64_t header = 0;
    std::memcpy(&header, bytes.data(), 8);
    const auto info = nlohmann::json::parse(bytes.substr(8, header)).at(name + "_codes");
    bytes[8 + header + info.at("data_offsets")[0].get<size_t>()] = static_cast<char>(0xff);  // every bit of its codes
    testing::write_file(file, bytes);
    const auto model = open_checkpoint(dir.path());
    EXPECT_THAT(error_of([&] { model->read_codes(model->tensor(name), 0, 1); }),
                HasSubstr("tensor " + name + "_codes holds the " + words));
  }
}

}  // namespace
}  // namespace crumb::quant
