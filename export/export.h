// From a checkpoint (codes and scales, or plain HF) to the files that are shipped.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/common/file.h"
#include "core/formats/codec.h"
#include "quant/checkpoint.h"

namespace crumb::exporting {  // `export` is a keyword

/// "gguf-q2_0c", "gguf-q2_k", "gguf-q4_0", "gguf-q4_1", "gguf-q8_0", "gguf-bf16", "hf-bf16".
const std::vector<std::string>& target_names();

struct ExportOptions {
  std::string target;
  std::string embedding_type;  // "", q4_0, q6_k, q8_0, bf16, f16, f32; empty: the target's default
  std::string head_type;       // likewise; a tied head follows the embedding
  bool force = false;
  int threads = 0;  // 0: one per processor
};

/// What one tensor becomes.
struct PlannedTensor {
  arch::TensorDesc desc;                     // of the table, or Slot::rope_freqs of a GGUF
  std::optional<quant::QuantFormat> format;  // of a quantized linear
  formats::TensorType type = formats::TensorType::f32;
  int64_t bytes = 0;
  std::string reason;  // why it is not the target's own type; empty if it is
};

/// Tensors of one type, or all of them.
struct TypeTotal {
  int64_t tensors = 0, bytes = 0, weights = 0;
  double bits() const;  // a weight
  void add(const PlannedTensor& tensor);
};

struct ExportPlan {
  std::string target;
  formats::TensorType type = formats::TensorType::f32;  // the target's own
  std::vector<PlannedTensor> tensors;                   // in file order
  std::vector<std::string> warnings;
  int64_t data_bytes = 0;  // tensor data with padding
  int64_t bytes_of(arch::TensorRole role) const;
  /// What the file is called: the target's own type if any linear has it, else the one that most of their weights have.
  formats::TensorType main_type() const;
  TypeTotal total() const;
  std::map<std::string, TypeTotal> totals_by_type() const;
  /// "gguf-q2_k: 30 q2_k, 180 q4_0, 1 q8_0, 61 f32; 77.5 MB of tensors"
  std::string summary() const;
};

/// Needs the spec and the format of the quantized linears only (`formats` by hf_name), so a dry run can ask before
/// there are weights. Without any format the model is plain: q4_0, q4_1 and q8_0 then take their ordinary encoders; in
/// a quantized model linears that were left in float stay bf16. UserError: an unknown target or type, a target or row
/// length that cannot hold an integer grid exactly, a 2-bit target for a plain model, a model that GGUF cannot hold.
ExportPlan plan_export(const arch::DecoderSpec& spec, const std::map<std::string, quant::QuantFormat>& formats,
                       const ExportOptions& options);

/// For what exports after long work: UserError now for a vocabulary that a GGUF target cannot hold. Writes a temporary
/// file with the metadata and no tensors and reads it back, as the export will.
void check_vocabulary_exports(const arch::DecoderSpec& spec, const tokenizer::Tokenizer& tokenizer,
                              const std::string& target);

struct ExportResult {
  ExportPlan plan;
  int64_t file_bytes = 0;
  int64_t checked_tensors = 0;  // read back and compared
};

/// Writes, reads back, compares (quantized linears, norms and biases: exactly codes x scales; embedding and head:
/// exactly what their encoder gave), then renames. Streams by blocks of rows. Logs the plan's warnings before the work,
/// those that only the weights can tell after it.
ExportResult export_checkpoint(const quant::Checkpoint& checkpoint, const Path& output, const ExportOptions& options);

}  // namespace crumb::exporting
