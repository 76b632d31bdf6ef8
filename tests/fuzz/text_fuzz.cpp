// A text file: what it is by its bytes, and its documents.
#include "core/text/text_file.h"
#include "tests/fuzz/fuzz.h"

namespace crumb::fuzz {

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const testing::TempDir dir;
  for (const char* name : {"text.txt", "text.jsonl"}) {
    testing::write_file(dir / name, std::string(as_text(data, size)));
    survives([&] {
      const text::TextFile file(dir / name);
      for (const char* separator : {"", "\n\n\n"}) {
        survives([&] {
          file.for_each_document(separator, [&](std::string_view document) {
            CRUMB_ASSERT(!document.empty() && (file.is_json() || document.size() <= size));
          });
        });
      }
    });
  }
  return 0;
}

}  // namespace crumb::fuzz
