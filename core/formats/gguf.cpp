#include "core/formats/gguf.h"

#include <fmt/ranges.h>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <optional>
#include <utility>

#include "core/common/error.h"
#include "core/common/log.h"
#include "core/formats/ggml_types.h"

namespace crumb::formats {
namespace {

constexpr int64_t kMaxTensorName = 63;              // GGML_MAX_NAME - 1
constexpr int64_t kMaxElements = int64_t{1} << 58;  // of a tensor: its bytes fit 63 bits in every type
constexpr int64_t kDefaultAlignment = 32;
constexpr int64_t kMostParts = 65535;  // split.count is a u16

int64_t padded(int64_t bytes, int64_t alignment) { return (bytes + alignment - 1) / alignment * alignment; }

}  // namespace

// Reads the header front to back. Every length is compared with what is left of the file before anything is allocated.
class GgufCursor {
 public:
  GgufCursor(const Path& path, std::span<const uint8_t> bytes) : path_(path), bytes_(bytes) {}

  /// What is being read, for messages.
  std::string where = "the header";

  size_t left() const { return bytes_.size() - at_; }
  int64_t position() const { return static_cast<int64_t>(at_); }

  const uint8_t* take(uint64_t count) {
    if (count > left())
      user_error("{}: {} runs past the end of the file (byte {}): is it truncated?", path_.string(), where,
                 bytes_.size());
    return bytes_.data() + std::exchange(at_, at_ + static_cast<size_t>(count));
  }
  template <class T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof(T)), sizeof(T));
    return value;
  }
  bool boolean() {
    const auto byte = number<uint8_t>();
    CRUMB_CHECK(byte <= 1, "{}: {}: a bool must be 0 or 1, got {}", path_.string(), where, byte);
    return byte == 1;
  }
  std::string string() {
    const auto length = number<uint64_t>();
    return {reinterpret_cast<const char*>(take(length)), static_cast<size_t>(length)};
  }
  template <class T>
  std::vector<T> numbers(uint64_t count) {
    if (count > left() / sizeof(T)) take(std::numeric_limits<uint64_t>::max());
    std::vector<T> values(static_cast<size_t>(count));
    const uint8_t* from = take(count * sizeof(T));
    if (count > 0) std::memcpy(values.data(), from, static_cast<size_t>(count) * sizeof(T));
    return values;
  }

 private:
  const Path& path_;
  std::span<const uint8_t> bytes_;
  size_t at_ = 0;
};

