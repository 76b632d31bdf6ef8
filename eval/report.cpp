#include "eval/report.h"

#include <algorithm>
#include <cmath>

#include "core/common/markdown.h"
#include "core/common/quantity.h"
#include "eval/task_report.h"

namespace crumb::eval {
namespace {

using Json = nlohmann::ordered_json;
using Cells = std::vector<std::string>;

using ColumnOf = Column Measure::*;

std::string cell_of(const Measure& measure, ColumnOf column) {
  const auto& [title, unit, digits, is_signed] = measure.*column;
  const double value = measure.estimate.value * unit;
  std::string text = is_signed ? fmt::format("{:+.{}f}", value, digits) : fmt::format("{:.{}f}", value, digits);
  if (measure.estimate.standard_error)
    text += fmt::format(" ± {:.{}f}", *measure.estimate.standard_error * unit, digits);
  return text;
}

Cells header(const EvalResult& result, ColumnOf column = &Measure::shown) {
  Cells cells = {"text", "tokens"};
  for (const Measure& measure : result.pooled.measures) {
    if (!(measure.*column).title.empty()) cells.push_back((measure.*column).title);
  }
  return cells;
}

/// `columns`: of the header.
Cells row(const std::string& name, const Scores& scores, size_t columns, ColumnOf column = &Measure::shown) {
  Cells cells{name, format_count(scores.tokens)};
  for (const Measure& measure : scores.measures) {
    if (!(measure.*column).title.empty()) cells.push_back(cell_of(measure, column));
  }
  cells.resize(columns, "-");  // nothing was measured: no token of this text was scored
  return cells;
}

/// A row a model: size, then the numbers of all texts together.
std::vector<Cells> model_table(const std::vector<EvalResult>& results) {
  std::vector<Cells> rows{header(results.front())};
  const size_t columns = rows[0].size();
  rows[0][0] = "model";
  rows[0].insert(rows[0].begin() + 1, {"size", "bits a weight", "without embeddings"});
  for (const auto& result : results) {
    const auto& facts = result.model;
    auto& cells = rows.emplace_back(row(facts.path.string(), result.pooled, columns));
    cells.insert(cells.begin() + 1, {format_bytes(facts.file_bytes), fmt::format("{:.3f}", facts.bits_per_weight),
                                     fmt::format("{:.3f}", facts.bits_per_weight_without_embeddings)});
  }
  return rows;
}

std::vector<Cells> table(const EvalResult& result, ColumnOf column = &Measure::shown) {
  std::vector<Cells> rows{header(result, column)};
  const size_t columns = rows[0].size();
  rows.push_back(
      row(result.texts.size() > 1 ? "all" : result.texts[0].path.filename().string(), result.pooled, columns, column));
  for (const auto& text : result.texts) {
    if (result.texts.size() > 1) rows.push_back(row(text.path.filename().string(), text.scores, columns, column));
  }
  return rows;
}

std::vector<Cells> divergence_table(const EvalResult& result) {
  auto rows = table(result, &Measure::detail);
  for (const auto& [least, most, scores] : result.positions) {
    const std::string range = least == most ? format_count(least) : format_count(least) + "-" + format_count(most);
    rows.push_back(row("context " + range, scores, rows[0].size(), &Measure::detail));
  }
  return rows;
}

// Characters, not bytes: "±" is two bytes.
size_t width(const std::string& text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

std::string align(const std::vector<Cells>& rows) {
  std::vector<size_t> widths(rows[0].size());
  for (const auto& cells : rows) {
    for (size_t i = 0; i < cells.size(); ++i) widths[i] = std::max(widths[i], width(cells[i]));
  }
  std::string out;
  for (const auto& cells : rows) {
    std::string line;
    for (size_t i = 0; i < cells.size(); ++i) {
      const std::string pad(widths[i] - width(cells[i]), ' ');
      line += i == 0 ? cells[i] + pad : "  " + pad + cells[i];
    }
    out += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
  }
  return out;
}

std::string dtypes_text(const ModelFacts& f) {
  if (f.embedding_dtypes == f.linear_dtypes && (f.head_dtypes.empty() || f.head_dtypes == f.linear_dtypes))
    return f.linear_dtypes;
  std::string text = fmt::format("linears {}, embedding {}", f.linear_dtypes, f.embedding_dtypes);
  if (!f.head_dtypes.empty()) text += ", head " + f.head_dtypes;
  return text;
}

std::string facts_text(const ModelFacts& f) {
  if (f.parameters == 0) return fmt::format("{} ({}), {}", f.path.string(), f.kind, format_bytes(f.file_bytes));
  return fmt::format("{} ({}: {}), {}, {:.3f} bits a weight, {:.3f} without embeddings", f.path.string(), f.kind,
                     dtypes_text(f), format_bytes(f.file_bytes), f.bits_per_weight,
                     f.bits_per_weight_without_embeddings);
}

std::string quoted(const std::string& text) { return Json(text).dump(-1, ' ', true, Json::error_handler_t::replace); }

/// One line of text as it is but for what would break the line.
std::string shown_text(const std::string& text) {
  return Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::vector<Cells> worst_table(const EvalResult& result) {
  std::vector<Cells> rows{
      {"context", "token", "KL", "p %", "baseline p %", "first choice", "baseline's", "seen", "at token"}};
  const auto percent = [](double nll) { return fmt::format("{:.2f}", 100 * std::exp(-nll)); };
  for (const WorstContext& w : result.worst) {
    rows.push_back({shown_text(w.before), shown_text(w.token), fmt::format("{:.4f}", w.score.kl), percent(w.score.nll),
                    percent(w.score.baseline_nll), shown_text(w.choice), shown_text(w.baseline_choice),
                    format_count(w.position), format_count(w.index)});
  }
  return rows;
}

std::string documents_text(const Protocol& p) {
  if (p.kind == PerplexityProtocol::rolling)
    return fmt::format("protocol rolling: each document by itself{}, {} before it",
                       p.separator.empty() ? "" : ", plain files split at " + quoted(p.separator),
                       p.bos ? "BOS" : "EOS");
  if (p.kind != PerplexityProtocol::windows)
    return fmt::format("protocol {}: {}, {}", name_of(p.kind),
                       p.kind == PerplexityProtocol::gptq ? "lines joined by empty lines" : "the file as it is",
                       p.bos ? "BOS before it" : "no BOS");
  return fmt::format(
      "{}; {}, {}",
      p.separator.empty() ? "each plain file one document" : "plain files split at " + quoted(p.separator),
      p.eos ? "EOS after each document" : "no EOS (the tokenizer has none)",
      p.bos ? "BOS before each document" : "no BOS");
}

std::string windows_text(const Protocol& p) {
  const bool all = p.windows == p.windows_in_text;
  const std::string which =
      all ? "all " + format_count(p.windows) : format_count(p.windows) + " of " + format_count(p.windows_in_text);
  const bool is_half = p.kind == PerplexityProtocol::llamacpp;
  const bool is_rolling = p.kind == PerplexityProtocol::rolling;
  const std::string overlap = is_rolling ? "the last of each document reaches back into the one before"
                              : is_half  ? "without overlap, the second half of each scored"
                              : p.stride == p.context
                                  ? "without overlap"
                                  : fmt::format("stride {}, the last {} tokens of each scored", p.stride, p.stride);
  return fmt::format("{} windows of {} tokens{}; {}; {} of {} tokens scored; {} arithmetic", which, p.context,
                     all                                     ? ""
                     : p.kind == PerplexityProtocol::windows ? ", spread evenly"
                                                             : " from the beginning",
                     overlap, format_count(p.scored_tokens), format_count(p.text_tokens), p.compute);
}

std::string check_text(const DropCheck& c) {
  const bool nats = c.measure == "kl";
  const auto show = [&](double x) {
    return nats ? fmt::format("{:.4g} nats/token", x) : fmt::format("{:.4g} %", 100 * x);
  };
  return fmt::format("{} drop {} {} the limit of {}", c.measure, show(c.drop), c.exceeded() ? "exceeds" : "is within",
                     show(c.limit));
}

Cells check_lines(const std::vector<EvalResult>& results) {
  Cells lines;
  for (const auto& result : results) {
    const std::string whose = results.size() > 1 ? result.model.path.string() + ": " : "";
    for (const auto& check : result.checks) lines.push_back(whose + check_text(check));
  }
  return lines;
}

/// Above the tables: what several models have in common.
std::string common_rows(const EvalResult& result) {
  std::string out;
  if (result.baseline) out += "baseline   " + facts_text(*result.baseline) + "\n";
  if (result.texts.empty()) return out;
  out += "documents  " + documents_text(result.protocol) + "\n";
  return out + "windows    " + windows_text(result.protocol) + "\n";
}

/// The same as the list of a Markdown report.
std::string common_lines(const EvalResult& result) {
  std::string out;
  if (result.baseline) out += "- baseline: " + facts_text(*result.baseline) + "\n";
  if (result.texts.empty()) return out;
  return out + "- documents: " + documents_text(result.protocol) + "\n- windows: " + windows_text(result.protocol) +
         "\n";
}

/// Rows of the texts of one model, or a row a model of several.
std::vector<Cells> text_table(const std::vector<EvalResult>& results) {
  return results.size() == 1 ? table(results.front()) : model_table(results);
}

Cells names_of(const std::vector<EvalResult>& results) {
  Cells names;
  for (const auto& result : results) names.push_back(result.model.path.string());
  return names;
}

std::vector<TaskResults> tasks_of(const std::vector<EvalResult>& results) {
  std::vector<TaskResults> tasks;
  for (const auto& result : results) tasks.push_back(*result.tasks);
  return tasks;
}

std::vector<Cells> task_table(const std::vector<EvalResult>& results) {
  return task_rows(names_of(results), tasks_of(results));
}

Cells notes_of_tasks(const std::vector<EvalResult>& results) {
  return task_notes(names_of(results), tasks_of(results));
}

constexpr const char* kDivergence = "KL divergence by text and by tokens of context";
constexpr const char* kDivergenceColumns =
    "median to largest: percentiles of the KL of single tokens; Δp: P(right token) less that of the baseline; shared "
    "top-5: of the baseline's five first choices those among the model's five";
constexpr const char* kWorst = "Where the model is farthest from the baseline";

std::string details_text(const EvalResult& result) {
  if (result.positions.empty()) return "";
  return fmt::format("\n{}: {}\n{}{}\n\n{}\n{}", result.model.path.string(), kDivergence,
                     align(divergence_table(result)), kDivergenceColumns, kWorst, align(worst_table(result)));
}

std::string details_markdown(const EvalResult& result) {
  if (result.positions.empty()) return "";
  return fmt::format("\n## {}\n\n### {}\n\n{}\n{}.\n\n### {}\n\n{}", result.model.path.string(), kDivergence,
                     markdown_table(divergence_table(result)), kDivergenceColumns, kWorst,
                     markdown_table(worst_table(result)));
}

/// What errors take as independent.
std::string clusters(const Protocol& p) { return p.kind == PerplexityProtocol::rolling ? "documents" : "windows"; }

std::string errors_text(const Protocol& p) {
  return "± one standard error, " + clusters(p) + " as clusters; that of the change is paired";
}

Json estimate_json(const Estimate& e) {
  return {{"value", e.value}, {"standard_error", e.standard_error ? Json(*e.standard_error) : Json()}};
}

Json scores_json(const Scores& scores) {
  Json json{{"tokens", scores.tokens}, {"windows", scores.windows}};
  for (const Measure& measure : scores.measures) json[measure.name] = estimate_json(measure.estimate);
  return json;
}

Json worst_json(const WorstContext& w) {
  return {{"text", w.text.string()},
          {"token_index", w.index},
          {"tokens_seen", w.position},
          {"before", w.before},
          {"token", w.token},
          {"kl", w.score.kl},
          {"p", std::exp(-w.score.nll)},
          {"baseline_p", std::exp(-w.score.baseline_nll)},
          {"first_choice", w.choice},
          {"baseline_first_choice", w.baseline_choice}};
}

Json facts_json(const ModelFacts& f) {
  if (f.parameters == 0) return {{"path", f.path.string()}, {"kind", f.kind}, {"file_bytes", f.file_bytes}};
  return {{"path", f.path.string()},
          {"kind", f.kind},
          {"parameters", f.parameters},
          {"file_bytes", f.file_bytes},
          {"bits_per_weight", f.bits_per_weight},
          {"bits_per_weight_without_embeddings", f.bits_per_weight_without_embeddings},
          {"dtypes", {{"linears", f.linear_dtypes}, {"embedding", f.embedding_dtypes}, {"head", f.head_dtypes}}}};
}

Json protocol_json(const Protocol& p) {
  return {{"name", name_of(p.kind)},
          {"context", p.context},
          {"stride", p.stride},
          {"windows", p.windows},
          {"windows_in_text", p.windows_in_text},
          {"scored_tokens", p.scored_tokens},
          {"text_tokens", p.text_tokens},
          {"separator", p.separator},
          {"bos", p.bos},
          {"eos", p.eos},
          {"compute", p.compute},
          {"standard_errors", clusters(p) + " as clusters"}};
}

}  // namespace

std::string exceeded_text(const EvalResult& result) {
  Cells lines;
  for (const auto& check : result.checks) {
    if (check.exceeded()) lines.push_back(check_text(check));
  }
  if (result.tasks && result.tasks->exceeded()) lines.push_back(exceeded_text(*result.tasks));
  return fmt::format("{}", fmt::join(lines, "; "));
}

std::string to_table(const std::vector<EvalResult>& results, bool details) {
  const EvalResult& first = results.front();
  std::string out;
  if (results.size() == 1) out += "model      " + facts_text(first.model) + "\n";
  out += common_rows(first) + "\n";
  if (!first.texts.empty()) {
    out += align(text_table(results)) + errors_text(first.protocol) + "\n";
    for (const auto& line : check_lines(results)) out += line + "\n";
    for (const auto& result : results) out += details ? details_text(result) : "";
  }
  if (!first.tasks) return out;
  if (!first.texts.empty()) out += "\n";
  out += align(task_table(results));
  for (const auto& note : notes_of_tasks(results)) out += note + "\n";
  return out;
}

std::string to_markdown(const std::vector<EvalResult>& results, bool details) {
  const EvalResult& first = results.front();
  std::string out = "# Evaluation\n\n";
  if (results.size() == 1) out += "- model: " + facts_text(first.model) + "\n";
  out += common_lines(first) + "\n";
  if (!first.texts.empty()) {
    out += markdown_table(text_table(results)) + fmt::format("\n{}.\n", errors_text(first.protocol));
    for (const auto& line : check_lines(results)) out += "\n" + line + "\n";
    for (const auto& result : results) out += details ? details_markdown(result) : "";
  }
  if (!first.tasks) return out;
  if (!first.texts.empty()) out += "\n";
  out += markdown_table(task_table(results));
  for (const auto& note : notes_of_tasks(results)) out += "\n" + note + "\n";
  return out;
}

std::string to_table(const EvalResult& result, bool details) { return to_table(std::vector{result}, details); }
std::string to_markdown(const EvalResult& result, bool details) { return to_markdown(std::vector{result}, details); }

Json to_json(const EvalResult& result) {
  Json json{{"model", facts_json(result.model)}};
  if (result.baseline) json["baseline"] = facts_json(*result.baseline);
  if (!result.texts.empty()) {
    json["protocol"] = protocol_json(result.protocol);
    json["pooled"] = scores_json(result.pooled);
  }
  for (const auto& text : result.texts) {
    Json entry{{"path", text.path.string()}, {"documents", text.documents}, {"text_tokens", text.text_tokens}};
    entry.update(scores_json(text.scores));
    json["texts"].push_back(std::move(entry));
  }
  for (const auto& [least, most, scores] : result.positions) {
    Json entry{{"least_tokens_seen", least}, {"most_tokens_seen", most}};
    entry.update(scores_json(scores));
    json["positions"].push_back(std::move(entry));
  }
  for (const auto& context : result.worst) json["worst"].push_back(worst_json(context));
  for (const auto& c : result.checks) {
    json["max_drop"][c.measure] = {{"drop", c.drop}, {"limit", c.limit}, {"exceeded", c.exceeded()}};
  }
  if (result.tasks) json.update(to_json(*result.tasks), true);
  json["seconds"] = result.seconds;
  return json;
}

}  // namespace crumb::eval
