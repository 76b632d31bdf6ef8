// The codes-and-scales checkpoint (docs/formats.md) while it is made: an HF folder whose quantized linears are
// NAME.weight_codes (uint8, packed rows), NAME.weight_scale (float32) and, for asymmetric integers,
// NAME.weight_zero_point (int32) or NAME.weight_minimum (float32). Untouched matrices keep the source's dtype; norms
// and biases are float32 holding bf16 values.
//
// With `masters` the folder has a folder of its name beside: the weights that were rounded to the codes, float32 under
// the linears' names, each between the midpoints around its code's level. Training goes on from them.
//
// Formats and shapes are known at the start, so every byte has its place: tensors, and rows of them, may come in any
// order, and the files are the same whatever the order was.
#pragma once

#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/common/file.h"
#include "core/formats/safetensors.h"
#include "quant/activations.h"
#include "quant/checkpoint.h"
#include "quant/quantized_tensor.h"

namespace crumb::quant {

/// Where the masters of a codes folder lie: an HF-like folder of safetensors.
inline constexpr const char* kMastersFolder = "masters";
enum class Masters { left_out, kept };

/// What a tensor that is not quantized is stored as. Types that hold no more than bf16 become bf16, those of block
/// types are rounded to it.
formats::DType kept_dtype(const StoredTensor& tensor);

/// Files of safetensors whose every byte has its place.
class PlacedTensors {
 public:
  formats::SafetensorsLayout layout;  // declare first

  void place(const Path& folder);
  void open();  // makes the files, or goes on with those that are there
  /// Bytes [offset, offset + bytes) of a tensor.
  void write(const std::string& name, int64_t offset, const void* data, int64_t bytes);
  void read(const std::string& name, int64_t offset, void* out, int64_t bytes) const;
  const formats::TensorInfo& info(const std::string& name) const { return layout.tensors()[layout.at(name)]; }

 private:
  std::vector<PlacedFile> files_;  // of the layout
};

class CodesFolder {
 public:
  /// Makes the files of `folder`, which the caller places as a whole (AtomicFolder). `base` gives spec, config.json,
  /// companion files and the dtypes of untouched matrices. `formats`: of the quantized linears by hf_name; every other
  /// tensor is stored in floats. `exclude`: the patterns of what stayed in float, for quantization_config.
  ///
  /// With a `job` (a fingerprint of everything the result depends on) the folder keeps a record of its finished
  /// tensors, and a folder left by another process is gone on with: tensors whose bytes are what the record says are
  /// finished. UserError if the folder holds another job's work. `activations`: what the inputs of the quantized
  /// linears are rounded to when the model runs.
  CodesFolder(const Path& folder, const Checkpoint& base, std::map<std::string, QuantFormat> formats,
              std::vector<std::string> exclude, const std::string& job = "", Masters masters = Masters::left_out,
              std::optional<ActivationFormat> activations = std::nullopt);

  /// Whether `folder` holds unfinished work of this job.
  static bool holds(const Path& folder, const std::string& job);
  /// Of this job or any other.
  static bool is_unfinished_work(const Path& folder);

  /// Null: stored in floats.
  const QuantFormat* format_of(const arch::TensorDesc& desc) const;

  /// Rows [begin, begin + rows.rows) of a quantized linear. UserError naming it if a scale or minimum is not finite.
  /// Where the format has a mask, the values of pruned weights are 0.
  void put(const arch::TensorDesc& desc, int64_t begin, const QuantizedTensor& rows);
  /// Rows [begin, end) of any other tensor, in float32; rounded to what is stored. UserError naming it if a value is
  /// not finite.
  void put(const arch::TensorDesc& desc, int64_t begin, int64_t end, const float* values);
  bool keeps_masters() const { return masters_ == Masters::kept; }
  /// The masters of rows [begin, end) of a quantized linear, where the folder keeps them.
  void put_masters(const arch::TensorDesc& desc, int64_t begin, int64_t end, const float* values);
  /// All rows are there. `note`: what the caller wants to know of the tensor when another process goes on.
  void finish(const arch::TensorDesc& desc, const nlohmann::json& note = nullptr);

  bool is_finished(const arch::TensorDesc& desc) const { return notes_.contains(desc.hf_name); }
  int64_t num_finished() const { return std::ssize(notes_); }
  /// Of a finished tensor.
  const nlohmann::json& note(const arch::TensorDesc& desc) const { return notes_.at(desc.hf_name); }
  /// Of a finished tensor, as floats: codes are dequantized.
  void read_rows(const arch::TensorDesc& desc, int64_t begin, int64_t end, float* out) const;

  /// Writes what stands beside the tensors, which are all finished, and removes the record.
  void complete();

 private:
  struct Part {  // one stored tensor of `desc`
    const PlacedTensors* where;
    std::string name;
    int64_t row_bytes;
  };
  /// Rows of bits a code each, packed, into the tensor that is `desc` with this suffix.
  void write_packed(const arch::TensorDesc& desc, const char* suffix, int64_t begin, const QuantizedTensor& rows,
                    const std::vector<uint8_t>& values, int bits);
  std::vector<Part> parts_of(const arch::TensorDesc& desc) const;
  void declare(const StoredTensor& tensor);
  void open_files();
  void go_on(const std::string& job);
  std::string hash_of(const arch::TensorDesc& desc) const;
  void write_config() const;

  Path folder_;
  const Checkpoint& base_;
  std::map<std::string, QuantFormat> formats_;
  std::vector<std::string> exclude_;
  Masters masters_;
  std::optional<ActivationFormat> activations_;
  PlacedTensors tensors_, master_tensors_;
  std::map<std::string, int64_t> rows_put_;      // by hf_name
  std::map<std::string, nlohmann::json> notes_;  // of the finished tensors by hf_name
  int64_t record_bytes_ = 0;                     // of the record; 0: none is kept
};

/// Where the weights of a whole checkpoint come from. One of the two is called for each tensor, by ascending blocks of
/// rows.
struct CodesSource {
  std::map<std::string, QuantFormat> formats;  // as for CodesFolder
  std::function<QuantizedTensor(const arch::TensorDesc&, int64_t begin, int64_t end)> codes;
  std::function<void(const arch::TensorDesc&, int64_t begin, int64_t end, float* out)> rows;
};

/// A CodesFolder filled tensor by tensor, in the order of tensor_table().
void write_codes_folder(const Path& folder, const Checkpoint& base, const CodesSource& source,
                        const std::vector<std::string>& exclude);

}  // namespace crumb::quant
