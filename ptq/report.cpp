#include "ptq/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

namespace crumb::ptq {

double WeightError::sqnr_db() const {
  if (error_square == 0) return std::numeric_limits<double>::infinity();
  return 10 * std::log10(weight_square / error_square);
}

WeightError& WeightError::operator+=(const WeightError& other) {
  weights += other.weights;
  error_square += other.error_square;
  weight_square += other.weight_square;
  return *this;
}

WeightError QuantizeReport::total() const {
  WeightError sum;
  for (const auto& tensor : tensors) sum += tensor.error;
  return sum;
}

WeightError QuantizeReport::of_kind(const std::string& kind) const {
  WeightError sum;
  for (const auto& tensor : tensors) {
    if (tensor.kind() == kind) sum += tensor.error;
  }
  return sum;
}

int64_t QuantizeReport::pruned() const {
  int64_t sum = 0;
  for (const auto& tensor : tensors) sum += tensor.pruned;
  return sum;
}

std::vector<std::string> QuantizeReport::kinds() const {
  std::vector<std::string> out;
  for (const auto& tensor : tensors) {
    if (std::find(out.begin(), out.end(), tensor.kind()) == out.end()) out.push_back(tensor.kind());
  }
  return out;
}

double QuantizeReport::bits_per_weight() const {
  return 8.0 * static_cast<double>(quantized_bytes) / static_cast<double>(total().weights);
}

bool QuantizeReport::has_outputs() const {
  return std::ranges::any_of(tensors, [](const auto& tensor) { return tensor.output.output_square > 0; });
}

std::vector<std::string> QuantizeReport::outstanding() const {
  constexpr double kErrors = 4, kInputs = 20;  // medians of the kind
  std::vector<std::string> lines;
  if (!has_outputs()) return lines;
  const auto median = [&](const std::string& kind, const auto& value) {
    std::vector<double> values;
    for (const auto& tensor : tensors) {
      if (tensor.kind() == kind) values.push_back(value(tensor));
    }
    std::ranges::nth_element(values, values.begin() + std::ssize(values) / 2);
    return values[values.size() / 2];
  };
  const auto error = [](const TensorError& tensor) { return tensor.output.relative(); };
  const auto input = [](const TensorError& tensor) { return tensor.largest_input; };
  for (const auto& tensor : tensors) {
    const double errors = error(tensor) / std::max(median(tensor.kind(), error), 1e-30),
                 inputs = input(tensor) / std::max(median(tensor.kind(), input), 1e-30);
    if (errors > kErrors)
      lines.push_back(fmt::format("{} stands out: the error of its output, {:.3g}, is {:.3g} times the median of {}",
                                  tensor.module, error(tensor), errors, tensor.kind()));
    if (inputs > kInputs)
      lines.push_back(fmt::format("{} stands out: its largest input, {:.4g}, is {:.3g} times the median of {}",
                                  tensor.module, input(tensor), inputs, tensor.kind()));
  }
  return lines;
}

nlohmann::json to_note(const TensorError& tensor) {
  nlohmann::json note = {{"module", tensor.module},
                         {"layer", tensor.layer},
                         {"weights", tensor.error.weights},
                         {"error_square", tensor.error.error_square},
                         {"weight_square", tensor.error.weight_square},
                         {"scales", tensor.scales},
                         {"clamped_scales", tensor.clamped_scales},
                         {"pruned", tensor.pruned},
                         {"output_error_square", tensor.output.error_square},
                         {"output_square", tensor.output.output_square},
                         {"largest_input", tensor.largest_input}};
  if (!tensor.input_squares.empty()) note["input_squares"] = tensor.input_squares;
  return note;
}

TensorError from_note(const nlohmann::json& note) {
  return {.module = note.at("module"),
          .layer = note.at("layer"),
          .error = {.weights = note.at("weights"),
                    .error_square = note.at("error_square"),
                    .weight_square = note.at("weight_square")},
          .scales = note.at("scales"),
          .clamped_scales = note.at("clamped_scales"),
          .pruned = note.at("pruned"),
          .output = {.error_square = note.at("output_error_square"), .output_square = note.at("output_square")},
          .largest_input = note.at("largest_input"),
          .input_squares = note.value("input_squares", std::vector<float>())};
}

}  // namespace crumb::ptq
