// Ids of words seen before. Text repeats itself: nine words in ten come from here.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "core/tokenizer/tokenizer.h"

namespace crumb::tokenizer {

/// Not thread-safe: one for each running call. Forgets everything when it is full.
class WordCache {
 public:
  static constexpr size_t kMaxWordBytes = 192;

  WordCache() : slots_(kSlots) {}

  static uint64_t hash(std::string_view word) {
    uint64_t h = word.size() * 0x9e3779b97f4a7c15;
    const char* p = word.data();
    size_t left = word.size();
    for (; left >= 8; left -= 8, p += 8) h = mix(h ^ load(p, 8));
    if (left > 0) h = mix(h ^ load(p, left));
    return h;
  }

  /// Appends the ids of the word and returns true if it is known.
  bool append(std::string_view word, uint64_t hash, std::vector<TokenId>& ids) const {
    for (size_t i = hash & kMask;; i = (i + 1) & kMask) {
      const Slot& slot = slots_[i];
      if (slot.num_bytes == 0) return false;
      if (slot.hash != hash || slot.num_bytes != word.size()) continue;
      if (std::memcmp(bytes_.data() + slot.bytes, word.data(), word.size()) != 0) continue;
      const TokenId* known = ids_.data() + slot.ids;
      ids.insert(ids.end(), known, known + slot.num_ids);
      return true;
    }
  }

  /// The word must be new, not empty and at most kMaxWordBytes long.
  void insert(std::string_view word, uint64_t hash, const TokenId* ids, size_t num_ids) {
    if (used_ == kSlots / 2) clear();
    size_t i = hash & kMask;
    while (slots_[i].num_bytes != 0) i = (i + 1) & kMask;
    slots_[i] = {hash, static_cast<uint32_t>(bytes_.size()), static_cast<uint32_t>(ids_.size()),
                 static_cast<uint16_t>(word.size()), static_cast<uint16_t>(num_ids)};
    bytes_.append(word);
    ids_.insert(ids_.end(), ids, ids + num_ids);
    ++used_;
  }

 private:
  struct Slot {
    uint64_t hash = 0;
    uint32_t bytes = 0, ids = 0;  // where they begin
    uint16_t num_bytes = 0, num_ids = 0;
  };
  static constexpr size_t kSlots = 1 << 16, kMask = kSlots - 1;

  static uint64_t load(const char* p, size_t size) {
    uint64_t word = 0;
    std::memcpy(&word, p, size);
    return word;
  }
  static uint64_t mix(uint64_t h) {
    h *= 0xff51afd7ed558ccd;
    return h ^ (h >> 32);
  }
  void clear() {
    slots_.assign(kSlots, {});
    bytes_.clear();
    ids_.clear();
    used_ = 0;
  }

  std::vector<Slot> slots_;  // open addressing
  std::string bytes_;
  std::vector<TokenId> ids_;
  size_t used_ = 0;
};

}  // namespace crumb::tokenizer
