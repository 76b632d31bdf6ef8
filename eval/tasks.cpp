#include "eval/tasks.h"

#include <algorithm>
#include <cmath>

#include "core/common/json.h"
#include "core/common/log.h"
#include "core/common/progress.h"
#include "core/jinja/text.h"
#include "eval/questions.h"
#include "eval/score.h"
#include "eval/task_items.h"

namespace crumb::eval {
namespace {

using Json = nlohmann::ordered_json;
using tokenizer::TokenId;

/// Items are scored together up to this many tokens of the first model.
constexpr int64_t kBatchTokens = 2048;
/// And up to so many answers, each of which has keys and values of its own.
constexpr int64_t kBatchAnswers = 64;

bool is_accuracy(const std::string& metric) { return metric.starts_with("acc"); }

/// What a model says of the answers of an item.
struct Answer {
  std::vector<double> log_likelihoods;  // of each pair
  std::vector<bool> is_greedy;          // every token is the model's first choice
  bool is_truncated = false;

  /// The likeliest, each divided by what `length` gives; the first of equals.
  template <class Length>
  int64_t best(const Length& length) const {
    size_t best = 0;
    for (size_t i = 1; i < log_likelihoods.size(); ++i) {
      if (log_likelihoods[i] / length(i) > log_likelihoods[best] / length(best)) best = i;
    }
    return static_cast<int64_t>(best);
  }
};

/// What the log-likelihood of an answer is divided by.
double length_by(const std::string& metric, const Question& question, size_t i) {
  if (metric != "acc_norm" && metric != "acc_bytes") return 1;
  return static_cast<double>(metric == "acc_norm" ? question.pairs[i].characters : question.pairs[i].bytes);
}

int64_t choice_by(const std::string& metric, const Question& question, const Answer& answer) {
  return answer.best([&](size_t i) { return length_by(metric, question, i); });
}

/// Whether rounding decides between the best and another.
bool is_close(const std::string& metric, const Question& question, const Answer& answer) {
  const auto best = static_cast<size_t>(choice_by(metric, question, answer));
  const auto score = [&](size_t i) { return answer.log_likelihoods[i] / length_by(metric, question, i); };
  const auto error = [&](size_t i) {
    return kRounding * std::max(1.0, -answer.log_likelihoods[i]) / length_by(metric, question, i);
  };
  for (size_t i = 0; i < answer.log_likelihoods.size(); ++i) {
    if (i != best && score(best) - score(i) <= std::max(error(best), error(i))) return true;
  }
  return false;
}

double value_of(const std::string& metric, const Question& question, const Answer& answer) {
  if (metric == "perplexity") return answer.log_likelihoods[0];
  if (question.pairs.size() == 1) return answer.is_greedy[0] ? 1 : 0;
  return choice_by(metric, question, answer) == question.target ? 1 : 0;
}

std::vector<Answer> answers_of(const Judged& model, const std::vector<AskedItem>& batch, const Questions& questions,
                               const ParallelFor& parallel_for) {
  std::vector<EncodedPair> encoded;
  for (const auto& asked : batch) {
    for (const auto& pair : asked.question.pairs) {
      try {
        encoded.push_back(
            encode_pair(*model.tokenizer, pair.context, pair.continuation, model.scorer->context_length()));
      } catch (const UserError& error) {
        user_error("{}: {}", questions.place(asked.item), error.what());
      }
    }
  }
  std::vector<ScoreRequest> requests;
  for (const auto& pair : encoded) requests.push_back({pair.context, pair.continuation});
  Scorer* const scorers[] = {model.scorer.get()};
  const auto scores = score_requests(scorers, nullptr, requests, parallel_for).at(0);
  std::vector<Answer> answers;
  size_t at = 0;
  for (const auto& asked : batch) {
    Answer& answer = answers.emplace_back();
    for (size_t i = 0; i < asked.question.pairs.size(); ++i, ++at) {
      double sum = 0;
      bool is_greedy = true;
      for (const auto& token : scores[at]) {
        sum -= token.nll;
        is_greedy = is_greedy && token.is_top;
      }
      if (!std::isfinite(sum))
        run_error("{}: {} computes values that are not finite; its weights are broken", questions.place(asked.item),
                  model.facts.path.string());
      answer.log_likelihoods.push_back(sum);
      answer.is_greedy.push_back(is_greedy);
      answer.is_truncated = answer.is_truncated || encoded[at].is_truncated;
    }
  }
  return answers;
}

Json item_json(const std::string& model, const Task& task, const AskedItem& asked, const Answer& answer) {
  const auto& [item, question] = asked;
  Json json{{"task", task.name()}, {"model", model}, {"line", item.line}};
  if (item.fields.contains("id")) json["id"] = item.fields["id"];
  json["log_likelihoods"] = answer.log_likelihoods;
  if (question.pairs.size() > 1) json["target"] = question.target;
  for (const auto& metric : task.options().metrics) {
    if (question.pairs.size() > 1) json["choice_by_" + metric] = choice_by(metric, question, answer);
    json[metric] = value_of(metric, question, answer);
  }
  json["close"] = is_close(task.options().metrics.front(), question, answer);
  json["truncated"] = answer.is_truncated;
  return json;
}

/// One measure of one model, as items come.
class Sums {
 public:
  void add(double value, std::optional<double> baseline) {
    values_.add(value);
    if (!baseline) return;
    differences_.add(value - *baseline);
    lost_ += value < *baseline;
    gained_ += value > *baseline;
  }

