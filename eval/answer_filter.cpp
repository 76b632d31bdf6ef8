#include "eval/answer_filter.h"

#include <cctype>

#include "core/common/error.h"
#include "core/jinja/text.h"

namespace crumb::eval {
namespace {

tokenizer::Regex pattern_of(const std::string& pattern, const std::string& where) {
  try {
    return tokenizer::Regex(pattern, tokenizer::UnicodeTables::newest, tokenizer::RegexSyntax::python);
  } catch (const UserError& error) {
    user_error("{}: {}", where, error.what());
  }
}

std::string selected(const tokenizer::Regex& pattern, const FilterStep& options, const std::string& text) {
  const auto matches = pattern.find_groups(text);
  const auto count = std::ssize(matches);
  const int64_t wanted = options.group_select < 0 ? count + options.group_select : options.group_select;
  if (wanted < 0 || wanted >= count) return options.fallback;
  const auto& groups = matches[static_cast<size_t>(wanted)];
  const auto text_of = [&](const tokenizer::Span& span) { return text.substr(span.begin, span.end - span.begin); };
  const auto stripped = [](const std::string& part) { return std::string(jinja::strip(part, jinja::Ends::both)); };
  if (groups.size() <= 2) return stripped(text_of(groups.back()));
  for (size_t i = 1; i < groups.size(); ++i) {
    if (groups[i].begin < groups[i].end) return stripped(text_of(groups[i]));
  }
  return options.fallback;
}

std::string without(const tokenizer::Regex& pattern, const std::string& text) {
  std::string out;
  size_t done = 0;
  for (const auto& groups : pattern.find_groups(text)) {
    out += text.substr(done, groups[0].begin - done);
    done = groups[0].end;
  }
  return out + text.substr(done);
}

}  // namespace

AnswerFilter::AnswerFilter(const FilterOptions& options, const std::string& where) {
  for (const auto& step : options.steps) {
    auto& added = steps_.emplace_back(Step{step, std::nullopt});
    if (step.function == "regex") added.pattern = pattern_of(step.regex_pattern, where);
  }
}

std::string AnswerFilter::apply(std::string text) const {
  for (const auto& step : steps_) {
    if (step.pattern)
      text = selected(*step.pattern, step.options, text);
    else if (step.options.function == "remove_whitespace")
      text = std::string(jinja::strip(text, jinja::Ends::both));
  }
  return text;
}

ExactMatch::ExactMatch(const ExactMatchOptions& options, const std::string& where) : options_(options) {
  for (const auto& pattern : options.regexes_to_ignore) patterns_.push_back(pattern_of(pattern, where));
}

std::string ExactMatch::normalized(std::string text) const {
  for (const auto& pattern : patterns_) text = without(pattern, text);
  if (options_.ignore_case) text = jinja::to_lower(text);
  std::erase_if(text, [&](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte < 128 && ((options_.ignore_punctuation && std::ispunct(byte) != 0) ||
                          (options_.ignore_numbers && byte >= '0' && byte <= '9'));
  });
  // numpy's arrays of texts end where the last character that is not U+0000 does.
  return text.substr(0, text.find_last_not_of('\0') + 1);
}

bool ExactMatch::equal(const std::string& text, const std::string& answer) const {
  return normalized(text) == normalized(answer);
}

}  // namespace crumb::eval
