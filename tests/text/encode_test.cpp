#include "core/text/encode.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/fake_tokenizer.h"
#include "tests/testing/testing.h"

namespace crumb::text {
namespace {

using testing::FakeTokenizer;

TEST(DocumentFrame, IsEosAndBosWhenAsked) {
  FakeTokenizer tokenizer;
  EXPECT_EQ(document_frame(tokenizer, false).before, std::nullopt);
  EXPECT_EQ(document_frame(tokenizer, false).after, FakeTokenizer::kEos);
  EXPECT_EQ(document_frame(tokenizer, true).before, FakeTokenizer::kBos);
  tokenizer.specials = {};
  EXPECT_EQ(document_frame(tokenizer, false).after, std::nullopt);
  EXPECT_EQ(testing::error_of([&] { document_frame(tokenizer, true); }), "bos: the tokenizer has no BOS token");
}

TEST(DocumentEncoder, GivesDocumentsInOrderWhateverTheBatchAndTheThreads) {
  const FakeTokenizer tokenizer;
  std::vector<std::string> documents;
  for (int i = 0; i < 500; ++i)
    documents.push_back(std::string(static_cast<size_t>(1 + i * 37 % 91), static_cast<char>('a' + i % 26)));
  const auto encoded = [&](size_t batch_bytes, int threads) {
    ThreadPool pool(threads);
    std::vector<std::vector<TokenId>> out;
    DocumentEncoder encoder(
        tokenizer, document_frame(tokenizer, true), pool.as_parallel_for(),
        [&](std::span<const TokenId> ids, std::span<const uint8_t>) { out.emplace_back(ids.begin(), ids.end()); },
        batch_bytes);
    for (const auto& document : documents) encoder.add(document);
    encoder.finish();
    return out;
  };
  const auto expected = encoded(1 << 20, 1);
  ASSERT_EQ(expected.size(), documents.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    auto ids = tokenizer.encode(documents[i]);
    ids.insert(ids.begin(), FakeTokenizer::kBos);
    ids.push_back(FakeTokenizer::kEos);
    EXPECT_EQ(expected[i], ids) << i;
  }
  for (const size_t batch_bytes : {1, 50, 1000})
    for (const int threads : {1, 3}) EXPECT_EQ(encoded(batch_bytes, threads), expected) << batch_bytes;
}

TEST(DocumentEncoder, HoldsABatchHoweverManyDocumentsCome) {
  const FakeTokenizer tokenizer;
  constexpr size_t kBatch = 100'000, kOverhead = sizeof(std::string) + sizeof(std::vector<TokenId>);
  for (const std::string& document : {std::string("a"), std::string(700, 'a')}) {
    size_t given = 0, taken = 0, most = 0;
    DocumentEncoder encoder(
        tokenizer, {}, serial_for, [&](std::span<const TokenId> ids, std::span<const uint8_t>) { taken += ids.size(); },
        kBatch);
    for (int i = 0; i < 100'000; ++i) {
      encoder.add(document);
      given += document.size();
      most = std::max(most, (given - taken) / document.size());
    }
    encoder.finish();
    EXPECT_EQ(taken, given);
    EXPECT_LT(most * (document.size() + kOverhead), kBatch);
    EXPECT_GT(most, 50U);
  }
}

}  // namespace
}  // namespace crumb::text
