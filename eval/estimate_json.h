// An estimate as every report writes it in JSON.
#pragma once

#include <nlohmann/json.hpp>

#include "eval/perplexity.h"

namespace crumb::eval {

inline nlohmann::ordered_json estimate_json(const Estimate& e) {
  using Json = nlohmann::ordered_json;
  return {{"value", e.value}, {"standard_error", e.standard_error ? Json(*e.standard_error) : Json()}};
}

}  // namespace crumb::eval
