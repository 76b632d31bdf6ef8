#include "core/common/thread_pool.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include "tests/testing/testing.h"

namespace crumb {
namespace {

using Ranges = std::vector<std::pair<int64_t, int64_t>>;

Ranges ranges_of(ThreadPool& pool, int64_t n, int64_t grain) {
  std::mutex mutex;
  Ranges ranges;
  pool.parallel_for(n, grain, [&](int64_t begin, int64_t end) {
    const std::lock_guard lock(mutex);
    ranges.emplace_back(begin, end);
  });
  std::sort(ranges.begin(), ranges.end());
  return ranges;
}

TEST(ThreadPool, CoversEveryItemExactlyOnce) {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.num_threads(), threads);
    for (const int64_t n : {0, 1, 2, 3, 7, 8, 100, 1001}) {
      for (const int64_t grain : {0, 1, 3, 64, 5000}) {
        int64_t expected = 0;
        for (const auto& [begin, end] : ranges_of(pool, n, grain)) {
          EXPECT_EQ(begin, expected);
          EXPECT_GT(end, begin);
          EXPECT_TRUE(end == n || end - begin >= grain);
          expected = end;
        }
        EXPECT_EQ(expected, n) << threads << " threads, grain " << grain;
      }
    }
  }
}

TEST(ThreadPool, CutsTheSameRangesEveryTime) {
  ThreadPool pool(4);
  const Ranges first = ranges_of(pool, 1000, 10);
  EXPECT_EQ(first.size(), 4u);
  for (int i = 0; i < 100; ++i) ASSERT_EQ(ranges_of(pool, 1000, 10), first);
}

TEST(ThreadPool, WorksOnAllItsThreads) {
  ThreadPool pool(3);
  std::atomic<int> arrived{0};
  // Each part waits for the others: with fewer threads than parts this would never end.
  pool.parallel_for(3, 1, [&](int64_t, int64_t) {
    ++arrived;
    while (arrived < 3) std::this_thread::yield();
  });
  EXPECT_EQ(arrived, 3);
}

TEST(ThreadPool, GivesEachThreadOfARunANumberOfItsOwn) {
  ThreadPool pool(3);
  std::array<std::atomic<int>, 3> calls{};
  std::atomic<int> arrived{0};
  pool.run(3, 1, [&](int64_t, int64_t, int thread) {
    ++calls.at(static_cast<size_t>(thread));
    ++arrived;
    while (arrived < 3) std::this_thread::yield();
  });
  for (const auto& count : calls) EXPECT_EQ(count, 1);
}

TEST(ThreadPool, InTurnsEveryItemIsDoneOnceWhicheverThreadIsFree) {
  for (const int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    for (const int64_t n : {0, 1, 4, 7, 100}) {
      for (const int64_t grain : {1, 3, 200}) {
        std::vector<std::atomic<int>> done(static_cast<size_t>(n));
        pool.run_in_turns(n, grain, [&](int64_t begin, int64_t end, int) {
          EXPECT_LE(end - begin, grain);
          for (int64_t i = begin; i < end; ++i) ++done[static_cast<size_t>(i)];
        });
        for (const auto& count : done) EXPECT_EQ(count, 1) << threads << " threads, " << n << " items of " << grain;
      }
    }
  }
}

TEST(ThreadPool, InTurnsAFreeThreadTakesWhatABusyOneLeaves) {
  ThreadPool pool(2);
  std::atomic<int> others{0};
  // The first item ends only when all others are done: one after the other, by the other thread.
  pool.run_in_turns(8, 1, [&](int64_t begin, int64_t, int) {
    if (begin > 0) {
      ++others;
      return;
    }
    while (others < 7) std::this_thread::yield();
  });
  EXPECT_EQ(others, 7);
}

TEST(ThreadScratch, IsTheThreadsOwnAndAligned) {
  ThreadPool pool(2);
  std::atomic<int> arrived{0};
  std::array<float*, 2> scratch{};
  pool.run(2, 1, [&](int64_t, int64_t, int thread) {
    float* mine = thread_scratch(100);
    for (int i = 0; i < 100; ++i) mine[i] = static_cast<float>(thread);
    scratch.at(static_cast<size_t>(thread)) = mine;
    ++arrived;
    while (arrived < 2) std::this_thread::yield();
    for (int i = 0; i < 100; ++i) EXPECT_EQ(mine[i], static_cast<float>(thread));
  });
  EXPECT_NE(scratch[0], scratch[1]);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(scratch[0]) % 64, 0u);
}

