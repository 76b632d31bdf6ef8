#include "eval/documents.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/testing.h"

namespace crumb::eval {
namespace {

using crumb::testing::error_of;
using crumb::testing::TempDir;
using crumb::testing::write_file;
using ::testing::ElementsAre;

TEST(Documents, WithoutASeparatorAFileIsOne) {
  const TempDir dir;
  write_file(dir / "a.txt", "one\n\n\ntwo\n");
  EXPECT_THAT(read_documents(dir / "a.txt", ""), ElementsAre("one\n\n\ntwo\n"));
}

TEST(Documents, AreWhatStandsBetweenSeparators) {
  const TempDir dir;
  write_file(dir / "a.txt", "one\n\x1e\ntwo\n three\n\x1e\n\n\x1e\nfour\n\x1e\n");
  EXPECT_THAT(read_documents(dir / "a.txt", "\n\x1e\n"), ElementsAre("one", "two\n three", "four"));
}

TEST(Documents, OfJsonLinesAreTheirTexts) {
  const TempDir dir;
  write_file(
      dir / "a.jsonl",
      "{\"text\": \"one\\nline\"}\n{\"id\": 3, \"text\": \"\\u00e9\"}\n\n{\"text\": \"\"}\r\n{\"text\": \"last\"}");
  EXPECT_THAT(read_documents(dir / "a.jsonl", "ignored"), ElementsAre("one\nline", "é", "last"));
}

TEST(Documents, FromBadFilesAreRefusedByFileAndLine) {
  const TempDir dir;
  const auto error = [&](const std::string& name, const std::string& text) {
    write_file(dir / name, text);
    std::string message = error_of([&] { read_documents(dir / name, ""); });
    const std::string folder = dir.path().string() + "/";
    return message.substr(message.find(folder) == 0 ? folder.size() : 0);
  };
  EXPECT_EQ(error("empty.txt", ""), "empty.txt: the text is empty");
  EXPECT_EQ(error("empty.jsonl", "{\"text\": \"\"}\n"), "empty.jsonl: the text is empty");
  EXPECT_EQ(error("cut.jsonl", "{\"text\": \"a\"}\n{\"text\": \"b"),
            "cut.jsonl:2: not a JSON object; each line of a .jsonl text is {\"text\": \"...\"}");
  EXPECT_EQ(error("blank.jsonl", "{\"text\": \"a\"}\n\n3\n"),
            "blank.jsonl:3: not a JSON object; each line of a .jsonl text is {\"text\": \"...\"}");
  EXPECT_EQ(error("other.jsonl", "{\"texts\": \"a\"}\n"),
            "other.jsonl:1: no \"text\"; each line of a .jsonl text is {\"text\": \"...\"}");
  EXPECT_EQ(error("chat.jsonl", "{\"messages\": []}\n"),
            "chat.jsonl:1: chat messages cannot be evaluated; give plain documents, {\"text\": \"...\"}");
  EXPECT_EQ(error_of([&] { read_documents(dir / "none.txt", ""); }),
            "cannot read " + (dir / "none.txt").string() + ": No such file or directory");
  EXPECT_EQ(error_of([&] { read_documents(dir.path(), ""); }),
            "cannot read " + dir.path().string() + ": not a regular file");
}

}  // namespace
}  // namespace crumb::eval
