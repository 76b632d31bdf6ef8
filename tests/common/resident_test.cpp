#include "core/common/resident.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>
#include <vector>

#include "core/common/large_vector.h"
#include "tests/testing/testing.h"

namespace crumb {
namespace {

TEST(Resident, GrowsByWhatIsWritten) {
  const int64_t before = resident_bytes();
  const std::vector<char> memory(64 << 20, 1);
  EXPECT_GT(resident_bytes() - before, 48 << 20) << memory[12345];
  EXPECT_GE(peak_resident_bytes(), resident_bytes() / 2);
}

TEST(AvailableMemory, IsWhatALimitOfAddressesLeaves) {
#ifdef CRUMB_SANITIZED
  GTEST_SKIP() << "sanitizers do not live under a limit on memory";
#endif
  EXPECT_GT(available_memory(), 1 << 20);
  const pid_t pid = fork();
  if (pid == 0) {
    const rlimit limit{int64_t{4} << 30, int64_t{4} << 30};
    setrlimit(RLIMIT_AS, &limit);
    const int64_t available = available_memory();
    const std::vector<char> memory(256 << 20, 1);
    const int64_t taken = available - available_memory();
    // The machine may have less than the limit leaves: then that is what counts, and moves as others use it.
    _exit(available <= static_cast<int64_t>(limit.rlim_cur) && (taken > 128 << 20 || available < int64_t{3} << 30) &&
                  memory[7] == 1
              ? 7
              : 8);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 7);
}

TEST(AvailableMemory, OfAControlGroupIsWhatIsNotUsedByMoreThanCaches) {
  constexpr int64_t kUnlimited = 0x7FFFFFFFFFFFF000;  // what the system writes for no limit: near the largest number
  EXPECT_EQ(room_in_group(1000, 600, 100), 500);
  EXPECT_EQ(room_in_group(1000, 1600, 100), 0);
  EXPECT_EQ(room_in_group(1000, 600, 700), 1000);
  EXPECT_EQ(room_in_group(kUnlimited, 1 << 20, 2 << 20), kUnlimited);
}

TEST(LargeVector, BeginsAtALineOrAHugePage) {
  for (const size_t count : {size_t{1}, size_t{100}, size_t{3} << 20}) {
    LargeVector<float> vector(count);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(vector.data()) % (count > 1000 ? size_t{2} << 20 : 64), 0u);
    vector.back() = 3;
    const auto copy = vector;
    vector.resize(2 * count);
    EXPECT_EQ(vector[count - 1], 3);
    EXPECT_EQ(copy.back(), 3);
  }
  EXPECT_EQ(LargeVector<int>(10, 7), (LargeVector<int>(10, 7)));
}

/// More than a block of pieces of all sizes, which come and go in another order than they came.
TEST(LargeVector, PiecesOfABlockAreApartWhateverOrderTheyGoIn) {
  std::vector<LargeVector<uint32_t>> pieces(400);
  const auto fill = [&](size_t i) {
    pieces[i] = LargeVector<uint32_t>(1 + (i * 7919) % 120000, static_cast<uint32_t>(i));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(pieces[i].data()) % 64, 0u);
  };
  const auto expect_whole = [&](size_t i) {
    for (const uint32_t value : pieces[i]) ASSERT_EQ(value, i);
  };
  for (size_t i = 0; i < pieces.size(); ++i) fill(i);
  for (size_t i = 0; i < pieces.size(); i += 3) pieces[i] = {};
  for (size_t i = 0; i < pieces.size(); i += 3) fill(i);
  for (size_t i = 0; i < pieces.size(); ++i) expect_whole(pieces.size() - 1 - i), pieces[pieces.size() - 1 - i] = {};
  std::vector<std::thread> threads;
  for (size_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (size_t i = t; i < pieces.size(); i += 4) fill(i), expect_whole(i), pieces[i] = {};
    });
  }
  for (auto& thread : threads) thread.join();
}

}  // namespace
}  // namespace crumb
