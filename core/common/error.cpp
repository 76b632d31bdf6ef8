#include "core/common/error.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace crumb {

void assertion_failed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "crumb: internal error: %s:%d: %s\n", file, line, condition);
  std::abort();
}

std::string system_error_text(int error_number) { return std::strerror(error_number); }

}  // namespace crumb
