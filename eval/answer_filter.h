// What is taken of a text that a model wrote, and when it is the right answer: the filters and exact_match of
// lm-evaluation-harness 0.4.13, whose keys these are. Regular expressions are Python's.
#pragma once

#include <string>
#include <vector>

#include "core/common/config.h"
#include "core/tokenizer/regex.h"

namespace crumb::eval {

struct FilterStep {
  std::string function, regex_pattern = "#### (\\-?[0-9\\.\\,]+)", fallback = "[invalid]";
  int64_t group_select = 0;

  template <class V>
  void visit(V& v) {
    v.field("function", function,
            "regex: a match of a pattern; remove_whitespace: at both ends; take_first: nothing, for there is one text",
            {.choices = {"regex", "remove_whitespace", "take_first"}, .required = true});
    v.field("regex_pattern", regex_pattern, "of Python's re; the first of its groups that holds something, or all");
    v.field("group_select", group_select, "which match: 0 the first, -1 the last");
    v.field("fallback", fallback, "where there is none");
  }
};

struct FilterOptions {
  std::string name;
  std::vector<FilterStep> steps;

  template <class V>
  void visit(V& v) {
    v.field("name", name, "of the measure: exact_match,NAME", {.required = true});
    v.field("filter", steps, "one after the other", {.required = true});
  }
};

class AnswerFilter {
 public:
  /// UserError that begins with `where`: a pattern that is none.
  AnswerFilter(const FilterOptions& options, const std::string& where);
  std::string apply(std::string text) const;

 private:
  struct Step {
    FilterStep options;
    std::optional<tokenizer::Regex> pattern;
  };
  std::vector<Step> steps_;
};

struct ExactMatchOptions {
  bool ignore_case = false, ignore_punctuation = false, ignore_numbers = false;
  std::vector<std::string> regexes_to_ignore;

  template <class V>
  void visit(V& v) {
    v.field("ignore_case", ignore_case, "upper and lower case");
    v.field("ignore_punctuation", ignore_punctuation, "ASCII punctuation");
    v.field("ignore_numbers", ignore_numbers, "digits");
    v.field("regexes_to_ignore", regexes_to_ignore, "matches that are removed first, one pattern after the other");
  }
};

class ExactMatch {
 public:
  /// As AnswerFilter.
  ExactMatch(const ExactMatchOptions& options, const std::string& where);
  bool equal(const std::string& text, const std::string& answer) const;

 private:
  std::string normalized(std::string text) const;

  ExactMatchOptions options_;
  std::vector<tokenizer::Regex> patterns_;
};

}  // namespace crumb::eval
