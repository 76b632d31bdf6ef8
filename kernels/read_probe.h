// How fast the machine reads memory: what a stream of weights is compared with.
#pragma once

#include <cstdint>

#include "core/common/executor.h"
#include "core/common/large_vector.h"

namespace crumb::kernels {

/// A buffer that is read from one end to the other, with as little arithmetic as a read needs to be one.
class ReadProbe {
 public:
  /// A multiple of 64 bytes.
  explicit ReadProbe(int64_t bytes);
  int64_t bytes() const { return static_cast<int64_t>(words_.size() * sizeof(uint64_t)); }
  /// Reads every line once, a part a thread. The result is bytes() / 8: the sum of the words, all of them 1.
  uint64_t read(Executor& executor) const;
  /// Of one read, in bytes a second.
  double measure(Executor& executor) const;

 private:
  LargeVector<uint64_t> words_;  // on huge pages, as weights are
};

/// Bytes of which caches hold little.
int64_t bytes_beyond_caches();

}  // namespace crumb::kernels
