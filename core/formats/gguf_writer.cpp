#include <algorithm>
#include <cstring>
#include <utility>

#include "core/common/error.h"
#include "core/formats/gguf.h"

namespace crumb::formats {
namespace {

constexpr uint32_t kVersion = 3;
constexpr int64_t kAlignment = 32;
constexpr size_t kMaxTensorName = 63;  // GGML_MAX_NAME - 1

int64_t padding(int64_t bytes) { return (kAlignment - bytes % kAlignment) % kAlignment; }

template <class T>
requires std::is_arithmetic_v<T>
void append(std::string& out, T number) { out.append(reinterpret_cast<const char*>(&number), sizeof(T)); }

void append(std::string& out, const std::string& text) {
  append(out, static_cast<uint64_t>(text.size()));
  out += text;
}

template <class T>
void append_all(std::string& out, const std::vector<T>& values) {
  for (const auto& value : values) append(out, static_cast<T>(value));
}

void append(std::string& out, const GgufArray& array) {
  append(out, static_cast<uint32_t>(array.type));
  append(out, static_cast<uint64_t>(array.size()));
  std::visit([&](const auto& values) { append_all(out, values); }, array.values);
}

GgufType element_type(const GgufArray& array) {
  const auto index = static_cast<uint32_t>(array.values.index());  // as GgufType, but without `array`
  return static_cast<GgufType>(index >= static_cast<uint32_t>(GgufType::array) ? index + 1 : index);
}

}  // namespace

void GgufWriter::set(const std::string& key, GgufValue value) {
  CRUMB_ASSERT(!file_ && !key.empty() && key != "general.alignment");
  CRUMB_ASSERT(std::none_of(metadata_.begin(), metadata_.end(), [&](const auto& entry) { return entry.first == key; }));
  if (const auto* array = std::get_if<GgufArray>(&value.value)) CRUMB_ASSERT(array->type == element_type(*array));
  metadata_.emplace_back(key, std::move(value));
}

void GgufWriter::set_strings(const std::string& key, std::vector<std::string> v) {
  set(key, {GgufArray{.type = GgufType::string, .values = std::move(v)}});
}
void GgufWriter::set_i32s(const std::string& key, std::vector<int32_t> v) {
  set(key, {GgufArray{.type = GgufType::i32, .values = std::move(v)}});
}
void GgufWriter::set_f32s(const std::string& key, std::vector<float> v) {
  set(key, {GgufArray{.type = GgufType::f32, .values = std::move(v)}});
}

void GgufWriter::declare(const std::string& name, TensorType type, std::vector<int64_t> shape) {
  CRUMB_ASSERT(!file_ && !shape.empty() && shape.size() <= 4 && names_.insert(name).second);
  CRUMB_CHECK(name.size() <= kMaxTensorName, "tensor '{}': GGUF allows names of at most {} bytes", name,
              kMaxTensorName);
  CRUMB_CHECK(shape.back() % block_size(type) == 0,
              "tensor '{}': a row of {} weights is not a whole number of {} blocks of {}", name, shape.back(),
              formats::type_name(type), block_size(type));
  GgufTensor tensor{.name = name, .shape = std::move(shape), .ggml_type = ggml_type_id(type), .type = type};
  tensor.type_name = formats::type_name(type);
  tensor.bytes = tensor.rows() * row_bytes(type, tensor.cols());
  tensor.offset = data_bytes_;
  data_bytes_ += tensor.bytes + padding(tensor.bytes);
  tensors_.push_back(std::move(tensor));
}

std::string GgufWriter::header() const {
  std::string out = "GGUF";
  append(out, kVersion);
  append(out, static_cast<uint64_t>(tensors_.size()));
  append(out, static_cast<uint64_t>(metadata_.size()));
  for (const auto& [key, value] : metadata_) {
    append(out, key);
    append(out, static_cast<uint32_t>(value.type()));
    std::visit([&](const auto& v) { append(out, v); }, value.value);
  }
  for (const auto& t : tensors_) {
    append(out, t.name);
    append(out, static_cast<uint32_t>(t.shape.size()));
    for (auto dim = t.shape.rbegin(); dim != t.shape.rend(); ++dim) append(out, static_cast<uint64_t>(*dim));
    append(out, t.ggml_type);
    append(out, static_cast<uint64_t>(t.offset));
  }
  if (!tensors_.empty()) out.append(static_cast<size_t>(padding(static_cast<int64_t>(out.size()))), '\0');
  return out;
}

int64_t GgufWriter::file_bytes() const { return static_cast<int64_t>(header().size()) + data_bytes_; }

void GgufWriter::begin(const Path& path, Overwrite overwrite) {
  CRUMB_ASSERT(!file_);
  file_ = std::make_unique<AtomicFile>(path, overwrite);
  file_->write(header());
}

void GgufWriter::write(const void* data, int64_t bytes) {
  CRUMB_ASSERT(file_ && bytes >= 0);
  const auto* from = static_cast<const uint8_t*>(data);
  while (bytes > 0) {
    while (next_ < tensors_.size() && tensors_[next_].bytes == 0) ++next_;
    CRUMB_ASSERT(next_ < tensors_.size());
    const int64_t piece = std::min(bytes, tensors_[next_].bytes - done_);
    file_->write(from, piece);
    from += piece;
    bytes -= piece;
    done_ += piece;
    written_ += piece;
    if (done_ < tensors_[next_].bytes) continue;
    file_->write_zeros(padding(done_));
    written_ += padding(done_);
    done_ = 0;
    ++next_;
  }
}

void GgufWriter::finish() {
  CRUMB_ASSERT(file_);
  if (written_ != data_bytes_)
    run_error("cannot finish {}: {} bytes of tensors were not written", file_->path().string(), data_bytes_ - written_);
  file_->flush();
}

void GgufWriter::commit() {
  CRUMB_ASSERT(file_);
  file_->commit();
}

}  // namespace crumb::formats
