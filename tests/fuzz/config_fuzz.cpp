// config.json: read as a DecoderSpec; a spec that can be written is the same when read again.
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/arch/hf_config.h"
#include "tests/fuzz/fuzz.h"

namespace crumb::fuzz {
namespace {

/// The divisors of llama3 are computed again from constants that were found in them.
bool is_near(double a, double b) { return std::abs(a / b - 1.0) <= 1e-4; }

bool is_same(const arch::RopeSpec& a, const arch::RopeSpec& b) {
  if (a.dim != b.dim || a.base != b.base || a.divisors.size() != b.divisors.size()) return false;
  for (size_t i = 0; i < a.divisors.size(); ++i) {
    if (!is_near(a.divisors[i], b.divisors[i])) return false;
  }
  return true;
}

bool is_same(const arch::LayerSpec& a, const arch::LayerSpec& b) {
  const auto &x = a.gqa(), &y = b.gqa();
  return x.heads == y.heads && x.kv_heads == y.kv_heads && x.head_dim == y.head_dim && x.qkv_bias == y.qkv_bias &&
         x.output_bias == y.output_bias && x.qk_norm == y.qk_norm && a.mlp().intermediate == b.mlp().intermediate &&
         a.mlp().bias == b.mlp().bias && a.window == b.window && is_same(a.rope, b.rope);
}

bool is_same(const arch::DecoderSpec& a, const arch::DecoderSpec& b) {
  if (a.architecture != b.architecture || a.vocab_size != b.vocab_size || a.hidden_size != b.hidden_size ||
      a.context_length != b.context_length || a.rms_norm_eps != b.rms_norm_eps || a.tied_head != b.tied_head ||
      a.layers.size() != b.layers.size())
    return false;
  for (size_t i = 0; i < a.layers.size(); ++i) {
    if (!is_same(a.layers[i], b.layers[i])) return false;
  }
  return true;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const testing::TempDir dir;
  testing::write_file(dir / "config.json", std::string(as_text(data, size)));
  survives([&] {
    const auto spec = arch::load_hf_spec(dir.path());
    arch::tensor_table(spec);
    const auto written = arch::hf_config_from_spec(spec);
    CRUMB_ASSERT(is_same(arch::spec_from_hf_config(written, "written"), spec));
  });
  return 0;
}

}  // namespace crumb::fuzz
