// The entry quantization_config of a codes-and-scales folder, the rest of which is whole: open, read every tensor.
#include <nlohmann/json.hpp>

#include "quant/quantization_config.h"
#include "tests/export/test_models.h"
#include "tests/fuzz/fuzz.h"

namespace crumb::fuzz {
namespace {

/// A model of 2-bit rows, made once.
struct Model {
  testing::TempDir dir;
  Path folder;
  std::string config;

  Model() {
    auto spec = testing::small_spec(arch::Architecture::llama, 32);
    spec.layers.resize(1);
    folder = testing::quantized_model(dir.path(), spec, {quant::Grid::seq, 2, true, 0});
    config = testing::read_file(folder / "config.json");
  }
};

void read_model(const Path& folder) {
  const auto checkpoint = quant::open_checkpoint(folder);
  for (const auto& tensor : checkpoint->tensors()) {
    survives([&] { quant::read_all(*checkpoint, tensor); });
    if (tensor.format) survives([&] { checkpoint->read_codes(tensor, 0, tensor.desc.rows()); });
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Model model;
  std::string config = model.config;  // a text: what the input says is parsed by the reader alone
  const std::string key = "\"quantization_config\":";
  const size_t at = config.find(key);
  CRUMB_ASSERT(at != std::string::npos);
  config.replace(at, key.size(), key + std::string(as_text(data, size)) + ", \"replaced\":");
  testing::write_file(model.folder / "config.json", config);
  survives([&] { read_model(model.folder); });
  return 0;
}

}  // namespace crumb::fuzz
