// A pool of threads: the Executor of programs without Torch.
//
// Decoding a token is some hundred loops of a few microseconds: work is handed over by atomics, and a thread that has
// none looks for more for a while before it sleeps. With more threads than processors none looks: it would only keep
// another from working.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "core/common/executor.h"

namespace crumb {

/// Calls body(begin, end) on disjoint ranges that cover [0, n), each of at least `grain` items but the last; returns
/// when all are done. The first exception of a body is rethrown.
using ParallelFor = std::function<void(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t)>& body)>;

/// More are a typing mistake: what --threads and the jobs accept at most.
inline constexpr int kMostThreads = 1024;

class ThreadPool : public Executor {
 public:
  /// num_threads counts the caller's thread; <= 0: one per available processor. Throws RunError where the system does
  /// not give that many.
  explicit ThreadPool(int num_threads = 0);
  ~ThreadPool() override;
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const override;
  /// Ranges are cut in equal parts, one a thread: the cut depends on n, grain and the number of threads only. Calls
  /// from several threads take turns.
  void run(int64_t n, int64_t grain, const Body& body) override;
  void parallel_for(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t)>& body) {
    run(n, grain, [&](int64_t begin, int64_t end, int) { body(begin, end); });
  }
  ParallelFor as_parallel_for() {
    return [this](int64_t n, int64_t grain, const std::function<void(int64_t, int64_t)>& body) {
      parallel_for(n, grain, body);
    };
  }

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Processors this process may run on (its affinity mask, not the machine's count).
int available_processors();

/// One thread: the oracle for every parallel path.
inline void serial_for(int64_t n, int64_t /*grain*/, const std::function<void(int64_t, int64_t)>& body) {
  if (n > 0) body(0, n);
}

}  // namespace crumb
