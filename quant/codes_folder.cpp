#include "quant/codes_folder.h"

#include <algorithm>
#include <cctype>
#include <utility>

#include "core/common/error.h"
#include "core/common/hash.h"
#include "core/common/json.h"
#include "quant/checkpoint_kinds.h"
#include "quant/codes_parts.h"
#include "quant/quantization_config.h"
#include "quant/row_blocks.h"

namespace crumb::quant {
namespace {

using arch::is_small;
using arch::TensorDesc;
using formats::DType;

constexpr int64_t kShardBytes = int64_t{5'000'000'000};
constexpr const char* kRecordName = "progress.jsonl";
constexpr const char* kRecordFormat = "crumb-progress-1";

nlohmann::json record_head(const std::string& job) { return {{"format", kRecordFormat}, {"job", job}}; }

/// A checksum of a line without its "check".
std::string check_of(const nlohmann::json& line) { return fmt::format("{:016x}", hash_bytes(0, dump_json(line))); }

/// The lines of the record in `folder`, the first of them the head; one that a killed process left half written, and
/// what follows it, is dropped. Empty: no record.
std::vector<nlohmann::json> read_record(const Path& folder) {
  std::vector<nlohmann::json> lines;
  if (!is_file(folder / kRecordName)) return lines;
  const std::string text = read_text(folder / kRecordName);
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    if (end == std::string::npos) break;
    auto line = nlohmann::json::parse(text.begin() + static_cast<std::ptrdiff_t>(begin),
                                      text.begin() + static_cast<std::ptrdiff_t>(end), nullptr, false);
    if (!line.is_object() || (lines.empty() && line.value("format", nlohmann::json()) != kRecordFormat)) break;
    lines.push_back(std::move(line));
    begin = end + 1;
  }
  return lines;
}

}  // namespace

DType kept_dtype(const StoredTensor& tensor) {
  if (is_small(tensor.desc.role)) return DType::f32;
  std::string name = tensor.dtype;
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::toupper(c); });
  const auto dtype = formats::dtype_from_name(name);
  if (dtype == DType::f8_e4m3 || dtype == DType::f8_e5m2) return DType::bf16;
  const bool writable = dtype == DType::f16 || dtype == DType::bf16 || dtype == DType::f32 || dtype == DType::f64;
  return writable ? *dtype : DType::bf16;
}

void PlacedTensors::place(const Path& folder) { layout.place_in_folder(folder, kShardBytes); }

void PlacedTensors::open() {
  for (const auto& file : layout.files()) {
    files_.emplace_back(file.path, file.bytes);
    files_.back().write(0, file.head.data(), static_cast<int64_t>(file.head.size()));
  }
}

void PlacedTensors::write(const std::string& name, int64_t offset, const void* data, int64_t bytes) {
  const auto& tensor = info(name);
  CRUMB_ASSERT(offset >= 0 && offset + bytes <= tensor.bytes);
  const auto file = static_cast<size_t>(tensor.file);
  files_[file].write(layout.files()[file].data_begin() + tensor.offset + offset, data, bytes);
}

void PlacedTensors::read(const std::string& name, int64_t offset, void* out, int64_t bytes) const {
  const auto& tensor = info(name);
  CRUMB_ASSERT(offset >= 0 && offset + bytes <= tensor.bytes);
  const auto file = static_cast<size_t>(tensor.file);
  files_[file].read(layout.files()[file].data_begin() + tensor.offset + offset, out, bytes);
}

CodesFolder::CodesFolder(const Path& folder, const Checkpoint& base, std::map<std::string, QuantFormat> formats,
                         std::vector<std::string> exclude, const std::string& job, Masters masters,
                         std::optional<ActivationFormat> activations)
    : folder_(folder),
      base_(base),
      formats_(std::move(formats)),
      exclude_(std::move(exclude)),
      masters_(masters),
      activations_(activations) {
  for (const auto& tensor : base_.tensors()) declare(tensor);
  tensors_.place(folder);
  if (keeps_masters()) master_tensors_.place(folder / kMastersFolder);
  if (job.empty())
    open_files();
  else
    go_on(job);
}

