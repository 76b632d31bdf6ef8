// Specs that no file has: what changes the weights of a model has to be right for all of them.
#pragma once

#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "tests/ptq/random_model.h"

namespace crumb::testing {

struct SpecCase {
  std::string name;
  arch::DecoderSpec spec;
  friend void PrintTo(const SpecCase& one, std::ostream* out) { *out << one.name; }
};

inline arch::DecoderSpec spec_of(arch::Architecture architecture, int64_t hidden, bool is_tied,
                                 std::vector<arch::LayerSpec> layers) {
  arch::DecoderSpec spec;
  spec.architecture = architecture;
  spec.vocab_size = 90;
  spec.hidden_size = hidden;
  spec.context_length = 64;
  spec.tied_head = is_tied;
  spec.layers = std::move(layers);
  return spec;
}

/// Sizes that are no powers of two, every bias, norms in heads, layers that differ.
inline std::vector<SpecCase> spec_cases() {
  const arch::GqaSpec plain{6, 2, 12}, biased{4, 4, 10, true, true},
      wide{8, 1, 18, true, false, arch::QkNorm::before_rope}, after{6, 3, 14, false, true, arch::QkNorm::after_rope};
  const arch::MlpSpec narrow{50, true}, usual{40};
  return {
      {"llama_tied_72",
       spec_of(arch::Architecture::llama, 72, true, {random_layer(plain, usual), random_layer(biased, narrow)})},
      {"llama_untied_72", spec_of(arch::Architecture::llama, 72, false, {random_layer(plain, usual)})},
      {"mistral_28",
       spec_of(arch::Architecture::mistral, 28, false, {random_layer(wide, narrow), random_layer(plain, usual)})},
      {"qwen2_50", spec_of(arch::Architecture::qwen2, 50, true, {random_layer(biased, usual)})},
      {"qwen3_45",
       spec_of(arch::Architecture::qwen3, 45, true, {random_layer(wide, usual), random_layer(after, narrow)})},
      {"hunyuan_36", spec_of(arch::Architecture::hunyuan_v1_dense, 36, true, {random_layer(after, usual)})},
  };
}

}  // namespace crumb::testing
