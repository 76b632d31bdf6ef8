#include "eval/html_report.h"

#include <algorithm>
#include <iterator>

#include "core/common/chart.h"
#include "core/common/html.h"
#include "core/common/json.h"
#include "core/common/machine.h"
#include "core/common/quantity.h"
#include "core/common/thread_pool.h"
#include "eval/damage_report.h"
#include "eval/report.h"
#include "eval/report_tables.h"

namespace crumb::eval {
namespace {

constexpr const char* kColors[] = {"#4477aa", "#ee6677", "#228833", "#b6803b", "#33a0c0", "#aa3377", "#777777"};

std::string heading(const std::string& text) { return "<h2>" + html_escaped(text) + "</h2>\n"; }
std::string smaller_heading(const std::string& text) { return "<h3>" + html_escaped(text) + "</h3>\n"; }
std::string note(const std::string& text) { return "<p class='note'>" + html_escaped(text) + "</p>\n"; }

std::string name_of(const EvalResult& result) { return result.model.path.string(); }

/// Whether the limits hold, in one line.
std::string verdict(const Results& results) {
  const auto has_limits = [](const EvalResult& r) {
    return !r.checks.empty() || (r.tasks && !r.tasks->checks.empty());
  };
  if (std::ranges::none_of(results, has_limits)) return note("No limit was given (--max-drop).");
  std::string out;
  for (const auto& result : results) {
    const std::string whose = results.size() > 1 ? name_of(result) + ": " : "";
    out += result.exceeded()
               ? fmt::format("<p class='fail'>&#10007; {}</p>\n", html_escaped(whose + exceeded_text(result)))
               : fmt::format("<p class='pass'>&#10003; {}</p>\n", html_escaped(whose + "every limit holds"));
  }
  return out;
}

double megabytes(const ModelFacts& facts) { return static_cast<double>(facts.file_bytes) / 1e6; }

std::string size_chart(const Results& results) {
  const EvalResult& first = results.front();
  constexpr const char* kSize = "size, MB";
  std::string out;
  std::vector<ScatterPoint> points;
  const auto error = [](const Estimate& e) { return e.standard_error.value_or(0); };
  if (results.size() > 1 && first.pooled.find("kl") != nullptr) {
    const auto front = on_pareto_front(results);
    for (size_t i = 0; i < results.size(); ++i) {
      const Estimate& kl = results[i].pooled.at("kl");
      points.push_back({name_of(results[i]), megabytes(results[i].model), kl.value, error(kl), front[i]});
    }
    out += scatter_chart("Size against KL divergence, nats a token", kSize, points);
    out += note(
        "Lower and further left is better; filled points, joined, are the Pareto front: no other model is both "
        "smaller and nearer to the baseline. Lines: one standard error.");
  } else if (first.baseline && first.baseline->parameters > 0 && first.pooled.find("baseline_perplexity") != nullptr) {
    const Estimate &own = first.pooled.at("perplexity"), &other = first.pooled.at("baseline_perplexity");
    points = {{name_of(first), megabytes(first.model), own.value, error(own)},
              {first.baseline->path.string() + " (baseline)", megabytes(*first.baseline), other.value, error(other)}};
    out += scatter_chart("Size against perplexity", kSize, points);
  }
  points.clear();
  for (const auto& result : results) {
    if (!result.tasks || !result.tasks->average) continue;
    const Estimate& average = result.tasks->average->estimate;
    points.push_back({name_of(result), megabytes(result.model), 100 * average.value, 100 * error(average)});
  }
  if (points.size() > 1) out += scatter_chart("Size against the average accuracy, %", kSize, points, Scale::even);
  return out;
}

std::string texts_section(const Results& results) {
  const EvalResult& first = results.front();
  if (first.texts.empty()) return "";
  std::string out = heading(first.baseline ? "Perplexity and divergence" : "Perplexity") +
                    html_table(text_table(results)) + note(errors_text(first.protocol) + ".");
  for (const auto& line : check_lines(results)) out += "<p>" + html_escaped(line) + "</p>\n";
  return out;
}

std::string tasks_section(const Results& results) {
  if (!results.front().tasks) return "";
  std::string out = heading("Tasks") + html_table(task_table(results));
  for (const auto& line : notes_of_tasks(results)) out += note(line);
  return out;
}

std::string divergence_section(const Results& results) {
  std::vector<Curve> curves;
  std::string tables;
  for (const auto& result : results) {
    if (result.positions.empty()) continue;
    Curve curve{name_of(result), kColors[curves.size() % std::size(kColors)], {}};
    for (const auto& [least, most, scores] : result.positions)
      curve.points.emplace_back(static_cast<double>(most), scores.at("kl").value);
    curves.push_back(std::move(curve));
    tables += (results.size() > 1 ? smaller_heading(name_of(result)) : "") + html_table(divergence_table(result)) +
              note(std::string(kDivergenceColumns) + ".") + smaller_heading(kWorst) +
              html_table(worst_table(result), 2);
  }
  if (curves.empty()) return "";
  return heading(kDivergence) +
         line_chart("KL, nats a token, by tokens of context", curves,
                    {.x_title = "tokens seen, at most", .x = Scale::logarithmic, .y = Scale::automatic}) +
         tables;
}

std::string damage_section(const Results& results) {
  std::string out;
  for (const auto& result : results) {
    if (result.damage)
      out +=
          heading(results.size() > 1 ? "Damage map of " + name_of(result) : "Damage map") + damage_html(*result.damage);
  }
  return out;
}

/// Every measure of `crumb bench`, as it wrote them.
std::string speed_section(const RunFacts& facts) {
  if (!facts.bench) return "";
  const JsonObject bench(*facts.bench, facts.bench_name);
  const auto& rows = bench.object().value("rows", nlohmann::json());
  CRUMB_CHECK(rows.is_array(), "{}: not a report of `crumb bench --json`: it has no rows", facts.bench_name);
  Table table{{"model", "measure", "tokens", "activations", "threads", "median", "least", "most"}};
  for (const auto& entry : rows) {
    const JsonObject row(entry, facts.bench_name + ": rows");
    const auto* measures = row.find("measures");
    CRUMB_CHECK(measures != nullptr && measures->is_array(), "{}: measures is not a list", row.where());
    for (const auto& item : *measures) {
      const JsonObject measure(item, facts.bench_name + ": measures");
      const auto number = [&](const char* key) { return fmt::format("{:.6g}", measure.get<double>(key)); };
      table.push_back({row.get<std::string>("model"), measure.get<std::string>("name"),
                       measure.has("tokens") ? format_count(measure.get<int64_t>("tokens")) : "",
                       row.get<std::string>("activations"), fmt::format("{}", row.get<int64_t>("threads")),
                       number("median"), number("least"), number("most")});
    }
  }
  return heading("Speed") +
         note(fmt::format("crumb bench on {}, {} processors, {}; {} rounds in turns.",
                          bench.text("processor", "an unknown processor"), bench.get<int64_t>("processors", 0),
                          bench.text("isa", "an unknown instruction set"), bench.get<int64_t>("rounds", 0))) +
         html_table(table, 2);
}

std::vector<std::string> file_row(const std::string& role, const ModelFacts& facts) {
  return {role + facts.path.string(),
          facts.kind,
          facts.fingerprint.empty() ? "-" : facts.fingerprint,
          format_bytes(facts.file_bytes),
          facts.parameters > 0 ? format_count(facts.parameters) : "-",
          fmt::format("{:.3f}", facts.bits_per_weight),
          fmt::format("{:.3f}", facts.bits_per_weight_without_embeddings),
          facts.linear_dtypes};
}

std::string files_section(const Results& results) {
  Table models{{"file", "kind", "fingerprint", "size", "parameters", "bits a weight", "without embeddings", "linears"}};
  for (const auto& result : results) models.push_back(file_row("", result.model));
  if (results.front().baseline) models.push_back(file_row("baseline: ", *results.front().baseline));
  std::string out = heading("Files") + html_table(models);
  Table texts{{"text", "documents", "tokens", "fingerprint"}};
  for (const auto& text : results.front().texts)
    texts.push_back(
        {text.path.string(), format_count(text.documents), format_count(text.text_tokens), text.fingerprint});
  if (texts.size() > 1) out += html_table(texts);
  return out +
         note(
             "Fingerprints tell whether a file is the same as before; they are no checksums: of weights they look "
             "at samples.");
}

std::string run_section(const Results& results, const RunFacts& facts) {
  const EvalResult& first = results.front();
  Table rows{{"", "how it was measured"}};
  if (!first.texts.empty()) {
    rows.push_back({"documents", documents_text(first.protocol)});
    rows.push_back({"windows", windows_text(first.protocol)});
    if (first.protocol.bootstrap > 0)
      rows.push_back({"intervals", fmt::format("95 %, percentiles of {} resamples of {}, seed {}",
                                               format_count(first.protocol.bootstrap), clusters(first.protocol),
                                               first.protocol.seed)});
  }
  rows.push_back({"machine", fmt::format("{}, {} processors", processor_name(), available_processors())});
  rows.push_back({"program", "crumb " + facts.version});
  rows.push_back({"command", facts.command});
  rows.push_back({"seconds", fmt::format("{:.1f}", first.seconds)});
  return heading("Configuration") + html_table(rows, 2);
}

std::string numbers_section(const Results& results) {
  const std::string text = dump_json(to_json(results), 2);
  std::string lines;  // line by line: a line end is no text to write out
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    lines += html_escaped(std::string_view(text).substr(at, end - at)) + "\n";
    at = end + 1;
  }
  return heading("Every number") + "<details><summary>as JSON, unrounded, as --out NAME.json writes it</summary><pre>" +
         lines + "</pre></details>\n";
}

}  // namespace

std::string to_html(const Results& results, const RunFacts& facts) {
  const EvalResult& first = results.front();
  std::string body = results.size() == 1 ? "<p>" + html_escaped(facts_text(first.model)) + "</p>\n" : "";
  if (first.baseline) body += "<p>baseline: " + html_escaped(facts_text(*first.baseline)) + "</p>\n";
  body += verdict(results) + size_chart(results) + texts_section(results) + tasks_section(results) +
          divergence_section(results) + damage_section(results) + speed_section(facts) + files_section(results) +
          run_section(results, facts) + numbers_section(results);
  return html_page(results.size() == 1 ? "Evaluation of " + first.model.path.filename().string()
                                       : fmt::format("Comparison of {} models", results.size()),
                   body);
}

}  // namespace crumb::eval
