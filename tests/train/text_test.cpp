#include "train/text.h"

#include <gmock/gmock.h>

#include "tests/testing/testing.h"

namespace crumb::train {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> documents_of(const Path& path, const std::string& separator = "\n\n\n") {
  std::vector<std::string> documents;
  for_each_document(path, separator, [&](std::string_view document) { documents.emplace_back(document); });
  return documents;
}

TEST(Text, PlainFilesAreCutAtTheSeparatorAndEmptyPiecesLeftOut) {
  const testing::TempDir dir;
  testing::write_file(dir / "a.txt", "one\n\n\ntwo lines\nof it\n\n\n\n\n\nthree");
  EXPECT_THAT(documents_of(dir / "a.txt"), ElementsAre("one", "two lines\nof it", "three"));
  EXPECT_THAT(documents_of(dir / "a.txt", ""), ElementsAre("one\n\n\ntwo lines\nof it\n\n\n\n\n\nthree"));
}

TEST(Text, JsonLinesGiveTheirTextWhateverTheSeparator) {
  const testing::TempDir dir;
  testing::write_file(dir / "a.jsonl", "{\"text\": \"a\\n\\n\\nb\", \"id\": 1}\n\n{\"text\": \"c\"}\n");
  EXPECT_THAT(documents_of(dir / "a.jsonl"), ElementsAre("a\n\n\nb", "c"));
}

TEST(Text, ChatDataIsRefusedInOneLine) {
  const testing::TempDir dir;
  testing::write_file(dir / "a.jsonl",
                      "{\"text\": \"a\"}\n{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]}\n");
  const std::string error = testing::error_of([&] { documents_of(dir / "a.jsonl"); });
  EXPECT_THAT(error, HasSubstr("a.jsonl:2: chat data"));
  EXPECT_EQ(error.find('\n'), std::string::npos);
}

TEST(Text, LinesThatAreNotDocumentsAreNamedByNumber) {
  const testing::TempDir dir;
  testing::write_file(dir / "a.jsonl", "{\"text\": \"a\"}\nnot json\n");
  EXPECT_THAT(testing::error_of([&] { documents_of(dir / "a.jsonl"); }), HasSubstr("a.jsonl:2: not a JSON object"));
  testing::write_file(dir / "b.jsonl", "{\"txt\": \"a\"}\n");
  EXPECT_THAT(testing::error_of([&] { documents_of(dir / "b.jsonl"); }), HasSubstr("b.jsonl:1: no \"text\""));
}

TEST(Text, AnEmptyTextIsAnError) {
  const testing::TempDir dir;
  testing::write_file(dir / "a.txt", "");
  EXPECT_THAT(testing::error_of([&] { documents_of(dir / "a.txt"); }), HasSubstr("a.txt: the text is empty"));
  testing::write_file(dir / "b.txt", "\n\n\n\n\n\n");
  EXPECT_THAT(testing::error_of([&] { documents_of(dir / "b.txt"); }), HasSubstr("b.txt: the text is empty"));
  EXPECT_THAT(testing::error_of([&] { documents_of(dir / "absent.txt"); }), HasSubstr("absent.txt"));
}

}  // namespace
}  // namespace crumb::train
