// What was measured, as Markdown, JSON, CSV, and bars in an SVG file.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "jobs/bench.h"

namespace crumb::jobs {

/// Tables of medians with their spread and the ratio to the first row; shares and memory below.
std::string bench_markdown(const BenchResult& result);
/// Every sample.
nlohmann::ordered_json bench_json(const BenchResult& result);
/// A line a measure: model, path, activations, threads, measure, tokens, median, least, most, ratio.
std::string bench_csv(const BenchResult& result);
/// Time to first token and tokens a second.
std::string bench_svg(const BenchResult& result);

/// One of the texts above by the name of its format: "md", "json" or "csv". UserError that begins with `where`.
std::string bench_text(const BenchResult& result, std::string_view format, std::string_view where);
void check_bench_format(std::string_view format, std::string_view where);

}  // namespace crumb::jobs
