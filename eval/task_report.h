// Results of tasks as a table for people, as Markdown, as JSON.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "eval/tasks.h"

namespace crumb::eval {

/// A row a task and measure of each model; `models`: their names, in the order of the results.
std::vector<std::vector<std::string>> task_rows(const std::vector<std::string>& models,
                                                const std::vector<TaskResults>& results);
/// What stands below the table: how to read it, items that are close or were cut, limits.
std::vector<std::string> task_notes(const std::vector<std::string>& models, const std::vector<TaskResults>& results);
nlohmann::ordered_json to_json(const TaskResults& results);
/// "arc_easy drop 3.2 % exceeds the limit of 1 %"; "" if no limit is exceeded.
std::string exceeded_text(const TaskResults& results);

}  // namespace crumb::eval