const QuantFormat* CodesFolder::format_of(const TensorDesc& desc) const {
  const auto found = formats_.find(desc.hf_name);
  return found == formats_.end() ? nullptr : &found->second;
}

std::vector<CodesFolder::Part> CodesFolder::parts_of(const TensorDesc& desc) const {
  const QuantFormat* format = format_of(desc);
  if (format == nullptr) {
    return {{&tensors_, desc.hf_name, tensors_.info(desc.hf_name).bytes / desc.rows()}};
  }
  std::vector<Part> parts;
  for (const CodesPart& part : codes_parts(desc.rows(), desc.cols(), *format))
    parts.push_back({&tensors_, desc.hf_name + part.suffix, part.row_bytes()});
  if (keeps_masters())
    parts.push_back({&master_tensors_, desc.hf_name, desc.cols() * static_cast<int64_t>(sizeof(float))});
  return parts;
}

void CodesFolder::declare(const StoredTensor& tensor) {
  const auto& desc = tensor.desc;
  const QuantFormat* format = format_of(desc);
  if (format == nullptr) {
    tensors_.layout.declare(desc.hf_name, kept_dtype(tensor), desc.shape);
    return;
  }
  for (const CodesPart& part : codes_parts(desc.rows(), desc.cols(), *format))
    tensors_.layout.declare(desc.hf_name + part.suffix, part.dtype, {part.rows, part.cols});
  tensors_.layout.declare(desc.hf_name + kShapeSuffix, DType::i64, {2});
  if (keeps_masters()) master_tensors_.layout.declare(desc.hf_name, DType::f32, desc.shape);
}

void CodesFolder::open_files() {
  tensors_.open();
  if (!keeps_masters()) return;
  make_folders(folder_ / kMastersFolder);
  master_tensors_.open();
}

bool CodesFolder::is_unfinished_work(const Path& folder) { return !read_record(folder).empty(); }

bool CodesFolder::holds(const Path& folder, const std::string& job) {
  const auto lines = read_record(folder);
  return !lines.empty() && lines[0] == record_head(job);
}

/// Begins a record, or takes what the one there says is finished, if its bytes are.
void CodesFolder::go_on(const std::string& job) {
  const auto lines = read_record(folder_);
  if (lines.empty()) {
    CRUMB_CHECK(paths_in(folder_).empty(),
                "{} holds no unfinished work of this program; remove it, or choose another output", folder_.string());
  } else {
    CRUMB_CHECK(
        lines[0] == record_head(job),
        "{} holds unfinished work of another job, or of this one with other settings or another model; remove it, "
        "or begin anew with --force",
        folder_.string());
  }
  std::map<std::string, const nlohmann::json*> recorded;
  for (size_t i = 1; i < lines.size(); ++i) {
    auto line = lines[i];
    line.erase("check");
    // One that is damaged is left out: its tensor is made again.
    if (lines[i].value("check", nlohmann::json()) == check_of(line)) recorded[line.at("tensor")] = &lines[i];
  }
  std::string record = dump_json(record_head(job)) + "\n";
  if (lines.empty()) write_text(folder_ / kRecordName, record);  // before the files: they are this job's then
  open_files();
  for (const auto& tensor : base_.tensors()) {
    const auto found = recorded.find(tensor.desc.hf_name);
    if (found == recorded.end() || found->second->at("hash") != hash_of(tensor.desc)) continue;
    notes_[tensor.desc.hf_name] = found->second->at("note");
    rows_put_[tensor.desc.hf_name] = tensor.desc.rows();
    record += dump_json(*found->second) + "\n";
  }
  write_text(folder_ / kRecordName, record);
  record_bytes_ = std::ssize(record);
}

