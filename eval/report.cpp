#include "eval/report.h"

#include <algorithm>
#include <cmath>

#include "core/common/markdown.h"
#include "eval/damage_report.h"
#include "eval/estimate_json.h"
#include "eval/report_tables.h"
#include "eval/task_report.h"

namespace crumb::eval {
namespace {

using Json = nlohmann::ordered_json;
using Cells = std::vector<std::string>;

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

/// Tables by `table`, each below a heading made by `heading`.
template <class Heading, class TableText>
std::string damage_parts(const EvalResult& result, size_t most, const Heading& heading, const TableText& table) {
  if (!result.damage) return "";
  const DamageMap& damage = *result.damage;
  std::string out = heading(most > 0 && damage.linears.size() > most
                                ? fmt::format("Damage, the {} worst of {} linears", most, damage.linears.size())
                                : std::string("Damage"));
  out += table(damage_table(damage, most));
  out += heading(damage_note(damage));
  if (!damage.layers.empty()) out += table(layer_table(damage));
  if (!damage.massive.empty())
    out += heading(fmt::format("Massive activations, more than {} times the usual RMS", kMassive)) +
           table(massive_table(damage));
  for (const auto& line : damage.outstanding) out += heading(line);
  return out;
}

std::string damage_text(const EvalResult& result) {
  std::string out = damage_parts(
      result, 10, [](const std::string& text) { return "\n" + text + "\n"; }, align);
  if (result.damage && !result.damage->overrides.empty())
    out += "\nworth more bits, for the job that quantizes:\n" + result.damage->overrides;
  return out;
}

std::string damage_markdown(const EvalResult& result) {
  std::string out = damage_parts(
      result, 0, [](const std::string& text) { return "\n" + text + ":\n\n"; }, markdown_table);
  if (result.damage && !result.damage->overrides.empty())
    out += "\nWorth more bits, for the job that quantizes:\n\n```yaml\n" + result.damage->overrides + "```\n";
  return out;
}

Json scores_json(const Scores& scores) {
  Json json{{"tokens", scores.tokens}, {"windows", scores.windows}};
  for (const Measure& measure : scores.measures) {
    json[measure.name] = estimate_json(measure.estimate);
    if (measure.interval) json[measure.name]["interval_95"] = {measure.interval->low, measure.interval->high};
  }
  const Measure* change = scores.find("perplexity_change");
  const auto word = change == nullptr ? std::nullopt : verdict_of(*change);
  if (word) json["perplexity_change"]["verdict"] = *word;
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
          {"fingerprint", f.fingerprint},
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
          {"bootstrap", p.bootstrap},
          {"seed", p.seed},
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
    for (const auto& result : results) out += (details ? details_text(result) : "") + damage_text(result);
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
    for (const auto& result : results) out += (details ? details_markdown(result) : "") + damage_markdown(result);
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
    Json entry{{"path", text.path.string()},
               {"documents", text.documents},
               {"text_tokens", text.text_tokens},
               {"fingerprint", text.fingerprint}};
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
    json["max_drop"][c.measure] = {
        {"drop", c.drop}, {"limit", c.limit}, {"exceeded", c.exceeded()}, {"by", c.by_bound ? "bound" : "estimate"}};
  }
  if (result.tasks) json.update(to_json(*result.tasks), true);
  if (result.damage) json["damage"] = damage_json(*result.damage);
  json["seconds"] = result.seconds;
  return json;
}

Json to_json(const std::vector<EvalResult>& results) {
  if (results.size() == 1) return to_json(results.front());
  const auto front = on_pareto_front(results);
  auto list = Json::array();
  for (size_t i = 0; i < results.size(); ++i) {
    list.push_back(to_json(results[i]));
    if (results[i].pooled.find("kl") != nullptr) list.back()["on_pareto_front"] = bool(front[i]);
  }
  return list;
}

}  // namespace crumb::eval
