// What the fuzz targets share. A target hands an input to a reader; an Error is how bad input ends, and whatever else
// happens is a finding: another exception, an assertion, a sanitizer's report, too much memory or time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "core/common/error.h"
#include "core/common/log.h"
#include "tests/testing/testing.h"

extern "C" inline int LLVMFuzzerInitialize(int*, char***) {
  crumb::set_log_level(crumb::LogLevel::quiet);  // warnings are as many as the inputs
  return 0;
}

namespace crumb::fuzz {

inline std::string_view as_text(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

/// An input of several parts: they end at a zero byte, and those that are missing are empty.
inline std::vector<std::string> cut(std::string_view input, size_t num_parts) {
  std::vector<std::string> parts(num_parts);
  for (size_t i = 0; i < num_parts; ++i) {
    const size_t end = i + 1 < num_parts ? input.find('\0') : std::string_view::npos;
    parts[i] = input.substr(0, end);
    input.remove_prefix(end == std::string_view::npos ? input.size() : end + 1);
  }
  return parts;
}

/// Whether `body` came to its end.
inline bool survives(const std::function<void()>& body) {
  try {
    body();
    return true;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace crumb::fuzz
