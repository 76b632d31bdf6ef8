// An evaluation as a table for people, as Markdown, as JSON.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "eval/evaluate.h"

namespace crumb::eval {

/// Models and sizes, protocol, table, limits; ends with a newline. details: with a baseline also the KL by text and by
/// position in the context, and the worst tokens in their contexts.
std::string to_table(const EvalResult& result, bool details = false);
/// The same as Markdown.
std::string to_markdown(const EvalResult& result, bool details = false);
/// Several models beside one baseline: the protocol once, then one table with a row a model.
std::string to_table(const std::vector<EvalResult>& results, bool details = false);
std::string to_markdown(const std::vector<EvalResult>& results, bool details = false);
/// Every number, unrounded; standard errors that are not known are null.
nlohmann::ordered_json to_json(const EvalResult& result);
/// An object for one model, a list of them for several; these say which are on the Pareto front.
nlohmann::ordered_json to_json(const std::vector<EvalResult>& results);
/// "perplexity +12.30 % exceeds the limit of 5 %"; "" if no limit is exceeded.
std::string exceeded_text(const EvalResult& result);

}  // namespace crumb::eval
