// Matrices in the order in which kernels read them, in a file: the next start of the model takes them from there.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/common/executor.h"
#include "core/common/file.h"
#include "core/formats/safetensors.h"
#include "quant/checkpoint.h"
#include "runtime/weight_pool.h"

namespace crumb::runtime {

/// Bytes of a matrix that lie together: codes, scales, zero points, minima; or floats alone.
using WeightParts = std::vector<std::span<uint8_t>>;
using ConstWeightParts = std::vector<std::span<const uint8_t>>;

/// A safetensors file with a tensor for each matrix: U8 for codes, with their scales behind them, else the type of the
/// floats. Norms and biases are read from the model. What was checked of the weights when the file was written (that
/// they are finite; which tensors of a GGUF are codes) is not checked again; header and data of the file are hashed.
class WeightCache {
 public:
  /// `model`: what tells that its weights are those of before. UserError if the file is there and no weight cache; one
  /// of another model, or in the order of another version, is passed over with a warning, and written anew.
  WeightCache(Path file, const std::string& model);

  const Path& path() const { return file_; }
  bool is_read() const { return reader_.has_value(); }
  /// What linears of the model are, by name: for open_checkpoint(). Null: not known.
  const quant::KnownFormats* formats() const { return is_read() ? &formats_ : nullptr; }
  /// The type of a matrix; needs is_read(). UserError if the file does not have it.
  formats::DType type_of(const std::string& name) const;
  /// Fills `parts` on threads; needs is_read(). UserError if the file has another number of bytes, or damaged ones.
  void read(const std::string& name, const WeightParts& parts, Executor& executor) const;

  /// Remembers a matrix for save(): `owner` keeps its parts, which nobody writes to any more.
  void keep(const std::string& name, formats::DType type, ConstWeightParts parts, std::shared_ptr<const void> owner);
  /// Writes the file unless it is there already. Whoever loads a model can do without: what goes wrong is a warning.
  void save(const quant::Checkpoint& checkpoint, Executor& executor);

 private:
  struct Kept {
    formats::DType type;
    ConstWeightParts parts;
    std::shared_ptr<const void> owner;
  };
  const formats::TensorInfo& tensor(const std::string& name) const;
  void write(const quant::Checkpoint& checkpoint, Executor& executor) const;

  Path file_;
  std::string model_;
  std::optional<formats::SafetensorsReader> reader_;
  quant::KnownFormats formats_;
  std::map<std::string, Kept> kept_;
};

/// Where weights are held together with those of other models, and where they are kept for another start; null:
/// nowhere.
struct WeightStores {
  std::shared_ptr<WeightPool> pool = nullptr;
  std::shared_ptr<WeightCache> cache = nullptr;
};

}  // namespace crumb::runtime
