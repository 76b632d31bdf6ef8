// Memory of this process that lies in RAM.
#pragma once

#include <cstdint>

namespace crumb {

/// Now, and at most so far; mapped files count as far as they are in RAM. 0 where the system does not tell.
int64_t resident_bytes();
int64_t peak_resident_bytes();

}  // namespace crumb
