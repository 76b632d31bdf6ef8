#include "core/common/large_vector.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <mutex>

namespace crumb {
namespace {

constexpr size_t kLine = 64, kHugePage = size_t{2} << 20, kBlock = 32 * kHugePage;
#ifdef CRUMB_SANITIZED
constexpr size_t kLeastAlone = 0;  // a sanitizer sees what lies beyond the end of a piece only if nothing else does
#else
constexpr size_t kLeastAlone = 2 * kHugePage;
#endif

void* huge_pages(size_t bytes) {
  void* memory = nullptr;
  const size_t huge = bytes / kHugePage * kHugePage;
  if (posix_memalign(&memory, huge > 0 ? kHugePage : kLine, std::max<size_t>(bytes, 1)) != 0) throw std::bad_alloc();
  if (huge > 0) madvise(memory, huge, MADV_HUGEPAGE);  // a wish: nothing depends on it
  return memory;
}

/// Blocks that pieces are cut from, one behind the other.
class Blocks {
 public:
  void* allocate(size_t bytes) {
    const std::lock_guard lock(mutex_);
    if (current_ == blocks_.end() || current_->second.used + bytes > kBlock)
      current_ = blocks_.emplace(static_cast<char*>(huge_pages(kBlock)), Block{}).first;
    auto& [begin, block] = *current_;
    char* piece = begin + block.used;
    block.used += bytes;
    ++block.pieces;
    return piece;
  }
  void free(void* piece) {
    const std::lock_guard lock(mutex_);
    const auto at = std::prev(blocks_.upper_bound(static_cast<char*>(piece)));
    if (--at->second.pieces > 0) return;
    if (current_ == at) current_ = blocks_.end();
    std::free(at->first);
    blocks_.erase(at);
  }

 private:
  struct Block {
    size_t used = 0, pieces = 0;
  };
  std::mutex mutex_;
  std::map<char*, Block> blocks_;  // by where they begin
  std::map<char*, Block>::iterator current_ = blocks_.end();
};

Blocks& blocks() {
  static auto* all = new Blocks;  // vectors of static storage may be freed after it would be
  return *all;
}

bool is_alone(size_t bytes) { return bytes >= kLeastAlone; }

}  // namespace

void* allocate_large(size_t bytes) {
  return is_alone(bytes) ? huge_pages(bytes)
                         : blocks().allocate((std::max<size_t>(bytes, 1) + kLine - 1) / kLine * kLine);
}

void free_large(void* memory, size_t bytes) {
  if (is_alone(bytes))
    std::free(memory);
  else
    blocks().free(memory);
}

}  // namespace crumb
