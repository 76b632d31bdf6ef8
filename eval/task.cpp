#include "eval/task.h"

#include <algorithm>
#include <charconv>

#include "core/common/file.h"
#include "core/common/json.h"
#include "core/common/log.h"
#include "core/jinja/text.h"
#include "eval/builtin_tasks.h"

namespace crumb::eval {
namespace {

using Json = nlohmann::ordered_json;

bool is_name(const std::string& text) {
  const auto is_letter = [](char c) { return c == '_' || std::isalpha(static_cast<unsigned char>(c)) != 0; };
  return !text.empty() && is_letter(text[0]) &&
         std::ranges::all_of(text, [&](char c) { return is_letter(c) || (c >= '0' && c <= '9'); });
}

/// The expression of a template that is nothing else.
std::optional<std::string> sole_expression(const std::string& source) {
  const std::string text(jinja::strip(source, jinja::Ends::both));
  if (text.size() < 4 || !text.starts_with("{{") || !text.ends_with("}}") || text.find("{{", 2) != std::string::npos)
    return std::nullopt;
  const std::string inside = text.substr(2, text.size() - 4);
  if (inside.find("}}") != std::string::npos || inside.starts_with('-') || inside.ends_with('-')) return std::nullopt;
  return inside;
}

std::optional<jinja::Template> value_template(const std::string& source, const std::string& where) {
  const auto expression = sole_expression(source);
  if (!expression) return std::nullopt;
  return jinja::Template("{{ (" + *expression + ") | tojson }}", where, jinja::MissingNames::are_errors);
}

std::string full_source(const std::string& source, Field::Names names) {
  return names == Field::Names::are_fields && is_name(source) ? "{{ " + source + " }}" : source;
}

/// Of several choices each is its own text, one alone must be an expression.
std::vector<Field> choice_fields(const std::vector<std::string>& sources, const std::string& where) {
  std::vector<Field> fields;
  for (const auto& source : sources)
    fields.emplace_back(source, where, sources.size() == 1 ? Field::Names::are_fields : Field::Names::are_texts);
  return fields;
}

/// As python's str(value).
std::string text_of(const Json& value) {
  if (value.is_null()) return "None";
  if (value.is_boolean()) return value.get<bool>() ? "True" : "False";
  return value.is_string() ? value.get<std::string>() : dump_json(value);
}

}  // namespace

Field::Field(const std::string& source, const std::string& where, Names names)
    :  // Jinja drops a line end at the end of a template, but not for lm-evaluation-harness.
      line_end_(source.ends_with('\n') ? "\n" : ""),
      text_(full_source(source, names), where, jinja::MissingNames::are_errors),
      value_(value_template(full_source(source, names), where)) {}

std::string Field::text(const Json& item) const { return text_.render(item) + line_end_; }

Json Field::value(const Json& item) const {
  if (!value_) return text(item);
  const std::string value = value_->render(item);
  parse_json(value, "the value of a template");  // what tojson writes need not be JSON: NaN
  return Json::parse(value);
}

Task::Task(TaskOptions options, const std::string& where)
    : options_(std::move(options)),
      where_(where),
      text_(options_.doc_to_text, where + ": doc_to_text"),
      target_(options_.doc_to_target, where + ": doc_to_target"),
      description_(options_.description, where + ": description"),
      group_(options_.fewshot_group, where + ": fewshot_group"),
      choices_(choice_fields(options_.doc_to_choice, where + ": doc_to_choice")) {
  const bool has_choices = options_.output_type == "multiple_choice";
  if (options_.metrics.empty()) options_.metrics = {"acc"};
  for (const auto& metric : options_.metrics) {
    const bool fits = metric == "acc" || (metric == "perplexity") != has_choices;
    CRUMB_CHECK(fits, "{}: metrics: {} is not measured by output_type: {}", where, metric, options_.output_type);
  }
  CRUMB_CHECK(!options_.multiple_input || has_choices, "{}: multiple_input needs output_type: multiple_choice", where);
}

std::vector<std::string> Task::choices_of(const Json& item) const {
  std::vector<std::string> out;
  if (choices_.size() == 1) {
    const Json list = choices_[0].value(item);
    CRUMB_CHECK(list.is_array(), "doc_to_choice gives {}, not a list", json_excerpt(list));
    for (const auto& choice : list) out.push_back(text_of(choice));
  } else {
    for (const auto& choice : choices_) out.push_back(choice.text(item));
  }
  CRUMB_CHECK(out.size() >= 2, "doc_to_choice gives {} choice{}", out.size(), out.size() == 1 ? "" : "s");
  return out;
}

int64_t Task::right_choice(const Field& field, const Json& item, const std::vector<std::string>& choices) const {
  const Json value = field.value(item);
  int64_t index = -1;
  const std::string text = text_of(value);
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), index);
  if (error == std::errc() && end == text.data() + text.size()) {
    CRUMB_CHECK(index >= 0 && index < std::ssize(choices), "the right answer is number {} of {} choices", index,
                choices.size());
    const auto same = std::ranges::find(choices, text);
    CRUMB_CHECK(
        !value.is_string() || same == choices.end() || same - choices.begin() == index,
        "the right answer \"{}\" is both number {} from 0 and the text of another choice; say the number: | int", text,
        index);
    return index;
  }
  const auto found = std::ranges::find(choices, text);
  CRUMB_CHECK(value.is_string() && found != choices.end(), "the right answer {} is none of the choices",
              json_excerpt(value));
  return found - choices.begin();
}