  TaskMeasure measure(const std::string& name) const {
    TaskMeasure out{name, values_.estimate(), std::nullopt};
    if (name == "perplexity") out.estimate = exponential({-values_.mean(), out.estimate.standard_error});
    if (differences_.count() == 0) return out;
    Paired paired{.change = differences_.estimate(), .lost = lost_, .gained = gained_};
    if (name == "perplexity") {
      paired.p = normal_test(paired.change).value_or(1);
      paired.change = exponential({-paired.change.value, paired.change.standard_error}, 1);
      paired.loss = paired.change.value;
    } else {
      // Exactly 0 where as many were lost as gained: it may be compared with a limit of 0.
      paired.change.value = static_cast<double>(gained_ - lost_) / static_cast<double>(differences_.count());
      paired.p = mcnemar_exact(lost_, gained_);
      paired.loss = static_cast<double>(lost_ - gained_) / static_cast<double>(differences_.count());
    }
    paired.loss_bound = paired.loss + kBoundErrors * paired.change.standard_error.value_or(0);
    paired.adjusted_p = paired.p;
    out.paired = paired;
    return out;
  }

 private:
  Moments values_, differences_;
  int64_t lost_ = 0, gained_ = 0;
};

/// One task of one model.
struct Tally {
  std::vector<Sums> sums;
  int64_t truncated = 0, close = 0;
};

class TaskRun {
 public:
  TaskRun(const Task& task, const TaskRunOptions& options, std::span<const Judged* const> models,
          const Judged* baseline, AtomicFile* items)
      : task_(task),
        options_(options),
        models_(models),
        baseline_(baseline),
        items_(items),
        questions_(task, options.folder, options.num_fewshot.value_or(task.options().num_fewshot)),
        tallies_(models.size(), Tally{std::vector<Sums>(task.options().metrics.size())}) {}

  std::vector<TaskScores> run(const ParallelFor& parallel_for) {
    Progress progress("eval " + task_.name(), options_.limit, "items");
    int64_t count = 0, tokens = 0, answers = 0;
    std::vector<AskedItem> batch;
    const auto score = [&] {
      if (batch.empty()) return;
      score_batch(batch, parallel_for);
      progress.add(std::ssize(batch));
      batch.clear();
      tokens = answers = 0;
    };
    bool is_limited = false;
    while (true) {
      if (options_.limit > 0 && count == options_.limit) {
        is_limited = questions_.has_more();
        break;
      }
      auto asked = questions_.next();
      if (!asked) break;
      ++count;
      tokens += rough_tokens(asked->question);
      answers += std::ssize(asked->question.pairs);
      batch.push_back(*std::move(asked));
      if (tokens >= kBatchTokens || answers >= kBatchAnswers) score();
    }
    score();
    progress.finish();
    CRUMB_CHECK(count > 0, "{}: no items", questions_.data().string());
    CRUMB_CHECK(!options_.judge_bound || options_.max_drop.empty() || count > 1,
                "{}: one item has no error, so --judge-by bound cannot judge it", questions_.data().string());
    std::vector<TaskScores> out;
    for (const auto& tally : tallies_) {
      TaskScores& scores = out.emplace_back();
      scores.task = task_.name();
      scores.data = questions_.data();
      scores.items = count;
      scores.fewshot = questions_.num_fewshot();
      scores.is_limited = is_limited;
      scores.truncated = tally.truncated;
      scores.close = tally.close;
      for (size_t i = 0; i < tally.sums.size(); ++i)
        scores.measures.push_back(tally.sums[i].measure(task_.options().metrics[i]));
    }
    const auto warn = [&](const Judged& model, int64_t truncated) {
      if (truncated > 0)
        log_warning("{}: {}: {} of {} items were longer than the context ({}), and cut from the left", task_.name(),
                    model.facts.path.string(), truncated, count, model.scorer->context_length());
    };
    for (size_t m = 0; m < models_.size(); ++m) warn(*models_[m], tallies_[m].truncated);
    if (baseline_ != nullptr) warn(*baseline_, truncated_baseline_);
    return out;
  }

