#include "core/formats/imatrix.h"

#include <fmt/ranges.h>

#include <cmath>
#include <cstring>

#include "core/common/error.h"
#include "core/common/log.h"
#include "core/formats/gguf.h"

namespace crumb::formats {
namespace {

constexpr const char *kSums = ".in_sum2", *kCounts = ".counts", *kPlainSums = ".in_sum";

std::vector<float> values_of(const GgufReader& file, const GgufTensor& tensor) {
  CRUMB_CHECK(tensor.readable && tensor.type == TensorType::f32, "{}: {} is {}, not f32 as in an importance matrix",
              file.path().string(), tensor.name, tensor.type_name);
  std::vector<float> values(static_cast<size_t>(tensor.rows() * tensor.cols()));
  file.read_rows(tensor, 0, tensor.rows(), values.data());
  return values;
}

/// `sums` of as many matrices as counts, one after the other, become means.
void divide(std::vector<float>& sums, const std::vector<float>& counts, const std::string& where) {
  for (const float sum : sums) CRUMB_CHECK(std::isfinite(sum) && sum >= 0, "{}: {} is no sum of squares", where, sum);
  CRUMB_CHECK(!counts.empty() && sums.size() % counts.size() == 0 && !sums.empty(),
              "{}: {} sums of squares do not belong to {} counts", where, sums.size(), counts.size());
  const size_t cols = sums.size() / counts.size();
  size_t unseen = 0;
  for (size_t m = 0; m < counts.size(); ++m) {
    const float count = counts[m];
    CRUMB_CHECK(std::isfinite(count) && count >= 0 && count == std::floor(count), "{}: {} is no number of tokens",
                where, count);
    unseen += count == 0 ? 1 : 0;
    for (size_t i = m * cols; i < (m + 1) * cols; ++i) {
      CRUMB_CHECK(count > 0 || sums[i] == 0, "{}: a sum of squares of {} over no token", where, sums[i]);
      sums[i] = count == 0 ? 1 : sums[i] / count;
    }
  }
  if (unseen > 0) log_warning("{}: no token has reached it; all of its inputs count the same", where);
}

MeanSquares read_gguf(const Path& path) {
  const GgufReader file(path);
  MeanSquares out;
  for (const GgufTensor& tensor : file.tensors()) {
    const std::string_view name = tensor.name;
    if (name.ends_with(kCounts)) {
      const std::string base(name.substr(0, name.size() - std::strlen(kCounts)));
      CRUMB_CHECK(file.find_tensor(base + kSums) != nullptr, "{}: {} without {}{}", path.string(), name, base, kSums);
    } else if (name.ends_with(kSums)) {
      const std::string base(name.substr(0, name.size() - std::strlen(kSums)));
      CRUMB_CHECK(file.find_tensor(base + kCounts) != nullptr, "{}: {} without {}{}", path.string(), name, base,
                  kCounts);
      auto& sums = out[base] = values_of(file, tensor);
      divide(sums, values_of(file, file.tensor(base + kCounts)), path.string() + ": " + base);
    } else {
      CRUMB_CHECK(name.ends_with(kPlainSums), "{}: tensor {} is none of an importance matrix", path.string(), name);
    }
  }
  return out;
}

/// The old form, checked against the end of the file.
class DatReader {
 public:
  explicit DatReader(const MappedFile& file) : file_(file) {}

  MeanSquares read() {
    MeanSquares out;
    const int32_t entries = count("number of entries");
    CRUMB_CHECK(entries > 0, "{}: is no importance matrix: neither GGUF nor a number of entries", path());
    for (int32_t i = 0; i < entries; ++i) read_entry(out);
    if (at_ < file_.size()) {  // not written by the first versions
      count("number of calls");
      text(count("length of a name"));
      CRUMB_CHECK(at_ == file_.size(), "{}: {} bytes behind its end", path(), file_.size() - at_);
    }
    return out;
  }

 private:
  std::string path() const { return file_.path().string(); }
  const uint8_t* take(int64_t bytes) {
    CRUMB_CHECK(bytes <= file_.size() - at_, "{}: ends in the midst of an entry: no importance matrix, or cut off",
                path());
    const uint8_t* data = file_.bytes().data() + at_;
    at_ += bytes;
    return data;
  }
  int32_t count(const char* what) {
    int32_t value = 0;
    std::memcpy(&value, take(sizeof(value)), sizeof(value));
    CRUMB_CHECK(value >= 0, "{}: a {} of {}: no importance matrix", path(), what, value);
    return value;
  }
  std::string text(int32_t length) {
    return {reinterpret_cast<const char*>(take(length)), static_cast<size_t>(length)};
  }
  void read_entry(MeanSquares& out) {
    const std::string name = text(count("length of a name"));
    const int32_t calls = count("number of calls"), cols = count("number of values");
    const int64_t bytes = int64_t{cols} * static_cast<int64_t>(sizeof(float));
    CRUMB_CHECK(bytes <= file_.size() - at_, "{}: ends in the midst of {}", path(), name);
    std::vector<float> sums(static_cast<size_t>(cols));
    if (cols > 0) std::memcpy(sums.data(), take(bytes), static_cast<size_t>(bytes));
    divide(sums, {static_cast<float>(calls)}, path() + ": " + name);
    CRUMB_CHECK(out.emplace(name, std::move(sums)).second, "{}: {} is there twice", path(), name);
  }

  const MappedFile& file_;
  int64_t at_ = 0;
};

bool is_gguf(const MappedFile& file) { return file.size() >= 4 && std::memcmp(file.bytes().data(), "GGUF", 4) == 0; }

}  // namespace

MeanSquares read_imatrix(const Path& path) {
  MeanSquares out;
  {
    const MappedFile file(path);
    if (!is_gguf(file)) {
      out = DatReader(file).read();
      file.require_whole();
    }
  }
  if (out.empty()) out = read_gguf(path);
  CRUMB_CHECK(!out.empty(), "{}: holds no importance of any tensor", path.string());
  return out;
}

void write_imatrix(const Path& path, const MeanSquares& mean_squares, const ImatrixText& text, Overwrite overwrite) {
  GgufWriter writer;
  writer.set_string("general.type", "imatrix");
  writer.set_strings("imatrix.datasets", text.names);
  writer.set_u32("imatrix.chunk_count", static_cast<uint32_t>(text.windows));
  writer.set_u32("imatrix.chunk_size", static_cast<uint32_t>(text.window_tokens));
  for (const auto& [name, squares] : mean_squares) {
    writer.declare(name + kSums, TensorType::f32, {std::ssize(squares)});
    writer.declare(name + kCounts, TensorType::f32, {1});
  }
  const auto tokens = static_cast<float>(text.windows * text.window_tokens);
  writer.begin(path, overwrite);
  for (const auto& [name, squares] : mean_squares) {
    std::vector<float> sums;
    for (const float square : squares) sums.push_back(square * tokens);
    writer.write(sums.data(), std::ssize(sums) * static_cast<int64_t>(sizeof(float)));
    writer.write(&tokens, sizeof(tokens));
  }
  writer.finish();
  writer.commit();
}

}  // namespace crumb::formats
