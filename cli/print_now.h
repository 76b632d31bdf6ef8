// Text that is read while it is made.
#pragma once

#include <cstdio>
#include <string_view>

namespace crumb::cli {

inline void print_now(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

}  // namespace crumb::cli
