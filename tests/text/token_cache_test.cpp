#include "core/text/token_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "tests/testing/fake_tokenizer.h"
#include "tests/testing/testing.h"

namespace crumb::text {
namespace {

using testing::FakeTokenizer;
using ::testing::HasSubstr;
using ::testing::Not;

class TokenCache : public ::testing::Test {
 protected:
  TokenCache() {
    testing::fs::create_directory(cache_);
    testing::write_file(text_, "some text");
  }
  TokenFile open(const std::string& separator = "\n", uint64_t identity = 1) {
    return open_token_file({text_}, separator, {&tokenizer_, identity}, cache_, serial_for);
  }
  std::string warnings_of_open() {
    ::testing::internal::CaptureStderr();
    open();
    return ::testing::internal::GetCapturedStderr();
  }
  std::vector<Path> files() { return paths_in(cache_); }

  testing::TempDir dir_;
  Path cache_ = dir_ / "cache", text_ = dir_ / "a.txt";
  FakeTokenizer tokenizer_;
};

TEST_F(TokenCache, PutsEosAfterEachDocument) {
  testing::write_file(text_, "ab\nc");
  const TokenFile file = open();
  ASSERT_EQ(file.num_documents(), 2);
  std::vector<TokenId> ids;
  for (int64_t i = 0; i < file.num_tokens(); ++i) ids.push_back(file.id(i));
  EXPECT_THAT(ids, ::testing::ElementsAre('a', 'b', FakeTokenizer::kEos, 'c', FakeTokenizer::kEos));
  EXPECT_EQ(file.document_end(0), 3);
  EXPECT_EQ(file.document_begin(1), 3);
  EXPECT_TRUE(file.is_all_supervised());
}

TEST_F(TokenCache, HasOneFilePerTextSeparatorAndTokenizer) {
  EXPECT_EQ(open().num_tokens(), 10);
  EXPECT_EQ(open().num_tokens(), 10);
  EXPECT_EQ(files().size(), 1U);
  EXPECT_EQ(open(" ").num_tokens(), 10);  // two documents of four letters, EOS after each
  EXPECT_EQ(open("\n", 2).num_tokens(), 10);
  EXPECT_EQ(files().size(), 3U);
  testing::write_file(text_, "some texts");
  EXPECT_EQ(open().num_tokens(), 11);
}

TEST_F(TokenCache, KeepsTheKeyOfATextAcrossLayouts) {
  EXPECT_EQ(open().key(), 15976156694495004707U) << "runs begun with an earlier version would not go on";
}

TEST_F(TokenCache, MakesADamagedFileAgainAndSaysSo) {
  open();
  const Path path = files().at(0);
  const std::string whole = testing::read_file(path);
  std::string changed = whole;
  changed[60] ^= 1;
  for (const auto& bytes : {changed, whole.substr(0, 70), whole.substr(0, 3), std::string(), std::string(200, 'x')}) {
    testing::write_file(path, bytes);
    EXPECT_THAT(warnings_of_open(), HasSubstr("warning: " + path.string() + ": "));
    EXPECT_TRUE(testing::read_file(path) == whole);
    EXPECT_THAT(warnings_of_open(), Not(HasSubstr("warning")));
  }
}

TEST_F(TokenCache, LeavesTheFilesOfVersion1ToIt) {
  const TokenFile file = open();
  const Path path = files().at(0), old = Path(path).replace_extension(".tokens");
  testing::fs::remove(path);
  testing::write_file(old, "CRUMBTK1 and more");
  EXPECT_THAT(warnings_of_open(), Not(HasSubstr("warning")));
  EXPECT_EQ(testing::read_file(old), "CRUMBTK1 and more");
  EXPECT_TRUE(testing::fs::exists(path));
}

TEST_F(TokenCache, IsMadeBySeveralAtOnce) {
  std::string text;
  for (int i = 0; i < 20'000; ++i) text += "document " + std::to_string(i) + "\n";
  testing::write_file(text_, text);
  std::vector<std::thread> threads;
  std::vector<int64_t> tokens(4), last(4);
  for (size_t i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      const TokenFile file = open();
      tokens[i] = file.num_tokens();
      last[i] = file.id(file.num_tokens() - 2);
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(tokens, std::vector<int64_t>(4, static_cast<int64_t>(text.size())));
  EXPECT_EQ(last, std::vector<int64_t>(4, '9'));
  EXPECT_EQ(files().size(), 1U) << "nothing is left half made";
}

}  // namespace
}  // namespace crumb::text
