#include <gtest/gtest.h>

#include "core/tokenizer/pre_split.h"
#include "tests/testing/testing.h"
#include "tests/tokenizer/samples.h"

namespace crumb::tokenizer {
namespace {

using Strings = std::vector<std::string>;

Strings pieces_of(const PreSplitter& splitter, std::string_view text, bool at_start = true) {
  Strings out;
  splitter.split(text, at_start, [&](std::string_view all, std::span<const Span> pieces) {
    for (const Span& piece : pieces) out.emplace_back(all.substr(piece.begin, piece.end - piece.begin));
  });
  return out;
}

PreSplit isolated(const Strings& patterns) {
  PreSplit split;
  for (const auto& pattern : patterns) split.steps.push_back({pattern, SplitBehavior::isolated, false});
  return split;
}

Strings pieces_of_named(const std::string& name, std::string_view text) {
  return pieces_of(PreSplitter(isolated(find_named_split(name)->patterns)), text);
}

class ScannerTest : public ::testing::TestWithParam<std::string> {
 protected:
  void expect_same(std::string_view text) {
    const Strings expected = pieces_of(by_regex_, text);
    ASSERT_EQ(pieces_of(by_scanner_, text), expected);
  }
  PreSplitter by_scanner_{isolated({GetParam()})};
  PreSplitter by_regex_{isolated({GetParam()}), false};
};

TEST_P(ScannerTest, GivesThePiecesOfItsRegularExpressionOnRandomText) {
  ASSERT_NE(scanner_for(GetParam()), Scanner::none);
  for (uint64_t seed = 0; seed < 3000; ++seed) expect_same(random_text(seed, 25));
}

TEST_P(ScannerTest, GivesThePiecesOfItsRegularExpressionOnProseAndCode) {
  for (const char* name :
       {"text/corpus/tech-test.txt", "text/corpus/verse-test.txt", "text/wikitext-2-raw/wiki.test.raw"}) {
    CRUMB_NEED_DATA(path, name);
    expect_same(testing::read_file(path));
  }
}

INSTANTIATE_TEST_SUITE_P(Patterns, ScannerTest,
                         ::testing::Values(kGpt2Pattern, kLlama3Pattern, kQwen2Pattern, R"(\p{N})"));

TEST(Split, FamiliesDifferWhereTheirExpressionsDo) {
  const std::string text = "I'LL pay 12345,\n  ok";
  EXPECT_EQ(pieces_of_named("gpt-2", text), (Strings{"I", "'", "LL", " pay", " 12345", ",", "\n ", " ok"}));
  EXPECT_EQ(pieces_of_named("llama-bpe", text), (Strings{"I", "'LL", " pay", " ", "123", "45", ",\n", " ", " ok"}));
  EXPECT_EQ(pieces_of_named("qwen2", text),
            (Strings{"I", "'LL", " pay", " ", "1", "2", "3", "4", "5", ",\n", " ", " ok"}));
  EXPECT_EQ(pieces_of_named("hunyuan-dense", text), (Strings{"I", "'LL", " pay", " ", "123", "45", ",\n", " ", " ok"}));
  EXPECT_EQ(pieces_of_named("deepseek-llm", text),
            (Strings{"I", "'", "LL", " pay", " ", "12345", ",", "\n", " ", " ok"}));
}

TEST(Split, StepsSeeOnlyWhatTheStepsBeforeThemLeft) {
  // Joined in one alternation the letter would win over the digits; and the han run is cut off before words are looked
  // for.
  EXPECT_EQ(pieces_of_named("hunyuan-dense", "x1\u4e2d\u6587y"), (Strings{"x", "1", "\u4e2d\u6587", "y"}));
  EXPECT_EQ(pieces_of_named("hunyuan-dense", "a\u4e2d"), (Strings{"a", "\u4e2d"}));
  EXPECT_EQ(pieces_of_named("llama-bpe", "a\u4e2d"), (Strings{"a\u4e2d"}));
}

TEST(Split, DeepSeekLettersAreTheCompatibilityOnesToo) {
  // These characters are changed by NFC, as an editor may do to a source file: the class would then lack them.
  const PreSplitter letters(isolated({find_named_split("deepseek-llm")->patterns[1]}));
  for (const uint32_t c : {0x1f7dU, 0x1fbeU, 0x1fd3U, 0x1fdbU, 0x2126U, 0x212aU}) {
    std::string letter;
    append_utf8(c, letter);
    EXPECT_EQ(pieces_of(letters, "a" + letter), (Strings{"a" + letter})) << std::hex << c;
  }
}

TEST(Split, BehaviorsArrangeMatchesAsTheirNamesSay) {
  const auto split = [](SplitBehavior behavior, bool invert) {
    PreSplit description;
    description.steps = {{"-", behavior, invert}};
    return pieces_of(PreSplitter(description), "a--b-");
  };
  EXPECT_EQ(split(SplitBehavior::isolated, false), (Strings{"a", "-", "-", "b", "-"}));
  EXPECT_EQ(split(SplitBehavior::removed, false), (Strings{"a", "b"}));
  EXPECT_EQ(split(SplitBehavior::removed, true), (Strings{"-", "-", "-"}));
  EXPECT_EQ(split(SplitBehavior::merged_with_previous, false), (Strings{"a-", "-", "b-"}));
  EXPECT_EQ(split(SplitBehavior::merged_with_next, false), (Strings{"a", "-", "-b", "-"}));
  EXPECT_EQ(split(SplitBehavior::contiguous, false), (Strings{"a", "--", "b", "-"}));
}

TEST(Split, EmptyMatchesCutWithoutLeavingPieces) {
  const auto split = [](SplitBehavior behavior) {
    PreSplit description;
    description.steps = {{"(?=b)", behavior, false}};
    return pieces_of(PreSplitter(description), "abcb");
  };
  EXPECT_EQ(split(SplitBehavior::isolated), (Strings{"a", "bc", "b"}));
  EXPECT_EQ(split(SplitBehavior::removed), (Strings{"a", "bc", "b"}));
  EXPECT_EQ(split(SplitBehavior::merged_with_previous), (Strings{"a", "bc", "b"}));
  EXPECT_EQ(split(SplitBehavior::contiguous), (Strings{"a", "bc", "b"}));
}

/// What a GGUF with this name cuts a text into.
Strings pieces_of_llamacpp(const std::string& name, std::string_view text) {
  PreSplit split = isolated(find_named_split(name)->as_llamacpp());
  split.tables = UnicodeTables::llamacpp;
  return pieces_of(PreSplitter(split), text);
}

TEST(Split, LlamaCppReadsSomeNamesMoreSimplyThanTheFamilysTokenizers) {
  const std::string text = "\u00c9t\u00c9x McDonald";
  EXPECT_EQ(pieces_of_named("tekken", text), (Strings{"\u00c9t", "\u00c9x", " Mc", "Donald"}));
  EXPECT_EQ(pieces_of_llamacpp("tekken", text), (Strings{"\u00c9t\u00c9x", " Mc", "Donald"}));
  EXPECT_EQ(pieces_of_llamacpp("llama-bpe", "a'\u017f"), (Strings{"a", "'\u017f"}));
}

TEST(Split, LlamaCppCutsDigitsFromTheEndAndLeavesTheTextBeforeThemWithTheFirst) {
  PreSplit split = isolated({kDigitGroups});
  EXPECT_EQ(pieces_of(PreSplitter(split), "ab1234567c12"), (Strings{"ab1", "234", "567", "c12"}));
  EXPECT_EQ(pieces_of(PreSplitter(split), "123 x"), (Strings{"123", " x"}));
  const std::string many(3'000'001, '7');
  EXPECT_EQ(pieces_of(PreSplitter(split), many).size(), 1'000'001U) << "in time that is linear in the text";
}

TEST(Split, NamesThatLlamaCppKnowsAndCrumbDoesNotAreRefusedWithTheReason) {
  EXPECT_EQ(reason_against_split("gemma4"),
            "its merges run over whole lines with marked spaces, which is not supported");
  EXPECT_EQ(reason_against_split("whitespace"), "its words are not spelled in bytes, which is not supported");
  EXPECT_EQ(reason_against_split("gpt-2"), "");
}

TEST(Split, MetaspaceMarksSpaces) {
  PreSplit description;
  description.metaspace = Metaspace{"\u2581", Metaspace::Prepend::first, true};
  EXPECT_EQ(pieces_of(PreSplitter(description), "a  b"), (Strings{"\u2581a", "\u2581", "\u2581b"}));
  EXPECT_EQ(pieces_of(PreSplitter(description), "a b", false), (Strings{"a", "\u2581b"}));
  EXPECT_EQ(pieces_of(PreSplitter(description), " a"), (Strings{"\u2581a"}));
}

TEST(Split, EveryNameIsFoundAndEveryPatternCompiles) {
  for (const NamedSplit& named : named_splits()) {
    ASSERT_NE(find_named_split(named.name), nullptr);
    const NamedSplit* back = name_of_split(isolated(named.patterns), named.ignore_merges, named.nfc);
    ASSERT_NE(back, nullptr) << named.name;
    EXPECT_EQ(back->nfc, named.nfc);
    EXPECT_EQ(back->patterns, named.patterns);  // a synonym, if not the name itself
    const std::string text = random_text(7, 200);
    std::string joined;
    for (const auto& piece : pieces_of(PreSplitter(isolated(named.patterns)), text)) joined += piece;
    EXPECT_EQ(joined, text) << named.name;
  }
  EXPECT_EQ(name_of_split(isolated({"x"}), false, false), nullptr);
}

TEST(Split, OfTheNamesOfOnePatternTheOneThatNormalizesAlikeIsTaken) {
  EXPECT_EQ(name_of_split(isolated({kQwen2Pattern}), false, true)->name, "qwen2");
  EXPECT_EQ(name_of_split(isolated({kQwen2Pattern}), false, false)->name, "hunyuan");
  EXPECT_EQ(name_of_split(isolated({kLlama3Pattern}), true, true)->name, "llama-bpe") << "no name says NFC";
}

TEST(Split, AVeryLongPieceIsOnePiece) {
  const std::string spaces(3'000'000, ' '), letters(3'000'000, 'a');
  for (const char* name : {"gpt-2", "hunyuan-dense", "deepseek-llm"}) {
    EXPECT_EQ(pieces_of_named(name, spaces).size(), 1U) << name;
    EXPECT_EQ(pieces_of_named(name, letters).size(), 1U) << name;
  }
}

}  // namespace
}  // namespace crumb::tokenizer
