#include "core/tokenizer/merge_table.h"

#include <algorithm>
#include <bit>
#include <queue>

namespace crumb::tokenizer {
namespace {

// Below this many symbols looking at every pair again after each merge is faster than a queue.
constexpr size_t kShortWord = 48;

uint64_t key_of(Symbol left, Symbol right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

struct Candidate {
  int32_t rank;
  int32_t position;
  Symbol left, right;
  bool operator>(const Candidate& other) const {
    return rank != other.rank ? rank > other.rank : position > other.position;
  }
};

struct Node {
  Symbol symbol;
  int32_t previous, next;  // -1: none
};

}  // namespace

MergeTable::MergeTable(size_t expected_pairs) : slots_(std::bit_ceil(std::max<size_t>(16, 2 * expected_pairs))) {}

size_t MergeTable::slot_of(uint64_t key) const {
  const size_t mask = slots_.size() - 1;
  size_t i = (key * 0x9e3779b97f4a7c15 >> 20) & mask;
  while (slots_[i].key != key && slots_[i].key != kEmpty) i = (i + 1) & mask;
  return i;
}

void MergeTable::grow() {
  std::vector<Slot> old(2 * slots_.size());
  old.swap(slots_);
  for (const Slot& slot : old) {
    if (slot.key != kEmpty) slots_[slot_of(slot.key)] = slot;
  }
}

void MergeTable::insert(Symbol left, Symbol right, int32_t rank, Symbol result) {
  if (2 * (used_ + 1) > slots_.size()) grow();
  Slot& slot = slots_[slot_of(key_of(left, right))];
  if (slot.key == kEmpty) ++used_;
  slot = {key_of(left, right), {rank, result}};
}

MergeTable::Entry MergeTable::find(Symbol left, Symbol right) const {
  return slots_[slot_of(key_of(left, right))].entry;
}

void MergeTable::merge(std::vector<Symbol>& word) const {
  if (word.size() < 2) return;
  if (word.size() <= kShortWord)
    merge_short(word);
  else
    merge_long(word);
}

void MergeTable::merge_short(std::vector<Symbol>& word) const {
  Entry pairs[kShortWord];
  size_t size = word.size();
  for (size_t i = 0; i + 1 < size; ++i) pairs[i] = find(word[i], word[i + 1]);
  while (size > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < size; ++i) {
      if (pairs[i].rank < pairs[best].rank) best = i;
    }
    if (pairs[best].rank == kNone) break;
    word[best] = pairs[best].result;
    --size;
    std::copy(word.begin() + static_cast<std::ptrdiff_t>(best) + 2,
              word.begin() + static_cast<std::ptrdiff_t>(size) + 1,
              word.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    std::copy(pairs + best + 1, pairs + size, pairs + best);
    if (best > 0) pairs[best - 1] = find(word[best - 1], word[best]);
    if (best + 1 < size) pairs[best] = find(word[best], word[best + 1]);
  }
  word.resize(size);
}

void MergeTable::merge_long(std::vector<Symbol>& word) const {
  const auto size = static_cast<int32_t>(word.size());
  std::vector<Node> nodes(word.size());
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto offer = [&](int32_t position) {
    const int32_t next = nodes[static_cast<size_t>(position)].next;
    if (next < 0) return;
    const Symbol left = nodes[static_cast<size_t>(position)].symbol, right = nodes[static_cast<size_t>(next)].symbol;
    const Entry entry = find(left, right);
    if (entry.rank != kNone) queue.push({entry.rank, position, left, right});
  };
  for (int32_t i = 0; i < size; ++i)
    nodes[static_cast<size_t>(i)] = {word[static_cast<size_t>(i)], i - 1, i + 1 < size ? i + 1 : -1};
  for (int32_t i = 0; i < size; ++i) offer(i);
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    Node& left = nodes[static_cast<size_t>(top.position)];
    if (left.symbol != top.left || left.next < 0) continue;  // merged away since it was offered
    Node& right = nodes[static_cast<size_t>(left.next)];
    if (right.symbol != top.right) continue;
    left.symbol = find(top.left, top.right).result;
    left.next = right.next;
    right.symbol = -1;
    if (left.next >= 0) nodes[static_cast<size_t>(left.next)].previous = top.position;
    if (left.previous >= 0) offer(left.previous);
    offer(top.position);
  }
  word.clear();
  for (int32_t i = 0; i >= 0; i = nodes[static_cast<size_t>(i)].next)
    word.push_back(nodes[static_cast<size_t>(i)].symbol);
}

}  // namespace crumb::tokenizer