namespace {

GgufArray read_array(GgufCursor& cursor, const Path& path) {
  const auto type = cursor.number<uint32_t>();
  const auto count = cursor.number<uint64_t>();
  GgufArray array{.type = static_cast<GgufType>(type), .values = {}};
  switch (array.type) {
    case GgufType::u8:
      array.values = cursor.numbers<uint8_t>(count);
      break;
    case GgufType::i8:
      array.values = cursor.numbers<int8_t>(count);
      break;
    case GgufType::u16:
      array.values = cursor.numbers<uint16_t>(count);
      break;
    case GgufType::i16:
      array.values = cursor.numbers<int16_t>(count);
      break;
    case GgufType::u32:
      array.values = cursor.numbers<uint32_t>(count);
      break;
    case GgufType::i32:
      array.values = cursor.numbers<int32_t>(count);
      break;
    case GgufType::f32:
      array.values = cursor.numbers<float>(count);
      break;
    case GgufType::u64:
      array.values = cursor.numbers<uint64_t>(count);
      break;
    case GgufType::i64:
      array.values = cursor.numbers<int64_t>(count);
      break;
    case GgufType::f64:
      array.values = cursor.numbers<double>(count);
      break;
    case GgufType::boolean: {
      std::vector<bool> values;
      for (uint64_t i = 0; i < count; ++i) values.push_back(cursor.boolean());
      array.values = std::move(values);
      break;
    }
    case GgufType::string: {
      std::vector<std::string> values;
      for (uint64_t i = 0; i < count; ++i) values.push_back(cursor.string());
      array.values = std::move(values);
      break;
    }
    case GgufType::array:
      user_error("{}: {}: arrays of arrays are not supported", path.string(), cursor.where);
    default:
      user_error("{}: {}: unknown type {} of array elements", path.string(), cursor.where, type);
  }
  return array;
}

GgufValue read_value(GgufCursor& cursor, const Path& path) {
  const auto type = cursor.number<uint32_t>();
  switch (static_cast<GgufType>(type)) {
    case GgufType::u8:
      return {cursor.number<uint8_t>()};
    case GgufType::i8:
      return {cursor.number<int8_t>()};
    case GgufType::u16:
      return {cursor.number<uint16_t>()};
    case GgufType::i16:
      return {cursor.number<int16_t>()};
    case GgufType::u32:
      return {cursor.number<uint32_t>()};
    case GgufType::i32:
      return {cursor.number<int32_t>()};
    case GgufType::f32:
      return {cursor.number<float>()};
    case GgufType::boolean:
      return {cursor.boolean()};
    case GgufType::string:
      return {cursor.string()};
    case GgufType::array:
      return {read_array(cursor, path)};
    case GgufType::u64:
      return {cursor.number<uint64_t>()};
    case GgufType::i64:
      return {cursor.number<int64_t>()};
    case GgufType::f64:
      return {cursor.number<double>()};
  }
  user_error("{}: {}: unknown value type {}", path.string(), cursor.where, type);
}

uint32_t read_version(GgufCursor& cursor, const Path& path) {
  const bool is_gguf = cursor.left() >= 4 && std::memcmp(cursor.take(4), "GGUF", 4) == 0;
  CRUMB_CHECK(is_gguf, "{}: not a GGUF file (it does not begin with GGUF)", path.string());
  const auto version = cursor.number<uint32_t>();
  CRUMB_CHECK((version & 0xffff) != 0, "{}: a big-endian GGUF file; only little-endian ones can be read",
              path.string());
  CRUMB_CHECK(version == 2 || version == 3, "{}: GGUF version {}; versions 2 and 3 can be read", path.string(),
              version);
  return version;
}

/// No name has them but in a damaged file; they would cut a message short, or do worse on a terminal.
void refuse_control_characters(std::string_view name, const Path& path, const std::string& where) {
  const auto is_control = [](unsigned char c) { return c < 0x20 || c == 0x7f; };
  CRUMB_CHECK(std::none_of(name.begin(), name.end(), is_control),
              "{}: the name of {} holds a control character: is the file damaged?", path.string(), where);
}

GgufTensor read_tensor_info(GgufCursor& cursor, const Path& path) {
  GgufTensor tensor;
  tensor.name = cursor.string();
  refuse_control_characters(tensor.name, path, cursor.where);
  cursor.where = fmt::format("tensor '{}'", tensor.name.substr(0, kMaxTensorName));
  const std::string where = fmt::format("{}: {}", path.string(), cursor.where);
  CRUMB_CHECK(tensor.name.size() <= kMaxTensorName, "{}: the name has {} bytes, at most {} are allowed", where,
              tensor.name.size(), kMaxTensorName);
  const auto n_dims = cursor.number<uint32_t>();
  CRUMB_CHECK(n_dims <= 4, "{}: {} dimensions, at most 4 are allowed", where, n_dims);
  int64_t elements = 1;
  for (uint32_t i = 0; i < n_dims; ++i) {
    const auto dim = cursor.number<int64_t>();
    // Zeros count as ones here: no product of some of the dimensions may overflow, in weights or in bytes.
    CRUMB_CHECK(
        dim >= 0 && !__builtin_mul_overflow(elements, std::max<int64_t>(dim, 1), &elements) && elements <= kMaxElements,
        "{}: the shape is absurdly large", where);
    tensor.shape.insert(tensor.shape.begin(), dim);
  }
  tensor.ggml_type = cursor.number<uint32_t>();
  CRUMB_CHECK(!ggml_type_readings(tensor.ggml_type).empty(), "{}: unknown tensor type {}", where, tensor.ggml_type);
  const auto offset = cursor.number<uint64_t>();
  CRUMB_CHECK(offset <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max()), "{}: the offset is absurdly large",
              where);
  tensor.offset = static_cast<int64_t>(offset);
  return tensor;
}

