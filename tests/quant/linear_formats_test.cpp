#include "quant/linear_formats.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/testing.h"

namespace crumb::quant {
namespace {

using testing::error_of;
using ::testing::HasSubstr;

TEST(MatchesAny, BareWordsMatchOneWholeComponent) {
  const std::string name = "model.layers.10.mlp.down_proj";
  EXPECT_TRUE(matches_any(name, {"down_proj"}));
  EXPECT_TRUE(matches_any(name, {"nothing", "10"}));
  EXPECT_FALSE(matches_any(name, {"down"}));
  EXPECT_FALSE(matches_any(name, {"1"}));
  EXPECT_FALSE(matches_any(name, {}));
  EXPECT_FALSE(matches_any(name, {""}));
}

TEST(MatchesAny, GlobsCoverTheFullName) {
  const std::string name = "model.layers.10.mlp.down_proj";
  EXPECT_TRUE(matches_any(name, {"*down_proj"}));
  EXPECT_TRUE(matches_any(name, {"model.layers.1?.*"}));
  EXPECT_TRUE(matches_any(name, {"model.layers.10.mlp.down_proj"}));
  EXPECT_TRUE(matches_any(name, {"*.10.*_proj*"}));
  EXPECT_FALSE(matches_any(name, {"layers.10.*"})) << "a pattern with a dot is not a part of a name";
  EXPECT_FALSE(matches_any(name, {"model.layers.?.*"}));
  EXPECT_FALSE(matches_any(name, {"*up_proj"}));
}

TEST(LinearFormats, OfTheDefaults) { EXPECT_EQ(LinearFormats{}.format(), QuantFormat{}); }

TEST(LinearFormats, CombinationsThatDoNotExistAreNamed) {
  const auto error = [](const LinearFormats& linears, ScaleInit init = ScaleInit::mse) {
    return error_of([&] { linears.check(init); });
  };
  EXPECT_EQ(error({}), "");
  EXPECT_EQ(error({.grid = "seq", .bits = 4}), "method.bits: grid seq has 2 bits, got 4; grid int has 2 to 8");
  EXPECT_EQ(error({.symmetric = false}), "method.symmetric: grid seq is symmetric; false is for grid int");
  EXPECT_EQ(error({.grid = "int", .bits = 4}, ScaleInit::absmean),
            "method.init: absmean is for grid seq, ternary; grid int knows absmax and mse");
  EXPECT_EQ(error({.overrides = {{"*.down_proj", {.bits = 4}}}}),
            "method.overrides.*.down_proj.bits: grid seq has 2 bits, got 4; grid int has 2 to 8")
      << "what an override leaves out is as for the others";
  EXPECT_EQ(error({.overrides = {{"down_proj", {.grid = "int"}}}}, ScaleInit::absmean),
            "method.init: absmean is for grid seq, ternary; grid int knows absmax and mse");
}

TEST(LinearFormats, ZeroPointsGoWithSymmetry) {
  const auto error = [](const LinearFormats& linears) { return error_of([&] { linears.check(ScaleInit::mse); }); };
  const auto linears = [](bool symmetric, const char* zero_point) {
    return LinearFormats{.grid = "int", .bits = 4, .symmetric = symmetric, .zero_point = zero_point};
  };
  const QuantFormat none{Grid::intn, 4, true, 0}, integers{Grid::intn, 4, false, 0},
      floats{Grid::intn, 4, false, 0, false, true};
  EXPECT_EQ(linears(true, "none").format(), none);
  EXPECT_EQ(linears(false, "integer").format(), integers);
  EXPECT_EQ(linears(false, "float").format(), floats);
  EXPECT_EQ(error(linears(true, "float")),
            "method.zero_point: float needs symmetric: false, and method.symmetric is true");
  EXPECT_EQ(error(linears(false, "none")),
            "method.zero_point: none needs symmetric: true, and method.symmetric is false");
  EXPECT_EQ(error({.grid = "seq", .symmetric = false, .zero_point = "float"}),
            "method.symmetric: grid seq is symmetric; false is for grid int");
  // In an override one follows the other.
  const auto changed = [&](const LinearFormats& usual, const FormatOverride& changes) {
    return usual.format(changes, "method.overrides.x");
  };
  EXPECT_EQ(changed(linears(true, "none"), {.zero_point = "float"}), floats);
  EXPECT_EQ(changed(linears(false, "float"), {.symmetric = true}), none);
  EXPECT_EQ(changed(linears(false, "float"), {.symmetric = false}), floats);
  EXPECT_EQ(changed(linears(false, "float"), {.zero_point = "none"}), none);
  EXPECT_EQ(changed(linears(false, "float"), {.zero_point = "integer"}), integers);
  EXPECT_EQ(changed(linears(false, "float"), {}), floats);
  LinearFormats contradiction = linears(true, "none");
  contradiction.overrides = {{"x", {.symmetric = true, .zero_point = "integer"}}};
  EXPECT_EQ(error(contradiction),
            "method.overrides.x.zero_point: integer needs symmetric: false, and method.overrides.x.symmetric is true");
}

TEST(LinearFormats, GroupSizeThatDoesNotDivideNamesTheLinear) {
  check_group_size(0, 172, "a");
  check_group_size(43, 172, "a");
  EXPECT_EQ(error_of([] { check_group_size(100, 172, "model.layers.0.mlp.down_proj"); }),
            "method.group_size: 100 does not divide 172, the input size of model.layers.0.mlp.down_proj");
}

TEST(LinearFormats, TheLastOverrideThatMatchesHolds) {
  const LinearFormats linears{
      .exclude = {"k_proj"},
      .overrides = {
          {"*.mlp.*", {.grid = "int", .bits = 4}}, {"down_proj", {.group_size = 64}}, {"*.k_proj", {.group_size = 8}}}};
  const QuantFormat usual, int4{.grid = Grid::intn, .bits = 4}, grouped{.group_size = 64};
  EXPECT_EQ(linears.format_of("model.layers.0.self_attn.q_proj"), usual);
  EXPECT_EQ(linears.format_of("model.layers.0.mlp.up_proj"), int4);
  EXPECT_EQ(linears.format_of("model.layers.0.mlp.down_proj"), grouped) << "overrides do not add up";
  EXPECT_EQ(linears.format_of("model.layers.0.self_attn.k_proj"), std::nullopt) << "exclude goes before overrides";
}

/// Two layers of width 64, with 96 in the middle.
arch::DecoderSpec small_spec() {
  arch::DecoderSpec spec;
  spec.vocab_size = 10;
  spec.hidden_size = 64;
  spec.context_length = 16;
  arch::LayerSpec layer;
  layer.attention = arch::GqaSpec{.heads = 2, .kv_heads = 1, .head_dim = 32};
  layer.feed_forward = arch::MlpSpec{.intermediate = 96};
  layer.rope = {.dim = 32, .base = 10000.0, .divisors = std::vector<double>(16, 1.0)};
  spec.layers = {layer, layer};
  return spec;
}

TEST(LinearFormats, OfAModelAreThoseOfItsLinears) {
  const auto spec = small_spec();
  const LinearFormats linears{.exclude = {"model.layers.1.*"}, .overrides = {{"down_proj", {.group_size = 48}}}};
  const auto formats = linears.formats_of(spec);
  EXPECT_EQ(formats.size(), 7u) << "neither embedding nor head nor norms, nor the second layer";
  EXPECT_EQ(formats.at("model.layers.0.mlp.down_proj.weight").group_size, 48);
  EXPECT_EQ(formats.at("model.layers.0.mlp.up_proj.weight").group_size, 0);
}

TEST(LinearFormats, AGroupSizeOfAnOverrideThatDoesNotDivideNamesIt) {
  EXPECT_EQ(error_of([] {
              LinearFormats{.overrides = {{"down_proj", {.group_size = 64}}}}.formats_of(small_spec());
            }),
            "method.overrides.down_proj.group_size: 64 does not divide 96, the input size of "
            "model.layers.0.mlp.down_proj");
}

TEST(LinearFormats, PatternsThatMatchNothingAreToldOf) {
  const auto warnings = [](const LinearFormats& linears) {
    ::testing::internal::CaptureStderr();
    linears.warn_unmatched(small_spec());
    return ::testing::internal::GetCapturedStderr();
  };
  EXPECT_EQ(warnings({.overrides = {{"*.down_proj", {.group_size = 32}}}}), "") << "the usual excludes may match none";
  EXPECT_THAT(warnings({.exclude = {"down_prj"}}),
              HasSubstr("method.exclude: \"down_prj\" matches no tensor of the model"));
  EXPECT_THAT(warnings({.overrides = {{"*.down_prj", {.group_size = 32}}}}),
              HasSubstr("method.overrides: \"*.down_prj\" matches no linear that is quantized"));
  EXPECT_THAT(warnings({.exclude = {"*.mlp.*"}, .overrides = {{"up_proj", {.group_size = 32}}}}),
              HasSubstr("method.overrides: \"up_proj\" matches no linear that is quantized"));
}

}  // namespace
}  // namespace crumb::quant
