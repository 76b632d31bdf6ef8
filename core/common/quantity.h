// Quantities as people write them: 10M, 16k, 3%. k = 1024 and M = 2^20, as token budgets are counted; also G = 2^30.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace crumb {

/// "16k" -> 16384, "10M" -> 10485760, "1.5k" -> 1536, "1e6" -> 1000000. Nothing if it is not a whole number.
std::optional<int64_t> parse_count(std::string_view text);
/// "3%" -> 0.03, "2e-5", "0.5". Nothing if it is not a finite number.
std::optional<double> parse_number(std::string_view text);
/// Sizes of files: "900MB" -> 900000000, "1.5 GB", "64kB", "512MiB" -> 2^29, "1000" and "1000B". Nothing if it is no
/// size, or no whole number of bytes.
std::optional<int64_t> parse_bytes(std::string_view text);
/// 1234567 -> "1,234,567".
std::string format_count(int64_t count);
/// 1234567 -> "1.23 MB" (decimal units, as file sizes are quoted).
std::string format_bytes(int64_t bytes);
/// Shortest text that reads back as the same double.
std::string format_number(double value);

}  // namespace crumb