 private:
  /// About four bytes a token; the prompt is computed once.
  static int64_t rough_tokens(const Question& question) {
    size_t bytes = 0;
    for (const auto& pair : question.pairs) {
      bytes += pair.continuation.size();
      if (&pair == &question.pairs.front() || pair.context != question.pairs.front().context)
        bytes += pair.context.size();
    }
    return static_cast<int64_t>(bytes / 4);
  }

  void score_batch(const std::vector<AskedItem>& batch, const ParallelFor& parallel_for) {
    std::vector<Answer> of_baseline;
    if (baseline_ != nullptr) of_baseline = answers_of(*baseline_, batch, questions_, parallel_for);
    for (size_t m = 0; m < models_.size(); ++m) {
      const auto answers = answers_of(*models_[m], batch, questions_, parallel_for);
      for (size_t i = 0; i < batch.size(); ++i) {
        tallies_[m].truncated += answers[i].is_truncated;
        tallies_[m].close += is_close(task_.options().metrics.front(), batch[i].question, answers[i]);
        add(tallies_[m], batch[i], answers[i], of_baseline.empty() ? nullptr : &of_baseline[i]);
        write(*models_[m], batch[i], answers[i]);
      }
    }
    for (size_t i = 0; i < of_baseline.size(); ++i) {
      truncated_baseline_ += of_baseline[i].is_truncated;
      write(*baseline_, batch[i], of_baseline[i]);
    }
  }

  void add(Tally& tally, const AskedItem& asked, const Answer& answer, const Answer* baseline) const {
    const auto& metrics = task_.options().metrics;
    for (size_t i = 0; i < metrics.size(); ++i) {
      const auto value = [&](const Answer& a) { return value_of(metrics[i], asked.question, a); };
      tally.sums[i].add(value(answer), baseline != nullptr ? std::optional(value(*baseline)) : std::nullopt);
    }
  }

  void write(const Judged& model, const AskedItem& asked, const Answer& answer) {
    if (items_ != nullptr) items_->write(dump_json(item_json(model.facts.path.string(), task_, asked, answer)) + "\n");
  }

