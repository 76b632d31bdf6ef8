// Rotary scaling methods as divisors of the frequencies (RopeSpec::divisors).
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "core/arch/decoder_spec.h"

namespace crumb::arch {

/// "llama3": short wavelengths stay, long ones are divided by `factor`, those between are blended. Source: transformers
/// modeling_rope_utils.py, _compute_llama3_parameters.
struct Llama3Scaling {
  double factor = 8.0, low_freq_factor = 1.0, high_freq_factor = 4.0;
  double original_context_length = 8192;
};

/// What Hunyuan's "dynamic" scaling with a fixed alpha multiplies the base by: alpha^(dim / (dim - 2)). dim > 2.
double ntk_alpha_factor(double alpha, int64_t dim);

std::vector<double> no_divisors(int64_t dim);  // dim / 2 ones
std::vector<double> llama3_divisors(const Llama3Scaling& scaling, int64_t dim, double base);

/// Every divisor the same: "linear" scaling by that factor (1: none).
std::optional<double> uniform_divisor(const RopeSpec& rope);
/// The parameters behind llama3 divisors with the usual low and high factors 1 and 4; nothing if no parameters give
/// these divisors (to 1e-5).
std::optional<Llama3Scaling> find_llama3_scaling(const RopeSpec& rope);

}  // namespace crumb::arch