TEST(ThreadPool, RunsANestedCallOnTheCallersThread) {
  ThreadPool pool(4);
  std::atomic<int64_t> sum{0};
  std::atomic<bool> moved{false};
  pool.parallel_for(8, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto outer = std::this_thread::get_id();
      pool.parallel_for(10, 1, [&](int64_t b, int64_t e) {
        if (std::this_thread::get_id() != outer) moved = true;
        sum += e - b;
      });
    }
  });
  EXPECT_EQ(sum, 80);
  EXPECT_FALSE(moved);
}

TEST(ThreadPool, StaysInsideTheBodyAfterANestedCall) {
  ThreadPool pool(2);
  std::atomic<bool> moved{false};
  pool.parallel_for(2, 1, [&](int64_t, int64_t) {
    const auto self = std::this_thread::get_id();
    for (int i = 0; i < 3; ++i)
      pool.parallel_for(4, 1, [&](int64_t, int64_t) { moved = moved || std::this_thread::get_id() != self; });
  });
  EXPECT_FALSE(moved);
}

TEST(ThreadPool, RethrowsAnExceptionAndGoesOnWorking) {
  ThreadPool pool(4);
  for (int round = 0; round < 20; ++round) {
    std::atomic<int> others{0};
    try {
      pool.parallel_for(4, 1, [&](int64_t begin, int64_t) {
        if (begin == round % 4) throw std::runtime_error("part " + std::to_string(begin));
        ++others;
      });
      FAIL() << "no exception came";
    } catch (const std::runtime_error& e) {
      EXPECT_EQ(e.what(), "part " + std::to_string(round % 4));
    }
    EXPECT_EQ(others, 3);
    EXPECT_EQ(ranges_of(pool, 100, 1).size(), 4u);
  }
}

TEST(ThreadPool, AfterAnExceptionOfASerialCallIsNotTakenForABody) {
  ThreadPool pool(4);
  EXPECT_THROW(pool.parallel_for(1, 1, [](int64_t, int64_t) { throw std::runtime_error("x"); }), std::runtime_error);
  EXPECT_EQ(ranges_of(pool, 100, 1).size(), 4u);
}

TEST(ThreadPool, LosesNoneOfManyShortRuns) {
  for (const int threads : {2, 5}) {
    ThreadPool pool(threads);
    int64_t sums[5] = {};  // not atomic: a run that ended before its parts would be a race
    for (int64_t run = 0; run < 20000; ++run)
      pool.run(threads, 1, [&](int64_t begin, int64_t, int) { sums[begin] += run; });
    for (int i = 0; i < threads; ++i) EXPECT_EQ(sums[i], 20000 * 19999 / 2) << threads;
  }
}

TEST(ThreadPool, WakesThreadsThatFellAsleep) {
  ThreadPool pool(2);
  for (int i = 0; i < 3; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    std::atomic<int> arrived{0};
    pool.run(2, 1, [&](int64_t, int64_t, int) {
      ++arrived;
      while (arrived < 2) std::this_thread::yield();
    });
    EXPECT_EQ(arrived, 2);
  }
}

TEST(ThreadPool, CanBeCalledFromSeveralThreads) {
  ThreadPool pool(3);
  std::atomic<int64_t> sum{0};
  std::vector<std::thread> callers;
  for (int t = 0; t < 4; ++t) {
    callers.emplace_back([&] {
      for (int i = 0; i < 200; ++i) {
        pool.parallel_for(50, 1, [&](int64_t begin, int64_t end) { sum += end - begin; });
      }
    });
  }
  for (auto& c : callers) c.join();
  EXPECT_EQ(sum, 4 * 200 * 50);
}

TEST(ThreadPool, WhereThreadsCannotBeStartedSaysHowManyCould) {
#ifdef CRUMB_SANITIZED
  GTEST_SKIP() << "sanitizers do not live under a limit on memory";
#endif
  const pid_t pid = fork();
  if (pid == 0) {
    const rlimit limit{int64_t{1} << 30, int64_t{1} << 30};  // of address space: too little for the stacks
    setrlimit(RLIMIT_AS, &limit);
    const std::string message = testing::error_of([] { const ThreadPool pool(100'000); });
    std::fprintf(stderr, "%s\n", message.c_str());
    const bool good = message.starts_with("cannot start 100000 threads: ") &&
                      message.find("could be started, give fewer with --threads") != std::string::npos;
    _exit(good ? 7 : 8);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 7);
}

TEST(AvailableProcessors, AreAtLeastOne) {
  EXPECT_GE(available_processors(), 1);
  EXPECT_EQ(ThreadPool().num_threads(), available_processors());
}

}  // namespace
}  // namespace crumb
