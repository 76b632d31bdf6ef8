// Tasks with known answers: what models get right, and against a baseline whether what they lost is more than chance.
// Prompts and scores are those of lm-evaluation-harness 0.4.13; docs/evaluation.md says where they can differ.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "eval/journal.h"
#include "eval/judged.h"
#include "eval/paired.h"
#include "eval/task.h"

namespace crumb::eval {

struct TaskRunOptions {
  std::vector<std::string> tasks;      // names or YAML files; empty: none
  Path folder;                         // of their data
  int64_t limit = 0;                   // items of each task, from its beginning; 0: all
  std::optional<int64_t> num_fewshot;  // none: what each task says
  PromptOptions prompts;
  Path items;  // JSON lines, one an item and model; empty: not written
  Overwrite overwrite_items = Overwrite::no;
  std::map<std::string, double> max_drop;  // by task, "tasks" for each of them, "average"
  bool judge_bound = false;                // limits hold for the upper 95 % bound of a drop, not for its estimate
};

/// A model beside the baseline on the same items.
struct Paired {
  Estimate change;               // of the measure; of perplexity: relative
  int64_t lost = 0, gained = 0;  // items that only the baseline, only the model gets right
  double p = 1, adjusted_p = 1;  // McNemar's exact test, of perplexity a normal one; adjusted: by Holm over the tasks
  double loss = 0;               // how much worse the model is
  double loss_bound = 0;         // its one-sided 95 % bound
};

struct TaskMeasure {
  std::string name;
  Estimate estimate;
  std::optional<Paired> paired;
};

struct TaskScores {
  std::string task;
  Path data;
  int64_t items = 0, fewshot = 0;
  bool is_limited = false;            // there are more items
  int64_t truncated = 0;              // items whose prompt was longer than the context
  int64_t close = 0;                  // items whose two best answers are within kRounding of each other
  std::vector<TaskMeasure> measures;  // the first one counts
};

/// Two float32 programs whose sums run in different orders can differ by this much in a log-likelihood, relative to the
/// larger of it and 1: an item whose two best answers are nearer says nothing.
inline constexpr double kRounding = 2e-5;

/// A limit of max_drop beside what was found.
struct TaskDropCheck {
  std::string name;
  double drop = 0, limit = 0;
  bool exceeded() const { return drop > limit; }
};

/// Of one model.
struct TaskResults {
  std::vector<TaskScores> tasks;
  std::optional<TaskMeasure> average;  // of the accuracies that count; none for fewer than two
  std::vector<TaskDropCheck> checks;
  bool judged_by_bound = false;
  bool exceeded() const;
};

/// Tokens of a prompt and of an answer behind it.
struct EncodedPair {
  std::vector<tokenizer::TokenId> context, continuation;
  bool is_truncated = false;
};
/// The rule of lm-evaluation-harness: white space at the end of the context goes to the continuation; both are encoded
/// together and the continuation is what stands behind as many tokens as the context has alone. A context without
/// tokens is BOS, or EOS where there is none. Context and continuation are cut from the left to `context_length` + 1
/// tokens. UserError: a continuation without tokens, or longer than the context.
EncodedPair encode_pair(const tokenizer::Tokenizer& tokenizer, const std::string& context,
                        const std::string& continuation, int64_t context_length);

/// UserError: a task, or the file of its items, that is not there; limits that name none of the tasks or lack a
/// baseline. run_tasks() finds the same; this is for before models are loaded.
void check_tasks(const TaskRunOptions& options, bool has_baseline);

/// What the results of tasks depend on beside the models, by name: for a Journal.
nlohmann::json facts_of(const TaskRunOptions& options);

/// One result a model, in order. `baseline` may be null. `journal`: what it holds is not computed again, and what is
/// computed goes there item by item; may be null. Memory does not grow with the number of items, but for 16
/// bytes each with an id, and 16 for each solved example to draw from.
/// UserError as check_tasks(), and items (with file and line).
std::vector<TaskResults> run_tasks(const TaskRunOptions& options, std::span<const Judged* const> models,
                                   const Judged* baseline, const ParallelFor& parallel_for, Journal* journal = nullptr);

}  // namespace crumb::eval
