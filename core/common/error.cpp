#include "core/common/error.h"

#include <fmt/ranges.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace crumb {

Error::Error(std::vector<std::string> messages, int exit_code)
    : std::runtime_error(fmt::format("{}", fmt::join(messages, "\n"))),
      messages_(std::move(messages)),
      exit_code_(exit_code) {}

void assertion_failed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "crumb: internal error: %s:%d: %s\n", file, line, condition);
  std::abort();
}

std::string system_error_text(int error_number) { return std::strerror(error_number); }

}  // namespace crumb
