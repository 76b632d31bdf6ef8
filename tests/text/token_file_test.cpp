#include "core/text/token_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "core/common/hash.h"
#include "core/text/encode.h"
#include "tests/testing/fake_tokenizer.h"
#include "tests/testing/testing.h"

namespace crumb::text {
namespace {

using ::testing::ElementsAre;
using testing::error_of;
using ::testing::HasSubstr;
using testing::read_file;
using testing::TempDir;
using testing::write_file;

constexpr uint64_t kKey = 0x0123456789abcdef;
constexpr int64_t kVocabulary = 300;
constexpr size_t kHeader = 56;

struct Document {
  std::vector<TokenId> ids;
  std::vector<uint8_t> supervised = {};
};
const std::vector<Document> kDocuments = {{{5, 6, 299}, {0, 1, 1}}, {{7, 0}}, {{}}, {{8, 9, 0, 11}, {1, 1, 0, 0}}};

void write_documents(const Path& path, const std::vector<Document>& documents) {
  TokenFileWriter writer(path, kKey, kVocabulary);
  for (const auto& document : documents) writer.add(document.ids, document.supervised);
  writer.commit();
}

class TokenFileTest : public ::testing::Test {
 protected:
  TokenFileTest() { write_documents(path_, kDocuments); }

  /// The message for a file of these bytes, without its name.
  std::string error(const std::string& bytes) const {
    write_file(path_, bytes);
    std::string message = error_of([&] { TokenFile(path_, kKey, kVocabulary); });
    if (message.starts_with(path_.string() + ": ")) message.erase(0, path_.string().size() + 2);
    return message;
  }
  /// `value` at byte `at`; with a checksum that holds, as a program that writes nonsense would make it.
  template <class T>
  std::string error_with(size_t at, T value) const {
    std::string bytes = whole_;
    std::memcpy(bytes.data() + at, &value, sizeof value);
    const std::string_view all = bytes;
    const uint64_t sum = hash_words(hash_words(0, all.substr(kHeader)), all.substr(0, kHeader - 8));
    std::memcpy(bytes.data() + kHeader - 8, &sum, sizeof sum);
    return error(bytes);
  }

