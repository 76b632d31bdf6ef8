#include "core/formats/safetensors.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>
#include <set>
#include <tuple>
#include <utility>

#include "core/common/error.h"
#include "core/common/json.h"

namespace crumb::formats {
namespace {

using Json = nlohmann::json;

constexpr int64_t kMaxHeaderBytes = 100'000'000;
constexpr int kHeaderLevels = 3;  // of the JSON: all tensors, one, its shape
constexpr const char* kSingleName = "model.safetensors";
constexpr const char* kIndexName = "model.safetensors.index.json";

int64_t product(const std::vector<int64_t>& shape, size_t count) {
  return std::accumulate(shape.begin(), shape.begin() + static_cast<std::ptrdiff_t>(count), int64_t{1},
                         std::multiplies<>());
}

std::vector<int64_t> whole_numbers(const Json& entry, const char* key, const std::string& where) {
  const auto found = entry.find(key);
  CRUMB_CHECK(found != entry.end() && found->is_array(), "{}: {} must be a list of whole numbers", where, key);
  std::vector<int64_t> numbers;
  for (const auto& item : *found) {
    CRUMB_CHECK(item.is_number_unsigned() && std::in_range<int64_t>(item.get<uint64_t>()),
                "{}: {} must be a list of whole numbers, got {}", where, key, json_excerpt(item));
    numbers.push_back(item.get<int64_t>());
  }
  return numbers;
}

// Bytes by shape and element size, or nothing when they do not fit 63 bits.
std::optional<int64_t> bytes_of(const std::vector<int64_t>& shape, DType dtype) {
  int64_t bytes = dtype_bytes(dtype);
  for (const int64_t n : shape) {
    if (__builtin_mul_overflow(bytes, n, &bytes)) return std::nullopt;
  }
  return bytes;
}

TensorInfo parse_tensor(const Path& path, const std::string& name, const Json& entry, int file) {
  const std::string where = fmt::format("{}: tensor '{}'", path.string(), name);
  CRUMB_CHECK(entry.is_object(), "{}: expected an object with dtype, shape and data_offsets", where);
  const auto dtype_text = entry.find("dtype");
  CRUMB_CHECK(dtype_text != entry.end() && dtype_text->is_string(), "{}: dtype is missing", where);
  const auto dtype = dtype_from_name(dtype_text->get_ref<const std::string&>());
  CRUMB_CHECK(dtype.has_value(), "{}: unknown dtype '{}'", where, dtype_text->get_ref<const std::string&>());

  TensorInfo info{.name = name, .dtype = *dtype, .shape = whole_numbers(entry, "shape", where), .file = file};
  const auto offsets = whole_numbers(entry, "data_offsets", where);
  CRUMB_CHECK(offsets.size() == 2 && offsets[0] <= offsets[1], "{}: data_offsets must be [begin, end]", where);
  info.offset = offsets[0];
  info.bytes = offsets[1] - offsets[0];
  const auto expected = bytes_of(info.shape, *dtype);
  CRUMB_CHECK(expected.has_value(), "{}: the shape is absurdly large", where);
  CRUMB_CHECK(*expected == info.bytes, "{}: shape and dtype need {} bytes, data_offsets give {}", where, *expected,
              info.bytes);
  return info;
}

// The data section must be covered once, from its first byte to its last.
void check_coverage(const Path& path, const std::vector<TensorInfo>& tensors, int64_t data_bytes) {
  int64_t end = 0;
  for (const auto& t : tensors) {
    CRUMB_CHECK(t.offset >= end, "{}: tensor '{}' overlaps the tensor before it (begins at {}, that one ends at {})",
                path.string(), t.name, t.offset, end);
    CRUMB_CHECK(t.offset == end, "{}: {} bytes before tensor '{}' belong to no tensor", path.string(), t.offset - end,
                t.name);
    CRUMB_CHECK(t.bytes <= data_bytes - t.offset,
                "{}: tensor '{}' ends {} bytes after the end of the file: is it truncated?", path.string(), t.name,
                t.bytes - (data_bytes - t.offset));
    end = t.offset + t.bytes;
  }
  CRUMB_CHECK(end == data_bytes, "{}: {} bytes after the last tensor belong to no tensor", path.string(),
              data_bytes - end);
}

struct Header {
  std::vector<TensorInfo> tensors;  // by offset
  std::map<std::string, std::string> metadata;
  int64_t data_begin = 0;
};

Header read_header(const MappedFile& file, int file_number) {
  const Path& path = file.path();
  CRUMB_CHECK(file.size() >= 8, "{}: {} bytes are too few for a safetensors file", path.string(), file.size());
  uint64_t length = 0;
  std::memcpy(&length, file.bytes().data(), 8);
  CRUMB_CHECK(length <= kMaxHeaderBytes,
              "{}: the header claims {} bytes, at most {} are allowed: not a safetensors file?", path.string(), length,
              kMaxHeaderBytes);
  CRUMB_CHECK(static_cast<int64_t>(length) <= file.size() - 8,
              "{}: the header claims {} bytes, the file has {}: is it truncated?", path.string(), length,
              file.size() - 8);
  const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()) + 8, length);
  CRUMB_CHECK(text.starts_with('{'), "{}: the header does not start with '{{': not a safetensors file", path.string());

