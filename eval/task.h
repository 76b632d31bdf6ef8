// A task: items of a local file, how each becomes a prompt with the answers that are scored behind it, and how the
// scores become numbers. A task is a YAML file whose keys are those of lm-evaluation-harness where they mean the same.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/common/config.h"
#include "core/jinja/chat_template.h"
#include "core/jinja/template.h"
#include "eval/answer_filter.h"

namespace crumb::eval {

struct GenerationOptions {
  std::vector<std::string> until;
  int64_t max_gen_toks = 256;
  bool do_sample = false;
  double temperature = 0;

  template <class V>
  void visit(V& v) {
    v.field("until", until, "texts that end an answer and are no part of it; empty: the fewshot_delimiter");
    v.field("max_gen_toks", max_gen_toks, "tokens of an answer", {.min = 1});
    v.field("do_sample", do_sample, "false: the likeliest tokens, the only way there is");
    v.field("temperature", temperature, "0", {.min = 0, .max = 0});
    v.check("do_sample", do_sample ? "must be false: answers are of the likeliest tokens" : "");
  }
};

/// The keys of a task's file. Templates see the fields of an item.
struct TaskOptions {
  std::string task, output_type = "multiple_choice";
  std::vector<std::string> data, fewshot_data, labels, columns;
  std::string get;
  std::string doc_to_text, doc_to_target, description;
  std::vector<std::string> doc_to_choice;
  bool multiple_input = false;
  std::string target_delimiter = " ", fewshot_delimiter = "\n\n";
  int64_t num_fewshot = 0;
  std::string fewshot_sampler = "default", fewshot_group;
  std::vector<NamedList<std::string>> fewshot_samples;
  std::vector<std::string> metrics;
  GenerationOptions generation;
  std::vector<FilterOptions> filters;
  ExactMatchOptions exact_match;

  template <class V>
  void visit(V& v) {
    v.field("task", task, "its name", {.required = true});
    v.field(
        "output_type", output_type,
        "multiple_choice: the likeliest of several answers; loglikelihood: whether the answer is what the model says; "
        "generate_until: whether the text it writes is the answer",
        {.choices = {"multiple_choice", "loglikelihood", "generate_until"}});
    v.field("data", data, "names the file of items may have in the folder of data: JSON lines or CSV",
            {.required = true});
    v.field("fewshot_data", fewshot_data, "the same for solved examples; empty: the items themselves");
    v.field("labels", labels, "names of a file with a label a line, which becomes the field `label`, if it is there");
    v.field("columns", columns, "names of the columns of a CSV without a header; empty: its first line names them");
    v.field("get", get, "how to get the data", {.required = true});
    v.field("doc_to_text", doc_to_text, "the prompt; with multiple_input the number of the right choice");
    v.field("doc_to_choice", doc_to_choice,
            "the answers: a template each, or one expression that gives a list; with multiple_input prompts");
    v.field("doc_to_target", doc_to_target,
            "the right answer: its number or its text; with multiple_input the text behind every prompt",
            {.required = true});
    v.field("description", description, "what stands before everything");
    v.field("multiple_input", multiple_input, "the choices are prompts and the answer is the same for all");
    v.field("target_delimiter", target_delimiter, "between prompt and answer");
    v.field("fewshot_delimiter", fewshot_delimiter, "behind each solved example");
    v.field("num_fewshot", num_fewshot, "solved examples before the prompt", {.min = 0, .max = 1000});
    v.field("fewshot_sampler", fewshot_sampler, "default: drawn for each item; first_n: the first ones",
            {.choices = {"default", "first_n"}});
    v.field("fewshot_group", fewshot_group, "examples come from items with the same value of this template");
    v.field("fewshot_samples", fewshot_samples, "the solved examples themselves, in place of fewshot_data");
    v.field("metrics", metrics, "what is told; the first one counts for averages, limits and tests of significance",
            {.choices = {"acc", "acc_norm", "acc_bytes", "perplexity", "exact_match"}});
    v.section("generation_kwargs", generation, "of generate_until");
    v.field("filter_list", filters, "what is taken of a written text; each gives a measure, the first one counts");
    v.section("exact_match", exact_match, "what does not count when a written answer is compared");
    v.check("fewshot_samples", fewshot_samples.empty() || fewshot_data.empty() ? "" : "and fewshot_data: give one");
    v.check("fewshot_samples",
            fewshot_samples.empty() || (fewshot_sampler == "first_n" && fewshot_group.empty())
                ? ""
                : "are taken in their order: fewshot_sampler must be first_n, without fewshot_group");
    v.check("doc_to_choice", output_type == "multiple_choice" && doc_to_choice.empty()
                                 ? "must be given for output_type: multiple_choice"
                                 : "");
    v.check("num_fewshot", multiple_input && doc_to_text.empty() ? "multiple_input needs doc_to_text" : "");
  }
};

/// A template that gives a text, or a value of any kind where it is one expression: "{{choices.text}}".
class Field {
 public:
  /// What a template that is a name and nothing else stands for: the field of that name, or its own letters.
  enum class Names { are_fields, are_texts };
  /// `where`: for messages.
  Field(const std::string& source, const std::string& where, Names names = Names::are_fields);

