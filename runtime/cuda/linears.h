// Linears on a CUDA device: codes as packed tiles where the kernels take them, else floats as they are.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "core/common/executor.h"
#include "core/common/half.h"
#include "kernels/bf16.h"
#include "kernels/cuda/decoder.h"
#include "kernels/cuda/matmul.h"
#include "quant/checkpoint.h"
#include "runtime/cuda/device.h"
#include "runtime/linear.h"

namespace crumb::runtime::cuda {

/// How a matrix lies on the device as tiles, before packed_shape(); 8-bit codes are shifted so that their zero is 128.
struct TileForm {
  kernels::PackedShape shape;
  float unit = 1;  // by which scales are divided
  int shift = 0;   // added to codes
};
/// Nothing for matrices that are held as floats; `obstacle`, where it is given, says why a quantized one is.
std::optional<TileForm> tile_form(const quant::StoredTensor& tensor, const kernels::MatmulDevice& device,
                                  std::string* obstacle = nullptr);

/// Tokens of a pass at most: there are products with tiles for them.
inline constexpr int64_t kMostTokens = 256;

/// Bytes of device memory that a matrix takes at least, known before it is read.
int64_t least_bytes(const quant::StoredTensor& tensor, const kernels::MatmulDevice& device);

/// Floats [rows, cols], of a type that holds them all.
class DeviceFloats {
 public:
  DeviceFloats(const Device& device, const quant::Checkpoint& checkpoint,
               std::span<const quant::StoredTensor* const> stacked, Executor& executor);

  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  int64_t bytes() const { return memory_.bytes(); }
  bool is_bf16() const { return type_ == formats::DType::bf16; }
  /// out [tokens, cols] = rows ids[token].
  void read_rows(const int32_t* ids, int64_t tokens, float* out, kernels::CudaStream stream) const;
  /// y [tokens, rows]; x is bfloat16, or float32, which matrices of bfloat16 do not take.
  void multiply(const void* x, bool x_is_bf16, int64_t tokens, const float* bias, float* y,
                kernels::CudaStream stream) const;

 private:
  formats::DType type_ = formats::DType::f32;
  int64_t rows_ = 0, cols_ = 0;
  DeviceMemory memory_;
};

/// Linears that read the same input. Their outputs are one [tokens, rows] where all are of one form, else one each,
/// one behind the other.
class DeviceLinears {
 public:
  DeviceLinears(const Device& device, const quant::Checkpoint& checkpoint, std::span<const LinearTensors> members,
                Executor& executor);

  /// Else float32. Codes and bfloat16 weights read bfloat16.
  bool reads_bf16() const { return reads_bf16_; }
  int64_t rows() const { return rows_; }  // of all members
  int64_t weight_bytes() const;
  /// For products of up to kMostTokens.
  int64_t workspace_bytes() const;
  /// y: room for tokens * rows() floats.
  void multiply(const void* x, int64_t tokens, float* y, void* workspace) const;
  /// Where the output of a member lies then.
  kernels::HeadRows output(size_t member, float* y, int64_t tokens) const;

 private:
  struct Tiles {
    kernels::PackedShape shape;
    DeviceMemory codes, scales;
  };
  struct Part {
    std::variant<Tiles, DeviceFloats> weights;
    DeviceMemory bias;  // [rows] or nothing
    int64_t first_row = 0, rows = 0;
  };
  struct Member {
    size_t part;
    int64_t first_row;  // in the part
  };
  /// `form`: that of all of them; none: they are floats.
  void add_part(const quant::Checkpoint& checkpoint, std::span<const LinearTensors> members,
                const std::optional<TileForm>& form, Executor& executor);
  std::optional<Tiles> read_tiles(const quant::Checkpoint& checkpoint, std::span<const LinearTensors> members,
                                  TileForm form, Executor& executor) const;

  const Device& device_;
  std::vector<Part> parts_;
  std::vector<Member> members_;
  int64_t rows_ = 0, cols_ = 0;
  bool reads_bf16_ = false;
};

}  // namespace crumb::runtime::cuda
