// A task: items of a local file, how each becomes a prompt with the answers that are scored behind it, and how the
// scores become numbers. A task is a YAML file whose keys are those of lm-evaluation-harness where they mean the same.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/common/config.h"
#include "core/jinja/template.h"

namespace crumb::eval {

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
  std::vector<std::string> metrics;

  template <class V>
  void visit(V& v) {
    v.field("task", task, "its name", {.required = true});
    v.field(
        "output_type", output_type,
        "multiple_choice: the likeliest of several answers; loglikelihood: whether the answer is what the model says",
        {.choices = {"multiple_choice", "loglikelihood"}});
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
    v.field("metrics", metrics, "what is told; the first one counts for averages, limits and tests of significance",
            {.choices = {"acc", "acc_norm", "acc_bytes", "perplexity"}});
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

/// An item as it is scored: prompts and answers in pairs, one of which is the right one.
struct Question {
  struct Pair {
    std::string context, continuation;
    int64_t characters = 0, bytes = 0;  // of the answer without its delimiter: what acc_norm and acc_bytes divide by
  };
  std::vector<Pair> pairs;
  int64_t target = 0;
};

class Task {
 public:
  /// UserError that lists what is wrong with the options.
  explicit Task(TaskOptions options, const std::string& where);

  const TaskOptions& options() const { return options_; }
  const std::string& name() const { return options_.task; }

  /// `examples`: solved() ones, one after the other. UserError without the place of the item.
  Question ask(const nlohmann::ordered_json& item, const std::string& examples) const;
  /// A solved example: prompt, delimiter, right answer. Likewise.
  std::string solved(const nlohmann::ordered_json& item) const;
  /// Of options().fewshot_group.
  std::string group_of(const nlohmann::ordered_json& item) const;

 private:
  std::vector<std::string> choices_of(const nlohmann::ordered_json& item) const;
  int64_t right_choice(const Field& field, const nlohmann::ordered_json& item,
                       const std::vector<std::string>& choices) const;

  TaskOptions options_;
  std::string where_;
  Field text_, target_, description_, group_;
  std::vector<Field> choices_;
};

/// The task of a name or a YAML file: NAME.yaml in `folder` if it is there, else one that comes with the program.
/// UserError that lists the names that are known.
Task find_task(const std::string& name, const Path& folder);
/// Of the tasks that come with the program, sorted.
std::vector<std::string> builtin_task_names();

}  // namespace crumb::eval
