// What an evaluation found: a list of named numbers with their errors. Tables, JSON and limits read the list, so what
// is measured is said in one place, where it is computed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace crumb::eval {

/// standard_error is empty when it is not known (fewer than two windows were scored).
struct Estimate {
  double value = 0;
  std::optional<double> standard_error = std::nullopt;
};

/// Where a value lies with 95 % confidence.
struct Interval {
  double low = 0, high = 0;
};

/// exp(x) - shift, its error by the delta method.
Estimate exponential(const Estimate& x, double shift = 0);

/// How a measure stands in a table.
struct Column {
  std::string title = {};  // empty: it does not
  double unit = 1;         // 100 for a share in percent
  int digits = 3;
  bool is_signed = false;  // with + for gains
};

struct Measure {
  std::string name;  // in JSON and in limits: "kl"
  Estimate estimate = {};
  Column shown = {};
  std::optional<double> drop =
      std::nullopt;    // what a limit of this name is compared with: grows as the model gets worse
  Column detail = {};  // in the table of details
  std::optional<double> drop_bound = std::nullopt;  // one-sided 95 % bound of the drop; empty: no error is known
  std::optional<Interval> interval = std::nullopt;  // by bootstrap.h
};

struct Scores {
  int64_t tokens = 0, windows = 0;  // windows: what errors take as independent, documents of --protocol rolling
  std::vector<Measure> measures = {};

  /// Null: not measured.
  const Measure* find(std::string_view name) const;
  /// The estimate of a measure that is there.
  const Estimate& at(std::string_view name) const;
};

/// "worse", "better" or "no significant change" of a measure that grows as a model gets worse: by its interval, or
/// without one by a normal test; nothing where no error is known.
std::optional<std::string_view> verdict_of(const Measure& change);

}  // namespace crumb::eval
