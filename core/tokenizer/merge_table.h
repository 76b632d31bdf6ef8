// Byte-pair merging: which pairs of symbols merge, and the merging of one word. Lowest rank first, leftmost on ties.
// Source: Sennrich, Haddow, Birch, "Neural Machine Translation of Rare Words with Subword Units", ACL 2016;
// SentencePiece's bpe_model.cc for the order by scores.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace crumb::tokenizer {

using Symbol = int32_t;

class MergeTable {
 public:
  struct Entry {
    int32_t rank = kNone;  // kNone: the pair does not merge
    Symbol result = 0;
  };
  static constexpr int32_t kNone = INT32_MAX;

  explicit MergeTable(size_t expected_pairs = 0);

  /// The same pair twice: the later one holds, as in the `tokenizers` package.
  void insert(Symbol left, Symbol right, int32_t rank, Symbol result);
  Entry find(Symbol left, Symbol right) const;

  /// Merges the symbols of one word in place until no pair is left.
  void merge(std::vector<Symbol>& word) const;

 private:
  struct Slot {
    uint64_t key = kEmpty;
    Entry entry;
  };
  static constexpr uint64_t kEmpty = ~uint64_t{0};

  size_t slot_of(uint64_t key) const;
  void grow();
  void merge_short(std::vector<Symbol>& word) const;
  void merge_long(std::vector<Symbol>& word) const;

  std::vector<Slot> slots_;  // a power of two, open addressing
  size_t used_ = 0;
};

}  // namespace crumb::tokenizer
