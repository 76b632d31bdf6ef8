// Round-to-nearest: every weight takes the nearest level of its row's or group's scale. No data, no training.
#pragma once

#include <string>
#include <vector>

#include "core/common/file.h"
#include "core/common/thread_pool.h"
#include "quant/checkpoint.h"
#include "quant/method_options.h"

namespace crumb::ptq {

/// The job of `crumb quantize`.
struct QuantizeJob {
  Path model, output;
  quant::MethodOptions method = {.name = "rtn"};

  template <class V>
  void visit(V& v) {
    v.field("model", model, "the HF folder or GGUF to quantize", {.required = true});
    v.field("output", output, "the folder to write: codes and scales", {.required = true});
    v.section("method", method, "what becomes of the linears");
  }
};

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

struct TensorError {
  std::string module;  // "model.layers.0.self_attn.q_proj"
  int layer = -1;
  WeightError error;
  int64_t scales = 0, clamped_scales = 0;  // those at an end of their range: quant::count_clamped
  std::string kind() const { return module.substr(module.rfind('.') + 1); }  // "q_proj"
};

struct RtnReport {
  std::vector<TensorError> tensors;  // the quantized ones, in the model's order
  int64_t quantized_bytes = 0;       // codes, scales and zero points
  int64_t kept_weights = 0;          // parameters that stay as they are

  WeightError total() const;
  WeightError of_kind(const std::string& kind) const;
  std::vector<std::string> kinds() const;  // in order of appearance
  double bits_per_weight() const;          // of the quantized linears
};

/// Walks the checkpoint by blocks of rows and writes the codes-and-scales folder atomically. UserError before any work:
/// not an HF folder of plain weights, an output that exists (without `force`), a group_size that does not divide a row
/// (names the tensor); while reading: NaN weights.
RtnReport quantize_rtn(const QuantizeJob& job, bool force, ThreadPool& pool);

}  // namespace crumb::ptq
