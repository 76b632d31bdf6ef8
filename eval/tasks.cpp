#include "eval/tasks.h"

#include <algorithm>
#include <cmath>

#include "core/common/hash.h"
#include "core/common/json.h"
#include "core/common/log.h"
#include "core/common/progress.h"
#include "core/jinja/text.h"
#include "eval/questions.h"
#include "eval/score.h"
#include "eval/task_items.h"
#include "eval/written_answers.h"

namespace crumb::eval {
namespace {

using Json = nlohmann::ordered_json;
using tokenizer::TokenId;

/// Items are scored together up to this many tokens of the first model.
constexpr int64_t kBatchTokens = 2048;
/// And up to so many answers, each of which has keys and values of its own.
constexpr int64_t kBatchAnswers = 64;
/// Texts that are written together.
constexpr int64_t kBatchTexts = 16;

bool is_accuracy(const std::string& metric) { return metric.starts_with("acc") || metric.starts_with("exact_match"); }

/// What a model says of the answers of an item, or what it writes.
struct Answer {
  std::vector<double> log_likelihoods;  // of each pair
  std::vector<bool> is_greedy;          // every token is the model's first choice
  std::string text;
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

nlohmann::json record_of(const Answer& answer) {
  return {answer.log_likelihoods, answer.is_greedy, answer.text, answer.is_truncated};
}

Answer answer_of(const nlohmann::json& record) {
  Answer answer;
  record.at(0).get_to(answer.log_likelihoods);
  answer.is_greedy = record.at(1).get<std::vector<bool>>();
  record.at(2).get_to(answer.text);
  record.at(3).get_to(answer.is_truncated);
  return answer;
}

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

double value_of(const Task& task, size_t measure, const Question& question, const Answer& answer) {
  if (task.generates())
    return task.matches(task.filtered(measure, answer.text), question.pairs[0].continuation) ? 1 : 0;
  const std::string& metric = task.measures()[measure];
  if (metric == "perplexity") return answer.log_likelihoods[0];
  if (question.pairs.size() == 1) return answer.is_greedy[0] ? 1 : 0;
  return choice_by(metric, question, answer) == question.target ? 1 : 0;
}

/// A model with its way to write prompts.
struct Asked {
  const Judged* model;
  std::optional<jinja::ChatTemplate> chat;  // where PromptOptions ask for it

