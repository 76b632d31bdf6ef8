// What a training job would do, for people and for programs.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "jobs/train_plan.h"

namespace crumb::cli {

std::string to_text(const jobs::DryRun& run);
nlohmann::ordered_json to_json(const jobs::DryRun& run);

}  // namespace crumb::cli
