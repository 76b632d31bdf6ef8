#include "core/tokenizer/merge_table.h"

#include <gtest/gtest.h>

#include <map>

#include "core/common/rng.h"

namespace crumb::tokenizer {
namespace {

using Word = std::vector<Symbol>;

/// The definition: merge the pair of lowest rank, the leftmost of them, until there is none.
Word merged_by_definition(const std::map<std::pair<Symbol, Symbol>, std::pair<int32_t, Symbol>>& merges, Word word) {
  while (true) {
    size_t best = 0;
    int32_t rank = INT32_MAX;
    for (size_t i = 0; i + 1 < word.size(); ++i) {
      const auto it = merges.find({word[i], word[i + 1]});
      if (it != merges.end() && it->second.first < rank) rank = it->second.first, best = i;
    }
    if (rank == INT32_MAX) return word;
    word[best] = merges.at({word[best], word[best + 1]}).second;
    word.erase(word.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
}

TEST(MergeTable, MergesShortAndLongWordsByTheDefinition) {
  for (uint64_t seed = 0; seed < 60; ++seed) {
    const Rng rng(seed);
    MergeTable table;
    std::map<std::pair<Symbol, Symbol>, std::pair<int32_t, Symbol>> merges;
    for (uint64_t i = 0; i < 150; ++i) {  // equal ranks happen: scores tie
      const auto left = static_cast<Symbol>(rng.below(5 * i, 4 + i)) - 2,
                 right = static_cast<Symbol>(rng.below(5 * i + 1, 4 + i)) - 2;
      const auto rank = static_cast<int32_t>(rng.below(5 * i + 2, 60));
      const auto result = static_cast<Symbol>(4 + i);
      table.insert(left, right, rank, result);
      merges[{left, right}] = {rank, result};
    }
    for (const size_t size : {0, 1, 2, 3, 10, 48, 49, 50, 200}) {
      Word word;
      for (size_t i = 0; i < size; ++i) word.push_back(static_cast<Symbol>(rng.below(1000 + 300 * size + i, 6)) - 2);
      // -1 is never a symbol.
      for (Symbol& symbol : word) symbol = symbol == -1 ? -3 : symbol;
      Word got = word;
      table.merge(got);
      ASSERT_EQ(got, merged_by_definition(merges, word)) << "seed " << seed << ", " << size << " symbols";
    }
  }
}

TEST(MergeTable, TheLaterOfTwoEqualPairsHolds) {
  MergeTable table;
  table.insert(1, 2, 5, 7);
  table.insert(1, 2, 9, 8);
  EXPECT_EQ(table.find(1, 2).rank, 9);
  EXPECT_EQ(table.find(1, 2).result, 8);
  EXPECT_EQ(table.find(2, 1).rank, MergeTable::kNone);
}

}  // namespace
}  // namespace crumb::tokenizer
