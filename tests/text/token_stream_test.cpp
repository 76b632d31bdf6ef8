#include "core/text/token_stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/fake_tokenizer.h"
#include "tests/testing/testing.h"

namespace crumb::text {
namespace {

using crumb::testing::error_of;
using ::testing::ElementsAre;
using testing::FakeTokenizer;

constexpr tokenizer::TokenId kBos = FakeTokenizer::kBos, kEos = FakeTokenizer::kEos;

const std::vector<TextDocuments> kTexts{{"a.txt", {"ab", "c"}}, {"b.txt", {"de"}}};

TEST(TokenStream, PutsEosAfterEachDocumentAndNoBos) {
  const auto s = make_token_stream(FakeTokenizer(), kTexts, false, serial_for);
  EXPECT_THAT(s.ids, ElementsAre('a', 'b', kEos, 'c', kEos, 'd', 'e', kEos));
  EXPECT_THAT(s.text_begin, ElementsAre(0, 5, 8));
  EXPECT_TRUE(s.has_eos);
  EXPECT_FALSE(s.has_bos);
}

TEST(TokenStream, PutsBosBeforeEachDocumentWhenAsked) {
  const auto s = make_token_stream(FakeTokenizer(), kTexts, true, serial_for);
  EXPECT_THAT(s.ids, ElementsAre(kBos, 'a', 'b', kEos, kBos, 'c', kEos, kBos, 'd', 'e', kEos));
  EXPECT_TRUE(s.has_bos);
}

TEST(TokenStream, LeavesOutAnEosThatTheTokenizerDoesNotHave) {
  FakeTokenizer tokenizer;
  tokenizer.specials.eos.reset();
  const auto s = make_token_stream(tokenizer, kTexts, false, serial_for);
  EXPECT_THAT(s.ids, ElementsAre('a', 'b', 'c', 'd', 'e'));
  EXPECT_FALSE(s.has_eos);
  tokenizer.specials.bos.reset();
  EXPECT_EQ(error_of([&] { make_token_stream(tokenizer, kTexts, true, serial_for); }),
            "bos: the tokenizer has no BOS token");
}

TEST(TokenStream, IsTheSameOnManyThreads) {
  ThreadPool pool(4);
  TextDocuments many{"many.txt", {}};
  for (int i = 0; i < 100; ++i)
    many.documents.push_back(std::string(static_cast<size_t>(i % 7 + 1), static_cast<char>('a' + i % 26)));
  EXPECT_EQ(make_token_stream(FakeTokenizer(), {{many}}, false, serial_for).ids,
            make_token_stream(FakeTokenizer(), {{many}}, false, pool.as_parallel_for()).ids);
}

TEST(TokenStream, KnowsTheTextOfEachToken) {
  const auto s = make_token_stream(FakeTokenizer(), kTexts, false, serial_for);
  const std::vector<int64_t> want{0, 0, 0, 0, 0, 1, 1, 1};
  for (int64_t i = 0; i < s.size(); ++i) EXPECT_EQ(s.text_of(i), want[static_cast<size_t>(i)]) << i;
}

TEST(TokenStream, OfAnotherTokenizerIsRefusedAtTheFirstTokenThatDiffers) {
  FakeTokenizer other;
  other.shift = 'd';  // ids from 'd' on are one higher
  const auto a = make_token_stream(FakeTokenizer(), kTexts, false, serial_for),
             b = make_token_stream(other, kTexts, false, serial_for);
  EXPECT_NO_THROW(require_equal_streams(a, a, kTexts));
  EXPECT_EQ(error_of([&] { require_equal_streams(a, b, kTexts); }),
            "b.txt: the tokenizers of model and baseline differ: token 0 is 100 for the model, 101 for the baseline; "
            "they cannot be compared");
  other.shift = 1000;
  other.specials.eos.reset();
  const auto c = make_token_stream(other, kTexts, false, serial_for);
  EXPECT_EQ(error_of([&] { require_equal_streams(c, a, kTexts); }),
            "a.txt: the tokenizers of model and baseline differ: token 2 is 99 for the model, 257 for the baseline; "
            "they cannot be compared");
  TokenStream cut = a;
  cut.ids.pop_back();
  EXPECT_EQ(error_of([&] { require_equal_streams(cut, a, kTexts); }),
            "b.txt: the tokenizers of model and baseline differ: token 2 is the end for the model, 257 for the "
            "baseline; they cannot be compared");
}

}  // namespace
}  // namespace crumb::text
