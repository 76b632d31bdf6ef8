#include <gtest/gtest.h>
#include <regex.h>

#include "core/common/error.h"
#include "core/tokenizer/byte_alphabet.h"
#include "core/tokenizer/normalizer.h"
#include "core/tokenizer/unicode.h"
#include "tests/testing/testing.h"
#include "tests/tokenizer/samples.h"

namespace crumb::tokenizer {
namespace {

std::string normalized(NormalizerStep::Kind kind, std::string_view text) {
  std::string storage;
  return std::string(Normalizer{{{kind, "", "", {}}}}.apply(text, storage));
}

std::string repaired(std::string_view text) {
  std::string storage;
  return std::string(valid_utf8(text, storage));
}

TEST(Utf8, EveryCodePointIsDecodedAsItWasWritten) {
  for (uint32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xd800 && c < 0xe000) continue;
    std::string text;
    append_utf8(c, text);
    ASSERT_EQ(decode_utf8(text.data()).value, c);
    ASSERT_EQ(decode_utf8(text.data()).size, text.size());
    ASSERT_EQ(utf8_size(text[0]), text.size());
    ASSERT_EQ(next_utf8(text).state, Utf8Sequence::State::valid);
  }
}

TEST(Utf8, IllFormedPartsBecomeOneReplacementEach) {
  // The examples of The Unicode Standard, chapter 3, tables 3-8 to 3-11: maximal subparts.
  const std::string r = "\xef\xbf\xbd";
  EXPECT_EQ(repaired("\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41"), r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(repaired("\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41"), r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(repaired("\xf4\x91\x92\x93\xff\x41\x80\xbf\x42"), r + r + r + r + r + "A" + r + r + "B");
  EXPECT_EQ(repaired("\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41"), r + r + r + r + "A");
  EXPECT_EQ(repaired("abc\xe2\x82"), "abc" + r);
}

TEST(Utf8, ValidTextIsNotCopied) {
  const std::string text = "na\u00efve \U0001f600";
  std::string storage;
  EXPECT_EQ(valid_utf8(text, storage).data(), text.data());
}

TEST(ByteAlphabet, SpellsEveryByteWithOneCharacterAndBack) {
  std::set<std::string> chars;
  for (int byte = 0; byte < 256; ++byte) {
    const std::string spelled(char_of_byte(static_cast<uint8_t>(byte)));
    chars.insert(spelled);
    EXPECT_EQ(byte_of_char(decode_utf8(spelled.data()).value), byte);
  }
  EXPECT_EQ(chars.size(), 256U);
  EXPECT_EQ(char_of_byte(' '), "\u0120");
  EXPECT_EQ(char_of_byte('\n'), "\u010a");
  EXPECT_EQ(bytes_of_piece("\u0120the"), " the");
  EXPECT_EQ(bytes_of_piece("\u4e2d"), std::nullopt);
}

TEST(Normalizer, ComposesAndDecomposes) {
  using Kind = NormalizerStep::Kind;
  EXPECT_EQ(normalized(Kind::nfc, "cafe\u0301 \u212b"), "caf\u00e9 \u00c5");
  EXPECT_EQ(normalized(Kind::nfd, "caf\u00e9"), "cafe\u0301");
  EXPECT_EQ(normalized(Kind::nfkc, "\ufb01\u00a0\u00b2"), "fi 2");
  EXPECT_EQ(normalized(Kind::nfkd, "\ufb01\u00e9"), "fie\u0301");
  EXPECT_EQ(normalized(Kind::lowercase, "\u0130\u03a3A"), "i\u0307\u03c3a");
}

TEST(Normalizer, OfCharactersOneByOneAndThenOfAllIsThatOfTheText) {
  using Kind = NormalizerStep::Kind;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    const std::string text = random_text(seed, 30);
    for (const Kind kind : {Kind::nfc, Kind::nfkc}) {
      std::string one_by_one;
      for (size_t i = 0; i < text.size(); i += utf8_size(text[i]))
        one_by_one += normalized(kind, text.substr(i, utf8_size(text[i])));
      EXPECT_EQ(normalized(kind, one_by_one), normalized(kind, text));
    }
  }
}

TEST(Regex, LeavesThePosixFunctionsToTheCLibrary) {
  regex_t compiled{};  // as the C library's header has it
  ASSERT_EQ(regcomp(&compiled, "^[0-9]+ tokens$", REG_EXTENDED | REG_NOSUB), 0);
  EXPECT_EQ(regexec(&compiled, "12 tokens", 0, nullptr, 0), 0);
  EXPECT_EQ(regexec(&compiled, "x2 tokens", 0, nullptr, 0), REG_NOMATCH);
  regfree(&compiled);
}

TEST(Regex, SpacesAndWordsAreThoseOfOniguruma) {
  std::vector<Span> matches;
  Regex(R"(\s)").find_all("\u180e \u0085\u00a0\u3000", matches);
  EXPECT_EQ(matches.size(), 4U);  // U+180E is none
  matches.clear();
  Regex(R"(\w+)").find_all("e\u0301_\u203f9", matches);
  EXPECT_EQ(matches, (std::vector<Span>{{0, 8}}));
}

TEST(Regex, DollarMatchesAtEveryLineAsInRuby) {
  std::vector<Span> matches;
  Regex(R"(\s$)").find_all("a \nb ", matches);
  EXPECT_EQ(matches, (std::vector<Span>{{1, 2}, {4, 5}}));
}

using Spans = std::vector<Span>;

Spans matches_of(const std::string& pattern, std::string_view text) {
  Spans matches;
  Regex(pattern).find_all(text, matches);
  return matches;
}

TEST(Regex, ARangeOfRepetitionsFollowedByPlusIsARepetitionOfItNotPossessive) {
  EXPECT_EQ(matches_of(R"(\A\p{Nd}{1,2}(?=\p{Nd}{3}+\z))", "1234567"), (Spans{{0, 1}}));
  EXPECT_EQ(matches_of("a{1,2}+a", "aaaa"), (Spans{{0, 4}}));
  EXPECT_EQ(matches_of("a++a", "aaaa"), Spans{}) << "of single signs it is possessive";
}

TEST(Regex, EmptyMatchesCountExceptWhereTheLastMatchEnded) {
  EXPECT_EQ(matches_of("(?=b)", "abb"), (Spans{{1, 1}, {2, 2}}));
  EXPECT_EQ(matches_of("x*", "axxb"), (Spans{{0, 0}, {1, 3}, {4, 4}}));
  EXPECT_EQ(matches_of("", "\u00e9a"), (Spans{{0, 0}, {2, 2}, {3, 3}}));
}

TEST(Regex, SetOperationsInBracketsAreUnderstood) {
  EXPECT_EQ(matches_of("[a-z&&[^e]]+", "beet"), (Spans{{0, 1}, {3, 4}}));
}

TEST(Regex, PunctuationHoldsSymbolsAsInTheVersionOfTokenizers) {
  EXPECT_EQ(matches_of("[[:punct:]]+", "a$+.b"), (Spans{{1, 4}}));
  EXPECT_EQ(matches_of("[[:^punct:]]+", "a$+.b"), (Spans{{0, 1}, {4, 5}}));
}

TEST(Regex, CharactersThatCameWithUnicodeSixteenHaveTheirClasses) {
  EXPECT_EQ(matches_of(R"(\p{L}+)", "a\U00016d40\U00011f04"), (Spans{{0, 9}}));
  Spans llamacpp;
  Regex(R"(\p{L}+)", UnicodeTables::llamacpp).find_all("a\U00016d40\U00011f04", llamacpp);
  EXPECT_EQ(llamacpp, (Spans{{0, 1}, {5, 9}})) << "llama.cpp knows Unicode 15.1";
}

TEST(Regex, WhatDoesNotCompileIsRefusedWithTheReason) {
  EXPECT_EQ(testing::error_of([] { Regex("a("); }), "regular expression a(: end pattern with unmatched parenthesis");
  EXPECT_EQ(testing::error_of([] { Regex("a\xff"); }), "regular expression a\ufffd: not valid UTF-8");
  EXPECT_EQ(testing::error_of([] { Regex(R"(\p{Word})"); }),
            R"(regular expression \p{Word}: \p{Word} is not supported; \w is)");
  EXPECT_EQ(testing::error_of([] { Regex(std::string(70'000, 'a')); }),
            "regular expression " + std::string(40, 'a') + "...: 70000 bytes, at most 65536 are read");
}

TEST(Regex, ADeeplyNestedPatternIsRefused) {
  const std::string error = testing::error_of([] { Regex(std::string(20'000, '(') + "a" + std::string(20'000, ')')); });
  EXPECT_NE(error.find("parse depth limit over"), std::string::npos) << error.substr(error.size() - 100);
}

TEST(Regex, APatternThatWouldTryForEverEndsWithAnError) {
  const std::string error = testing::error_of([] { matches_of("(x+x+)+y", std::string(200, 'x')); });
  EXPECT_EQ(error, "splitting text for the tokenizer, from byte 0: retry-limit-in-match over");
}

}  // namespace
}  // namespace crumb::tokenizer
