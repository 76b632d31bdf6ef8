#include "core/arch/spec_compare.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <variant>

#include "core/common/error.h"

namespace crumb::arch {
namespace {

struct Fact {
  std::string_view field;
  std::variant<int64_t, bool, double, std::string_view> value;
};

std::string_view name_of(QkNorm norm) {
  switch (norm) {
    case QkNorm::none:
      return "none";
    case QkNorm::before_rope:
      return "before the rotation";
    case QkNorm::after_rope:
      return "after the rotation";
  }
  CRUMB_ASSERT(false);
}

/// All but the divisors.
std::vector<Fact> facts_of(const LayerSpec& layer) {
  const auto& gqa = layer.gqa();
  const auto& mlp = layer.mlp();
  return {{"attention.heads", gqa.heads},
          {"attention.kv_heads", gqa.kv_heads},
          {"attention.head_dim", gqa.head_dim},
          {"attention.qkv_bias", gqa.qkv_bias},
          {"attention.output_bias", gqa.output_bias},
          {"attention.qk_norm", name_of(gqa.qk_norm)},
          {"feed_forward.intermediate", mlp.intermediate},
          {"feed_forward.bias", mlp.bias},
          {"window", layer.window},
          {"rope.dim", layer.rope.dim},
          {"rope.base", layer.rope.base},
          {"number of rope.divisors", static_cast<int64_t>(layer.rope.divisors.size())}};
}

/// All but the layers.
std::vector<Fact> facts_of(const DecoderSpec& spec) {
  return {{"architecture", architecture_name(spec.architecture)},
          {"vocab_size", spec.vocab_size},
          {"hidden_size", spec.hidden_size},
          {"context_length", spec.context_length},
          {"rms_norm_eps", spec.rms_norm_eps},
          {"tied_head", spec.tied_head},
          {"number of layers", spec.num_layers()}};
}

std::string text_of(const Fact& fact) {
  return std::visit([](const auto& value) { return fmt::format("{}", value); }, fact.value);
}

bool is_near(double a, double b, double tolerance) { return a == b || std::abs(a / b - 1.0) <= tolerance; }

bool is_same(const Fact& a, const Fact& b, double tolerance) {
  const auto *x = std::get_if<double>(&a.value), *y = std::get_if<double>(&b.value);
  return x != nullptr && y != nullptr ? is_near(*x, *y, tolerance) : a.value == b.value;
}

void compare(const std::vector<Fact>& a, const std::vector<Fact>& b, double tolerance,
             std::vector<SpecDifference>& out) {
  for (size_t i = 0; i < a.size(); ++i) {
    if (!is_same(a[i], b[i], tolerance)) out.push_back({std::string(a[i].field), text_of(a[i]), text_of(b[i])});
  }
}

void compare_divisors(const RopeSpec& a, const RopeSpec& b, double tolerance, std::vector<SpecDifference>& out) {
  for (size_t i = 0; i < std::min(a.divisors.size(), b.divisors.size()); ++i) {
    if (is_near(a.divisors[i], b.divisors[i], tolerance)) continue;
    out.push_back(
        {fmt::format("rope.divisors[{}]", i), fmt::format("{}", a.divisors[i]), fmt::format("{}", b.divisors[i])});
    return;
  }
}

}  // namespace

std::vector<SpecDifference> differences(const LayerSpec& a, const LayerSpec& b, const SpecTolerance& tolerance) {
  std::vector<SpecDifference> out;
  compare(facts_of(a), facts_of(b), tolerance.numbers, out);
  compare_divisors(a.rope, b.rope, tolerance.divisors, out);
  return out;
}

std::vector<SpecDifference> differences(const DecoderSpec& a, const DecoderSpec& b, const SpecTolerance& tolerance) {
  std::vector<SpecDifference> out;
  compare(facts_of(a), facts_of(b), tolerance.numbers, out);
  for (size_t i = 0; i < std::min(a.layers.size(), b.layers.size()); ++i) {
    for (auto& difference : differences(a.layers[i], b.layers[i], tolerance)) {
      difference.field = fmt::format("layer {}: {}", i, difference.field);
      out.push_back(std::move(difference));
    }
  }
  return out;
}

const LayerSpec& common_layer(const DecoderSpec& spec, std::string_view holder,
                              std::initializer_list<std::string_view> may_differ) {
  CRUMB_ASSERT(!spec.layers.empty());
  const LayerSpec& first = spec.layers.front();
  for (size_t i = 1; i < spec.layers.size(); ++i) {
    for (const auto& difference : differences(first, spec.layers[i])) {
      CRUMB_CHECK(std::ranges::count(may_differ, difference.field) > 0,
                  "{} holds one {} for all layers; layer 0 of this model has {}, layer {} has {}", holder,
                  difference.field, difference.first, i, difference.second);
    }
  }
  return first;
}

int64_t common_window(const DecoderSpec& spec, std::string_view holder) {
  const auto has_window = [](const LayerSpec& layer) { return layer.window > 0; };
  const auto first = std::ranges::find_if(spec.layers, has_window);
  if (first == spec.layers.end()) return 0;
  for (auto layer = first; layer != spec.layers.end(); ++layer) {
    CRUMB_CHECK(layer->window == 0 || layer->window == first->window,
                "{} holds one sliding window; layer {} of this model has {}, layer {} has {}", holder,
                first - spec.layers.begin(), first->window, layer - spec.layers.begin(), layer->window);
  }
  return first->window;
}

}  // namespace crumb::arch
