// What quantization did to the weights.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "ptq/budget.h"

namespace crumb::ptq {

/// Sums over weights w and their quantized values q.
struct WeightError {
  int64_t weights = 0;
  double error_square = 0;   // sum (w - q)^2
  double weight_square = 0;  // sum w^2

  double relative() const { return weight_square > 0 ? error_square / weight_square : 0; }
  /// Signal to quantization noise, dB; infinite without noise.
  double sqnr_db() const;
  WeightError& operator+=(const WeightError& other);
};

/// Sums over outputs y = x w^T of the calibration text, divided by its tokens; x is what the linear read when it was
/// rounded, before its block was trained, and tokens weigh what token_cap lets them. Zeros: they were not looked at.
struct OutputError {
  double error_square = 0;   // |x (w - q)^T|^2
  double output_square = 0;  // |x w^T|^2

  double relative() const { return output_square > 0 ? error_square / output_square : 0; }
};

/// Whether a report keeps what an importance matrix says.
enum class InputSquares { left_out, kept };

struct TensorError {
  std::string module;  // "model.layers.0.self_attn.q_proj"
  int layer = -1;
  WeightError error;
  int64_t scales = 0, clamped_scales = 0;  // those at an end of their range: quant::count_clamped
  int64_t pruned = 0;                      // weights
  OutputError output = {};
  double largest_input = 0;               // |x| of the calibration text
  std::vector<float> input_squares = {};  // mean of x^2 for each input, where InputSquares::kept
  std::string kind() const { return module.substr(module.rfind('.') + 1); }  // "q_proj"
};

struct QuantizeReport {
  std::vector<TensorError> tensors;  // the quantized ones, in the model's order
  int64_t quantized_bytes = 0;       // codes, scales, zero points and masks
  int64_t kept_weights = 0;          // parameters that stay as they are
  std::optional<BudgetReport> budget = std::nullopt;

  WeightError total() const;
  WeightError of_kind(const std::string& kind) const;
  int64_t pruned() const;                  // weights
  std::vector<std::string> kinds() const;  // in order of appearance
  double bits_per_weight() const;          // of the quantized linears
  bool has_outputs() const;                // whether the method looked at activations
  /// A line for each linear whose output has an error, or whose input a size, of several times what its kind has.
  std::vector<std::string> outstanding() const;
};

/// A TensorError as the note that a resumed run reads again: the same numbers, bit for bit.
nlohmann::json to_note(const TensorError& tensor);
TensorError from_note(const nlohmann::json& note);

}  // namespace crumb::ptq