std::string Task::solved(const Json& item) const {
  if (options_.output_type != "multiple_choice")
    return text_.text(item) + options_.target_delimiter + target_.text(item) + options_.fewshot_delimiter;
  const auto choices = choices_of(item);
  if (options_.multiple_input)
    return choices[static_cast<size_t>(right_choice(text_, item, choices))] + options_.target_delimiter +
           target_.text(item) + options_.fewshot_delimiter;
  return text_.text(item) + options_.target_delimiter +
         choices[static_cast<size_t>(right_choice(target_, item, choices))] + options_.fewshot_delimiter;
}

Question Task::ask(const Json& item, const std::string& examples) const {
  const std::string before = description_.text(item) + examples;
  const auto pair = [](std::string context, std::string continuation, const std::string& answer) {
    return Question::Pair{std::move(context), std::move(continuation), jinja::length_of(answer),
                          static_cast<int64_t>(answer.size())};
  };
  Question question;
  if (options_.output_type != "multiple_choice") {
    const std::string answer = target_.text(item);
    question.pairs.push_back(pair(before + text_.text(item), answer, answer));
    return question;
  }
  const auto choices = choices_of(item);
  if (options_.multiple_input) {
    const std::string answer = options_.target_delimiter + target_.text(item);
    for (const auto& choice : choices) question.pairs.push_back(pair(before + choice, answer, choice));
    question.target = right_choice(text_, item, choices);
  } else {
    const std::string context = before + text_.text(item);
    for (const auto& choice : choices)
      question.pairs.push_back(pair(context, options_.target_delimiter + choice, choice));
    question.target = right_choice(target_, item, choices);
  }
  return question;
}

std::string Task::group_of(const Json& item) const { return group_.text(item); }

std::vector<std::string> builtin_task_names() {
  std::vector<std::string> names;
  for (const auto& task : builtin_tasks()) names.emplace_back(task.name);
  return names;
}

Task find_task(const std::string& name, const Path& folder) {
  const auto of_file = [](const Path& path) {
    return Task(read_config<TaskOptions>(parse_yaml_file(path)), path.string());
  };
  if (name.ends_with(".yaml") || name.ends_with(".yml")) return of_file(name);
  if (const Path own = folder / (name + ".yaml"); is_file(own)) {
    log_line_once(LogLevel::info, fmt::format("task {}: {}", name, own.string()));
    return of_file(own);
  }
  for (const auto& task : builtin_tasks()) {
    if (task.name != name) continue;
    const std::string where = "the task " + name;
    return Task(read_config<TaskOptions>(parse_yaml_text(std::string(task.yaml), where)), where);
  }
  const auto known = builtin_task_names();
  const auto near = nearest_name(name, known);
  user_error("--tasks: there is no task \"{}\"{}; known: {}, and YAML files by their path", name,
             near ? fmt::format("; did you mean \"{}\"?", *near) : "", fmt::join(known, ", "));
}

}  // namespace crumb::eval
