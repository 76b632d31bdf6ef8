// Who runs the pieces of a parallel loop: the pool of threads, Torch's threads, or the caller alone. Kernels and the
// runtime take one, so that a process has one set of threads whoever owns them.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#include "core/common/function_ref.h"

namespace crumb {

class Executor {
 public:
  /// `thread` is below num_threads(); no two calls of one run have the same at the same time.
  using Body = FunctionRef<void(int64_t begin, int64_t end, int thread)>;

  virtual ~Executor() = default;
  virtual int num_threads() const = 0;
  /// Calls body on disjoint ranges that cover [0, n), each of at least `grain` items but the last; returns when all are
  /// done. The first exception of a body is rethrown. A run from inside a body happens on the caller's thread.
  virtual void run(int64_t n, int64_t grain, const Body& body) = 0;

  /// The same for items that cost differently: pieces of `grain` items go to whichever thread is free. Results may not
  /// depend on which thread that is.
  template <class Function>  // (begin, end, thread)
  void run_in_turns(int64_t n, int64_t grain, const Function& body) {
    if (n <= 0) return;
    std::atomic<int64_t> next{0};
    const int64_t pieces = (n + grain - 1) / grain;
    run(pieces < num_threads() ? pieces : num_threads(), 1, [&](int64_t, int64_t, int thread) {
      for (int64_t piece = next++; piece < pieces; piece = next++) {
        const int64_t begin = piece * grain;
        body(begin, begin + grain < n ? begin + grain : n, thread);
      }
    });
  }
};

/// The caller's thread alone: the oracle for every parallel path.
class SerialExecutor : public Executor {
 public:
  int num_threads() const override { return 1; }
  void run(int64_t n, int64_t /*grain*/, const Body& body) override {
    if (n > 0) body(0, n, 0);
  }
};
inline Executor& serial_executor() {
  static SerialExecutor executor;
  return executor;
}

/// At least `count` floats of the calling thread's own, aligned to 64 bytes, not initialised; valid until the thread's
/// next call. Belongs to the thread and not to an executor: executors may nest and two may share a thread.
inline float* thread_scratch(int64_t count) {
  struct Free {
    void operator()(float* p) const { std::free(p); }
  };
  thread_local std::unique_ptr<float, Free> memory;
  thread_local int64_t size = 0;
  if (size < count) {
    const int64_t rounded = (count + 15) / 16 * 16;
    memory.reset();
    size = 0;
    memory.reset(static_cast<float*>(std::aligned_alloc(64, static_cast<size_t>(rounded) * sizeof(float))));
    if (memory == nullptr) throw std::bad_alloc();
    size = rounded;
  }
  return memory.get();
}

}  // namespace crumb
