// Options that take a number. CLI11's own would read 010 as 8, nan as a probability, and what no int64_t holds as the
// largest one; these read as the settings of a job do. The help shows what `out` holds before.
#pragma once

#include <CLI/CLI.hpp>

#include <charconv>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "core/common/error.h"
#include "core/common/quantity.h"

namespace crumb::cli {

template <class T>
struct Bounds {
  T least = 0;
  T most = std::numeric_limits<T>::max();
};

namespace number_detail {

template <class T>
void check(const std::string& name, const std::string& text, T value, const Bounds<T>& bounds) {
  if (bounds.most == std::numeric_limits<T>::max())
    CRUMB_CHECK(value >= bounds.least, "{}: {} is out of range, expected at least {}", name, text, bounds.least);
  CRUMB_CHECK(value >= bounds.least && value <= bounds.most, "{}: {} not in range [{} - {}]", name, text, bounds.least,
              bounds.most);
}

inline int64_t whole_of(const std::string& name, const std::string& text, const Bounds<int64_t>& bounds) {
  const auto value = parse_count(text);
  CRUMB_CHECK(value, "{}: \"{}\" is not a whole number", name, text);
  check(name, text, *value, bounds);
  return *value;
}

/// Where nothing is set yet, the help names no default of its own.
template <class Out>
CLI::Option* with_default(CLI::Option* option, const Out& out) {
  if constexpr (std::is_arithmetic_v<Out>) option->default_str(fmt::format("{}", out));
  return option->type_name("NUMBER");
}

}  // namespace number_detail

/// A whole number, such as 128, 16k or 1e6. UserError for another text and outside `bounds`. `out`: int64_t, or an
/// optional one.
template <class Out>
CLI::Option* add_whole(CLI::App& app, const std::string& name, Out& out, const std::string& help,
                       Bounds<int64_t> bounds = {}) {
  const auto read = [name, bounds, &out](const std::string& text) {
    out = number_detail::whole_of(name, text, bounds);
  };
  return number_detail::with_default(app.add_option_function<std::string>(name, read, help), out);
}

/// Whole numbers: 64,128 or the option again. UserError as above.
inline CLI::Option* add_wholes(CLI::App& app, const std::string& name, std::vector<int64_t>& out,
                               const std::string& help, Bounds<int64_t> bounds = {}) {
  const auto read = [name, bounds, &out](const std::vector<std::string>& texts) {
    out.clear();
    for (const auto& text : texts) out.push_back(number_detail::whole_of(name, text, bounds));
  };
  return app.add_option_function<std::vector<std::string>>(name, read, help)
      ->delimiter(',')
      ->allow_extra_args(false)
      ->type_name("NUMBER,...");
}

/// A number, such as 0.7, 1e-4 or 95%. UserError for another text and outside `bounds`. `out`: double, or an optional
/// one.
template <class Out>
CLI::Option* add_number(CLI::App& app, const std::string& name, Out& out, const std::string& help,
                        Bounds<double> bounds = {}) {
  const auto read = [name, bounds, &out](const std::string& text) {
    const auto value = parse_number(text);
    CRUMB_CHECK(value, "{}: \"{}\" is not a number", name, text);
    number_detail::check(name, text, *value, bounds);
    out = *value;
  };
  return number_detail::with_default(app.add_option_function<std::string>(name, read, help), out);
}

/// The seed of random numbers: every uint64_t.
inline CLI::Option* add_seed(CLI::App& app, uint64_t& out, const std::string& help) {
  const auto read = [&out](const std::string& text) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
    CRUMB_CHECK(error == std::errc() && end == text.data() + text.size(),
                "--seed: \"{}\" is not a whole number from 0 to {}", text, std::numeric_limits<uint64_t>::max());
  };
  return number_detail::with_default(app.add_option_function<std::string>("--seed", read, help), out);
}

}  // namespace crumb::cli
