// The files of configs/tasks, which the build puts into the program (eval/CMakeLists.txt).
#pragma once

#include <string_view>
#include <vector>

namespace crumb::eval {

struct BuiltinTask {
  std::string_view name, yaml;
};
/// Sorted by name.
const std::vector<BuiltinTask>& builtin_tasks();

}  // namespace crumb::eval
