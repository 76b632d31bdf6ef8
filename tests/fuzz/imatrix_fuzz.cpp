// An importance matrix in either form: every weight that comes out is one.
#include <cmath>

#include "core/formats/imatrix.h"
#include "tests/fuzz/fuzz.h"

namespace crumb::fuzz {

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const testing::TempDir dir;
  const Path path = dir / "imatrix";
  testing::write_file(path, std::string(as_text(data, size)));
  survives([&] {
    for (const auto& [name, squares] : formats::read_imatrix(path)) {
      CRUMB_ASSERT(!squares.empty());
      for (const float square : squares) CRUMB_ASSERT(std::isfinite(square) && square >= 0);
    }
  });
  return 0;
}

}  // namespace crumb::fuzz
