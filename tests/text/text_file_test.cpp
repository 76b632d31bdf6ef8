#include "core/text/text_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ctime>

#include "core/common/hash.h"
#include "tests/testing/testing.h"

namespace crumb::text {
namespace {

using namespace std::string_literals;
using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::error_of;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using testing::TempDir;
using testing::write_file;

class TextFileTest : public ::testing::Test {
 protected:
  std::vector<std::string> documents(const std::string& name, const std::string& text,
                                     const std::string& separator = "\n\n\n") {
    write_file(dir_ / name, text);
    std::vector<std::string> documents;
    TextFile(dir_ / name).for_each_document(separator, [&](std::string_view document) {
      documents.emplace_back(document);
    });
    return documents;
  }
  /// The message, without the folder.
  std::string error(const std::string& name, const std::string& text) {
    return without_folder(error_of([&] { documents(name, text); }));
  }
  std::string warning(const std::string& name, const std::string& text) {
    ::testing::internal::CaptureStderr();
    documents(name, text);
    return without_folder(::testing::internal::GetCapturedStderr());
  }
  std::string without_folder(std::string message) const {
    const std::string folder = dir_.path().string() + "/";
    if (const size_t at = message.find(folder); at != std::string::npos) message.erase(at, folder.size());
    return message;
  }

