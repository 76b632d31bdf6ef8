#include "kernels/read_probe.h"

#include <unistd.h>
#include <algorithm>
#include <atomic>

#include "core/common/error.h"
#include "core/common/progress.h"

namespace crumb::kernels {
namespace {

constexpr int64_t kLineWords = 8;
constexpr int64_t kWordsAhead = 768;  // hardware prefetchers stop at the end of a page

uint64_t sum_of(const uint64_t* words, int64_t count) {
  uint64_t sums[kLineWords] = {};
  for (int64_t i = 0; i < count; i += kLineWords) {
    __builtin_prefetch(words + i + kWordsAhead);
    for (int64_t j = 0; j < kLineWords; ++j) sums[j] += words[i + j];
  }
  uint64_t total = 0;
  for (const uint64_t sum : sums) total += sum;
  return total;
}

}  // namespace

ReadProbe::ReadProbe(int64_t bytes) : words_(static_cast<size_t>(bytes) / sizeof(uint64_t), 1) {
  CRUMB_ASSERT(bytes > 0 && bytes % 64 == 0);
}

uint64_t ReadProbe::read(Executor& executor) const {
  std::atomic<uint64_t> total{0};
  executor.run(static_cast<int64_t>(words_.size()) / kLineWords, 1, [&](int64_t begin, int64_t end, int) {
    total += sum_of(words_.data() + begin * kLineWords, (end - begin) * kLineWords);
  });
  return total;
}

double ReadProbe::measure(Executor& executor) const {
  const Stopwatch watch;
  const uint64_t sum = read(executor);
  const double seconds = watch.seconds();
  CRUMB_ASSERT(sum == words_.size());
  return static_cast<double>(bytes()) / std::max(seconds, 1e-9);
}

int64_t bytes_beyond_caches() {
  constexpr int64_t kLeast = int64_t{256} << 20;
  [[maybe_unused]] constexpr int64_t kMost = int64_t{512} << 20;  // a small machine has no more to spare
#ifdef _SC_LEVEL3_CACHE_SIZE
  return std::clamp(4 * static_cast<int64_t>(sysconf(_SC_LEVEL3_CACHE_SIZE)) / 64 * 64, kLeast, kMost);
#else
  return kLeast;
#endif
}

}  // namespace crumb::kernels