  const Task& task_;
  const TaskRunOptions& options_;
  std::span<const Judged* const> models_;
  const Judged* baseline_;
  AtomicFile* items_;
  Questions questions_;
  std::vector<Tally> tallies_;
  int64_t truncated_baseline_ = 0;
};

/// The measures of each task that count.
template <class Visit>
void for_each_first(TaskResults& results, const Visit& visit) {
  for (auto& task : results.tasks) visit(task, task.measures.front());
}

void adjust(TaskResults& results) {
  std::vector<double> p;
  for_each_first(results, [&](const TaskScores&, const TaskMeasure& m) { p.push_back(m.paired ? m.paired->p : 1); });
  const auto adjusted = holm(p);
  size_t i = 0;
  for_each_first(results, [&](const TaskScores&, TaskMeasure& m) {
    if (m.paired) m.paired->adjusted_p = adjusted[i];
    ++i;
  });
}

/// The mean of independent estimates.
Estimate mean_of(const std::vector<Estimate>& parts) {
  double sum = 0, variance = 0;
  bool is_known = true;
  for (const auto& part : parts) {
    sum += part.value;
    is_known = is_known && part.standard_error.has_value();
    variance += std::pow(part.standard_error.value_or(0), 2);
  }
  const auto n = static_cast<double>(parts.size());
  return {sum / n, is_known ? std::optional(std::sqrt(variance) / n) : std::nullopt};
}

std::optional<TaskMeasure> average_of(const TaskResults& results) {
  std::vector<Estimate> values, changes;
  for (const auto& task : results.tasks) {
    const auto& measure = task.measures.front();
    if (!is_accuracy(measure.name)) continue;
    values.push_back(measure.estimate);
    if (measure.paired) changes.push_back(measure.paired->change);
  }
  if (values.size() < 2) return std::nullopt;
  TaskMeasure average{"average", mean_of(values), std::nullopt};
  if (changes.empty()) return average;
  Paired paired{.change = mean_of(changes)};
  paired.p = paired.adjusted_p = normal_test(paired.change).value_or(1);
  paired.loss = -paired.change.value;
  paired.loss_bound = paired.loss + kBoundErrors * paired.change.standard_error.value_or(0);
  average.paired = paired;
  return average;
}

std::vector<TaskDropCheck> checks_of(const TaskRunOptions& options, const TaskResults& results) {
  const auto drop = [&](const Paired& paired) { return options.judge_bound ? paired.loss_bound : paired.loss; };
  std::vector<TaskDropCheck> checks;
  for (const auto& [name, limit] : options.max_drop) {
    if (name == "average") {
      if (results.average) checks.push_back({name, drop(*results.average->paired), limit});
      continue;
    }
    for (const auto& task : results.tasks) {
      if (name == "tasks" || name == task.task) checks.push_back({task.task, drop(*task.measures[0].paired), limit});
    }
  }
  return checks;
}

std::vector<Task> find_tasks(const TaskRunOptions& options, bool has_baseline) {
  std::vector<Task> tasks;
  for (const auto& name : options.tasks) {
    const Task& task = tasks.emplace_back(find_task(name, options.folder));
    const auto same = std::ranges::count_if(tasks, [&](const Task& t) { return t.name() == task.name(); });
    CRUMB_CHECK(same == 1, "--tasks: {} is given twice", task.name());
    const Path data = find_data(task.options().data, options.folder, task.name(), task.options().get);
    if (!options.items.empty()) require_apart(options.items, {data});
  }
  CRUMB_CHECK(has_baseline || options.max_drop.empty(), "max_drop: a drop needs a baseline to compare with");
  for (const auto& limit : options.max_drop) {
    const std::string& name = limit.first;
    const bool is_known = name == "tasks" || name == "average" ||
                          std::ranges::any_of(tasks, [&](const Task& t) { return t.name() == name; });
    CRUMB_CHECK(is_known, "--max-drop: {} is none of the tasks that are run", name);
    const auto of_accuracy =
        std::ranges::count_if(tasks, [](const Task& t) { return is_accuracy(t.options().metrics.front()); });
    CRUMB_CHECK(name != "average" || of_accuracy > 1,
                "--max-drop: average needs two tasks at least whose first metric is an accuracy");
  }
  return tasks;
}

}  // namespace

bool TaskResults::exceeded() const {
  return std::ranges::any_of(checks, [](const TaskDropCheck& check) { return check.exceeded(); });
}

EncodedPair encode_pair(const tokenizer::Tokenizer& tokenizer, const std::string& context,
                        const std::string& continuation, int64_t context_length) {
  const auto& special = tokenizer.special();
  const auto first = special.bos ? special.bos : special.eos;
  const std::string begin = first ? tokenizer.decode({*first}, true) : "";
  const auto encode = [&](const std::string& text) {
    const bool has_begin = !begin.empty() && text.starts_with(begin);
    return tokenizer.encode(text, !has_begin);
  };
  const std::string kept(jinja::strip(context, jinja::Ends::right));
  EncodedPair pair;
  if (kept.empty()) {
    pair.continuation = tokenizer.encode(context + continuation);
    CRUMB_CHECK(first, "an empty prompt, and the tokenizer has neither BOS nor EOS to stand before the answer");
    if (!pair.continuation.empty() && pair.continuation.front() == *first)
      pair.continuation.erase(pair.continuation.begin());
    pair.context = {*first};
  } else {
    pair.context = encode(kept);
    const auto whole = encode(context + continuation);
    const size_t split = std::min(pair.context.size(), whole.size());
    pair.continuation.assign(whole.begin() + static_cast<std::ptrdiff_t>(split), whole.end());
  }
  const auto length = std::ssize(pair.continuation);
  CRUMB_CHECK(length > 0, "the answer \"{}\" has no tokens of its own behind its prompt", continuation);
  CRUMB_CHECK(length <= context_length, "the answer has {} tokens, more than the context of {}", length,
              context_length);
  const auto over = std::ssize(pair.context) + length - (context_length + 1);
  if (over > 0) {
    pair.context.erase(pair.context.begin(), pair.context.begin() + over);
    pair.is_truncated = true;
  }
  return pair;
}

void check_tasks(const TaskRunOptions& options, bool has_baseline) { find_tasks(options, has_baseline); }

std::vector<TaskResults> run_tasks(const TaskRunOptions& options, std::span<const Judged* const> models,
                                   const Judged* baseline, const ParallelFor& parallel_for) {
  const auto tasks = find_tasks(options, baseline != nullptr);
  std::unique_ptr<AtomicFile> items;
  if (!options.items.empty()) items = std::make_unique<AtomicFile>(options.items, options.overwrite_items);
  std::vector<TaskResults> results(models.size());
  for (const auto& task : tasks) {
    auto scores = TaskRun(task, options, models, baseline, items.get()).run(parallel_for);
    for (size_t m = 0; m < models.size(); ++m) results[m].tasks.push_back(std::move(scores[m]));
  }
  if (items != nullptr) items->commit();
  for (auto& of_model : results) {
    adjust(of_model);
    of_model.average = average_of(of_model);
    of_model.judged_by_bound = options.judge_bound;
    if (baseline != nullptr) of_model.checks = checks_of(options, of_model);
  }
  return results;
}

}  // namespace crumb::eval