// One meaning for each ambiguous id.
using Reading = std::vector<std::pair<uint32_t, const GgmlType*>>;

std::vector<Reading> possible_readings(const std::vector<GgufTensor>& tensors) {
  std::vector<uint32_t> ids;
  for (const auto& t : tensors) {
    if (std::find(ids.begin(), ids.end(), t.ggml_type) == ids.end()) ids.push_back(t.ggml_type);
  }
  std::vector<Reading> readings = {{}};
  for (const uint32_t id : ids) {
    std::vector<Reading> longer;
    for (const auto& type : ggml_type_readings(id)) {
      for (Reading reading : readings) {
        reading.emplace_back(id, &type);
        longer.push_back(std::move(reading));
      }
    }
    readings = std::move(longer);
  }
  return readings;
}

const GgmlType& meaning(const Reading& reading, uint32_t id) {
  return *std::find_if(reading.begin(), reading.end(), [id](const auto& entry) { return entry.first == id; })->second;
}

int64_t elements_of(const GgufTensor& tensor) {
  int64_t elements = 1;
  for (const int64_t n : tensor.shape) elements *= n;
  return elements;
}

// How one reading fits the file.
struct Fit {
  bool exact = false;     // the last tensor ends where the file ends
  std::string complaint;  // why it does not fit at all
};

// The tensors of one file.
struct Section {
  const Path& path;
  std::span<const GgufTensor> tensors;
  int64_t alignment, data_bytes;
};

Fit try_reading(const Reading& reading, const Section& section) {
  const auto& [path, tensors, alignment, data_bytes] = section;
  int64_t expected = 0, end = 0;
  for (const auto& t : tensors) {
    const GgmlType& type = meaning(reading, t.ggml_type);
    if (t.cols() % type.block_size != 0) {
      return {.exact = false,
              .complaint = fmt::format("tensor '{}': a row of {} weights is not a whole number of {} blocks of {}",
                                       t.name, t.cols(), type.name, type.block_size)};
    }
    if (t.offset != expected) {
      return {.exact = false,
              .complaint = fmt::format("tensor '{}' has offset {}, expected {}", t.name, t.offset, expected)};
    }
    const auto bytes = type.bytes(elements_of(t), t.cols());
    if (!bytes || *bytes > data_bytes - t.offset) {
      return {.exact = false,
              .complaint = fmt::format("tensor '{}' runs past the end of the file: is it truncated?", t.name)};
    }
    end = t.offset + *bytes;
    expected = padded(end, alignment);
  }
  return {.exact = end == data_bytes || expected == data_bytes, .complaint = {}};
}

Fit try_reading(const Reading& reading, const std::vector<Section>& sections) {
  Fit all{.exact = true, .complaint = {}};
  for (const auto& section : sections) {
    if (section.tensors.empty()) continue;
    const Fit fit = try_reading(reading, section);
    if (!fit.complaint.empty()) return {.exact = false, .complaint = section.path.string() + ": " + fit.complaint};
    all.exact &= fit.exact;
  }
  return all;
}

// The reading that fits every offset; where several do (the last tensor alone has an ambiguous id), the one that also
// fits the end.
const Reading& choose_reading(const std::vector<Reading>& readings, const std::vector<Section>& sections) {
  std::string complaint;
  std::vector<const Reading*> fitting, exact;
  for (const auto& reading : readings) {
    const Fit fit = try_reading(reading, sections);
    if (fit.complaint.empty())
      fitting.push_back(&reading);
    else if (complaint.empty())
      complaint = fit.complaint;
    if (fit.complaint.empty() && fit.exact) exact.push_back(&reading);
  }
  CRUMB_CHECK(!fitting.empty(), "{}{}", complaint,
              readings.size() > 1 ? " (and no other meaning of tensor types 40, 41 and 42 fits)" : "");
  if (fitting.size() == 1) return *fitting[0];
  CRUMB_CHECK(exact.size() == 1,
              "{}: tensor types 40, 41 and 42 have several meanings, and the offsets do not tell which is meant",
              sections.front().path.string());
  return *exact[0];
}

