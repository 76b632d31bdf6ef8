// The damage map as tables, as JSON, as charts of a page.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "eval/damage.h"

namespace crumb::eval {

/// A row a linear; `most` > 0: of that many, the most expensive first (by KL, else by the error of outputs).
std::vector<std::vector<std::string>> damage_table(const DamageMap& damage, size_t most = 0);
/// A row a layer whose KL was measured; a header alone where none was.
std::vector<std::vector<std::string>> layer_table(const DamageMap& damage);
/// Massive activations; a header alone where there are none.
std::vector<std::vector<std::string>> massive_table(const DamageMap& damage);
/// What was looked at, and how to read the table.
std::string damage_note(const DamageMap& damage);
nlohmann::ordered_json damage_json(const DamageMap& damage);
/// Heat strips, a row a kind of linear and a column a layer, and the tables.
std::string damage_html(const DamageMap& damage);

}  // namespace crumb::eval