  Header header;
  header.data_begin = 8 + static_cast<int64_t>(length);
  const Json json = parse_json(text, path.string() + ": header", {.most_levels = kHeaderLevels, .unique_keys = true});
  for (const auto& [name, entry] : json.items()) {
    if (name != "__metadata__") {
      header.tensors.push_back(parse_tensor(path, name, entry, file_number));
      continue;
    }
    if (entry.is_null()) continue;  // as MLX writes it
    CRUMB_CHECK(entry.is_object(), "{}: __metadata__ must be a map of strings", path.string());
    for (const auto& [key, value] : entry.items()) {
      CRUMB_CHECK(value.is_string(), "{}: __metadata__.{} must be a string", path.string(), key);
      header.metadata[key] = value.get<std::string>();
    }
  }
  std::sort(header.tensors.begin(), header.tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return std::tie(a.offset, a.bytes, a.name) < std::tie(b.offset, b.bytes, b.name);
  });
  check_coverage(path, header.tensors, file.size() - header.data_begin);
  return header;
}

std::map<std::string, std::string> read_weight_map(const Path& index_path) {
  const Json json = read_json(index_path);
  const auto weight_map = json.find("weight_map");
  CRUMB_CHECK(weight_map != json.end() && weight_map->is_object(), "{}: weight_map is missing", index_path.string());
  std::map<std::string, std::string> map;
  for (const auto& [name, file] : weight_map->items()) {
    CRUMB_CHECK(file.is_string(), "{}: weight_map.{} must be a file name", index_path.string(), name);
    const Path file_name = file.get<std::string>();
    CRUMB_CHECK(!file_name.empty() && file_name == file_name.filename() && file_name != "..",
                "{}: weight_map.{}: '{}' must be a file in the same folder", index_path.string(), name,
                file_name.string());
    map[name] = file_name.string();
  }
  CRUMB_CHECK(!map.empty(), "{}: weight_map is empty", index_path.string());
  return map;
}

}  // namespace

int64_t TensorInfo::elements() const { return product(shape, shape.size()); }

int64_t TensorInfo::rows() const { return shape.size() < 2 ? 1 : product(shape, shape.size() - 1); }

int64_t TensorInfo::cols() const { return shape.empty() ? 1 : shape.back(); }

SafetensorsReader::SafetensorsReader(const Path& path) {
  if (!is_folder(path) || is_there(path / kSingleName)) {
    add_file(is_folder(path) ? path / kSingleName : path);
    return;
  }
  const Path index_path = path / kIndexName;
  CRUMB_CHECK(is_there(index_path), "{}: neither {} nor {} is there", path.string(), kSingleName, kIndexName);

  const auto weight_map = read_weight_map(index_path);
  std::set<std::string> names;
  for (const auto& [tensor, file] : weight_map) names.insert(file);
  for (const auto& name : names) add_file(path / name);
  for (const auto& [tensor, file] : weight_map) {
    const TensorInfo* info = find(tensor);
    CRUMB_CHECK(info != nullptr && shards_[static_cast<size_t>(info->file)].file.path().filename() == file,
                "{}: tensor '{}' is not in {}", index_path.string(), tensor, file);
  }
}

void SafetensorsReader::add_file(const Path& path) {
  MappedFile file(path);
  Header header = read_header(file, static_cast<int>(shards_.size()));
  for (auto& info : header.tensors) {
    const auto [at, is_new] = index_.emplace(info.name, tensors_.size());
    CRUMB_CHECK(is_new, "{}: tensor '{}' is also in {}", path.string(), info.name,
                shards_[static_cast<size_t>(tensors_[at->second].file)].file.path().string());
    tensors_.push_back(std::move(info));
  }
  metadata_.merge(header.metadata);
  shards_.push_back({std::move(file), header.data_begin});
}

