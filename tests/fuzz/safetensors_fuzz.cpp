// A .safetensors file: open, read every row.
#include "core/formats/safetensors.h"
#include "tests/fuzz/fuzz.h"

namespace crumb::fuzz {

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const testing::TempDir dir;
  const Path path = dir / "model.safetensors";
  testing::write_file(path, std::string(as_text(data, size)));
  survives([&] {
    const formats::SafetensorsReader reader(path);
    CRUMB_ASSERT(reader.total_bytes() <= static_cast<int64_t>(size));
    for (const auto& tensor : reader.tensors()) {
      CRUMB_ASSERT(reader.find(tensor.name) == &tensor);
      CRUMB_ASSERT(static_cast<int64_t>(reader.bytes(tensor).size()) == tensor.bytes);
      survives([&] {
        std::vector<float> values(static_cast<size_t>(tensor.elements()));
        reader.read_rows(tensor, 0, tensor.rows(), values.data());
        reader.release_rows(tensor, 0, tensor.rows());
      });
    }
  });
  return 0;
}

}  // namespace crumb::fuzz