  std::string prompt_of(const Question::Pair& pair) const {
    return chat ? chat_prompt(*chat, pair.messages) : pair.context;
  }
};

Asked asked_with(const Judged& model, const PromptOptions& prompts) {
  Asked asked{&model, std::nullopt};
  if (prompts.chat) asked.chat.emplace(*model.tokenizer, model.facts.path.string());
  return asked;
}

std::vector<Answer> texts_of(const Asked& asked_model, const std::vector<AskedItem>& batch,
                             const GenerationOptions& generation) {
  std::vector<std::string> prompts;
  for (const auto& asked : batch) prompts.push_back(asked_model.prompt_of(asked.question.pairs[0]));
  std::vector<Answer> answers;
  for (auto& written : write_answers(*asked_model.model, prompts, generation)) {
    Answer& answer = answers.emplace_back();
    answer.text = std::move(written.text);
    answer.is_truncated = written.is_truncated;
  }
  return answers;
}

std::vector<Answer> answers_of(const Asked& asked_model, const Task& task, const std::vector<AskedItem>& batch,
                               const Questions& questions, const ParallelFor& parallel_for) {
  if (task.generates()) return texts_of(asked_model, batch, task.options().generation);
  const Judged& model = *asked_model.model;
  std::vector<EncodedPair> encoded;
  for (const auto& asked : batch) {
    for (const auto& pair : asked.question.pairs) {
      try {
        encoded.push_back(encode_pair(*model.tokenizer, asked_model.prompt_of(pair), pair.continuation,
                                      model.scorer->context_length()));
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
  const auto& measures = task.measures();
  if (task.generates()) {
    json["text"] = answer.text;
    json["target"] = question.pairs[0].continuation;
    for (size_t i = 0; i < measures.size(); ++i) {
      json["filtered_" + measures[i]] = task.filtered(i, answer.text);
      json[measures[i]] = value_of(task, i, question, answer);
    }
    json["truncated"] = answer.is_truncated;
    return json;
  }
  json["log_likelihoods"] = answer.log_likelihoods;
  if (question.pairs.size() > 1) json["target"] = question.target;
  for (size_t i = 0; i < measures.size(); ++i) {
    if (question.pairs.size() > 1) json["choice_by_" + measures[i]] = choice_by(measures[i], question, answer);
    json[measures[i]] = value_of(task, i, question, answer);
  }
  json["close"] = is_close(measures.front(), question, answer);
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
          const Judged* baseline, AtomicFile* items, Journal* journal)
      : task_(task),
        options_(options),
        models_(models),
        baseline_(baseline),
        items_(items),
        journal_(journal),
        questions_(task, options.folder, options.num_fewshot.value_or(task.options().num_fewshot), options.prompts),
        tallies_(models.size(), Tally{std::vector<Sums>(task.measures().size())}) {
    for (const Judged* model : models) asked_.push_back(asked_with(*model, options.prompts));
    if (baseline != nullptr) asked_.push_back(asked_with(*baseline, options.prompts));
  }

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
      if (const auto known = known_answers(*asked)) {
        take(*asked, *known);
        progress.add(1);
        continue;
      }
      tokens += rough_tokens(asked->question);
      answers += std::ssize(asked->question.pairs);
      batch.push_back(*std::move(asked));
      const bool is_full =
          task_.generates() ? answers >= kBatchTexts : tokens >= kBatchTokens || answers >= kBatchAnswers;
      if (is_full) score();
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
        scores.measures.push_back(tally.sums[i].measure(task_.measures()[i]));
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

  /// Of the item, by each model and then the baseline.
  using Answers = std::vector<Answer>;

  /// What names an item in the journal.
  std::string key_of(const AskedItem& asked) const { return fmt::format("{}:{}", task_.name(), asked.item.line); }

  std::optional<Answers> known_answers(const AskedItem& asked) {
    if (journal_ == nullptr) return std::nullopt;
    const auto record = journal_->next("item", key_of(asked));
    if (!record) return std::nullopt;
    Answers answers;
    try {
      for (const auto& one : record->at("answers")) answers.push_back(answer_of(one));
    } catch (const nlohmann::json::exception&) {
      journal_->refuse_record();
    }
    if (answers.size() != asked_.size()) journal_->refuse_record();
    for (const auto& answer : answers) {
      const size_t scored = task_.generates() ? 0 : asked.question.pairs.size();
      if (answer.log_likelihoods.size() != scored || answer.is_greedy.size() != scored) journal_->refuse_record();
    }
    return answers;
  }

  void score_batch(const std::vector<AskedItem>& batch, const ParallelFor& parallel_for) {
    std::vector<Answers> by_item(batch.size());
    for (const auto& asked : asked_) {
      auto answers = answers_of(asked, task_, batch, questions_, parallel_for);
      for (size_t i = 0; i < batch.size(); ++i) by_item[i].push_back(std::move(answers[i]));
    }
    for (size_t i = 0; i < batch.size(); ++i) {
      if (journal_ != nullptr) {
        auto records = nlohmann::json::array();
        for (const auto& answer : by_item[i]) records.push_back(record_of(answer));
        journal_->append({{"item", key_of(batch[i])}, {"answers", std::move(records)}});
      }
      take(batch[i], by_item[i]);
    }
  }

  void take(const AskedItem& asked, const Answers& answers) {
    const Answer* of_baseline = baseline_ != nullptr ? &answers.back() : nullptr;
    for (size_t m = 0; m < models_.size(); ++m) {
      tallies_[m].truncated += answers[m].is_truncated;
      if (!task_.generates()) tallies_[m].close += is_close(task_.measures().front(), asked.question, answers[m]);
      add(tallies_[m], asked, answers[m], of_baseline);
      write(*models_[m], asked, answers[m]);
    }
    if (of_baseline == nullptr) return;
    truncated_baseline_ += of_baseline->is_truncated;
    write(*baseline_, asked, *of_baseline);
  }

  void add(Tally& tally, const AskedItem& asked, const Answer& answer, const Answer* baseline) const {
    for (size_t i = 0; i < task_.measures().size(); ++i) {
      const auto value = [&](const Answer& a) { return value_of(task_, i, asked.question, a); };
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
  Journal* journal_;
  Questions questions_;
  std::vector<Asked> asked_;  // the models, then the baseline
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
  CRUMB_CHECK(options.prompts.chat || !options.prompts.multiturn,
              "--fewshot-as-multiturn: turns are those of a chat; give --apply-chat-template, too");
  CRUMB_CHECK(has_baseline || options.max_drop.empty(), "max_drop: a drop needs a baseline to compare with");
  for (const auto& limit : options.max_drop) {
    const std::string& name = limit.first;
    const bool is_known = name == "tasks" || name == "average" ||
                          std::ranges::any_of(tasks, [&](const Task& t) { return t.name() == name; });
    CRUMB_CHECK(is_known, "--max-drop: {} is none of the tasks that are run", name);
    const auto of_accuracy =
        std::ranges::count_if(tasks, [](const Task& t) { return is_accuracy(t.measures().front()); });
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
  const auto first = first_token(tokenizer);
  const auto encode = [&](const std::string& text) { return encode_prompt(tokenizer, text); };
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

nlohmann::json facts_of(const TaskRunOptions& options) {
  nlohmann::json facts = nlohmann::json::object();
  const auto hash = [](uint64_t h) { return fmt::format("{:016x}", h); };
  std::vector<std::string> names;
  for (const auto& task : find_tasks(options, true)) {
    const Questions questions(task, options.folder, options.num_fewshot.value_or(task.options().num_fewshot));
    names.push_back(task.name());
    facts["task " + task.name()] = hash(hash_bytes(0, task.text()));
    facts["data of " + task.name()] = hash(hash_file(hash_file(0, questions.data()), questions.examples()));
    if (const Path labels = questions.labels(); !labels.empty())
      facts["labels of " + task.name()] = hash(hash_file(0, labels));
  }
  facts["tasks"] = names;
  facts["limit"] = options.limit;
  facts["num_fewshot"] = options.num_fewshot ? nlohmann::json(*options.num_fewshot) : nlohmann::json("of the task");
  facts["prompts"] = {options.prompts.chat, options.prompts.multiturn, options.prompts.system};
  return facts;
}

void check_tasks(const TaskRunOptions& options, bool has_baseline) { find_tasks(options, has_baseline); }

std::vector<TaskResults> run_tasks(const TaskRunOptions& options, std::span<const Judged* const> models,
                                   const Judged* baseline, const ParallelFor& parallel_for, Journal* journal) {
  const auto tasks = find_tasks(options, baseline != nullptr);
  std::unique_ptr<AtomicFile> items;
  if (!options.items.empty()) items = std::make_unique<AtomicFile>(options.items, options.overwrite_items);
  std::vector<TaskResults> results(models.size());
  for (const auto& task : tasks) {
    auto scores = TaskRun(task, options, models, baseline, items.get(), journal).run(parallel_for);
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
