#include "core/common/quantity.h"

#include <fmt/format.h>

#include <cmath>
#include <cstdlib>

namespace crumb {
namespace {

std::optional<double> parse_plain(std::string_view text) {
  const std::string s(text);
  if (s.empty() || s.find_first_not_of("0123456789+-.eE") != std::string::npos) return std::nullopt;
  char* end = nullptr;
  const double value = std::strtod(s.c_str(), &end);
  if (end != s.c_str() + s.size() || !std::isfinite(value)) return std::nullopt;
  return value;
}

}  // namespace

std::optional<int64_t> parse_count(std::string_view text) {
  if (text.empty()) return std::nullopt;
  double unit = 1;
  switch (text.back()) {
    case 'k':
    case 'K':
      unit = 1024;
      break;
    case 'M':
      unit = 1024.0 * 1024;
      break;
    case 'G':
      unit = 1024.0 * 1024 * 1024;
      break;
    default:
      break;
  }
  if (unit > 1) text.remove_suffix(1);
  const auto value = parse_plain(text);
  if (!value) return std::nullopt;
  const double count = *value * unit;
  if (std::abs(count) > 9e15 || count != std::floor(count)) return std::nullopt;
  return static_cast<int64_t>(count);
}

std::optional<int64_t> parse_bytes(std::string_view text) {
  struct Unit {
    std::string_view name;
    double bytes;
  };
  static constexpr Unit kUnits[] = {{"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30}, {"TiB", 0x1p40}, {"kB", 1e3},
                                    {"KB", 1e3},     {"MB", 1e6},     {"GB", 1e9},     {"TB", 1e12},    {"B", 1}};
  double unit = 1;
  for (const Unit& known : kUnits) {
    if (!text.ends_with(known.name)) continue;
    unit = known.bytes;
    text.remove_suffix(known.name.size());
    if (text.ends_with(' ')) text.remove_suffix(1);
    break;
  }
  const auto value = parse_plain(text);
  if (!value || *value < 0) return std::nullopt;
  const double bytes = *value * unit;
  if (bytes > 9e15 || bytes != std::floor(bytes)) return std::nullopt;
  return static_cast<int64_t>(bytes);
}

std::optional<double> parse_number(std::string_view text) {
  if (!text.empty() && text.back() == '%') {
    text.remove_suffix(1);
    const auto value = parse_plain(text);
    return value ? std::optional<double>(*value / 100.0) : std::nullopt;
  }
  return parse_plain(text);
}

std::string format_count(int64_t count) {
  std::string digits = std::to_string(count);
  if (count < 0) digits.erase(0, 1);
  for (int64_t i = static_cast<int64_t>(digits.size()) - 3; i > 0; i -= 3) digits.insert(static_cast<size_t>(i), ",");
  return (count < 0 ? "-" : "") + digits;
}

std::string format_bytes(int64_t bytes) {
  const auto b = static_cast<double>(bytes);
  if (b >= 1e9) return fmt::format("{:.2f} GB", b / 1e9);
  if (b >= 1e6) return fmt::format("{:.2f} MB", b / 1e6);
  if (b >= 1e3) return fmt::format("{:.1f} kB", b / 1e3);
  return fmt::format("{} B", bytes);
}

std::string format_number(double value) { return fmt::format("{}", value); }

}  // namespace crumb