  TempDir dir_;
};

TEST_F(TextFileTest, PlainTextIsCutAtTheSeparatorAndEmptyPiecesLeftOut) {
  EXPECT_THAT(documents("a.txt", "one\n\n\ntwo lines\nof it\n\n\n\n\n\nthree"),
              ElementsAre("one", "two lines\nof it", "three"));
  EXPECT_THAT(documents("a.txt", "one\n\n\ntwo lines\nof it\n\n\n\n\n\nthree", ""),
              ElementsAre("one\n\n\ntwo lines\nof it\n\n\n\n\n\nthree"));
  EXPECT_THAT(documents("a.txt", "one\n\x1e\ntwo\n three\n\x1e\n\n\x1e\nfour\n\x1e\n", "\n\x1e\n"),
              ElementsAre("one", "two\n three", "four"));
  EXPECT_THAT(documents("a.txt", "one\0three\0"s, "\0"s), ElementsAre("one", "three"));
}

TEST_F(TextFileTest, JsonLinesGiveTheirTextWhateverTheSeparator) {
  EXPECT_THAT(documents("a.jsonl", "{\"text\": \"a\\n\\n\\nb\", \"id\": 1}\n\n{\"text\": \"c\"}\n"),
              ElementsAre("a\n\n\nb", "c"));
  EXPECT_THAT(
      documents(
          "a.jsonl",
          "{\"text\": \"one\\nline\"}\n{\"id\": 3, \"text\": \"\\u00e9\"}\n\n{\"text\": \"\"}\r\n{\"text\": \"last\"}"),
      ElementsAre("one\nline", "é", "last"));
}

TEST_F(TextFileTest, JsonIsKnownByItsBytesAndByEveryUsualEnding) {
  const std::string lines = "{\"text\": \"a\"}\n{\"text\": \"b [}\\\" \"}\n";
  for (const char* name : {"a.jsonl", "a.JSONL", "a.ndjson", "a.json", "a.txt", "a"})
    EXPECT_THAT(documents(name, lines), ElementsAre("a", "b [}\" ")) << name;
  EXPECT_THAT(documents("a.txt", "\xEF\xBB\xBF" + lines), ElementsAre("a", "b [}\" "));
  EXPECT_THAT(documents("a.txt", "\xEF\xBB\xBFone\xEF\xBB\xBF"), ElementsAre("one\xEF\xBB\xBF"));  // one mark only
  for (const char* name : {"b.json", "b.txt"}) {
    EXPECT_THAT(documents(name, "[{\"text\": \"a\"},\n {\"text\": \"b\", \"x\": [[]]}\n]\n"), ElementsAre("a", "b"))
        << name;
    EXPECT_THAT(documents(name, "{\n  \"text\": \"a\"\n}\n{\n  \"text\": \"b\"\n}\n"), ElementsAre("a", "b")) << name;
    EXPECT_THAT(documents(name, "{\"text\": \"a\"} {\"text\": \"b\"}"), ElementsAre("a", "b")) << name;
  }
}

TEST_F(TextFileTest, ProseThatBeginsWithABracketStaysProse) {
  for (const char* prose : {"{not json}", "[1] A footnote.", "{\"text\": a}", "[\"text\"]", "{"})
    EXPECT_THAT(documents("a.txt", prose), ElementsAre(prose));
  EXPECT_THAT(warning("a.txt", "{\"content\": \"a\"}\n"),
              HasSubstr("a.txt: begins with a JSON object that has no \"text\"; it is read as plain text"));
}

TEST_F(TextFileTest, LinesThatAreNoDocumentsAreToldWithPlaceAndReason) {
  EXPECT_THAT(error("a.jsonl", "{\"text\": \"a\"}\nnot json\n"),
              AllOf(StartsWith("a.jsonl:2:2: not valid JSON: "), HasSubstr("invalid literal")));
  EXPECT_THAT(error("a.jsonl", "{\"text\": \"a\"}\n{\"text\": \"b"), StartsWith("a.jsonl:2:12: not valid JSON: "));
  EXPECT_THAT(error("a.jsonl", "{\"text\": \"a\"\n{\"text\": \"b\"}\n"), StartsWith("a.jsonl:1:13: not valid JSON: "));
  EXPECT_THAT(error("a.jsonl", "{\"text\": \"a\"}\n\n{\"text\": \"b\", \"x\": NaN}\n"),
              AllOf(StartsWith("a.jsonl:3:20: not valid JSON: "), HasSubstr("invalid literal; last read: ")));
  EXPECT_THAT(
      error("a.jsonl", "{\"text\": \"\\ud800\"}\n"),
      AllOf(StartsWith("a.jsonl:1:17: not valid JSON: "), HasSubstr("surrogate U+D800..U+DBFF must be followed")));
  EXPECT_THAT(error("a.json", "[{\"text\": \"a\"},\n  {\"text\": \"b\", \"x\": nul}]"),
              AllOf(StartsWith("a.json:2:25: not valid JSON: "), HasSubstr("invalid literal")));
  EXPECT_EQ(error("a.jsonl", "{\"text\": \"a\"}\n\n3\n"),
            "a.jsonl:3: not a JSON object but 3; expected {\"text\": \"...\"}");
  EXPECT_EQ(error("a.jsonl", "{\"texts\": \"a\"}\n"), "a.jsonl:1: no \"text\"; expected {\"text\": \"...\"}");
  EXPECT_EQ(error("a.jsonl", "{\"text\": null}\n"), "a.jsonl:1: no \"text\"; expected {\"text\": \"...\"}");
  EXPECT_EQ(error("a.jsonl", "{\"text\": 3}\n"), "a.jsonl:1: text must be a string, not 3");
  EXPECT_EQ(error("a.json", "[\"a\"]"), "a.json:1: not a JSON object but \"a\"; expected {\"text\": \"...\"}");
  EXPECT_EQ(error("a.json", "[\"one, two\", \"b \\\" ]\"]"),
            "a.json:1: not a JSON object but \"one, two\"; expected {\"text\": \"...\"}");
  EXPECT_EQ(error("a.json", "\"one two\""),
            "a.json:1: not a JSON object but \"one two\"; expected {\"text\": \"...\"}");
  EXPECT_EQ(error("a.json", "[{\"text\": \"a\"}"), "a.json:1:15: not valid JSON: expected ']'");
  EXPECT_EQ(error("a.json", "[{\"text\": \"a\"} {}]"), "a.json:1:16: not valid JSON: expected ','");
  EXPECT_EQ(error("a.json", "[{\"text\": \"a\"}] {}"), "a.json:1:17: text after the end of the list");
  const std::string chat = "{\"text\": \"a\"}\n{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]}\n";
  for (const char* name : {"a.jsonl", "a.txt"})
    EXPECT_THAT(error(name, chat), HasSubstr(":2: a conversation (\"messages\"), where {\"text\": \"...\"} is read"));
}

TEST_F(TextFileTest, DeepJsonIsRefused) {
  EXPECT_EQ(error("a.jsonl", "{\"text\": \"a\"}\n{\"x\": " + std::string(100'000, '[') + "\n"),
            "a.jsonl:2:134: nested deeper than 128 levels");
}

TEST_F(TextFileTest, FilesOfOtherKindsAreRefusedByTheirBytesWhateverTheirName) {
  const auto utf16 = [](const std::string& text, bool little) {
    std::string out;
    for (const char c : text) out += little ? std::string{c, '\0'} : std::string{'\0', c};
    return out;
  };
  const std::string text = "The cat sat on the mat.\n";
  for (const char* name : {"a.txt", "a.jsonl"}) {
    EXPECT_EQ(error(name, "\x1F\x8B\x08\0\0\0\0\0"s), name + ": compressed by gzip; decompress it first"s);
    EXPECT_EQ(error(name, "\x28\xB5\x2F\xFD\x04"), name + ": compressed by zstd; decompress it first"s);
    EXPECT_EQ(error(name, "BZh91AY&SY\x8C\x01"), name + ": compressed by bzip2; decompress it first"s);
    EXPECT_EQ(error(name,
                    "\xFD"
                    "7zXZ\0\0"s),
              name + ": compressed by xz; decompress it first"s);
    EXPECT_EQ(error(name, "PK\x03\x04\x14\0"s), name + ": a zip archive; unpack it first"s);
    EXPECT_EQ(error(name, "PAR1\x15\x04\x15"), name + ": a Parquet file; write its texts as JSON lines"s);
    EXPECT_EQ(error(name, "GGUF\x03\0\0\0"s), name + ": a GGUF model, not a text"s);
    for (const bool little : {true, false}) {
      EXPECT_EQ(error(name, utf16(text, little)), name + ": UTF-16 text; convert it to UTF-8"s);
      EXPECT_EQ(error(name, (little ? "\xFF\xFE" : "\xFE\xFF") + utf16(text, little)),
                name + ": UTF-16 text; convert it to UTF-8"s);
    }
    EXPECT_EQ(error(name, "\xFF\xFE\0\0T\0\0\0"s), name + ": UTF-32 text; convert it to UTF-8"s);
  }
  for (const auto& with_zero : {"x\0y"s, "a\0"s, "\0A"s})
    EXPECT_THAT(documents("a.txt", with_zero), ElementsAre(with_zero));
  for (const char* prose : {"GGUF is a format", "PAR1 means first", "BZhang wrote this", "PK"})
    EXPECT_THAT(documents("a.txt", prose), ElementsAre(prose));
}

TEST_F(TextFileTest, BytesThatAreNotUtf8AreCountedInAWarning) {
  const std::string latin1 = "Die K\xE4tzchen sitzen auf dem Sofa.\nSch\xF6n!\n";
  EXPECT_THAT(
      warning("a.txt", latin1),
      HasSubstr("a.txt:1:6: 2 bytes or sequences that are not UTF-8 (first at byte 5) are read as U+FFFD; if the "
                "text is Latin-1, convert it to UTF-8\n"));
  EXPECT_THAT(warning("a.txt", "Die Kätzchen sitzen.\nSie sch\xF6n nennen sie.\n"),
              AllOf(HasSubstr("a.txt:2:8: a byte that is not UTF-8 (first at byte 29) is read as U+FFFD\n")));
  EXPECT_EQ(warning("a.txt", "Die Kätzchen\n"), "");
  EXPECT_EQ(error("a.txt", "\xCA\xEE\xF2 \xF1\xE8\xE4\xE8\xF2"),
            "a.txt:1:1: not a text in UTF-8: 8 of its 9 bytes cannot be read; convert it to UTF-8");
}

TEST_F(TextFileTest, TheByteOrderMarkOfUtf8IsNoPartOfTheText) {
  EXPECT_THAT(documents("a.txt", "\xEF\xBB\xBFone"), ElementsAre("one"));
  EXPECT_EQ(checked_text("\xEF\xBB\xBFone", "a"), "one");
}

TEST_F(TextFileTest, AnEmptyTextIsAnError) {
  EXPECT_EQ(error("a.txt", ""), "a.txt: the text is empty");
  EXPECT_EQ(error("a.txt", "\n\n\n\n\n\n"), "a.txt: the text is empty");
  EXPECT_EQ(error("a.jsonl", ""), "a.jsonl: the text is empty");
  EXPECT_EQ(error("a.jsonl", "{\"text\": \"\"}\n"), "a.jsonl: the text is empty");
  EXPECT_EQ(error("a.json", "[]"), "a.json: the text is empty");
  EXPECT_EQ(error_of([&] { TextFile(dir_ / "none.txt"); }),
            "cannot read " + (dir_ / "none.txt").string() + ": No such file or directory");
  EXPECT_EQ(error_of([&] { TextFile(dir_.path()); }), "cannot read " + dir_.path().string() + ": not a regular file");
}

/// Kilobytes of mapped files in memory.
int64_t mapped_kilobytes() {
  const std::string status = testing::read_file("/proc/self/status");
  const size_t at = status.find("RssFile:");
  return at == std::string::npos ? -1 : std::stoll(status.substr(at + 8));
}

TEST_F(TextFileTest, ALongTextIsGivenBackBehindTheReader) {
  const int64_t before = mapped_kilobytes();
  if (before < 0) GTEST_SKIP() << "this system does not tell how much of a mapped file is in memory";
  constexpr int kDocuments = 66'000;
  const std::string letters(900, 'x');
  std::string lines, plain;
  for (int i = 0; i < kDocuments; ++i) {
    lines += fmt::format("{{\"text\": \"{} {}\"}}\n", i, letters);
    plain += fmt::format("{} {}\n", i, letters);
  }
  write_file(dir_ / "a.jsonl", lines);
  write_file(dir_ / "a.txt", plain);
  ASSERT_GT(std::min(lines.size(), plain.size()), size_t{56} << 20);
  for (const char* name : {"a.jsonl", "a.txt"}) {
    const TextFile file(dir_ / name);
    const bool is_json = file.is_json();
    int64_t most = mapped_kilobytes();  // with what the judgement of its bytes left
    int next = 0;
    file.for_each_document("\n", [&](std::string_view document) {
      EXPECT_EQ(document, fmt::format("{} {}", next++, letters));
      if (next % 3000 == 0) most = std::max(most, mapped_kilobytes());
    });
    EXPECT_EQ(next, kDocuments);
    const std::string& bytes = is_json ? lines : plain;
    EXPECT_EQ(file.hash(7), hash_bytes(hash_word(7, is_json ? 1 : 0), bytes));
    most = std::max(most, mapped_kilobytes());
    EXPECT_LT(most - before, 40 << 10) << name << ": blocks of 16 MB";
  }
}

TEST_F(TextFileTest, ManyDocumentsTakeLinearTime) {
  const auto seconds = [&](int count, const char* between) {
    std::string text = "[";
    for (int i = 0; i < count; ++i) text += std::string(i == 0 ? "" : between) + "{\"text\": \"a cat\"}";
    text += "]";
    const std::clock_t start = std::clock();  // of the processor: other programs take none of it
    EXPECT_EQ(documents("a.json", text).size(), static_cast<size_t>(count));
    return static_cast<double>(std::clock() - start);
  };
  seconds(1000, ",");
  EXPECT_LT(seconds(50'000, ","), 40 * seconds(5'000, ","));  // 10 times, were it not for noise; 100 times if quadratic
}

}  // namespace
}  // namespace crumb::text
