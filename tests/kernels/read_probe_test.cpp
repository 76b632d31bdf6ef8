#include "kernels/read_probe.h"

#include <gtest/gtest.h>

#include "core/common/thread_pool.h"

namespace crumb::kernels {
namespace {

TEST(ReadProbe, ReadsEveryWordOnceWhateverTheThreads) {
  for (const int threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    for (const int64_t lines : {1, 2, 7, 4096})
      EXPECT_EQ(ReadProbe(64 * lines).read(pool), 8u * static_cast<uint64_t>(lines));
  }
  EXPECT_GT(ReadProbe(1 << 20).measure(serial_executor()), 0);
  EXPECT_EQ(bytes_beyond_caches() % 64, 0);
}

}  // namespace
}  // namespace crumb::kernels
