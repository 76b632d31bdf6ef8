// Vectors for weights: nothing is written into memory that will be written anyway, and they lie on huge pages.
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>
#include <vector>

namespace crumb {

/// Memory that begins at a line of the cache and lies on huge pages, if the kernel has some: fewer faults as it is
/// filled, and on a machine whose prefetchers stop at the end of a page, a third to a half more of its bandwidth.
/// Pieces of less than two huge pages share blocks of 64 MB, which are resident as far as they have been filled. What
/// is freed in the midst of a block goes back to the kernel, not to later pieces; the block when nothing is left in it.
/// std::bad_alloc without memory. Safe from several threads.
void* allocate_large(size_t bytes);
/// `bytes` as asked for.
void free_large(void* memory, size_t bytes);

/// Elements that are not given a value have none (trivial types only).
template <class T>
struct LargeAllocator {
  static_assert(std::is_trivially_copyable_v<T>);
  using value_type = T;
  LargeAllocator() = default;
  template <class U>
  explicit(false) LargeAllocator(const LargeAllocator<U>&) {}

  T* allocate(size_t count) { return static_cast<T*>(allocate_large(count * sizeof(T))); }
  void deallocate(T* memory, size_t count) { free_large(memory, count * sizeof(T)); }

  template <class U>
  void construct(U* at) {
    ::new (static_cast<void*>(at)) U;  // no value
  }
  template <class U, class... Args>
  void construct(U* at, Args&&... args) {
    ::new (static_cast<void*>(at)) U(std::forward<Args>(args)...);
  }
  bool operator==(const LargeAllocator&) const { return true; }
};

template <class T>
using LargeVector = std::vector<T, LargeAllocator<T>>;

}  // namespace crumb