void CodesFolder::write_packed(const TensorDesc& desc, const char* suffix, int64_t begin, const QuantizedTensor& rows,
                               const std::vector<uint8_t>& values, int bits) {
  const int64_t row_bytes = packed_row_bytes(rows.cols, bits);
  std::vector<uint8_t> packed(static_cast<size_t>(rows.rows * row_bytes));
  for (int64_t row = 0; row < rows.rows; ++row)
    pack_row(values.data() + row * rows.cols, rows.cols, bits, packed.data() + row * row_bytes);
  tensors_.write(desc.hf_name + suffix, begin * row_bytes, packed.data(), std::ssize(packed));
}

void CodesFolder::put(const TensorDesc& desc, int64_t begin, const QuantizedTensor& rows) {
  const QuantFormat* format = format_of(desc);
  CRUMB_ASSERT(format != nullptr && rows.format == *format && rows.cols == desc.cols());
  check_finite(rows.scales.data(), static_cast<int64_t>(rows.scales.size()), base_.path(), desc.hf_name + kScaleSuffix);
  write_packed(desc, kCodesSuffix, begin, rows, rows.codes, format->bits);
  const int64_t row_bytes = format->groups(rows.cols) * 4;
  tensors_.write(desc.hf_name + kScaleSuffix, begin * row_bytes, rows.scales.data(), rows.rows * row_bytes);
  if (format->has_zero_points())
    tensors_.write(desc.hf_name + kZeroPointSuffix, begin * row_bytes, rows.zero_points.data(), rows.rows * row_bytes);
  if (format->has_minima) {
    check_finite(rows.minima.data(), std::ssize(rows.minima), base_.path(), desc.hf_name + kMinimumSuffix);
    tensors_.write(desc.hf_name + kMinimumSuffix, begin * row_bytes, rows.minima.data(), rows.rows * row_bytes);
  }
  if (format->has_mask) {
    CRUMB_ASSERT(rows.find_broken_mask() < 0);
    write_packed(desc, kMaskSuffix, begin, rows, rows.mask, 1);
  }
  rows_put_[desc.hf_name] += rows.rows;
}

void CodesFolder::put(const TensorDesc& desc, int64_t begin, int64_t end, const float* values) {
  CRUMB_ASSERT(format_of(desc) == nullptr);
  const DType dtype = tensors_.info(desc.hf_name).dtype;
  const int64_t count = (end - begin) * desc.cols();
  check_finite(values, count, base_.path(), desc.hf_name);
  std::vector<float> rounded;
  if (is_small(desc.role)) {
    rounded.resize(static_cast<size_t>(count));
    std::transform(values, values + count, rounded.begin(), formats::round_to_bf16);
    values = rounded.data();
  }
  std::vector<uint8_t> bytes(static_cast<size_t>(count * formats::dtype_bytes(dtype)));
  formats::from_float(dtype, values, count, bytes.data());
  tensors_.write(desc.hf_name, begin * desc.cols() * formats::dtype_bytes(dtype), bytes.data(),
                 static_cast<int64_t>(bytes.size()));
  rows_put_[desc.hf_name] += end - begin;
}

void CodesFolder::put_masters(const TensorDesc& desc, int64_t begin, int64_t end, const float* values) {
  CRUMB_ASSERT(keeps_masters() && format_of(desc) != nullptr);
  check_finite(values, (end - begin) * desc.cols(), base_.path(), desc.hf_name);
  const int64_t row_bytes = desc.cols() * static_cast<int64_t>(sizeof(float));
  master_tensors_.write(desc.hf_name, begin * row_bytes, values, (end - begin) * row_bytes);
}

