#include "train/sampler.h"

#include <gmock/gmock.h>

#include <map>
#include <set>

#include "tests/train/fixtures.h"

namespace crumb::train {
namespace {

using ::testing::HasSubstr;

std::vector<MixedStream> streams_of(const std::vector<std::string>& texts, const std::vector<double>& weights,
                                    const testing::TempDir& dir) {
  std::vector<MixedStream> streams;
  for (size_t i = 0; i < texts.size(); ++i) streams.push_back({whole(tokens_of(texts[i], dir)), weights[i]});
  return streams;
}

TEST(Sampler, PacksDocumentsIntoWindowsWhoseTargetsAreTheNextTokens) {
  const testing::TempDir dir;
  Sampler sampler({{whole(tokens_of("abcde\n\n\nfghijkl", dir)), 1.0}}, 4,
                  0);  // abcde|fghijkl| : windows abcd, e|fg, hijk
  ASSERT_EQ(sampler.num_windows(), 3);
  std::set<std::string> windows;
  for (int64_t i = 0; i < 3; ++i) {
    const Batch batch = sampler.batch(i, 1);
    windows.insert(text_of(batch.ids) + ">" + text_of(batch.targets));
  }
  EXPECT_EQ(windows, (std::set<std::string>{"abcd>bcde", "e|fg>|fgh", "hijk>ijkl"}));
}

TEST(Sampler, GivesEveryWindowOnceInEachPassInAnotherOrder) {
  const testing::TempDir dir;
  const std::string text = many_documents(40);
  Sampler sampler({{whole(tokens_of(text, dir)), 1.0}}, 16, 3);
  const int64_t n = sampler.num_windows();
  std::vector<int64_t> first, second;
  for (int64_t i = 0; i < n; ++i) first.push_back(sampler.place(i).window);
  for (int64_t i = n; i < 2 * n; ++i) second.push_back(sampler.place(i).window);
  EXPECT_EQ(std::set<int64_t>(first.begin(), first.end()).size(), static_cast<size_t>(n));
  EXPECT_EQ(std::set<int64_t>(second.begin(), second.end()).size(), static_cast<size_t>(n));
  EXPECT_NE(first, second);
}

TEST(Sampler, OrderDependsOnSeedAndIndexOnly) {
  const testing::TempDir dir;
  const auto file = tokens_of(many_documents(60), dir);
  const auto tokens = [&](uint64_t seed, const std::vector<int64_t>& indices) {
    Sampler sampler({{whole(file), 1.0}}, 8, seed);
    std::string out;
    for (const int64_t i : indices) out = text_of(sampler.batch(i, 1).ids) + "/" + out;
    return out;
  };
  EXPECT_EQ(tokens(0, {200, 5, 90}), tokens(0, {200, 5, 90}));
  Sampler asked_late({{whole(file), 1.0}}, 8, 0), asked_in_order({{whole(file), 1.0}}, 8, 0);
  for (int64_t i = 0; i < 90; ++i) asked_in_order.batch(i, 1);
  EXPECT_EQ(text_of(asked_late.batch(90, 1).ids), text_of(asked_in_order.batch(90, 1).ids));
  EXPECT_NE(tokens(0, {0, 1, 2, 3}), tokens(1, {0, 1, 2, 3}));
}

TEST(Sampler, MixesByWeightToWithinOneSampleAtEveryMoment) {
  const testing::TempDir dir;
  Sampler sampler(streams_of({many_documents(30), many_documents(10), many_documents(50)}, {5, 3, 2}, dir), 8, 0);
  const double shares[] = {0.5, 0.3, 0.2};
  double taken[3] = {};
  for (int64_t i = 0; i < 500; ++i) {
    taken[sampler.place(i).stream] += 1;
    for (int s = 0; s < 3; ++s)
      ASSERT_NEAR(taken[s], shares[s] * static_cast<double>(i + 1), 1.0) << "stream " << s << ", sample " << i;
  }
}

TEST(Split, HoldsOutWholeDocumentsOfManyAndNeverTrainsOnThem) {
  const testing::TempDir dir;
  const auto split = split_text(tokens_of(many_documents(200), dir), 0.05, 16, 0, "text");
  const auto documents = [](const TokenRuns& stream) {
    std::vector<int64_t> ids(static_cast<size_t>(stream.size()));
    stream.copy(0, stream.size(), ids.data());
    std::set<std::string> out;
    std::string document;
    for (const int64_t id : ids) {
      if (id == 256)
        out.insert(std::exchange(document, ""));
      else
        document += static_cast<char>(id);
    }
    EXPECT_EQ(document, "");
    return out;
  };
  const auto train = documents(split.train), valid = documents(split.valid);
  EXPECT_EQ(valid.size(), 10U);
  EXPECT_EQ(train.size(), 190U);
  for (const auto& document : valid) EXPECT_FALSE(train.contains(document)) << document;
}

TEST(Split, HoldsOutAtLeastAWindow) {
  const testing::TempDir dir;
  const auto split = split_text(tokens_of(many_documents(120), dir), 0.001, 100, 0, "text");
  EXPECT_GE(split.valid.size(), 101);
}

TEST(Split, OfFewDocumentsHoldsOutTheTailOfTheTokens) {
  const testing::TempDir dir;
  const auto file = tokens_of(std::string(1000, 'a') + "\n\n\n" + std::string(999, 'b'), dir);
  const auto split = split_text(file, 0.1, 16, 0, "text");
  EXPECT_EQ(split.train.size() + split.valid.size(), file->num_tokens());
  EXPECT_EQ(split.valid.size(), 200);
  int64_t first = 0;
  split.valid.copy(0, 1, &first);
  EXPECT_EQ(first, 'b');
}

TEST(Split, ATextShorterThanAWindowIsNamed) {
  const testing::TempDir dir;
  const auto file = tokens_of("short", dir);
  const std::string error = testing::error_of([&] { split_text(file, 0, 16, 0, "short.txt"); });
  EXPECT_THAT(error, HasSubstr("short.txt: 6 tokens are too few for a window of 16"));
  EXPECT_THAT(testing::error_of([&] { split_text(tokens_of(std::string(30, 'a'), dir), 0.01, 16, 0, "a"); }),
              HasSubstr("held out for validation"));
}

TEST(ValidationSet, SpreadsItsWindowsEvenlyOverAllStreams) {
  const testing::TempDir dir;
  const auto a = whole(tokens_of(std::string(400, 'a'), dir)), b = whole(tokens_of(std::string(1200, 'b'), dir));
  const ValidationSet set({a, b}, 10, 16);
  ASSERT_EQ(set.num_windows(), 16);
  const std::string text = text_of(set.batch(0, 16).ids);
  EXPECT_EQ(std::count(text.begin(), text.end(), 'a'), 40);
  EXPECT_EQ(std::count(text.begin(), text.end(), 'b'), 120);
  EXPECT_EQ(ValidationSet({a}, 10, 1000).num_windows(), 40);
}

/// The windows that every logged validation was made of: numpy.arange(n) * total // n over all streams' windows.
TEST(ValidationSet, TakesTheWindowsItAlwaysTook) {
  const testing::TempDir dir;
  std::string counted;
  for (int i = 0; i < 400; ++i) counted += static_cast<char>(i / 4);  // byte i / 4: window w of 4 begins with byte w
  const auto file = tokens_of(counted, dir, "");
  const ValidationSet set({TokenRuns(file, {{0, 49}}), TokenRuns(file, {{200, 121}})}, 4, 11);  // 12 and 30 windows
  std::vector<int64_t> begins;
  const Batch batch = set.batch(0, set.num_windows());
  for (int64_t i = 0; i < set.num_windows(); ++i) begins.push_back(batch.ids[i][0].item<int64_t>());
  EXPECT_EQ(begins, (std::vector<int64_t>{0, 3, 7, 11, 50 + 3, 50 + 7, 50 + 10, 50 + 14, 50 + 18, 50 + 22, 50 + 26}));
}

TEST(Sampler, MasksTheTargetsThatAreNotSupervised) {
  const testing::TempDir dir;
  const auto file = marked_tokens({{"abcde", "00111"}, {"fghij", "10011"}}, dir);
  Sampler sampler({{whole(file), 1.0}}, 3, 0);
  const ValidationSet validation({whole(file)}, 3, 3);
  const std::map<std::string, std::string> expected = {{"abc>bcd", "011"}, {"def>efg", "110"}, {"ghi>hij", "011"}};
  std::map<std::string, std::string> sampled, validated;
  const auto add = [](const Batch& batch, std::map<std::string, std::string>& to) {
    std::string mask;
    for (int64_t i = 0; i < 3; ++i) mask += batch.mask[0][i].item<float>() == 1.0F ? '1' : '0';
    to[text_of(batch.ids) + ">" + text_of(batch.targets)] = mask;
    EXPECT_EQ(batch.mask.scalar_type(), torch::kFloat32);
  };
  for (int64_t i = 0; i < 3; ++i) {
    add(sampler.batch(i, 1), sampled);
    add(validation.batch(i, 1), validated);
  }
  EXPECT_EQ(sampled, expected);
  EXPECT_EQ(validated, expected);
}

TEST(Sampler, HasNoMaskWhereEveryTokenIsSupervised) {
  const testing::TempDir dir;
  const auto file = marked_tokens({{"abcdefgh", "11111111"}}, dir), plain = tokens_of("abcdefg", dir),
             masked = marked_tokens({{"abcdefgh", "11111110"}}, dir);
  EXPECT_FALSE(Sampler({{whole(file), 1.0}}, 3, 0).batch(0, 2).mask.defined());
  EXPECT_FALSE(ValidationSet({whole(plain)}, 3, 2).batch(0, 2).mask.defined());
  Sampler mixed({{whole(plain), 1.0}, {whole(masked), 1.0}}, 7, 0);  // two windows, one of each
  EXPECT_EQ(mixed.batch(0, 2).num_supervised(), 7 + 6);
}

TEST(Sampler, NumbersTheDocumentsThatAreKeptApart) {
  const testing::TempDir dir;
  const auto file = marked_tokens({{"abc", "011"}, {"d", "1"}, {"efghi", "11111"}}, dir);
  Sampler sampler({{whole(file), 1.0}}, 8, 0, true);
  const ValidationSet validation({whole(file)}, 8, 1, true);
  const Batch sampled = sampler.batch(0, 1);
  for (const Batch& batch : {sampled, validation.batch(0, 1), sampled.windows(0, 1)}) {
    EXPECT_EQ(text_of(batch.ids), "abcdefgh");
    EXPECT_TRUE(torch::equal(batch.documents, torch::tensor({{0, 0, 0, 1, 2, 2, 2, 2}}, torch::kInt64)));
    EXPECT_TRUE(torch::equal(batch.mask, torch::tensor({{1, 1, 0, 0, 1, 1, 1, 1}}, torch::kFloat32)));
  }
  Sampler cut({{whole(file), 1.0}}, 2, 0, true);  // windows that begin inside a document
  for (int64_t i = 0; i < cut.num_windows(); ++i) {
    const Batch batch = cut.batch(i, 1);
    const bool is_apart = text_of(batch.ids) == "cd";
    EXPECT_EQ(batch.documents[0][1].item<int64_t>(), is_apart ? 1 : 0) << text_of(batch.ids);
    EXPECT_EQ(batch.num_supervised(), is_apart ? 0 : 2) << text_of(batch.ids);
  }
  EXPECT_FALSE(Sampler({{whole(file), 1.0}}, 8, 0).batch(0, 1).documents.defined());
}

TEST(Split, ATextWithoutASupervisedTokenIsNamed) {
  const testing::TempDir dir;
  const auto file = marked_tokens({{std::string(40, 'a'), std::string(40, '0')}, {"bcd", "111"}}, dir);
  EXPECT_EQ(testing::error_of([&] { split_text(file, 0.4, 8, 0, "chat.jsonl"); }),
            "chat.jsonl: no token of it is supervised: there is nothing to learn (data.roles says which turns of "
            "conversations are)");  // the end was held out
  EXPECT_EQ(testing::error_of([&] { split_text(file, 0, 8, 0, "chat.jsonl"); }), "");
  EXPECT_EQ(testing::error_of([&] {
              ValidationSet({TokenRuns(file, {{0, 40}})}, 8, 2);
            }),
            "data.valid: no token of the 2 windows to validate on is supervised; give another text, or more "
            "validate.windows");
}

}  // namespace
}  // namespace crumb::train