std::string SafetensorsReader::metadata(const std::string& key) const {
  const auto found = metadata_.find(key);
  return found == metadata_.end() ? "" : found->second;
}

const TensorInfo* SafetensorsReader::find(const std::string& name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

const TensorInfo& SafetensorsReader::at(const std::string& name) const {
  const TensorInfo* info = find(name);
  if (info == nullptr) {
    const Path& path = shards_.front().file.path();
    user_error("{}: there is no tensor '{}'", (shards_.size() == 1 ? path : path.parent_path()).string(), name);
  }
  return *info;
}

std::span<const uint8_t> SafetensorsReader::bytes(const TensorInfo& tensor) const {
  const Shard& shard = shards_[static_cast<size_t>(tensor.file)];
  return shard.file.bytes().subspan(static_cast<size_t>(shard.data_begin + tensor.offset),
                                    static_cast<size_t>(tensor.bytes));
}

void SafetensorsReader::read_rows(const TensorInfo& tensor, int64_t begin, int64_t end, float* out) const {
  CRUMB_ASSERT(0 <= begin && begin <= end && end <= tensor.rows());
  const int64_t cols = tensor.cols();
  if (begin == end || cols == 0) return;
  try {
    to_float(tensor.dtype, bytes(tensor).data() + begin * cols * dtype_bytes(tensor.dtype), (end - begin) * cols, out);
  } catch (const UserError& e) {
    user_error("{}: tensor '{}': {}", shards_[static_cast<size_t>(tensor.file)].file.path().string(), tensor.name,
               e.what());
  }
}

void SafetensorsReader::release_rows(const TensorInfo& tensor, int64_t begin, int64_t end) const {
  CRUMB_ASSERT(0 <= begin && begin <= end && end <= tensor.rows());
  const Shard& shard = shards_[static_cast<size_t>(tensor.file)];
  const int64_t row = tensor.rows() == 0 ? 0 : tensor.bytes / tensor.rows();
  shard.file.release(shard.data_begin + tensor.offset + begin * row, (end - begin) * row);
}

std::vector<Path> SafetensorsReader::files() const {
  std::vector<Path> paths;
  for (const auto& shard : shards_) paths.push_back(shard.file.path());
  return paths;
}

int64_t SafetensorsReader::file_bytes() const {
  int64_t total = 0;
  for (const auto& shard : shards_) total += shard.file.size();
  return total;
}

int64_t SafetensorsReader::total_bytes() const {
  int64_t total = 0;
  for (const auto& t : tensors_) total += t.bytes;
  return total;
}

SafetensorsLayout::SafetensorsLayout(std::map<std::string, std::string> metadata) : metadata_(std::move(metadata)) {}

void SafetensorsLayout::declare(const std::string& name, DType dtype, std::vector<int64_t> shape) {
  CRUMB_ASSERT(files_.empty() && name != "__metadata__" && names_.emplace(name, tensors_.size()).second);
  const auto bytes = bytes_of(shape, dtype);
  CRUMB_CHECK(bytes.has_value(), "tensor '{}': the shape is absurdly large", name);
  tensors_.push_back({.name = name, .dtype = dtype, .shape = std::move(shape), .bytes = *bytes});
}

// Readers that map a file as one storage (torch's among them) view each tensor in place, which needs offsets that are
// multiples of the element size. The order of declaration is kept where it gives that; otherwise wide elements come
// first.
bool SafetensorsLayout::lay_out(size_t first, size_t last) {
  std::vector<TensorInfo*> order;
  for (size_t i = first; i < last; ++i) order.push_back(&tensors_[i]);
  const auto place = [&order] {
    bool aligned = true;
    int64_t offset = 0;
    for (TensorInfo* t : order) {
      aligned &= offset % dtype_bytes(t->dtype) == 0;
      t->offset = offset;
      offset += t->bytes;
    }
    return aligned;
  };
  if (place()) return true;
  std::stable_sort(order.begin(), order.end(), [](const TensorInfo* a, const TensorInfo* b) {
    return dtype_bytes(a->dtype) > dtype_bytes(b->dtype);
  });
  place();
  return false;
}

std::string SafetensorsLayout::head_of(size_t first, size_t last) const {
  std::string text = "{";
  if (!metadata_.empty()) text += "\"__metadata__\":" + dump_json(Json(metadata_)) + ",";
  for (size_t i = first; i < last; ++i) {
    const TensorInfo& t = tensors_[i];
    text += fmt::format("{}:{{\"dtype\":\"{}\",\"shape\":{},\"data_offsets\":[{},{}]}},", dump_json(Json(t.name)),
                        dtype_name(t.dtype), dump_json(Json(t.shape)), t.offset, t.offset + t.bytes);
  }
  if (text.back() == ',') text.pop_back();
  text += "}";
  text.append((8 - text.size() % 8) % 8, ' ');
  const uint64_t length = text.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + text;
}

void SafetensorsLayout::add_file(const Path& path, size_t first, size_t last) {
  File file{.path = path, .head = {}, .in_order = lay_out(first, last), .first = first, .last = last};
  file.head = head_of(first, last);
  CRUMB_CHECK(file.data_begin() <= kMaxHeaderBytes, "{}: too many tensors for one safetensors file", path.string());
  file.bytes = file.data_begin();
  for (size_t i = first; i < last; ++i) {
    tensors_[i].file = static_cast<int>(files_.size());
    file.bytes += tensors_[i].bytes;
  }
  files_.push_back(std::move(file));
}

void SafetensorsLayout::place_in_file(const Path& path) {
  CRUMB_ASSERT(files_.empty());
  add_file(path, 0, tensors_.size());
}

void SafetensorsLayout::place_in_folder(const Path& folder, int64_t max_shard_bytes) {
  CRUMB_ASSERT(files_.empty());
  std::vector<size_t> ends;
  int64_t bytes = 0;
  for (size_t i = 0; i < tensors_.size(); ++i) {
    if (bytes > 0 && tensors_[i].bytes > max_shard_bytes - bytes) {
      ends.push_back(i);
      bytes = 0;
    }
    bytes += tensors_[i].bytes;
  }
  ends.push_back(tensors_.size());
  if (ends.size() == 1) return add_file(folder / kSingleName, 0, tensors_.size());
  index_path_ = folder / kIndexName;
  for (size_t i = 0; i < ends.size(); ++i) {
    add_file(folder / fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, ends.size()), i == 0 ? 0 : ends[i - 1],
             ends[i]);
  }
}

