#include "runtime/stop_strings.h"

#include <gtest/gtest.h>

#include "tests/testing/testing.h"

namespace crumb::runtime {
namespace {

/// What is shown of a text that comes in pieces of `size` bytes.
std::string shown(const std::string& text, size_t size, const std::vector<std::string>& stops) {
  StopStrings scanner(stops);
  std::string out;
  for (size_t at = 0; at < text.size(); at += size) out += scanner.push(text.substr(at, size));
  return scanner.found() ? out : out + scanner.finish();
}

std::string found(const std::string& text, size_t size, const std::vector<std::string>& stops) {
  StopStrings scanner(stops);
  for (size_t at = 0; at < text.size(); at += size) scanner.push(text.substr(at, size));
  if (!scanner.found()) scanner.finish();
  return scanner.found().value_or("");
}

TEST(StopStrings, CutTheTextWhereverItsPiecesEnd) {
  const std::string text = "one two END three";
  for (size_t size = 1; size <= text.size(); ++size) {
    EXPECT_EQ(shown(text, size, {"END"}), "one two ") << size;
    EXPECT_EQ(shown(text, size, {"three", "two"}), "one ") << size;
    EXPECT_EQ(shown(text, size, {"two END four", "ee"}), "one two END thr") << size;
    EXPECT_EQ(shown(text, size, {"nothing"}), text) << size;
    EXPECT_EQ(shown(text, size, {"three and more"}), text) << "held back, then the text ended: " << size;
    EXPECT_EQ(shown(text, size, {}), text);
    EXPECT_EQ(shown("aaab", size, {"aab"}), "a") << size;
  }
}

TEST(StopStrings, OneWithinWhatMayBecomeAnotherIsFoundWhereverThePiecesEnd) {
  for (size_t size = 1; size <= 5; ++size) {
    EXPECT_EQ(shown("xabc", size, {"abcd", "bc"}), "xa") << size;
    EXPECT_EQ(found("xabc", size, {"abcd", "bc"}), "bc") << size;
    EXPECT_EQ(shown("xabcx", size, {"abcd", "bc"}), "xa") << size;
    EXPECT_EQ(found("xabcd", size, {"abcd", "bc"}), "abcd") << size;
    for (const std::string text : {"xab", "xabc"}) EXPECT_EQ(found(text, size, {"a", "ab"}), "ab") << size;
    for (const std::string text : {"xa", "xac"}) EXPECT_EQ(found(text, size, {"a", "ab"}), "a") << size;
  }
}

TEST(StopStrings, ShowNoPartOfOneBeforeItIsDecided) {
  StopStrings scanner({"\n\nUser:"});
  EXPECT_EQ(scanner.push("Yes.\n"), "Yes.");
  EXPECT_EQ(scanner.push("\nUse"), "");
  EXPECT_EQ(scanner.push("ful"), "\n\nUseful");
  EXPECT_EQ(scanner.push("\n\nUser"), "");
  EXPECT_EQ(scanner.push(": more"), "");
  EXPECT_EQ(scanner.found(), "\n\nUser:");
  EXPECT_EQ(scanner.push("text behind it"), "");
  EXPECT_EQ(scanner.finish(), "");
}

TEST(StopStrings, AnEmptyOneIsRefused) {
  EXPECT_EQ(testing::error_of([] {
              StopStrings({"a", ""});
            }),
            "--stop: a text that ends the generation cannot be empty");
}

}  // namespace
}  // namespace crumb::runtime
