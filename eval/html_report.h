// An evaluation as one page to send to a colleague: HTML that needs no other file, no network and no script.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "eval/evaluate.h"

namespace crumb::eval {

/// What the page says of the run beside its results.
struct RunFacts {
  std::string version, command;         // of the program; as typed
  std::optional<nlohmann::json> bench;  // what `crumb bench --json` wrote
  std::string bench_name;               // its file, for messages
};

/// Limits, size against accuracy, the tables of the Markdown report with all details, KL by position as a chart, speed,
/// files with their fingerprints, how it was measured and on what, and every number as JSON.
/// UserError: bench is no report of `crumb bench`.
std::string to_html(const std::vector<EvalResult>& results, const RunFacts& facts);

}  // namespace crumb::eval
