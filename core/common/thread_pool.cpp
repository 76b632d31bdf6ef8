#include "core/common/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "core/common/error.h"

namespace crumb {
namespace {

thread_local bool t_inside_body = false;

/// What is handed out of one run, in one word, so that a thread that comes late takes nothing of the next: the number
/// of the run (modulo 2^32), its parts, and how many of them are taken.
class Ticket {
 public:
  Ticket() = default;
  Ticket(uint32_t run, uint64_t parts) : bits_(uint64_t{run} << 32 | parts << 16) {}
  uint32_t run() const { return static_cast<uint32_t>(bits_ >> 32); }
  int64_t parts() const { return static_cast<int64_t>(bits_ >> 16 & 0xFFFF); }
  int64_t taken() const { return static_cast<int64_t>(bits_ & 0xFFFF); }
  bool is_empty() const { return taken() == parts(); }
  Ticket next() const {
    Ticket result = *this;
    ++result.bits_;
    return result;
  }

 private:
  uint64_t bits_ = 0;
};
static_assert(kMostThreads < 0x10000);

/// Some 20 to 60 microseconds: longer than what one thread does between two loops of a decoding step, shorter than
/// anybody would notice.
constexpr int kLooks = 1500;

inline void pause_processor() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// Until `ready()`, at most `looks` times.
template <class Ready>
bool look_for(int looks, const Ready& ready) {
  for (int i = 0; i < looks; ++i) {
    if (ready()) return true;
    pause_processor();
  }
  return ready();
}
}  // namespace

struct ThreadPool::State {
  std::mutex call;  // held by the caller whose work is being done: calls from several threads take turns
  std::vector<std::thread> threads;
  int looks = 0;
  // Of the run, written before its ticket is and unchanged until `unfinished` is 0.
  const Body* body = nullptr;
  int64_t n = 0, part = 0;  // range and length of one part
  std::mutex error_mutex;
  std::exception_ptr error;
  // Each in a line of the cache of its own: the workers read the first while the caller writes the other.
  alignas(64) std::atomic<Ticket> ticket{};
  std::atomic<bool> stop{false};
  alignas(64) std::atomic<int64_t> unfinished{0};  // parts

  void wait_for_work(int thread) {
    for (uint32_t seen = 0;;) {
      Ticket now = ticket.load(std::memory_order_acquire);
      const auto is_new = [&] { return (now = ticket.load(std::memory_order_acquire)).run() != seen || stop; };
      if (!look_for(looks, is_new)) {
        while (!is_new()) ticket.wait(now, std::memory_order_acquire);
      }
      if (stop) return;
      seen = now.run();
      work(seen, thread);
    }
  }

  /// Takes parts of this run until none is left.
  void work(uint32_t run, int thread) {
    Ticket now = ticket.load(std::memory_order_acquire);
    while (now.run() == run && !now.is_empty()) {
      if (!ticket.compare_exchange_weak(now, now.next(), std::memory_order_acq_rel, std::memory_order_acquire))
        continue;
      do_part(now.taken(), thread);
      now = ticket.load(std::memory_order_acquire);
    }
  }

  void do_part(int64_t index, int thread) {
    const int64_t begin = index * part;
    t_inside_body = true;
    try {
      (*body)(begin, std::min(n, begin + part), thread);
    } catch (...) {
      const std::lock_guard lock(error_mutex);
      if (!error) error = std::current_exception();
    }
    t_inside_body = false;
    if (unfinished.fetch_sub(1, std::memory_order_acq_rel) == 1) unfinished.notify_one();
  }

  void start(int64_t parts) {
    unfinished.store(parts, std::memory_order_relaxed);
    const uint32_t run = ticket.load(std::memory_order_relaxed).run() + 1;
    ticket.store(Ticket(run, static_cast<uint64_t>(parts)), std::memory_order_release);
    ticket.notify_all();
    work(run, 0);
  }

  void wait_for_end() {
    const auto is_over = [&] { return unfinished.load(std::memory_order_acquire) == 0; };
    if (look_for(looks, is_over)) return;
    for (int64_t left = unfinished; left != 0; left = unfinished.load(std::memory_order_acquire))
      unfinished.wait(left, std::memory_order_acquire);
  }

  void stop_threads() {
    stop = true;
    const Ticket now = ticket.load();
    ticket.store(Ticket(now.run() + 1, 0));
    ticket.notify_all();
    for (auto& t : threads) t.join();
  }
};

ThreadPool::ThreadPool(int num_threads) : state_(std::make_unique<State>()) {
  if (num_threads <= 0) num_threads = available_processors();
  state_->looks = num_threads <= available_processors() ? kLooks : 0;
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
  s.body = &body;
  s.n = n;
  s.part = part;
  s.error = nullptr;
  s.start((n + part - 1) / part);
  s.wait_for_end();
  if (s.error) std::rethrow_exception(s.error);
}

int available_processors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace crumb