int64_t read_alignment(const GgufMetadata& metadata) {
  const GgufValue* value = metadata.find("general.alignment");
  if (value == nullptr) return kDefaultAlignment;
  const auto* alignment = std::get_if<uint32_t>(&value->value);
  CRUMB_CHECK(alignment != nullptr, "{}: general.alignment must be a u32", metadata.path().string());
  CRUMB_CHECK(std::has_single_bit(*alignment), "{}: general.alignment must be a power of two, got {}",
              metadata.path().string(), *alignment);
  return *alignment;
}

// NAME-00001-of-00003.gguf; parts count from 1.
std::string part_ending(int64_t part, int64_t count) { return fmt::format("-{:05}-of-{:05}.gguf", part, count); }

// "", unless the file is named as this part must be.
std::string name_of_split(const Path& path, int64_t part, int64_t count) {
  const std::string name = path.filename().string(), ending = part_ending(part, count);
  return name.size() > ending.size() && name.ends_with(ending) ? name.substr(0, name.size() - ending.size()) : "";
}

// How many files make the model. Only the first of them has its metadata.
int64_t count_parts(const GgufMetadata& first) {
  const int64_t count = first.get_int_or("split.count", 1);
  const std::string where = fmt::format("{}: one of {} parts of a split GGUF", first.path().string(), count);
  CRUMB_CHECK(0 <= count && count <= kMostParts, "{}; 1 to {} can be read", where, kMostParts);
  if (count <= 1) return 1;
  CRUMB_CHECK(first.find("split.no") != nullptr, "{}, but split.no is missing", where);
  const int64_t number = first.get_int("split.no");
  CRUMB_CHECK(0 <= number && number < count, "{}, but split.no is {}", where, number);
  const std::string name = name_of_split(first.path(), number + 1, count);
  CRUMB_CHECK(number == 0, "{}, number {}; give the first, {}", where, number + 1,
              (first.path().parent_path() / ((name.empty() ? "NAME" : name) + part_ending(1, count))).string());
  CRUMB_CHECK(!name.empty(), "{}, the first; it must be called NAME{}, and the others likewise, to be found", where,
              part_ending(1, count));
  return count;
}

// That a later part belongs to the model, and says nothing that would be lost.
void check_part(const GgufMetadata& part, const GgufMetadata& first, int64_t number) {
  const int64_t count = first.get_int("split.count");
  for (const char* key : {"split.no", "split.count"}) {
    CRUMB_CHECK(part.find(key) != nullptr, "{}: {} is missing, though this is a part of {}", part.path().string(), key,
                first.path().string());
  }
  const int64_t actual = part.get_int("split.no");
  CRUMB_CHECK(0 <= actual && actual < kMostParts, "{}: split.no is {}", part.path().string(), actual);
  CRUMB_CHECK(actual == number, "{}: its split.no is {}, that of part {}, but its name is that of part {} of {}",
              part.path().string(), actual, actual + 1, number + 1, first.path().string());
  CRUMB_CHECK(part.get_int("split.count") == count, "{}: split.count is {}, expected {} for this part of {}",
              part.path().string(), part.get_int("split.count"), count, first.path().string());
  CRUMB_CHECK(part.find("general.alignment") != nullptr || read_alignment(first) == kDefaultAlignment,
              "{}: general.alignment is missing, which is {} in {}: writers differ in where the tensors then lie",
              part.path().string(), read_alignment(first), first.path().string());
  constexpr size_t kMostNamed = 5;
  std::vector<std::string> ignored;
  for (const auto& [key, value] : part.metadata()) {
    const GgufValue* known = first.find(key);
    if (key == "split.no" || key == "general.alignment" || (known != nullptr && *known == value)) continue;
    ignored.push_back(ignored.size() < kMostNamed ? key : "...");
    if (ignored.size() > kMostNamed) break;
  }
  if (ignored.empty()) return;
  log_warning("{}: metadata that {} does not have, or has otherwise, are ignored: {}", part.path().string(),
              first.path().string(), fmt::join(ignored, ", "));
}

