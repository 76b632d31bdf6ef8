// What a measurement was made on.
#pragma once

#include <string>

namespace crumb {

/// As the system calls it: "AMD EPYC 9R14"; "unknown processor" where it says nothing.
std::string processor_name();

}  // namespace crumb
