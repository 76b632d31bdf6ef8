#include "core/text/token_runs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/testing.h"

namespace crumb::text {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class TokenRunsTest : public ::testing::Test {
 protected:
  /// Documents of 4, 3 and 5 tokens, with ids 0 .. 11; of those only 6 and 7 are supervised.
  TokenRunsTest() {
    TokenFileWriter writer(dir_ / "a", 1, 12);
    TokenId next = 0;
    for (const int length : {4, 3, 5}) {
      std::vector<TokenId> ids;
      std::vector<uint8_t> supervised;
      for (int i = 0; i < length; ++i, ++next) {
        ids.push_back(next);
        supervised.push_back(next == 6 || next == 7 ? 1 : 0);
      }
      writer.add(ids, supervised);
    }
    writer.commit();
    file_ = std::make_shared<const TokenFile>(dir_ / "a", 1, 12);
  }
  static std::vector<int64_t> ids_of(const TokenRuns& runs, int64_t begin, int64_t count) {
    std::vector<int64_t> ids(static_cast<size_t>(count));
    runs.copy(begin, count, ids.data());
    return ids;
  }

  testing::TempDir dir_;
  std::shared_ptr<const TokenFile> file_;
};

TEST_F(TokenRunsTest, AreOneStreamOfIdsAndMasks) {
  const TokenRuns runs(file_, {{1, 2}, {5, 2}, {7, 3}});
  EXPECT_EQ(runs.size(), 7);
  EXPECT_THAT(ids_of(runs, 0, 7), ElementsAre(1, 2, 5, 6, 7, 8, 9));
  EXPECT_THAT(ids_of(runs, 1, 3), ElementsAre(2, 5, 6));
  EXPECT_THAT(ids_of(runs, 4, 0), IsEmpty());
  std::vector<int64_t> ids(4);
  std::vector<float> supervised(4);
  runs.copy(2, 4, ids.data(), supervised.data());
  EXPECT_THAT(supervised, ElementsAre(0, 1, 1, 0));
}

TEST_F(TokenRunsTest, KnowWhetherAnythingIsSupervised) {
  EXPECT_FALSE(TokenRuns(file_, {{0, 6}, {8, 4}}).has_supervised());
  EXPECT_TRUE(TokenRuns(file_, {{0, 2}, {7, 1}}).has_supervised());
  EXPECT_FALSE(TokenRuns(file_, {{0, 2}}).is_all_supervised());
}

TEST_F(TokenRunsTest, KnowWhereDocumentsBeginInAWindow) {
  const TokenRuns whole(file_, {{0, 12}});
  EXPECT_THAT(whole.document_begins(0, 12), ElementsAre(0, 4, 7));
  EXPECT_THAT(whole.document_begins(1, 3), IsEmpty());
  EXPECT_THAT(whole.document_begins(1, 4), ElementsAre(3));
  EXPECT_THAT(whole.document_begins(4, 3), ElementsAre(0));
  EXPECT_THAT(whole.document_begins(7, 5), ElementsAre(0));
  EXPECT_THAT(whole.document_begins(8, 4), IsEmpty());
  const TokenRuns without_the_second(file_, {{0, 4}, {7, 5}});
  EXPECT_THAT(without_the_second.document_begins(2, 5), ElementsAre(2));
  EXPECT_THAT(without_the_second.document_begins(0, 9), ElementsAre(0, 4));
  const TokenRuns tail(file_, {{5, 7}});  // begins inside a document
  EXPECT_THAT(tail.document_begins(0, 7), ElementsAre(2));
}

}  // namespace
}  // namespace crumb::text