// What stands behind the tensors and their padding.
void warn_about_rest(const Section& section) {
  const int64_t end = section.tensors.empty()
                          ? 0
                          : padded(section.tensors.back().offset + section.tensors.back().bytes, section.alignment);
  if (section.data_bytes <= end) return;
  log_warning_once("{}: {} bytes after the last tensor belong to no tensor, and are ignored", section.path.string(),
                   section.data_bytes - end);
}

std::string text_of(bool value) { return value ? "true" : "false"; }
std::string text_of(const std::string& value) { return value; }
template <class T>
std::string text_of(T value) {
  return fmt::format("{}", value);
}

}  // namespace

int64_t GgufArray::size() const {
  return std::visit([](const auto& v) { return static_cast<int64_t>(v.size()); }, values);
}

std::string GgufValue::text(int64_t max_items) const {
  const auto* array = std::get_if<GgufArray>(&value);
  if (array == nullptr) {
    return std::visit(
        [](const auto& v) -> std::string {
          if constexpr (std::is_same_v<std::decay_t<decltype(v)>, GgufArray>)
            return {};
          else
            return text_of(v);
        },
        value);
  }
  const int64_t shown = std::min(max_items, array->size());
  std::string out = "[";
  std::visit(
      [&](const auto& v) {
        for (int64_t i = 0; i < shown; ++i) out += (i > 0 ? ", " : "") + text_of(v[static_cast<size_t>(i)]);
      },
      array->values);
  if (shown < array->size()) out += fmt::format("{}... {} in all", shown > 0 ? ", " : "", array->size());
  return out + "]";
}

int64_t GgufTensor::rows() const {
  int64_t rows = 1;
  for (size_t i = 0; i + 1 < shape.size(); ++i) rows *= shape[i];
  return rows;
}

int64_t GgufTensor::cols() const { return shape.empty() ? 1 : shape.back(); }

void GgufMetadata::read(GgufCursor& cursor, uint64_t count) {
  for (uint64_t i = 0; i < count; ++i) {
    cursor.where = fmt::format("metadata key {} of {}", i + 1, count);
    std::string key = cursor.string();
    CRUMB_CHECK(!key.empty(), "{}: {} is empty", path().string(), cursor.where);
    refuse_control_characters(key, path(), cursor.where);
    cursor.where = fmt::format("metadata key '{}'", key.substr(0, 80));
    CRUMB_CHECK(index_.emplace(key, metadata_.size()).second, "{}: {} is there twice", path().string(), cursor.where);
    GgufValue value = read_value(cursor, path());
    metadata_.emplace_back(std::move(key), std::move(value));
  }
}

GgufReader::GgufReader(const Path& path) : GgufMetadata(path) {
  read_part(path, *this);
  read_other_parts();
  resolve_types();
}

void GgufReader::read_part(const Path& path, GgufMetadata& metadata) {
  Part part{.file = MappedFile(path)};
  GgufCursor cursor(path, part.file.bytes());
  const uint32_t version = read_version(cursor, path);
  if (parts_.empty()) version_ = version;
  const auto tensor_count = cursor.number<uint64_t>();
  const auto key_count = cursor.number<uint64_t>();
  metadata.read(cursor, key_count);
  if (!parts_.empty()) check_part(metadata, *this, static_cast<int64_t>(parts_.size()));  // before its tensors
  part.alignment = read_alignment(metadata);

  part.first_tensor = tensors_.size();
  for (uint64_t i = 0; i < tensor_count; ++i) {
    cursor.where = fmt::format("tensor {} of {}", i + 1, tensor_count);
    GgufTensor tensor = read_tensor_info(cursor, path);
    tensor.part = parts_.size();
    const auto [at, is_new] = tensor_index_.emplace(tensor.name, tensors_.size());
    CRUMB_CHECK(is_new || at->second < part.first_tensor, "{}: tensor '{}' is there twice", path.string(), tensor.name);
    CRUMB_CHECK(is_new, "{}: tensor '{}' is also in {}", path.string(), tensor.name,
                parts_[tensors_[at->second].part].file.path().string());
    tensors_.push_back(std::move(tensor));
  }
  part.end_tensor = tensors_.size();
  part.data_begin = std::min(padded(cursor.position(), part.alignment), part.file.size());
  parts_.push_back(std::move(part));
}

