// Memory of this process that lies in RAM, and how much more there is for it.
#pragma once

#include <cstdint>

namespace crumb {

/// Now, and at most so far; mapped files count as far as they are in RAM. 0 where the system does not tell.
int64_t resident_bytes();
int64_t peak_resident_bytes();

/// What this process may still take without being killed or refused: the least of what the machine calls available, the
/// room in its control group and its limit of address space (ulimit -v). Swap does not count: what is computed with
/// lies in memory or takes forever. The largest number where nothing tells.
int64_t available_memory();

}  // namespace crumb
