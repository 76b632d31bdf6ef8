#include "jobs/bench_report.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <iterator>
#include <utility>

#include "core/common/chart.h"
#include "core/common/error.h"
#include "core/common/json.h"
#include "core/common/markdown.h"
#include "core/common/quantity.h"
#include "core/tokenizer/unicode.h"

namespace crumb::jobs {
namespace {

using Json = nlohmann::ordered_json;
using Cells = std::vector<std::string>;

/// How a measure is shown: value * unit with so many digits.
struct Shown {
  double unit = 1;
  int digits = 3;
  bool has_spread = true, is_ratio_inverse = false;  // the ratio says how many times as fast it is
};
constexpr Shown kSeconds{.digits = 4, .is_ratio_inverse = true}, kRate{.digits = 1}, kShare{.unit = 100, .digits = 1},
    kGigabytes{.unit = 1e-9, .digits = 2};

std::string cell(const BenchResult& result, const BenchRow& row, std::string_view name, std::optional<int64_t> tokens,
                 const Shown& shown, bool has_ratio = false) {
  const auto* found = row.find(name, tokens);
  if (found == nullptr) return "-";
  const Spread spread = spread_of(found->samples);
  const auto number = [&](double value) { return fmt::format("{:.{}f}", value * shown.unit, shown.digits); };
  std::string text = number(spread.median);
  if (shown.has_spread) text += fmt::format(" ({}-{})", number(spread.least), number(spread.most));
  const auto ratio = has_ratio ? result.ratio(row, *found) : std::nullopt;
  if (ratio) text += fmt::format(", {:.2f}x", shown.is_ratio_inverse ? 1 / *ratio : *ratio);
  return text;
}

std::string bytes_cell(const BenchRow& row, std::string_view name, std::optional<int64_t> tokens) {
  const auto* found = row.find(name, tokens);
  return found == nullptr ? "-" : format_bytes(static_cast<int64_t>(spread_of(found->samples).most));
}

Cells row_head(const BenchRow& row) {
  return {row.model.name, std::string(runtime::name_of(row.activations)), fmt::format("{}", row.threads)};
}

/// A column for each number of tokens.
std::string table_by_tokens(const BenchResult& result, const std::vector<int64_t>& tokens, std::string_view name,
                            const Shown& shown) {
  std::vector<Cells> rows{{"model", "activations", "threads"}};
  for (const int64_t count : tokens) rows[0].push_back(format_count(count));
  for (const auto& row : result.rows) {
    auto& cells = rows.emplace_back(row_head(row));
    for (const int64_t count : tokens) cells.push_back(cell(result, row, name, count, shown, true));
  }
  return markdown_table(rows);
}

/// What a generated token uses of the machine.
std::string use_table(const BenchResult& result) {
  std::vector<Cells> rows{{"model", "activations", "threads", "context", "weights, GB/s", "of the read probe, %",
                           "attention, %", "neither linears nor attention, %", "keys and values"}};
  for (const auto& row : result.rows) {
    for (const int64_t context : result.contexts) {
      auto& cells = rows.emplace_back(row_head(row));
      cells.insert(cells.end(), {format_count(context), cell(result, row, measure::kWeightRate, context, kGigabytes),
                                 cell(result, row, measure::kReadShare, context, kShare),
                                 cell(result, row, measure::kInAttention, context, kShare),
                                 cell(result, row, measure::kElsewhere, context, kShare),
                                 bytes_cell(row, measure::kStateBytes, context)});
    }
  }
  return markdown_table(rows);
}

std::string memory_table(const BenchResult& result) {
  std::vector<Cells> rows{
      {"model", "activations", "weights held", "weights read a token", "resident memory added", "load, s"}};
  for (const auto& row : result.rows) {
    if (row.threads != result.rows.front().threads) continue;  // it is the same with others
    rows.push_back({row.model.name, std::string(runtime::name_of(row.activations)),
                    bytes_cell(row, measure::kWeightsHeld, {}), bytes_cell(row, measure::kWeightsRead, {}),
                    bytes_cell(row, measure::kResident, {}),
                    cell(result, row, measure::kLoad, {}, {.digits = 2, .has_spread = false})});
  }
  return markdown_table(rows);
}

std::string probes_text(const BenchResult& result) {
  std::string out;
  for (const auto& probe : result.probes) {
    const Spread spread = spread_of(probe.bytes_per_second);
    out += fmt::format("{}{:.1f} GB/s ({:.1f}-{:.1f}) with {} thread{}", out.empty() ? "" : ", ", spread.median * 1e-9,
                       spread.least * 1e-9, spread.most * 1e-9, probe.threads, probe.threads == 1 ? "" : "s");
  }
  return out;
}

Json measure_json(const BenchResult& result, const BenchRow& row, const BenchMeasure& measure) {
  const Spread spread = spread_of(measure.samples);
  const auto ratio = result.ratio(row, measure);
  return {{"name", measure.name},      {"tokens", measure.tokens ? Json(*measure.tokens) : Json()},
          {"median", spread.median},   {"least", spread.least},
          {"most", spread.most},       {"ratio", ratio ? Json(*ratio) : Json()},
          {"samples", measure.samples}};
}

/// RFC 4180.
std::string csv_field(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string out = "\"";
  for (const char c : text) out += c == '"' ? "\"\"" : std::string(1, c);
  return out + "\"";
}

std::string series_name(const BenchRow& row) {
  std::string storage;
  const std::string name(tokenizer::valid_utf8(row.model.name, storage));
  return fmt::format("{}, {} activations, {} thread{}", name, runtime::name_of(row.activations), row.threads,
                     row.threads == 1 ? "" : "s");
}

BarChart chart_of(const BenchResult& result, const std::string& title, const std::vector<int64_t>& tokens,
                  std::string_view name) {
  BarChart chart{title, {}, {}};
  for (const int64_t count : tokens) chart.groups.push_back(format_count(count));
  for (const auto& row : result.rows) {
    auto& bars = chart.bars.emplace_back();
    for (const int64_t count : tokens) {
      const auto* found = row.find(name, count);
      bars.push_back(found == nullptr ? std::nullopt : std::optional(spread_of(found->samples)));
    }
  }
  return chart;
}

std::string json_text(const BenchResult& result) { return dump_json(bench_json(result), 2) + "\n"; }

using Writer = std::string (*)(const BenchResult&);
constexpr std::pair<std::string_view, Writer> kFormats[] = {
    {"md", bench_markdown}, {"json", json_text}, {"csv", bench_csv}};

Writer writer_of(std::string_view format, std::string_view where) {
  std::vector<std::string_view> names;
  for (const auto& [name, writer] : kFormats) {
    if (name == format) return writer;
    names.push_back(name);
  }
  user_error("{}: unknown format \"{}\"; known: {}", where, format, fmt::join(names, ", "));
}

}  // namespace

std::string bench_markdown(const BenchResult& result) {
  const auto& first = result.rows.front();
  std::string out = fmt::format(
      "{}{}, {} processors, {}; {} rounds in turns: median (least-most), ratio to {} with {} activations on as many "
      "threads; keys and values in {}\n",
      result.gpu.empty() ? "" : result.gpu + "; ", result.processor, result.processors, result.isa, result.rounds,
      first.model.name, runtime::name_of(first.activations), runtime::name_of(result.cache_type));
  if (!result.prompts.empty())
    out += "\nTime to first token, seconds, after a prompt of so many tokens:\n\n" +
           table_by_tokens(result, result.prompts, measure::kFirstToken, kSeconds);
  out += fmt::format("\nGeneration, tokens/s, {} tokens behind a context of so many:\n\n", result.new_tokens) +
         table_by_tokens(result, result.contexts, measure::kTokenRate, kRate);
  const std::string reading =
      result.gpu.empty() ? fmt::format("; reading alone, measured beside it: {}", probes_text(result)) : "";
  out += fmt::format("\nWhat that uses{}:\n\n", reading) + use_table(result);
  return out + "\nMemory; at most resident, with all models loaded: " + format_bytes(result.peak_resident_bytes) +
         ":\n\n" + memory_table(result);
}

Json bench_json(const BenchResult& result) {
  Json json{{"processor", result.processor},
            {"processors", result.processors},
            {"isa", result.isa},
            {"gpu", result.gpu.empty() ? Json() : Json(result.gpu)},
            {"cache_type", runtime::name_of(result.cache_type)},
            {"rounds", result.rounds},
            {"new_tokens", result.new_tokens},
            {"prompts", result.prompts},
            {"contexts", result.contexts},
            {"peak_resident_bytes", result.peak_resident_bytes}};
  for (const auto& probe : result.probes)
    json["read_probes"].push_back({{"threads", probe.threads}, {"bytes_per_second", probe.bytes_per_second}});
  for (const auto& row : result.rows) {
    Json measures = Json::array();
    for (const auto& measure : row.measures) measures.push_back(measure_json(result, row, measure));
    json["rows"].push_back({{"model", row.model.name},
                            {"path", row.model.path.string()},
                            {"activations", runtime::name_of(row.activations)},
                            {"threads", row.threads},
                            {"measures", std::move(measures)}});
  }
  return json;
}

std::string bench_csv(const BenchResult& result) {
  std::string out = "model,path,activations,threads,measure,tokens,median,least,most,ratio\n";
  for (const auto& row : result.rows) {
    for (const auto& measure : row.measures) {
      const Spread spread = spread_of(measure.samples);
      const auto ratio = result.ratio(row, measure);
      out +=
          fmt::format("{},{},{},{},{},{},{},{},{},{}\n", csv_field(row.model.name), csv_field(row.model.path.string()),
                      runtime::name_of(row.activations), row.threads, measure.name,
                      measure.tokens ? fmt::format("{}", *measure.tokens) : "", format_number(spread.median),
                      format_number(spread.least), format_number(spread.most), ratio ? format_number(*ratio) : "");
    }
  }
  return out;
}

std::string bench_svg(const BenchResult& result) {
  std::vector<std::string> series;
  for (const auto& row : result.rows) series.push_back(series_name(row));
  return bar_charts(
      series,
      {chart_of(result, "Time to first token, seconds, by tokens of the prompt", result.prompts, measure::kFirstToken),
       chart_of(result, "Generation, tokens a second, by tokens before", result.contexts, measure::kTokenRate)});
}

void check_bench_format(std::string_view format, std::string_view where) { writer_of(format, where); }

std::string bench_text(const BenchResult& result, std::string_view format, std::string_view where) {
  return writer_of(format, where)(result);
}

}  // namespace crumb::jobs
