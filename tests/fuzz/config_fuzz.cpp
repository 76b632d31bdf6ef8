// config.json: read as a DecoderSpec; a spec that can be written is the same when read again.
#include <nlohmann/json.hpp>

#include "core/arch/hf_config.h"
#include "core/arch/spec_compare.h"
#include "core/arch/tensor_table.h"
#include "tests/fuzz/fuzz.h"

namespace crumb::fuzz {
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const testing::TempDir dir;
  testing::write_file(dir / "config.json", std::string(as_text(data, size)));
  survives([&] {
    const auto spec = arch::load_hf_spec(dir.path());
    arch::tensor_table(spec);
    const auto written = arch::hf_config_from_spec(spec);
    // The divisors of llama3 are computed again from constants that were found in them.
    CRUMB_ASSERT(differences(arch::spec_from_hf_config(written, "written"), spec, {.divisors = 1e-4}).empty());
  });
  return 0;
}

}  // namespace crumb::fuzz
