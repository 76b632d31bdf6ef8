#include "eval/task_report.h"

#include "core/common/quantity.h"
#include "eval/estimate_json.h"

namespace crumb::eval {
namespace {

using Json = nlohmann::ordered_json;
using Cells = std::vector<std::string>;

bool is_share(const std::string& measure) { return measure != "perplexity"; }

std::string shown(const Estimate& estimate, double unit, bool is_signed) {
  std::string text =
      is_signed ? fmt::format("{:+.2f}", estimate.value * unit) : fmt::format("{:.2f}", estimate.value * unit);
  if (estimate.standard_error) text += fmt::format(" ± {:.2f}", *estimate.standard_error * unit);
  return text;
}

void add_paired(const TaskMeasure& measure, bool counts, Cells& cells) {
  const auto& paired = *measure.paired;
  cells.push_back(shown(paired.change, 100, true));
  cells.push_back(measure.name == "average" ? "" : fmt::format("{} / {}", paired.lost, paired.gained));
  // Of the measures of a task only the one that counts is in the family that is tested.
  cells.push_back(counts ? fmt::format("{:.3g}", paired.adjusted_p) : "");
  cells.emplace_back(counts ? verdict(paired.loss, paired.adjusted_p) : "");
}

std::string check_text(const TaskDropCheck& check, bool by_bound) {
  return fmt::format("{} drop {}{:.4g} % {} the limit of {:.4g} %", check.name, by_bound ? "at most " : "",
                     100 * check.drop, check.exceeded() ? "exceeds" : "is within", 100 * check.limit);
}

/// `counts`: it is in the family of hypotheses that is tested.
Json measure_json(const TaskMeasure& measure, bool counts) {
  Json json = estimate_json(measure.estimate);
  if (!measure.paired) return json;
  const auto& p = *measure.paired;
  json["change"] = estimate_json(p.change);
  json["lost"] = p.lost;
  json["gained"] = p.gained;
  json["p"] = p.p;
  json["loss"] = p.loss;
  json["loss_bound"] = p.loss_bound;
  if (!counts) return json;
  json["adjusted_p"] = p.adjusted_p;
  json["verdict"] = verdict(p.loss, p.adjusted_p);
  return json;
}

}  // namespace

std::vector<Cells> task_rows(const std::vector<std::string>& models, const std::vector<TaskResults>& results) {
  const bool is_paired = results[0].tasks[0].measures[0].paired.has_value();
  const bool has_names = models.size() > 1;
  Cells header{"task", "items", "shots", "measure", "value"};
  if (has_names) header.insert(header.begin(), "model");
  if (is_paired) header.insert(header.end(), {"change", "lost / gained", "p", "verdict"});
  std::vector<Cells> rows{header};
  const auto add = [&](size_t model, Cells cells, const TaskMeasure& measure, bool counts) {
    if (has_names) cells.insert(cells.begin(), models[model]);
    cells.push_back(shown(measure.estimate, is_share(measure.name) ? 100 : 1, false));
    if (is_paired) add_paired(measure, counts, cells);
    rows.push_back(std::move(cells));
  };
  for (size_t m = 0; m < results.size(); ++m) {
    for (const auto& task : results[m].tasks) {
      for (const auto& measure : task.measures)
        add(m, {task.task, format_count(task.items), fmt::format("{}", task.fewshot), measure.name}, measure,
            &measure == &task.measures.front());
    }
    if (results[m].average) add(m, {"average", "", "", "accuracy"}, *results[m].average, true);
  }
  return rows;
}

Cells task_notes(const Cells& models, const std::vector<TaskResults>& results) {
  Cells notes;
  const bool is_paired = results[0].tasks[0].measures[0].paired.has_value();
  notes.emplace_back(
      is_paired
          ? "accuracies and changes in %; ± one standard error, that of the change by items; p: McNemar's exact test, "
            "Holm over the tasks; below 0.05 a change is called one"
          : "accuracies in %; ± one standard error");
  for (size_t m = 0; m < results.size(); ++m) {
    const std::string whose = models.size() > 1 ? models[m] + ": " : "";
    for (const auto& task : results[m].tasks) {
      if (task.is_limited && m == 0) notes.push_back(fmt::format("{}: the first {} items only", task.task, task.items));
      if (task.close > 0)
        notes.push_back(fmt::format("{}{}: {} of {} items lie within the rounding of float32", whose, task.task,
                                    task.close, task.items));
      if (task.truncated > 0)
        notes.push_back(fmt::format("{}{}: {} of {} prompts were longer than the context, and cut from the left", whose,
                                    task.task, task.truncated, task.items));
    }
    for (const auto& check : results[m].checks) notes.push_back(whose + check_text(check, results[m].judged_by_bound));
  }
  return notes;
}

Json to_json(const TaskResults& results) {
  Json json = Json::object();
  for (const auto& task : results.tasks) {
    Json entry{{"data", task.data.string()}, {"items", task.items},         {"is_limited", task.is_limited},
               {"fewshot", task.fewshot},    {"truncated", task.truncated}, {"close", task.close}};
    for (const auto& measure : task.measures)
      entry["measures"][measure.name] = measure_json(measure, &measure == &task.measures.front());
    json["tasks"][task.task] = std::move(entry);
  }
  if (results.average) json["average"] = measure_json(*results.average, true);
  for (const auto& check : results.checks)
    json["max_drop"][check.name] = {{"drop", check.drop}, {"limit", check.limit}, {"exceeded", check.exceeded()}};
  return json;
}

std::string exceeded_text(const TaskResults& results) {
  Cells lines;
  for (const auto& check : results.checks) {
    if (check.exceeded()) lines.push_back(check_text(check, results.judged_by_bound));
  }
  return fmt::format("{}", fmt::join(lines, "; "));
}

}  // namespace crumb::eval
