// Two specs, or the layers of one, compared fact by fact. A new field of a spec is a line in facts_of() of
// spec_compare.cpp; what reads a file back and what writes one number for all layers then knows it.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "core/arch/decoder_spec.h"

namespace crumb::arch {

struct SpecDifference {
  std::string field;          // "hidden_size", "layer 3: attention.heads"
  std::string first, second;  // the values
};

/// Relative differences that are none.
struct SpecTolerance {
  double numbers = 0, divisors = 0;  // of rms_norm_eps and rope.base; of rope.divisors
};

/// Of the divisors only the first that differs is named.
std::vector<SpecDifference> differences(const LayerSpec& a, const LayerSpec& b, const SpecTolerance& tolerance = {});
std::vector<SpecDifference> differences(const DecoderSpec& a, const DecoderSpec& b,
                                        const SpecTolerance& tolerance = {});

/// The first layer, for files that say its facts once for all layers, but for the fields in `may_differ`. UserError
/// naming the field, the layer and both values where another differs; `holder`: "GGUF", "config.json".
const LayerSpec& common_layer(const DecoderSpec& spec, std::string_view holder,
                              std::initializer_list<std::string_view> may_differ);
/// The window of the layers that have one; 0: none has. UserError when there are two.
int64_t common_window(const DecoderSpec& spec, std::string_view holder);

/// What `value` (const LayerSpec& -> number) gives for each layer, or once where all give the same.
template <class Value>
auto values_of_layers(const DecoderSpec& spec, const Value& value) {
  std::vector<decltype(value(spec.layers.front()))> values;
  bool same = true;
  for (const auto& layer : spec.layers) {
    values.push_back(value(layer));
    same = same && values.back() == values.front();
  }
  if (same) values.erase(values.begin() + 1, values.end());  // a model has layers
  return values;
}

}  // namespace crumb::arch
