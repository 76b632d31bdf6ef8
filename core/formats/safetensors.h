// Reader and writer of safetensors, one file or a folder of shards with an index.
// Layout: u64 header length, JSON header, data; "data_offsets" are relative to the data. Rules checked on reading:
// header at most 100 MB and inside the file, offsets inside the data, no overlap and no hole, shape x dtype = length,
// no duplicate names.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/common/file.h"
#include "core/formats/dtype.h"

namespace crumb::formats {

struct TensorInfo {
  std::string name;
  DType dtype = DType::f32;
  std::vector<int64_t> shape;
  int64_t offset = 0;  // in the data section of its file
  int64_t bytes = 0;
  int file = 0;  // index of the shard

  int64_t elements() const;
  /// A matrix view: rows = product of all but the last dimension (a vector is one row).
  int64_t rows() const;
  int64_t cols() const;
};

class SafetensorsReader {
 public:
  /// `path`: a .safetensors file, or a folder with model.safetensors or model.safetensors.index.json. Throws UserError
  /// naming the file and the tensor for anything that breaks the rules.
  explicit SafetensorsReader(const Path& path);

  const std::vector<TensorInfo>& tensors() const { return tensors_; }  // sorted by file, then offset
  const TensorInfo* find(const std::string& name) const;
  /// Throws UserError if absent.
  const TensorInfo& at(const std::string& name) const;
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  /// Of a key; "" where there is none.
  std::string metadata(const std::string& key) const;

  /// The mapped bytes of a tensor.
  std::span<const uint8_t> bytes(const TensorInfo& tensor) const;
  /// Rows [begin, end) as floats; `out` holds (end - begin) * cols.
  void read_rows(const TensorInfo& tensor, int64_t begin, int64_t end, float* out) const;
  /// Gives the mapped pages of a tensor's rows back.
  void release_rows(const TensorInfo& tensor, int64_t begin, int64_t end) const;
  /// Files read, in shard order.
  std::vector<Path> files() const;
  int64_t total_bytes() const;  // of all tensors
  int64_t file_bytes() const;   // of the files read; a folder may hold others

 private:
  struct Shard {
    MappedFile file;
    int64_t data_begin;
  };
  void add_file(const Path& path);

  std::vector<Shard> shards_;
  std::vector<TensorInfo> tensors_;
  std::map<std::string, size_t> index_;
  std::map<std::string, std::string> metadata_;
};

/// Where the tensors of a file, or of a folder of shards, will stand: known before any of their bytes.
class SafetensorsLayout {
 public:
  explicit SafetensorsLayout(std::map<std::string, std::string> metadata = {{"format", "pt"}});

  void declare(const std::string& name, DType dtype, std::vector<int64_t> shape);
  /// After all declarations, one of the two. A folder has shards of at most `max_shard_bytes` each, and one file if
  /// that holds everything: model.safetensors, or model-00001-of-0000N.safetensors and model.safetensors.index.json.
  void place_in_file(const Path& path);
  void place_in_folder(const Path& folder, int64_t max_shard_bytes);

  struct File {
    Path path;
    std::string head;            // everything before the data section
    int64_t bytes = 0;           // of the whole file
    bool in_order = true;        // the data section is in order of declaration
    size_t first = 0, last = 0;  // tensors [first, last)
    int64_t data_begin() const { return static_cast<int64_t>(head.size()); }
  };
  const std::vector<File>& files() const { return files_; }
  /// In order of declaration; file and offset are set.
  const std::vector<TensorInfo>& tensors() const { return tensors_; }
  /// Index of a declared tensor.
  size_t at(const std::string& name) const { return names_.at(name); }
  /// Writes the index of the shards; one file has none.
  void write_index() const;

 private:
  bool lay_out(size_t first, size_t last);
  std::string head_of(size_t first, size_t last) const;
  void add_file(const Path& path, size_t first, size_t last);

  std::map<std::string, std::string> metadata_;
  std::vector<TensorInfo> tensors_;
  std::map<std::string, size_t> names_;
  std::vector<File> files_;
  Path index_path_;
};

/// Declare every tensor, then write their bytes in the same order, in pieces of any size.
class SafetensorsWriter {
 public:
  explicit SafetensorsWriter(std::map<std::string, std::string> metadata = {{"format", "pt"}})
      : layout_(std::move(metadata)) {}

  void declare(const std::string& name, DType dtype, std::vector<int64_t> shape);
  /// As place_in_file and place_in_folder.
  void begin_file(const Path& path);
  void begin_folder(const Path& folder, int64_t max_shard_bytes);
  /// The next bytes of the data section; fills one tensor after the other in order of declaration.
  void write(const void* data, int64_t bytes);
  /// Throws RunError if not every declared byte was written. Files appear under their names here.
  void finish();

 private:
  void open_files();

  SafetensorsLayout layout_;
  std::vector<std::unique_ptr<AtomicFile>> files_;  // of the layout
  size_t next_ = 0;                                 // tensor being written
  int64_t done_ = 0, left_ = 0;                     // bytes of it written; bytes to come, of all
};

}  // namespace crumb::formats
