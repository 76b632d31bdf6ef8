// Matrices that stay codes in memory (kernels/code_matmul.h): which can, in what form, and reading them. The codes come
// from a codes-and-scales folder, from a GGUF that was written from one, or from the blocks of any GGUF.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/common/executor.h"
#include "core/common/large_vector.h"
#include "kernels/code_matmul.h"
#include "quant/checkpoint.h"
#include "runtime/linear.h"
#include "runtime/weight_cache.h"
#include "runtime/weight_pool.h"

namespace crumb::runtime {

/// Levels as the kernels read them: level = (step * code - zero) / unit, or, where steps are not equal, the level of
/// the code in a table, less zero. Codes are numbered in the order of the levels.
struct LevelForm {
  int bits = 8;  // 2, 4 or 8
  int32_t step = 1, zero = 0;
  float unit = 1;                   // by which scales are divided
  std::vector<uint8_t> table = {};  // [16] or none
  bool operator==(const LevelForm&) const = default;
};
/// Ascending levels; nothing where the kernels have no form for them.
std::optional<LevelForm> level_form(std::span<const float> levels);

/// How a matrix is held, known before it is read.
struct HeldForm {
  LevelForm levels;
  int64_t rows = 0, cols = 0, group_cols = 0;
  bool has_zeros = false, has_minima = false;

  int64_t bytes() const;  // of codes, scales, zero points and minima
  bool operator==(const HeldForm&) const = default;
};
/// Nothing for floats, and for those quantized matrices that obstacle_to_held() has a reason for.
std::optional<HeldForm> held_form(const quant::StoredTensor& tensor);
/// Why a quantized matrix cannot be held as codes: "its levels are not evenly spaced"; empty if it can, or is floats.
std::string obstacle_to_held(const quant::StoredTensor& tensor);
/// Whether its file holds it in fewer bits than floats.
bool is_quantized(const quant::StoredTensor& tensor);

/// Whether a decoder multiplies with it: a linear, or the head, which may be the embedding.
bool is_multiplied(const quant::Checkpoint& checkpoint, const quant::StoredTensor& tensor);
/// Whether one of those is quantized.
bool has_quantized_linears(const quant::Checkpoint& checkpoint);

/// A matrix of codes that owns what it points at.
class HeldCodes {
 public:
  HeldCodes(const HeldForm& form, std::vector<float> bias);
  HeldCodes(const HeldCodes&) = delete;
  HeldCodes& operator=(const HeldCodes&) = delete;

  /// Codes [rows, cols] of the rows from `begin`, the first of a panel. Threads may set rows of different panels.
  void set_codes(int64_t begin, int64_t rows, const uint8_t* codes);
  /// weight = (level - zero point) * scale + minimum. False if the kernels cannot hold the zero point.
  bool set_group(int64_t row, int64_t group, float scale, int32_t zero_point, float minimum);

  kernels::CodeProduct product(float* y) const { return {matrix_, bias_.empty() ? nullptr : bias_.data(), y}; }
  int64_t cols() const { return matrix_.cols; }
  int64_t group_cols() const { return matrix_.group_cols; }
  /// What is held, but for the bias: codes, scales, zero points and minima.
  WeightParts parts();
  /// Form, codes, scales, zero points, minima and bias.
  friend bool same_bits(const HeldCodes& a, const HeldCodes& b);
  friend int64_t bytes_of(const HeldCodes& codes) { return codes.bytes(); }
  /// All of it is read by every pass.
  int64_t bytes() const { return form_.bytes() + static_cast<int64_t>(sizeof(float) * bias_.size()); }

 private:
  HeldForm form_;
  int64_t panel_bytes_;
  LargeVector<uint8_t> codes_;
  std::vector<float> scales_, minima_, bias_;
  std::vector<int32_t> zeros_;
  kernels::CodeMatrix matrix_;
};

/// Reads a matrix that has a held_form() on the executor's threads, or takes it from a cache; null if its zero points
/// are beyond the kernels. UserError naming the tensor if a weight is not finite.
std::shared_ptr<const HeldCodes> hold_codes(const quant::Checkpoint& checkpoint, const LinearTensors& tensors,
                                            Executor& executor, WeightCache* cache = nullptr);

/// For people, a line a type of the quantized matrices that a decoder multiplies with: as which codes they are held and
/// in how many bytes, or why they are floats.
std::vector<std::string> describe_held(const quant::Checkpoint& checkpoint);

}  // namespace crumb::runtime
