#include "jobs/inspect.h"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <numeric>

#include "core/arch/gguf_metadata.h"
#include "core/common/error.h"
#include "core/common/json.h"
#include "core/formats/safetensors.h"
#include "quant/checkpoint.h"
#include "quant/gguf_codes.h"
#include "quant/row_blocks.h"

namespace crumb::jobs {
namespace {

StoredEntry gguf_entry(const formats::GgufTensor& tensor) {
  StoredEntry entry{tensor.name, "", tensor.shape, tensor.bytes, false, tensor.readable, {}};
  entry.is_vocabulary =
      tensor.name == arch::gguf_name(arch::Slot::embedding) || tensor.name == arch::gguf_name(arch::Slot::head);
  entry.type = tensor.type_name;
  return entry;
}

/// Of a matrix that is codes and scales; empty otherwise.
std::vector<int64_t> histogram(const formats::GgufReader& gguf, const formats::GgufTensor& tensor) {
  if (!tensor.readable || tensor.shape.size() != 2) return {};
  const auto format = quant::find_codes(gguf, tensor, 0, tensor.rows());
  if (!format) return {};
  const quant::RowsOfCodes rows(gguf, tensor, *format);
  std::vector<uint8_t> codes(static_cast<size_t>(tensor.cols()));
  std::vector<quant::GroupScale> groups(static_cast<size_t>(rows.blocks_a_row()));
  std::vector<int64_t> counts(size_t{1} << format->bits);
  for (int64_t row = 0; row < tensor.rows(); ++row) {
    rows.take_apart(row, codes.data(), groups.data());
    for (const auto code : codes) ++counts[code];
  }
  gguf.release_rows(tensor, 0, tensor.rows());
  return counts;
}

Contents read_gguf(const formats::GgufReader& gguf) {
  const std::string parts = gguf.num_parts() == 1 ? "" : fmt::format(" in {} parts", gguf.num_parts());
  Contents contents{fmt::format("GGUF version {}{}", gguf.version(), parts),
                    gguf.get_string_or("general.architecture", ""),
                    "",
                    nullptr,
                    {},
                    {}};
  try {
    contents.spec = std::make_unique<arch::DecoderSpec>(arch::spec_from_gguf(gguf));
  } catch (const UserError& error) {
    contents.note = error.what();
  }
  for (const auto& tensor : gguf.tensors()) {
    contents.entries.push_back(gguf_entry(tensor));
    contents.entries.back().codes_histogram = histogram(gguf, tensor);
  }
  for (const auto& [key, value] : gguf.metadata()) contents.metadata.emplace_back(key, value.text());
  return contents;
}

Contents read_safetensors(const formats::SafetensorsReader& reader) {
  Contents contents{"safetensors", "", "", nullptr, {}, {}};
  for (const auto& tensor : reader.tensors()) {
    contents.entries.push_back(
        {tensor.name, std::string(formats::dtype_name(tensor.dtype)), tensor.shape, tensor.bytes, false, true, {}});
  }
  for (const auto& [key, value] : reader.metadata()) contents.metadata.emplace_back(key, value);
  return contents;
}

void count_codes(const quant::Checkpoint& checkpoint, const quant::StoredTensor& tensor, StoredEntry& entry) {
  std::vector<int64_t> counts(256);
  quant::for_each_row_block(tensor.desc.rows(), tensor.desc.cols(), [&](int64_t begin, int64_t end) {
    const quant::QuantizedTensor rows = checkpoint.read_codes(tensor, begin, end);
    for (const auto code : rows.codes) ++counts[code];
    entry.pruned += std::ranges::count(rows.mask, 0);
    checkpoint.release_rows(tensor, begin, end);
  });
  counts.resize(size_t{1} << tensor.format->bits);
  entry.codes_histogram = std::move(counts);
}

Contents read_folder(const quant::Checkpoint& checkpoint) {
  const bool is_codes = checkpoint.kind() == quant::CheckpointKind::codes;
  Contents contents{is_codes ? "codes and scales" : "HF folder",
                    std::string(arch::architecture_name(checkpoint.spec().architecture)),
                    "",
                    std::make_unique<arch::DecoderSpec>(checkpoint.spec()),
                    {},
                    {}};
  for (const auto& tensor : checkpoint.tensors()) {
    const auto& desc = tensor.desc;
    const bool is_vocabulary = desc.role == arch::TensorRole::embedding || desc.role == arch::TensorRole::head;
    StoredEntry entry{desc.hf_name, tensor.dtype, desc.shape, tensor.stored_bytes, is_vocabulary, true, {}};
    if (tensor.format) count_codes(checkpoint, tensor, entry);
    contents.entries.push_back(std::move(entry));
  }
  const auto config = checkpoint.hf_config();
  for (const auto& [key, value] : config.items()) contents.metadata.emplace_back(key, dump_json(value));
  return contents;
}

Contents read_tensors(const Path& path) {
  CRUMB_CHECK(is_there(path), "{}: no such file or folder", path.string());
  if (is_folder(path)) return read_folder(*quant::open_checkpoint(path));
  if (path.extension() == ".safetensors") return read_safetensors(formats::SafetensorsReader(path));
  return read_gguf(formats::GgufReader(path));
}

/// A model without a tokenizer, or with one that cannot be read, is shown all the same.
void read_tokenizer(const Path& path, Contents& contents) {
  const bool has_one = is_folder(path)
                           ? is_there(path / "tokenizer.json")
                           : std::any_of(contents.metadata.begin(), contents.metadata.end(),
                                         [](const auto& entry) { return entry.first == "tokenizer.ggml.tokens"; });
  if (!has_one) return;
  try {
    contents.tokenizer = tokenizer::load_tokenizer(path);
  } catch (const UserError& error) {
    contents.tokenizer_note = error.what();
  }
}

}  // namespace

Contents inspect(const Path& path) {
  Contents contents = read_tensors(path);
  read_tokenizer(path, contents);
  return contents;
}

int64_t StoredEntry::elements() const {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

void Total::add(const StoredEntry& entry) {
  ++tensors;
  elements += entry.elements();
  bytes += entry.bytes;
  pruned += entry.pruned;
}

double Total::bits() const {
  return elements == 0 ? 0.0 : 8.0 * static_cast<double>(bytes) / static_cast<double>(elements);
}

Total total_of(const Contents& contents, bool with_vocabulary) {
  Total total;
  for (const auto& entry : contents.entries) {
    if (with_vocabulary || !entry.is_vocabulary) total.add(entry);
  }
  return total;
}

std::map<std::string, Total> totals_by_type(const Contents& contents) {
  std::map<std::string, Total> totals;
  for (const auto& entry : contents.entries) totals[entry.type].add(entry);
  return totals;
}

std::map<std::string, std::vector<int64_t>> codes_by_type(const Contents& contents) {
  std::map<std::string, std::vector<int64_t>> all;
  for (const auto& entry : contents.entries) {
    if (entry.codes_histogram.empty()) continue;
    auto& sum = all[entry.type];
    sum.resize(entry.codes_histogram.size());
    std::transform(sum.begin(), sum.end(), entry.codes_histogram.begin(), sum.begin(), std::plus<>());
  }
  return all;
}

}  // namespace crumb::jobs