  TempDir dir_;
  Path path_ = dir_ / "a.tokens2";
  std::string whole_ = (write_documents(path_, kDocuments), read_file(path_));
};

TEST_F(TokenFileTest, GivesBackIdsMasksAndDocuments) {
  const TokenFile file(path_, kKey, kVocabulary);
  EXPECT_EQ(file.key(), kKey);
  ASSERT_EQ(file.num_tokens(), 9);
  std::vector<TokenId> ids;
  std::string mask;
  for (int64_t i = 0; i < 9; ++i) {
    ids.push_back(file.id(i));
    mask += file.is_supervised(i) ? '1' : '0';
  }
  EXPECT_THAT(ids, ElementsAre(5, 6, 299, 7, 0, 8, 9, 0, 11));
  EXPECT_EQ(mask, "011111100");
  EXPECT_FALSE(file.is_all_supervised());
  ASSERT_EQ(file.num_documents(), 3) << "a document of no token is left out";
  EXPECT_EQ(file.document_begin(0), 0);
  EXPECT_EQ(file.document_end(0), 3);
  EXPECT_EQ(file.document_begin(2), 5);
  EXPECT_EQ(file.document_end(2), 9);
  for (const auto& [from, document] : std::vector<std::pair<int64_t, int64_t>>{{0, 0}, {1, 1}, {3, 1}, {5, 2}, {6, 3}})
    EXPECT_EQ(file.first_document_from(from), document) << from;
}

TEST_F(TokenFileTest, HasTheLayoutThatItsHeaderTells) {
  std::string expected = "CRUMBTK2";
  const auto add = [&](auto value) { expected.append(reinterpret_cast<const char*>(&value), sizeof value); };
  for (const uint64_t value : {kKey, uint64_t{300}, uint64_t{9}, uint64_t{3}, uint64_t{3}}) add(value);
  expected += whole_.substr(48, 8);
  for (const int32_t token : {-6, 6, 299, 7, 0, 8, 9, -1, -12, 0}) add(token);
  for (const uint64_t begin : {0, 3, 5}) add(begin);
  EXPECT_EQ(whole_, expected);
}

TEST_F(TokenFileTest, OfNoDocumentIsOne) {
  write_documents(path_, {});
  const TokenFile file(path_, kKey, kVocabulary);
  EXPECT_EQ(file.num_tokens(), 0);
  EXPECT_EQ(file.num_documents(), 0);
  EXPECT_TRUE(file.is_all_supervised());
}

TEST_F(TokenFileTest, ThatIsCutAnywhereIsRefused) {
  for (size_t size = 0; size < kHeader; ++size) EXPECT_EQ(error(whole_.substr(0, size)), "not a token file") << size;
  for (size_t size = kHeader; size < whole_.size(); ++size)
    EXPECT_EQ(error(whole_.substr(0, size)), fmt::format("damaged: {} bytes for 9 tokens and 3 documents", size));
  EXPECT_EQ(error(whole_ + '\0'), "damaged: 121 bytes for 9 tokens and 3 documents");
}

TEST_F(TokenFileTest, WithAnyByteChangedIsRefused) {
  for (size_t at = 0; at < whole_.size(); ++at) {
    std::string bytes = whole_;
    bytes[at] = static_cast<char>(bytes[at] ^ (1 << at % 8));
    EXPECT_NE(error(bytes), "") << at;
  }
  EXPECT_EQ(error(whole_), "");
}

TEST_F(TokenFileTest, TellsWhatIsWrong) {
  EXPECT_EQ(error_with(0, whole_[0]), "") << "the checksum is that of the header's text";
  EXPECT_EQ(error_with(7, '1'), "not a token file");
  EXPECT_EQ(error_with(8, kKey + 1), "a token file of another text or tokenizer");
  EXPECT_EQ(error_with(16, uint64_t{301}), "a token file of another text or tokenizer");
  for (const uint64_t tokens : {uint64_t{8}, uint64_t{11}, uint64_t{1} << 62, ~uint64_t{0}})
    EXPECT_EQ(error_with(24, tokens), fmt::format("damaged: 120 bytes for {} tokens and 3 documents", tokens));
  for (const uint64_t documents : {uint64_t{2}, uint64_t{4}, uint64_t{1} << 61, ~uint64_t{0}})
    EXPECT_EQ(error_with(40, documents), fmt::format("damaged: 120 bytes for 9 tokens and {} documents", documents));
  EXPECT_EQ(error_with(32, uint64_t{0}), "damaged: its checksum is another") << "the number of unsupervised tokens";
  EXPECT_EQ(error_with(56, 300), "damaged: token id 300 is beyond the vocabulary of 300");
  EXPECT_EQ(error_with(56, -301), "damaged: token id 300 is beyond the vocabulary of 300");
  EXPECT_EQ(error_with(56, INT32_MIN), "damaged: token id 2147483647 is beyond the vocabulary of 300");
  const std::string order = "damaged: its documents do not follow each other";
  EXPECT_EQ(error_with(96, uint64_t{1}), order) << "the first does not begin at 0";
  EXPECT_EQ(error_with(104, uint64_t{5}), order) << "two begin at one place";
  EXPECT_EQ(error_with(104, uint64_t{6}), order) << "they descend";
  EXPECT_EQ(error_with(112, uint64_t{9}), order) << "the last is outside";
  EXPECT_EQ(error_with(112, ~uint64_t{0}), order);
  std::string bytes = whole_;
  bytes[60] = 7;
  EXPECT_EQ(error(bytes), "damaged: its checksum is another") << "an id like others";
}

TEST_F(TokenFileTest, AnIdBeyondTheVocabularyIsNotWritten) {
  for (const TokenId id : {300, -1}) {
    EXPECT_EQ(error_of([&] {
                write_documents(dir_ / "b.tokens2", {{{1, id}}});
              }),
              fmt::format("{}: token id {} is beyond the vocabulary of 300", (dir_ / "b.tokens2").string(), id));
  }
  EXPECT_EQ(std::distance(testing::fs::directory_iterator(dir_.path()), {}), 1) << "what was begun has gone";
}

TEST_F(TokenFileTest, HasTheSameBytesHoweverItIsMade) {
  const testing::FakeTokenizer tokenizer;
  const auto bytes_of = [&](size_t batch_bytes, int threads) {
    ThreadPool pool(threads);
    TokenFileWriter writer(path_, kKey, tokenizer.vocab_size());
    DocumentEncoder encoder(
        tokenizer, document_frame(tokenizer, false), pool.as_parallel_for(),
        [&](std::span<const TokenId> ids, std::span<const uint8_t>) { writer.add(ids); }, batch_bytes);
    for (int i = 0; i < 3000; ++i)
      encoder.add(std::string(static_cast<size_t>(1 + i * 61 % 127), static_cast<char>('a' + i % 26)));
    encoder.finish();
    writer.commit();
    return read_file(path_);
  };
  const std::string expected = bytes_of(1, 1);
  EXPECT_GT(expected.size(), size_t{3} << 18) << "several blocks";
  for (const size_t batch_bytes : {100, 77'777, 1 << 23}) EXPECT_TRUE(bytes_of(batch_bytes, 1) == expected);
  for (const int threads : {2, 4}) EXPECT_TRUE(bytes_of(5000, threads) == expected);
  EXPECT_EQ(TokenFile(path_, kKey, tokenizer.vocab_size()).num_documents(), 3000);
}

TEST_F(TokenFileTest, IsOnTheDiskButForAFixedPartWhileItIsWritten) {
  constexpr int64_t kDocuments = 1'000'000, kMost = (1 << 18) + (1 << 20);  // a block, and the buffer of AtomicFile
  std::filesystem::remove(path_);
  TokenFileWriter writer(path_, kKey, kVocabulary);
  const auto written = [&](const std::string& name) {
    for (const auto& entry : testing::fs::directory_iterator(dir_.path()))
      if (entry.path().filename().string().starts_with(name)) return static_cast<int64_t>(entry.file_size());
    return int64_t{-1};
  };
  const std::vector<TokenId> ids = {1, 2, 3};
  for (int64_t i = 1; i <= kDocuments; ++i) {
    writer.add(ids);
    if (i % 50'000 != 0) continue;
    ASSERT_GE(written(".a.tokens2.tmp-"), i * 12 - kMost);
    ASSERT_GE(written(".a.tokens2.begins.tmp-"), i * 8 - kMost);
  }
  writer.commit();
  const TokenFile file(path_, kKey, kVocabulary);
  EXPECT_EQ(file.num_documents(), kDocuments);
  EXPECT_EQ(file.document_begin(kDocuments - 1), 3 * (kDocuments - 1));
}

TEST_F(TokenFileTest, TwoWritersOfOneFileBothEndWell) {
  {
    TokenFileWriter one(path_, kKey, kVocabulary), other(path_, kKey, kVocabulary);
    for (const auto& document : kDocuments) {
      one.add(document.ids, document.supervised);
      other.add(document.ids, document.supervised);
    }
    one.commit();
    const TokenFile opened(path_, kKey, kVocabulary);
    other.commit();
    EXPECT_EQ(opened.id(2), 299) << "what was opened stays as it was";
  }
  EXPECT_EQ(read_file(path_), whole_);
  EXPECT_EQ(std::distance(testing::fs::directory_iterator(dir_.path()), {}), 1) << "nothing else is left";
}

}  // namespace
}  // namespace crumb::text
