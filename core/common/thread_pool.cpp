#include "core/common/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "core/common/error.h"

namespace crumb {
namespace {
thread_local bool t_inside_body = false;
}

struct ThreadPool::State {
  std::mutex call;   // held by the caller whose work is being done: calls from several threads take turns
  std::mutex mutex;  // guards everything below
  std::condition_variable wake, done;
  std::vector<std::thread> threads;
  const Body* body = nullptr;
  int64_t n = 0, part = 0;      // range and length of one part
  int64_t next = 0, parts = 0;  // parts handed out, parts in all
  int64_t running = 0;
  uint64_t generation = 0;
  bool stop = false;
  std::exception_ptr error;

  void wait_for_work(int thread) {
    std::unique_lock lock(mutex);
    uint64_t seen = 0;
    for (;;) {
      wake.wait(lock, [&] { return stop || generation != seen; });
      if (stop) return;
      seen = generation;
      work(lock, thread);
    }
  }

  // Called with the lock held; takes parts until none is left.
  void work(std::unique_lock<std::mutex>& lock, int thread) {
    while (next < parts) {
      const int64_t begin = next++ * part, end = std::min(n, begin + part);
      const auto* f = body;
      ++running;
      lock.unlock();
      std::exception_ptr failure;
      t_inside_body = true;
      try {
        (*f)(begin, end, thread);
      } catch (...) {
        failure = std::current_exception();
      }
      t_inside_body = false;
      lock.lock();
      --running;
      if (failure && !error) error = failure;
    }
    if (running == 0) done.notify_all();
  }

  void stop_threads() {
    {
      const std::lock_guard lock(mutex);
      stop = true;
    }
    wake.notify_all();
    for (auto& t : threads) t.join();
  }
};

ThreadPool::ThreadPool(int num_threads) : state_(std::make_unique<State>()) {
  if (num_threads <= 0) num_threads = available_processors();
  try {
    for (int i = 1; i < num_threads; ++i) state_->threads.emplace_back([s = state_.get(), i] { s->wait_for_work(i); });
  } catch (const std::exception& e) {  // no memory, or a limit on processes
    state_->stop_threads();
    run_error("cannot start {} threads: {}; {} could be started, give fewer with --threads", num_threads, e.what(),
              state_->threads.size() + 1);
  }
}

ThreadPool::~ThreadPool() { state_->stop_threads(); }

int ThreadPool::num_threads() const { return static_cast<int>(state_->threads.size()) + 1; }

void ThreadPool::run(int64_t n, int64_t grain, const Body& body) {
  if (n <= 0) return;
  const int64_t threads = num_threads();
  const int64_t part = std::max<int64_t>(std::max<int64_t>(grain, 1), (n + threads - 1) / threads);
  if (t_inside_body || part >= n) {
    body(0, n, 0);
    return;
  }
  State& s = *state_;
  const std::lock_guard turn(s.call);
  std::unique_lock lock(s.mutex);
  s.body = &body;
  s.n = n;
  s.part = part;
  s.next = 0;
  s.parts = (n + part - 1) / part;
  s.error = nullptr;
  ++s.generation;
  s.wake.notify_all();
  s.work(lock, 0);
  s.done.wait(lock, [&] { return s.next >= s.parts && s.running == 0; });
  s.body = nullptr;
  if (s.error) std::rethrow_exception(s.error);
}

int available_processors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace crumb
