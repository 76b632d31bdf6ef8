// A text, as plain text and as lines of JSON: training and evaluation see the same documents in it.
#include "eval/documents.h"
#include "tests/fuzz/fuzz.h"
#include "train/text.h"

namespace crumb::fuzz {

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const testing::TempDir dir;
  for (const char* name : {"text.txt", "text.jsonl"}) {
    const Path path = dir / name;
    testing::write_file(path, std::string(as_text(data, size)));
    for (const char* separator : {"", "\n\n\n"}) {
      std::vector<std::string> trained, judged;
      const bool trains = survives([&] {
        train::for_each_document(path, separator, [&](std::string_view document) { trained.emplace_back(document); });
      });
      const bool judges = survives([&] { judged = eval::read_documents(path, separator); });
      CRUMB_ASSERT(trains == judges);
      CRUMB_ASSERT(!trains || trained == judged);
    }
  }
  return 0;
}

}  // namespace crumb::fuzz
