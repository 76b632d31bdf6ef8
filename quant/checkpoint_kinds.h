// The kinds of checkpoint behind open_checkpoint(), and what they share.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "quant/checkpoint.h"

namespace crumb::quant {

/// The tensors of a model and where its files keep them: arch::tensor_table(), or that of an architecture in the
/// making.
using TableMaker = std::function<std::vector<arch::TensorDesc>(const arch::DecoderSpec&)>;

/// An HF folder with plain or with crumb's quantized weights.
std::unique_ptr<Checkpoint> open_folder_checkpoint(const Path& path, TableMaker make_table = arch::tensor_table);
std::unique_ptr<Checkpoint> open_gguf_checkpoint(const Path& path, const TableMaker& make_table = arch::tensor_table,
                                                 Executor& executor = serial_executor(),
                                                 const KnownFormats* known = nullptr);

/// Which stored tensors, and which parts of each, are tensors of the model: what is left over means that the model
/// computes something else than the configuration says.
class UsedParts {
 public:
  /// A part that is added again counts once.
  void add(const std::string& stored_name, int64_t first_row, int64_t elements) {
    parts_[stored_name][first_row] = elements;
  }
  bool knows(const std::string& stored_name) const { return parts_.contains(stored_name); }
  /// UserError when the parts of a stored tensor of `elements`, which is known, do not add up to it.
  void check_whole(const Path& path, const std::string& stored_name, int64_t elements) const;

 private:
  std::map<std::string, std::map<int64_t, int64_t>> parts_;  // elements by first row, by name
};

/// Bytes of a tensor that is a part of a stored one.
int64_t share_of_bytes(const arch::TensorDesc& desc, const arch::StoredSlice& slice, int64_t bytes);

/// UserError naming the tensor if one of the values is NaN or infinite.
void check_finite(const float* values, int64_t count, const Path& path, const std::string& name);

/// UserError if `actual` is not the shape the configuration asks for; `keys` names what it comes from there.
void check_shape(const Path& path, const std::string& name, const std::vector<int64_t>& actual,
                 const std::vector<int64_t>& expected, const std::string& keys = "");

}  // namespace crumb::quant