void GgufReader::read_other_parts() {
  const int64_t count = count_parts(*this);
  for (int64_t number = 1; number < count; ++number) {
    const Path other = path().parent_path() / (name_of_split(path(), 1, count) + part_ending(number + 1, count));
    CRUMB_CHECK(is_there(other), "{}: part {} of {} is missing: {}", path().string(), number + 1, count,
                other.string());
    GgufMetadata metadata(other);
    read_part(other, metadata);
  }
  if (find("split.count") == nullptr) return;
  const int64_t total = get_int_or("split.tensors.count", static_cast<int64_t>(tensors_.size()));
  CRUMB_CHECK(total == static_cast<int64_t>(tensors_.size()), "{}: split.tensors.count is {}, but {} there",
              path().string(), total,
              tensors_.size() == 1 ? "1 tensor is" : fmt::format("{} tensors are", tensors_.size()));
}

void GgufReader::resolve_types() {
  std::vector<Section> sections;
  for (const auto& part : parts_) {
    const std::span<const GgufTensor> tensors(tensors_);
    sections.push_back({part.file.path(), tensors.subspan(part.first_tensor, part.end_tensor - part.first_tensor),
                        part.alignment, part.file.size() - part.data_begin});
  }
  const auto readings = possible_readings(tensors_);
  const Reading& reading = choose_reading(readings, sections);
  for (auto& t : tensors_) {
    const GgmlType& type = meaning(reading, t.ggml_type);
    t.type_name = type.name;
    t.readable = type.codec.has_value();
    t.type = type.codec.value_or(TensorType::f32);
    t.bytes = *type.bytes(elements_of(t), t.cols());
  }
  for (const Section& section : sections) warn_about_rest(section);
}

std::vector<Path> GgufReader::files() const {
  std::vector<Path> paths;
  for (const Part& part : parts_) paths.push_back(part.file.path());
  return paths;
}

int64_t GgufReader::file_bytes() const {
  int64_t total = 0;
  for (const auto& part : parts_) total += part.file.size();
  return total;
}

const GgufValue* GgufMetadata::find(const std::string& key) const {
  const auto found = index_.find(key);
  return found == index_.end() ? nullptr : &metadata_[found->second].second;
}

namespace {

[[noreturn]] void wrong_kind(const Path& path, const std::string& key, const char* expected, const GgufValue& value) {
  user_error("{}: metadata key '{}' must be {}, got {}", path.string(), key, expected, value.text());
}

std::string as_string(const Path& path, const std::string& key, const GgufValue& value) {
  if (const auto* text = std::get_if<std::string>(&value.value)) return *text;
  wrong_kind(path, key, "a string", value);
}

int64_t as_int(const Path& path, const std::string& key, const GgufValue& value) {
  const auto number = std::visit(
      [](const auto& v) -> std::optional<int64_t> {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>) {
          if (std::in_range<int64_t>(v)) return static_cast<int64_t>(v);
        }
        return std::nullopt;
      },
      value.value);
  if (!number) wrong_kind(path, key, "a whole number", value);
  return *number;
}

/// The shortest decimal that is this float: 1e-05, which was written, and not 9.999999747378752e-06.
double shortest(float value) {
  const std::string text = fmt::format("{}", value);
  double number = value;  // what is not finite stays
  if (std::isfinite(value)) std::from_chars(text.data(), text.data() + text.size(), number);
  return number;
}

double as_float(const Path& path, const std::string& key, const GgufValue& value) {
  if (const auto* f = std::get_if<float>(&value.value)) return shortest(*f);
  if (const auto* d = std::get_if<double>(&value.value)) return *d;
  wrong_kind(path, key, "a floating-point number", value);
}

