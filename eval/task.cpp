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

Task::Task(TaskOptions options, const std::string& where, std::string text)
    : options_(std::move(options)),
      where_(where),
      file_text_(std::move(text)),
      text_(options_.doc_to_text, where + ": doc_to_text"),
      target_(options_.doc_to_target, where + ": doc_to_target"),
      description_(options_.description, where + ": description"),
      group_(options_.fewshot_group, where + ": fewshot_group"),
      choices_(choice_fields(options_.doc_to_choice, where + ": doc_to_choice")) {
  const bool has_choices = options_.output_type == "multiple_choice";
  if (options_.metrics.empty()) options_.metrics = {generates() ? "exact_match" : "acc"};
  for (const auto& metric : options_.metrics) {
    const bool fits = generates()       ? metric == "exact_match"
                      : metric == "acc" ? true
                                        : metric != "exact_match" && (metric == "perplexity") != has_choices;
    CRUMB_CHECK(fits, "{}: metrics: {} is not measured by output_type: {}", where, metric, options_.output_type);
  }
  CRUMB_CHECK(!options_.multiple_input || has_choices, "{}: multiple_input needs output_type: multiple_choice", where);
  CRUMB_CHECK(generates() || options_.filters.empty(), "{}: filter_list needs output_type: generate_until", where);
  measures_ = options_.metrics;
  if (!generates()) return;
  CRUMB_CHECK(options_.metrics.size() == 1, "{}: metrics: exact_match is given twice", where);
  exact_match_.emplace(options_.exact_match, where + ": exact_match");
  for (const auto& filter : options_.filters) filters_.emplace_back(filter, where + ": filter_list");
  if (options_.generation.until.empty()) options_.generation.until = {options_.fewshot_delimiter};
  if (filters_.size() < 2) return;
  measures_.clear();
  for (const auto& filter : options_.filters) {
    measures_.push_back("exact_match," + filter.name);
    CRUMB_CHECK(std::ranges::count(measures_, measures_.back()) == 1, "{}: filter_list: two are called {}", where,
                filter.name);
  }
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

std::string Task::answer_of(const Json& item) const {
  if (options_.output_type != "multiple_choice" || options_.multiple_input) return target_.text(item);
  const auto choices = choices_of(item);
  return choices[static_cast<size_t>(right_choice(target_, item, choices))];
}

Solved Task::solved(const Json& item) const {
  if (!options_.multiple_input) return {text_.text(item), answer_of(item)};
  const auto choices = choices_of(item);
  return {choices[static_cast<size_t>(right_choice(text_, item, choices))], answer_of(item)};
}

std::vector<Solved> Task::samples() const {
  std::vector<Solved> out;
  for (const auto& sample : options_.fewshot_samples) {
    Json item = Json::object();
    for (const auto& [name, value] : sample) item[name] = value;
    out.push_back(solved(item));
  }
  return out;
}

Question Task::ask(const Json& item, const std::vector<Solved>& examples, const PromptOptions& prompts) const {
  const bool has_choices = options_.output_type == "multiple_choice";
  std::string system = description_.text(item);
  if (!prompts.system.empty()) {
    const auto is_space = [](char c) { return c >= 0 && jinja::is_python_space(static_cast<uint32_t>(c)); };
    const bool is_apart = system.empty() || is_space(prompts.system.back()) || is_space(system.front());
    system = prompts.system + (is_apart ? "" : options_.fewshot_delimiter) + system;
  }
  std::string solved;
  for (const auto& example : examples)
    solved += example.question + options_.target_delimiter + example.answer + options_.fewshot_delimiter;
  // With a chat template the answer is a message of its own, which no delimiter begins.
  const std::string delimiter = !has_choices || prompts.chat ? "" : options_.target_delimiter;

  const auto messages_of = [&](const std::string& question) {
    std::vector<jinja::ChatMessage> messages;
    if (!prompts.chat) return messages;
    if (!system.empty()) messages.push_back({"system", system});
    if (prompts.multiturn) {
      for (const auto& example : examples) {
        messages.push_back({"user", example.question});
        messages.push_back({"assistant", example.answer});
      }
    }
    messages.push_back({"user", prompts.multiturn ? question : solved + question});
    return messages;
  };
  Question question;
  const auto add = [&](const std::string& text, const std::string& continuation, const std::string& answer) {
    question.pairs.push_back({system + solved + text, continuation, jinja::length_of(answer),
                              static_cast<int64_t>(answer.size()), messages_of(text)});
  };
  if (!has_choices) {
    const std::string answer = target_.text(item);
    add(text_.text(item), answer, answer);
    return question;
  }
  const auto choices = choices_of(item);
  if (options_.multiple_input) {
    const std::string answer = delimiter + target_.text(item);
    for (const auto& choice : choices) add(choice, answer, choice);
    question.target = right_choice(text_, item, choices);
  } else {
    const std::string text = text_.text(item);
    for (const auto& choice : choices) add(text, delimiter + choice, choice);
    question.target = right_choice(target_, item, choices);
  }
  return question;
}

std::string Task::filtered(size_t measure, const std::string& text) const {
  return filters_.empty() ? text : filters_.at(measure).apply(text);
}

bool Task::matches(const std::string& filtered, const std::string& answer) const {
  return exact_match_->equal(filtered, answer);
}

std::string Task::group_of(const Json& item) const { return group_.text(item); }

std::vector<std::string> builtin_task_names() {
  std::vector<std::string> names;
  for (const auto& task : builtin_tasks()) names.emplace_back(task.name);
  return names;
}

Task find_task(const std::string& name, const Path& folder) {
  const auto of_file = [](const Path& path) {
    return Task(read_config<TaskOptions>(parse_yaml_file(path)), path.string(), read_text(path));
  };
  if (name.ends_with(".yaml") || name.ends_with(".yml")) return of_file(name);
  if (const Path own = folder / (name + ".yaml"); is_file(own)) {
    log_line_once(LogLevel::info, fmt::format("task {}: {}", name, own.string()));
    return of_file(own);
  }
  for (const auto& task : builtin_tasks()) {
    if (task.name != name) continue;
    const std::string where = "the task " + name;
    std::string text(task.yaml);
    return Task(read_config<TaskOptions>(parse_yaml_text(text, where)), where, text);
  }
  const auto known = builtin_task_names();
  const auto near = nearest_name(name, known);
  user_error("--tasks: there is no task \"{}\"{}; known: {}, and YAML files by their path", name,
             near ? fmt::format("; did you mean \"{}\"?", *near) : "", fmt::join(known, ", "));
}

}  // namespace crumb::eval