  /// UserError: a name that an item has not, or what else Template::render() says.
  std::string text(const nlohmann::ordered_json& item) const;
  nlohmann::ordered_json value(const nlohmann::ordered_json& item) const;

 private:
  std::string line_end_;
  jinja::Template text_;
  std::optional<jinja::Template> value_;
};

/// How prompts are written.
struct PromptOptions {
  bool chat = false;       // by each model's own chat template
  bool multiturn = false;  // solved examples as turns of their own; needs chat
  std::string system;      // before everything, with chat as the system's message

  bool operator==(const PromptOptions&) const = default;
};

/// An item as it is scored: prompts and answers in pairs, one of which is the right one. Of a task that generates: one
/// pair, whose continuation is the right answer.
struct Question {
  struct Pair {
    std::string context, continuation;
    int64_t characters = 0, bytes = 0;  // of the answer without its delimiter: what acc_norm and acc_bytes divide by
    std::vector<jinja::ChatMessage> messages = {};  // with PromptOptions::chat what stands for the context
  };
  std::vector<Pair> pairs;
  int64_t target = 0;
};

/// A solved example.
struct Solved {
  std::string question, answer;
};

class Task {
 public:
  /// UserError that lists what is wrong with the options.
  /// `text`: of its file.
  Task(TaskOptions options, const std::string& where, std::string text = {});

  const TaskOptions& options() const { return options_; }
  const std::string& name() const { return options_.task; }
  const std::string& text() const { return file_text_; }

  bool generates() const { return options_.output_type == "generate_until"; }
  /// Names of what is measured: the metrics; of a task that generates "exact_match", with several filters
  /// "exact_match,FILTER" for each.
  const std::vector<std::string>& measures() const { return measures_; }

  /// `examples`: solved() ones. UserError without the place of the item.
  Question ask(const nlohmann::ordered_json& item, const std::vector<Solved>& examples,
               const PromptOptions& prompts = {}) const;
  Solved solved(const nlohmann::ordered_json& item) const;
  /// Of options().fewshot_samples.
  std::vector<Solved> samples() const;

  /// What filter `measure` takes of a written text.
  std::string filtered(size_t measure, const std::string& text) const;
  /// Whether that is the right answer.
  bool matches(const std::string& filtered, const std::string& answer) const;

  /// Of options().fewshot_group.
  std::string group_of(const nlohmann::ordered_json& item) const;

 private:
  std::vector<std::string> choices_of(const nlohmann::ordered_json& item) const;
  int64_t right_choice(const Field& field, const nlohmann::ordered_json& item,
                       const std::vector<std::string>& choices) const;
  std::string answer_of(const nlohmann::ordered_json& item) const;

  TaskOptions options_;
  std::string where_, file_text_;
  Field text_, target_, description_, group_;
  std::vector<Field> choices_;
  std::vector<AnswerFilter> filters_;
  std::optional<ExactMatch> exact_match_;
  std::vector<std::string> measures_;
};

/// The task of a name or a YAML file: NAME.yaml in `folder` if it is there, else one that comes with the program.
/// UserError that lists the names that are known.
Task find_task(const std::string& name, const Path& folder);
/// Of the tasks that come with the program, sorted.
std::vector<std::string> builtin_task_names();

}  // namespace crumb::eval