bool as_bool(const Path& path, const std::string& key, const GgufValue& value) {
  if (const auto* b = std::get_if<bool>(&value.value)) return *b;
  wrong_kind(path, key, "true or false", value);
}

const GgufValue& present(const Path& path, const std::string& key, const GgufValue* value) {
  CRUMB_CHECK(value != nullptr, "{}: metadata key '{}' is missing", path.string(), key);
  return *value;
}

}  // namespace

std::string GgufMetadata::get_string(const std::string& key) const {
  return as_string(path(), key, present(path(), key, find(key)));
}
int64_t GgufMetadata::get_int(const std::string& key) const {
  return as_int(path(), key, present(path(), key, find(key)));
}
double GgufMetadata::get_float(const std::string& key) const {
  return as_float(path(), key, present(path(), key, find(key)));
}

int64_t GgufMetadata::get_int_or(const std::string& key, int64_t fallback) const {
  const GgufValue* value = find(key);
  return value == nullptr ? fallback : as_int(path(), key, *value);
}
double GgufMetadata::get_float_or(const std::string& key, double fallback) const {
  const GgufValue* value = find(key);
  return value == nullptr ? fallback : as_float(path(), key, *value);
}
bool GgufMetadata::get_bool_or(const std::string& key, bool fallback) const {
  const GgufValue* value = find(key);
  return value == nullptr ? fallback : as_bool(path(), key, *value);
}
std::string GgufMetadata::get_string_or(const std::string& key, const std::string& fallback) const {
  const GgufValue* value = find(key);
  return value == nullptr ? fallback : as_string(path(), key, *value);
}

const std::vector<std::string>& GgufMetadata::get_strings(const std::string& key) const {
  const GgufValue& value = present(path(), key, find(key));
  const auto* array = std::get_if<GgufArray>(&value.value);
  const auto* strings = array == nullptr ? nullptr : std::get_if<std::vector<std::string>>(&array->values);
  if (strings == nullptr) wrong_kind(path(), key, "a list of strings", value);
  return *strings;
}

const GgufTensor* GgufReader::find_tensor(const std::string& name) const {
  const auto found = tensor_index_.find(name);
  return found == tensor_index_.end() ? nullptr : &tensors_[found->second];
}

const GgufTensor& GgufReader::tensor(const std::string& name) const {
  const GgufTensor* found = find_tensor(name);
  CRUMB_CHECK(found != nullptr, "{}: there is no tensor '{}'", path().string(), name);
  return *found;
}

std::span<const uint8_t> GgufReader::bytes(const GgufTensor& tensor) const {
  const Part& part = parts_[tensor.part];
  return part.file.bytes().subspan(static_cast<size_t>(part.data_begin + tensor.offset),
                                   static_cast<size_t>(tensor.bytes));
}

void GgufReader::read_rows(const GgufTensor& tensor, int64_t begin, int64_t end, float* out) const {
  CRUMB_ASSERT(0 <= begin && begin <= end && end <= tensor.rows());
  CRUMB_CHECK(tensor.readable, "{}: tensor '{}' is of type {}, which cannot be decoded", path().string(), tensor.name,
              tensor.type_name);
  const int64_t cols = tensor.cols(), row = row_bytes(tensor.type, cols);
  if (cols == 0) return;
  const uint8_t* data = bytes(tensor).data();
  for (int64_t i = begin; i < end; ++i) decode_row(tensor.type, data + i * row, cols, out + (i - begin) * cols);
}

void GgufReader::release_rows(const GgufTensor& tensor, int64_t begin, int64_t end) const {
  CRUMB_ASSERT(0 <= begin && begin <= end && end <= tensor.rows());
  const int64_t row = tensor.rows() == 0 ? 0 : tensor.bytes / tensor.rows();
  const Part& part = parts_[tensor.part];
  part.file.release(part.data_begin + tensor.offset + begin * row, (end - begin) * row);
}

}  // namespace crumb::formats
