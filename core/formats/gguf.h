// Reader and writer of GGUF (versions 2 and 3, little-endian).
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/common/file.h"
#include "core/formats/codec.h"

namespace crumb::formats {

/// Metadata value types, by their number in the file.
enum class GgufType : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };

struct GgufValue;
struct GgufArray {
  GgufType type = GgufType::u32;  // of the elements; arrays of arrays are refused, as ggml does
  std::variant<std::vector<uint8_t>, std::vector<int8_t>, std::vector<uint16_t>, std::vector<int16_t>,
               std::vector<uint32_t>, std::vector<int32_t>, std::vector<float>, std::vector<bool>,
               std::vector<std::string>, std::vector<uint64_t>, std::vector<int64_t>, std::vector<double>>
      values;
  int64_t size() const;
  bool operator==(const GgufArray&) const = default;
};
struct GgufValue {
  std::variant<uint8_t, int8_t, uint16_t, int16_t, uint32_t, int32_t, float, bool, std::string, GgufArray, uint64_t,
               int64_t, double>
      value;
  GgufType type() const { return static_cast<GgufType>(value.index()); }
  /// For `crumb inspect`: arrays are cut after `max_items`.
  std::string text(int64_t max_items = 8) const;
  bool operator==(const GgufValue&) const = default;
};

struct GgufTensor {
  std::string name;
  std::vector<int64_t> shape;          // outermost first (the reverse of the file): [rows, cols] for a matrix
  uint32_t ggml_type = 0;              // the id in the file
  TensorType type = TensorType::f32;   // what it means in this file
  bool readable = true;                // false: a ggml type Crumb has no codec for; `type` is meaningless then
  std::string_view type_name = "f32";  // what the id means in this file, also of unreadable types: "q4_k"
  size_t part = 0;                     // which file of a split model holds it
  int64_t offset = 0;                  // in the data section of its file
  int64_t bytes = 0;
  int64_t rows() const;
  int64_t cols() const;
};

class GgufCursor;  // in gguf.cpp

/// The metadata of one file.
class GgufMetadata {
 public:
  explicit GgufMetadata(Path path) : path_(std::move(path)) {}

  const Path& path() const { return path_; }
  const std::vector<std::pair<std::string, GgufValue>>& metadata() const { return metadata_; }  // in file order
  const GgufValue* find(const std::string& key) const;
  /// Typed access. get_*: UserError if absent or of another kind; integers of any width are accepted.
  std::string get_string(const std::string& key) const;
  int64_t get_int(const std::string& key) const;
  double get_float(const std::string& key) const;
  int64_t get_int_or(const std::string& key, int64_t fallback) const;
  double get_float_or(const std::string& key, double fallback) const;
  bool get_bool_or(const std::string& key, bool fallback) const;
  std::string get_string_or(const std::string& key, const std::string& fallback) const;
  const std::vector<std::string>& get_strings(const std::string& key) const;

  /// Adds `count` keys from the file.
  void read(GgufCursor& cursor, uint64_t count);

 private:
  Path path_;
  std::vector<std::pair<std::string, GgufValue>> metadata_;
  std::map<std::string, size_t> index_;
};

/// A model: one file, or the parts NAME-00001-of-0000N.gguf of a split one, which are found beside the first.
class GgufReader : public GgufMetadata {
 public:
  /// Throws UserError naming the file and the key or tensor for anything malformed: also for a part that is missing,
  /// belongs to another split or is not the first. The metadata are those of the first part. Ids 40 and 41 are resolved
  /// for the whole model by the chain offset[i+1] = offset[i] + pad(bytes[i]): the reading that fits every offset and
  /// the end of the files is the right one. Warns of bytes behind the last tensor and its padding.
  explicit GgufReader(const Path& path);

  uint32_t version() const { return version_; }
  size_t num_parts() const { return parts_.size(); }
  int64_t alignment() const { return parts_.front().alignment; }
  int64_t data_begin() const { return parts_.front().data_begin; }
  int64_t file_bytes() const;  // of all parts
  std::vector<Path> files() const;

  const std::vector<GgufTensor>& tensors() const { return tensors_; }  // in file order, part after part
  const GgufTensor* find_tensor(const std::string& name) const;
  const GgufTensor& tensor(const std::string& name) const;  // UserError if absent
  std::span<const uint8_t> bytes(const GgufTensor& tensor) const;
  /// Rows [begin, end) decoded to floats.
  void read_rows(const GgufTensor& tensor, int64_t begin, int64_t end, float* out) const;
  void release_rows(const GgufTensor& tensor, int64_t begin, int64_t end) const;

 private:
  struct Part {
    MappedFile file;
    int64_t alignment = 32, data_begin = 0;
    size_t first_tensor = 0, end_tensor = 0;
  };
  void read_part(const Path& path, GgufMetadata& metadata);
  void read_other_parts();
  void resolve_types();

  uint32_t version_ = 0;  // of the first part
  std::vector<Part> parts_;
  std::vector<GgufTensor> tensors_;
  std::map<std::string, size_t> tensor_index_;
};

/// Writes version 3, alignment 32. Set metadata, declare every tensor, then write their bytes in the same order, in
/// pieces of any size.
class GgufWriter {
 public:
  void set(const std::string& key, GgufValue value);  // a key twice: assertion
  void set_u32(const std::string& key, uint32_t v) { set(key, {v}); }
  void set_f32(const std::string& key, float v) { set(key, {v}); }
  void set_bool(const std::string& key, bool v) { set(key, {v}); }
  void set_string(const std::string& key, std::string v) { set(key, {std::move(v)}); }
  void set_strings(const std::string& key, std::vector<std::string> v);
  void set_i32s(const std::string& key, std::vector<int32_t> v);
  void set_f32s(const std::string& key, std::vector<float> v);

  /// shape: outermost first. UserError if the name is longer than 63 bytes or a row is not a whole number of blocks.
  void declare(const std::string& name, TensorType type, std::vector<int64_t> shape);
  /// Bytes of the finished file, known before it is written.
  int64_t file_bytes() const;
  void begin(const Path& path, Overwrite overwrite = Overwrite::yes);
  void write(const void* data, int64_t bytes);
  /// All bytes written and visible at temporary_path(): read it back, then commit.
  void finish();
  const Path& temporary_path() const { return file_->temporary_path(); }
  void commit();

 private:
  std::string header() const;

  std::vector<std::pair<std::string, GgufValue>> metadata_;
  std::vector<GgufTensor> tensors_;
  std::set<std::string> names_;
  int64_t data_bytes_ = 0;  // of all tensors, padded
  std::unique_ptr<AtomicFile> file_;
  size_t next_ = 0;                 // tensor being written
  int64_t done_ = 0, written_ = 0;  // bytes of it, and of the data section
};

}  // namespace crumb::formats