void SafetensorsLayout::write_index() const {
  if (index_path_.empty()) return;
  Json weight_map = Json::object();
  int64_t total = 0;
  for (const TensorInfo& t : tensors_) {
    weight_map[t.name] = files_[static_cast<size_t>(t.file)].path.filename().string();
    total += t.bytes;
  }
  const Json index = {{"metadata", {{"total_size", total}}}, {"weight_map", weight_map}};
  write_text(index_path_, dump_json(index, 2) + "\n");
}

void SafetensorsWriter::declare(const std::string& name, DType dtype, std::vector<int64_t> shape) {
  layout_.declare(name, dtype, std::move(shape));
  left_ += layout_.tensors().back().bytes;
}

void SafetensorsWriter::begin_file(const Path& path) {
  layout_.place_in_file(path);
  open_files();
}

void SafetensorsWriter::begin_folder(const Path& folder, int64_t max_shard_bytes) {
  layout_.place_in_folder(folder, max_shard_bytes);
  open_files();
}

void SafetensorsWriter::open_files() {
  for (const auto& file : layout_.files()) {
    files_.push_back(std::make_unique<AtomicFile>(file.path));
    files_.back()->write(file.head);
  }
}

void SafetensorsWriter::write(const void* data, int64_t bytes) {
  CRUMB_ASSERT(!files_.empty() && 0 <= bytes && bytes <= left_);
  const auto* from = static_cast<const uint8_t*>(data);
  left_ -= bytes;
  while (bytes > 0) {
    const TensorInfo& tensor = layout_.tensors()[next_];
    if (done_ == tensor.bytes) {
      done_ = 0;
      ++next_;
      continue;
    }
    const auto& file = layout_.files()[static_cast<size_t>(tensor.file)];
    AtomicFile& out = *files_[static_cast<size_t>(tensor.file)];
    const int64_t piece = std::min(bytes, tensor.bytes - done_);
    if (file.in_order)
      out.write(from, piece);
    else
      out.rewrite(file.data_begin() + tensor.offset + done_, from, piece);  // beyond the end too: a hole, filled later
    done_ += piece;
    from += piece;
    bytes -= piece;
  }
}

void SafetensorsWriter::finish() {
  CRUMB_ASSERT(!files_.empty());
  if (left_ != 0)
    run_error("cannot finish {}: {} bytes of tensors were not written", files_.front()->path().string(), left_);
  for (const auto& file : files_) file->commit();
  layout_.write_index();
}

}  // namespace crumb::formats