void CodesFolder::read_rows(const TensorDesc& desc, int64_t begin, int64_t end, float* out) const {
  CRUMB_ASSERT(is_finished(desc));
  const QuantFormat* format = format_of(desc);
  const int64_t rows = end - begin;
  const auto parts = parts_of(desc);
  const auto read = [&](const Part& part, void* to) {
    part.where->read(part.name, begin * part.row_bytes, to, rows * part.row_bytes);
  };
  std::vector<uint8_t> bytes(static_cast<size_t>(rows * parts[0].row_bytes));
  read(parts[0], bytes.data());
  if (format == nullptr) {
    formats::to_float(tensors_.info(desc.hf_name).dtype, bytes.data(), rows * desc.cols(), out);
    return;
  }
  QuantizedTensor codes{
      .format = *format, .rows = rows, .cols = desc.cols(), .codes = {}, .scales = {}, .zero_points = {}};
  codes.codes.resize(static_cast<size_t>(rows * codes.cols));
  for (int64_t row = 0; row < rows; ++row)
    unpack_row(bytes.data() + row * parts[0].row_bytes, codes.cols, format->bits,
               codes.codes.data() + row * codes.cols);
  codes.resize_groups();
  read(parts[1], codes.scales.data());
  if (format->has_zero_points()) read(parts[2], codes.zero_points.data());
  if (format->has_minima) read(parts[2], codes.minima.data());
  codes.dequantize(out);
}

std::string CodesFolder::hash_of(const TensorDesc& desc) const {
  uint64_t hash = 0;
  std::vector<uint8_t> bytes;
  for (const Part& part : parts_of(desc)) {
    for_each_row_block(desc.rows(), std::max<int64_t>(1, part.row_bytes), [&](int64_t begin, int64_t end) {
      bytes.resize(static_cast<size_t>((end - begin) * part.row_bytes));
      part.where->read(part.name, begin * part.row_bytes, bytes.data(), static_cast<int64_t>(bytes.size()));
      hash = hash_bytes(hash, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
    });
  }
  return fmt::format("{:016x}", hash);
}

void CodesFolder::finish(const TensorDesc& desc, const nlohmann::json& note) {
  CRUMB_ASSERT(!is_finished(desc) && rows_put_[desc.hf_name] == desc.rows());
  if (format_of(desc) != nullptr)
    tensors_.write(desc.hf_name + kShapeSuffix, 0, desc.shape.data(),
                   static_cast<int64_t>(desc.shape.size() * sizeof(int64_t)));
  notes_[desc.hf_name] = note;
  if (record_bytes_ == 0) return;
  nlohmann::json entry = {{"tensor", desc.hf_name}, {"hash", hash_of(desc)}, {"note", note}};
  entry["check"] = check_of(entry);
  const std::string line = dump_json(entry) + "\n";
  PlacedFile record(folder_ / kRecordName, record_bytes_ + std::ssize(line));
  record.write(record_bytes_, line.data(), std::ssize(line));
  record_bytes_ += std::ssize(line);
}

void CodesFolder::write_config() const {
  std::map<std::string, QuantFormat> by_module;
  for (const auto& tensor : base_.tensors()) {
    if (const QuantFormat* format = format_of(tensor.desc); format != nullptr)
      by_module[tensor.desc.module_name()] = *format;
  }
  auto config = base_.hf_config();
  config["quantization_config"] = make_quantization_config(by_module, exclude_, activations_);
  write_text(folder_ / "config.json", dump_json(config, 2) + "\n");
}

void CodesFolder::complete() {
  CRUMB_ASSERT(notes_.size() == base_.tensors().size());
  tensors_.layout.write_index();
  if (keeps_masters()) master_tensors_.layout.write_index();
  write_config();
  base_.write_companions(folder_);
  if (record_bytes_ > 0) std::filesystem::remove(folder_ / kRecordName);
}

void write_codes_folder(const Path& folder, const Checkpoint& base, const CodesSource& source,
                        const std::vector<std::string>& exclude) {
  CodesFolder codes(folder, base, source.formats, exclude);
  std::vector<float> values;
  for (const auto& tensor : base.tensors()) {
    const TensorDesc& desc = tensor.desc;
    for_each_row_block(desc.rows(), desc.cols(), [&](int64_t begin, int64_t end) {
      if (codes.format_of(desc) != nullptr) {
        codes.put(desc, begin, source.codes(desc, begin, end));
      } else {
        values.resize(static_cast<size_t>((end - begin) * desc.cols()));
        source.rows(desc, begin, end, values.data());
        codes.put(desc, begin, end, values.data());
      }
    });
    codes.finish(desc);
  }
  codes.complete();
}

}  // namespace crumb::quant
