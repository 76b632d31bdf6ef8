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
/// That a control group leaves: it may use `most` (near the largest number where nothing limits it), and uses `used`,
/// of which `caches` give way. The two are counted at different moments: caches may be more than what is used.
int64_t room_in_group(int64_t most, int64_t used, int64_t caches);

}  // namespace crumb
