// A token file: open, read every token and document. Each input also with the checksum that it should have, for none
// but seeds has it.
#include <cstring>

#include "core/common/hash.h"
#include "core/text/token_runs.h"
#include "tests/fuzz/fuzz.h"

namespace crumb::fuzz {
namespace {

constexpr uint64_t kKey = 1;
constexpr int64_t kVocabulary = 300;
constexpr size_t kHeader = sizeof(text::TokenFileHeader), kSum = kHeader - sizeof(uint64_t);

void reseal(std::string& bytes) {
  if (bytes.size() < kHeader) return;
  const std::string_view all = bytes;
  const uint64_t sum = hash_words(hash_words(0, all.substr(kHeader)), all.substr(0, kSum));
  std::memcpy(bytes.data() + kSum, &sum, sizeof sum);
}

void read_file(const Path& path) {
  const auto file = std::make_shared<const text::TokenFile>(path, kKey, kVocabulary);
  const text::TokenRuns runs(file, {{0, file->num_tokens()}});
  std::vector<int64_t> ids(static_cast<size_t>(runs.size()));
  std::vector<float> supervised(ids.size());
  runs.copy(0, runs.size(), ids.data(), supervised.data());
  for (const int64_t id : ids) CRUMB_ASSERT(id >= 0 && id < kVocabulary);
  CRUMB_ASSERT(static_cast<int64_t>(runs.document_begins(0, runs.size()).size()) == file->num_documents());
  for (int64_t i = 0; i < file->num_documents(); ++i)
    CRUMB_ASSERT(file->document_begin(i) < file->document_end(i) && file->document_end(i) <= file->num_tokens());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const testing::TempDir dir;
  const Path path = dir / "text.tokens2";
  for (const bool is_sealed : {false, true}) {
    std::string bytes(as_text(data, size));
    if (is_sealed) reseal(bytes);
    testing::write_file(path, bytes);
    survives([&] { read_file(path); });
  }
  return 0;
}

}  // namespace crumb::fuzz
