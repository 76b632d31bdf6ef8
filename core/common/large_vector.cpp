#include "core/common/large_vector.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <mutex>

namespace crumb {
namespace {

constexpr size_t kLine = 64, kPage = 4096, kHugePage = size_t{2} << 20, kBlock = 32 * kHugePage;
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
  void free(void* memory, size_t bytes) {
    const std::lock_guard lock(mutex_);
    auto* piece = static_cast<char*>(memory);
    const auto at = std::prev(blocks_.upper_bound(piece));
    auto& [begin, block] = *at;
    if (--block.pieces > 0) {
      if (piece + bytes == begin + block.used)
        block.used -= bytes;  // the next takes its place
      else
        give_back(piece, bytes);
    } else if (at == current_) {
      block.used = 0;
    } else {
      std::free(begin);
      blocks_.erase(at);
    }
  }

 private:
  struct Block {
    size_t used = 0, pieces = 0;
  };
  /// The whole pages of a hole, to the kernel.
  static void give_back(char* piece, size_t bytes) {
    const auto address = reinterpret_cast<uintptr_t>(piece);
    const uintptr_t first = (address + kPage - 1) / kPage * kPage, last = (address + bytes) / kPage * kPage;
    if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
  }
  std::mutex mutex_;
  std::map<char*, Block> blocks_;  // by where they begin
  std::map<char*, Block>::iterator current_ = blocks_.end();
};

Blocks& blocks() {
  static auto* all = new Blocks;  // vectors of static storage may be freed after it would be
  return *all;
}

size_t whole_lines(size_t bytes) { return (std::max<size_t>(bytes, 1) + kLine - 1) / kLine * kLine; }
bool is_alone(size_t bytes) { return bytes >= kLeastAlone; }

}  // namespace

void* allocate_large(size_t bytes) {
  return is_alone(bytes) ? huge_pages(bytes) : blocks().allocate(whole_lines(bytes));
}

void free_large(void* memory, size_t bytes) {
  if (is_alone(bytes))
    std::free(memory);
  else
    blocks().free(memory, whole_lines(bytes));
}

}  // namespace crumb
