#include "eval/report_tables.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/common/json.h"
#include "core/common/quantity.h"
#include "eval/paired.h"
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
Table model_table(const Results& results) {
  Table rows{header(results.front())};
  const size_t columns = rows[0].size();
  rows[0][0] = "model";
  rows[0].insert(rows[0].begin() + 1, {"size", "bits a weight", "without embeddings"});
  const auto front = on_pareto_front(results);
  const bool has_front = results.front().pooled.find("kl") != nullptr;
  if (has_front) rows[0].emplace_back("Pareto front");
  for (size_t i = 0; i < results.size(); ++i) {
    const auto& facts = results[i].model;
    auto& cells = rows.emplace_back(row(facts.path.string(), results[i].pooled, columns));
    if (has_front) cells.emplace_back(front[i] ? "yes" : "-");
    cells.insert(cells.begin() + 1, {format_bytes(facts.file_bytes), fmt::format("{:.3f}", facts.bits_per_weight),
                                     fmt::format("{:.3f}", facts.bits_per_weight_without_embeddings)});
  }
  return rows;
}

Table table(const EvalResult& result, ColumnOf column = &Measure::shown) {
  Table rows{header(result, column)};
  const size_t columns = rows[0].size();
  rows.push_back(
      row(result.texts.size() > 1 ? "all" : result.texts[0].path.filename().string(), result.pooled, columns, column));
  for (const auto& text : result.texts) {
    if (result.texts.size() > 1) rows.push_back(row(text.path.filename().string(), text.scores, columns, column));
  }
  return rows;
}

std::string dtypes_text(const ModelFacts& f) {
  if (f.embedding_dtypes == f.linear_dtypes && (f.head_dtypes.empty() || f.head_dtypes == f.linear_dtypes))
    return f.linear_dtypes;
  std::string text = fmt::format("linears {}, embedding {}", f.linear_dtypes, f.embedding_dtypes);
  if (!f.head_dtypes.empty()) text += ", head " + f.head_dtypes;
  return text;
}

std::string quoted(const std::string& text) { return Json(text).dump(-1, ' ', true, Json::error_handler_t::replace); }

/// One line of text as it is but for what would break the line.
std::string shown_text(const std::string& text) { return dump_json(Json(text)); }

Cells names_of(const Results& results) {
  Cells names;
  for (const auto& result : results) names.push_back(result.model.path.string());
  return names;
}

std::vector<TaskResults> tasks_of(const Results& results) {
  std::vector<TaskResults> tasks;
  for (const auto& result : results) tasks.push_back(*result.tasks);
  return tasks;
}

}  // namespace

std::vector<bool> on_pareto_front(const Results& results) {
  const auto has_kl = [](const EvalResult& r) { return r.pooled.find("kl") != nullptr; };
  std::vector<bool> front;
  for (const auto& one : results) {
    front.push_back(has_kl(one) && std::ranges::none_of(results, [&](const EvalResult& other) {
                      if (!has_kl(other)) return false;
                      const double kl = one.pooled.at("kl").value, its = other.pooled.at("kl").value;
                      const int64_t bytes = one.model.file_bytes, of_other = other.model.file_bytes;
                      return of_other <= bytes && its <= kl && (of_other < bytes || its < kl);
                    }));
  }
  return front;
}

std::string facts_text(const ModelFacts& f) {
  if (f.parameters == 0) return fmt::format("{} ({}), {}", f.path.string(), f.kind, format_bytes(f.file_bytes));
  return fmt::format("{} ({}: {}), {}, {:.3f} bits a weight, {:.3f} without embeddings", f.path.string(), f.kind,
                     dtypes_text(f), format_bytes(f.file_bytes), f.bits_per_weight,
                     f.bits_per_weight_without_embeddings);
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

std::string clusters(const Protocol& p) { return p.by_document ? "documents" : "windows"; }

std::string errors_text(const Protocol& p) {
  return "± one standard error, " + clusters(p) + " as clusters; that of the change is paired";
}

Table text_table(const Results& results) { return results.size() == 1 ? table(results.front()) : model_table(results); }

std::string verdict_text(const EvalResult& result) {
  const Measure* change = result.pooled.find("perplexity_change");
  if (change == nullptr) return "";
  const auto word = verdict_of(*change);
  if (!word) return "";
  std::string text = fmt::format("perplexity: {}", *word);
  if (!change->interval) {
    const double p = *normal_test(change->estimate);
    return text + (p < 1e-99 ? std::string(" (paired, p below 1e-99)") : fmt::format(" (paired, p {:.2g})", p));
  }
  const Measure& kl = *result.pooled.find("kl");
  return text +
         fmt::format(" (95 % intervals of {} resamples: change {:+.2f} to {:+.2f} %, KL {:.4f} to {:.4f} nats/token)",
                     format_count(result.protocol.bootstrap), 100 * change->interval->low, 100 * change->interval->high,
                     kl.interval->low, kl.interval->high);
}

std::string check_text(const DropCheck& c) {
  const bool nats = c.measure == "kl";
  const auto show = [&](double x) {
    return nats ? fmt::format("{:.4g} nats/token", x) : fmt::format("{:.4g} %", 100 * x);
  };
  return fmt::format("{} drop {}{} {} the limit of {}", c.measure, c.by_bound ? "at most " : "", show(c.drop),
                     c.exceeded() ? "exceeds" : "is within", show(c.limit));
}

Cells check_lines(const Results& results) {
  Cells lines;
  for (const auto& result : results) {
    const std::string whose = results.size() > 1 ? result.model.path.string() + ": " : "";
    const std::string text = verdict_text(result);
    if (!text.empty()) lines.push_back(whose + text);
    for (const auto& check : result.checks) lines.push_back(whose + check_text(check));
  }
  return lines;
}

Table divergence_table(const EvalResult& result) {
  auto rows = table(result, &Measure::detail);
  for (const auto& [least, most, scores] : result.positions) {
    const std::string range = least == most ? format_count(least) : format_count(least) + "-" + format_count(most);
    rows.push_back(row("context " + range, scores, rows[0].size(), &Measure::detail));
  }
  return rows;
}

Table worst_table(const EvalResult& result) {
  Table rows{{"context", "token", "KL", "p %", "baseline p %", "first choice", "baseline's", "seen", "at token"}};
  const auto percent = [](double nll) { return fmt::format("{:.2f}", 100 * std::exp(-nll)); };
  for (const WorstContext& w : result.worst) {
    rows.push_back({shown_text(w.before), shown_text(w.token), fmt::format("{:.4f}", w.score.kl), percent(w.score.nll),
                    percent(w.score.baseline_nll), shown_text(w.choice), shown_text(w.baseline_choice),
                    format_count(w.position), format_count(w.index)});
  }
  return rows;
}

Table task_table(const Results& results) { return task_rows(names_of(results), tasks_of(results)); }

Cells notes_of_tasks(const Results& results) { return task_notes(names_of(results), tasks_of(results)); }

}  // namespace crumb::eval
