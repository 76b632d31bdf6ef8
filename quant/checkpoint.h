// Opens every kind of model as spec + tensors + tokenizer: an HF folder, a codes-and-scales folder, a GGUF file.
// Tensors are read by blocks of rows, under their HF names and in HF's row order, whatever the file holds.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/arch/decoder_spec.h"
#include "core/arch/tensor_table.h"
#include "core/common/executor.h"
#include "core/common/file.h"
#include "core/tokenizer/tokenizer.h"
#include "quant/quantized_tensor.h"
#include "quant/stored_rows.h"

namespace crumb::quant {

enum class CheckpointKind { hf, codes, gguf };

/// What is known of one tensor without reading it.
struct StoredTensor {
  arch::TensorDesc desc;
  std::string dtype;  // "BF16", "q2_k", "seq2"
  int64_t stored_bytes = 0;
  std::optional<QuantFormat> format = {};              // set when read_codes() works
  std::optional<formats::TensorType> block_type = {};  // set when stored_rows() gives blocks of ggml
};

class Checkpoint {
 public:
  virtual ~Checkpoint() = default;

  virtual CheckpointKind kind() const = 0;
  virtual const Path& path() const = 0;
  virtual const arch::DecoderSpec& spec() const = 0;
  /// Every tensor of tensor_table(spec()), in its order; opening fails if one is missing or has another shape.
  virtual const std::vector<StoredTensor>& tensors() const = 0;
  const StoredTensor& tensor(const arch::TensorId& id) const;    // the model has one
  const StoredTensor* find(const arch::TensorId& id) const;      // null where it has none
  const StoredTensor& tensor(const std::string& hf_name) const;  // UserError if absent

  /// Rows [begin, end) as float32. Throws UserError naming the tensor if a value is NaN or infinite.
  virtual void read_rows(const StoredTensor& tensor, int64_t begin, int64_t end, float* out) const = 0;
  /// Rows [begin, end) as codes and scales; needs tensor.format.
  virtual QuantizedTensor read_codes(const StoredTensor& tensor, int64_t begin, int64_t end) const = 0;
  /// A matrix in the form the file holds it.
  virtual StoredRows stored_rows(const StoredTensor& tensor) const = 0;
  /// Mapped pages of these rows are no longer needed.
  virtual void release_rows(const StoredTensor& tensor, int64_t begin, int64_t end) const = 0;

  /// config.json as read (HF kinds) or made from the metadata (GGUF).
  virtual nlohmann::json hf_config() const = 0;
  virtual std::unique_ptr<tokenizer::Tokenizer> load_tokenizer() const = 0;
  virtual bool has_tokenizer() const = 0;
  /// Writes what travels with the weights into the folder of another model: tokenizer files, generation_config.json,
  /// the chat template, the licence. They are copied, or made from the metadata (GGUF).
  virtual void write_companions(const Path& folder) const = 0;
  /// All weights, in the file's own types.
  int64_t stored_bytes() const;
  /// Of the files that hold them: more, for headers and vocabularies.
  virtual int64_t file_bytes() const = 0;

 private:
  mutable std::once_flag is_indexed_;
  void make_index() const;
  mutable std::map<arch::TensorId, size_t> index_;  // of tensors(); both made at the first search
  mutable std::unordered_map<std::string, size_t> index_by_name_;
};

/// Formats of the linears of a GGUF that are codes, by name: what opening it found.
using KnownFormats = std::map<std::string, QuantFormat>;

/// UserError: missing, not a model, unknown architecture, tensors that do not fit the configuration.
/// `executor`: looks through quantized tensors of a GGUF, all of which are read to tell whether they are codes; with
/// `known`, of the same file, they are not.
std::unique_ptr<Checkpoint> open_checkpoint(const Path& path, Executor& executor = serial_executor(),
                                            const KnownFormats* known = nullptr);

/// Copies the files that travel with a model from one folder to another. RunError when one cannot be copied.
void copy_companions(const Path& from, const Path& to);

/// UserError when the tokenizer has ids the embedding has no rows for.
void check_vocabulary(const Checkpoint& checkpoint, const tokenizer::Tokenizer& tokenizer);

/// The same with the checkpoint's own tokenizer; one without passes.
void check_vocabulary(const Checkpoint& checkpoint);

/// For a verb that writes a model folder from the model `source`, before the work: require_new_output(), and UserError
/// when `force` would take away the source or a folder that is no model.
void require_model_output(const Path& output, bool force, const Path& source);

/// For a verb that takes the model for the full-precision one: a warning that names the types when a GGUF stores
/// linears in fewer than 16 bits. `takes_codes`: those that are codes and scales are not dequantized.
void warn_about_dequantization(const Checkpoint& checkpoint, bool takes_codes = false);

/// Reads all rows of a tensor.
std::vector<float> read_all(const Checkpoint& checkpoint, const StoredTensor& tensor);

}  // namespace crumb::quant
