#include "quant/checkpoint.h"

#include <fmt/ranges.h>
#include <algorithm>
#include <cstring>
#include <functional>
#include <numeric>
#include <set>

#include "core/common/error.h"
#include "core/common/finite.h"
#include "core/common/log.h"
#include "quant/checkpoint_kinds.h"

namespace crumb::quant {
namespace {

bool has_gguf_magic(const Path& path) {
  const MappedFile file(path);
  return file.size() >= 4 && std::memcmp(file.bytes().data(), "GGUF", 4) == 0;
}

constexpr std::string_view kCompanions[] = {
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json",     "merges.txt",      "chat_template.jinja",   "chat_template.json",      "generation_config.json"};

bool is_companion(const std::string& name) {
  const auto is_named = [&](std::string_view companion) { return name == companion; };
  return std::any_of(std::begin(kCompanions), std::end(kCompanions), is_named) || name.starts_with("LICENSE") ||
         name.starts_with("LICENCE") || name.starts_with("NOTICE");
}

}  // namespace

void copy_companions(const Path& from, const Path& to) {
  for (const Path& file : paths_in(from)) {
    if (is_companion(file.filename().string()) && is_file(file)) write_text(to / file.filename(), read_text(file));
  }
}

void Checkpoint::make_index() const {
  std::call_once(is_indexed_, [this] {
    for (size_t i = 0; i < tensors().size(); ++i) {
      index_.emplace(tensors()[i].desc.id, i);
      index_by_name_.emplace(tensors()[i].desc.hf_name, i);
    }
  });
}

const StoredTensor& Checkpoint::tensor(const arch::TensorId& id) const {
  const StoredTensor* found = find(id);
  CRUMB_ASSERT(found != nullptr);
  return *found;
}

const StoredTensor* Checkpoint::find(const arch::TensorId& id) const {
  make_index();
  const auto found = index_.find(id);
  return found == index_.end() ? nullptr : &tensors()[found->second];
}

const StoredTensor& Checkpoint::tensor(const std::string& hf_name) const {
  make_index();
  const auto found = index_by_name_.find(hf_name);
  CRUMB_CHECK(found != index_by_name_.end(), "{}: there is no tensor {}", path().string(), hf_name);
  return tensors()[found->second];
}

int64_t Checkpoint::stored_bytes() const {
  int64_t bytes = 0;
  for (const auto& tensor : tensors()) bytes += tensor.stored_bytes;
  return bytes;
}

std::unique_ptr<Checkpoint> open_checkpoint(const Path& path, Executor& executor, const KnownFormats* known) {
  CRUMB_CHECK(is_there(path), "{}: no such file or folder", path.string());
  if (is_folder(path)) return open_folder_checkpoint(path);
  if (has_gguf_magic(path)) return open_gguf_checkpoint(path, arch::tensor_table, executor, known);
  CRUMB_CHECK(path.extension() != ".safetensors", "{}: give the folder that holds it and config.json", path.string());
  user_error("{}: neither a GGUF file nor a folder with config.json and *.safetensors", path.string());
}

void check_vocabulary(const Checkpoint& checkpoint, const tokenizer::Tokenizer& tokenizer) {
  CRUMB_CHECK(tokenizer.vocab_size() <= checkpoint.spec().vocab_size,
              "{}: the tokenizer has {} tokens, but the embedding has only {} rows: they are not of the same model",
              checkpoint.path().string(), tokenizer.vocab_size(), checkpoint.spec().vocab_size);
}

void check_vocabulary(const Checkpoint& checkpoint) {
  if (checkpoint.has_tokenizer()) check_vocabulary(checkpoint, *checkpoint.load_tokenizer());
}

void require_model_output(const Path& output, bool force, const Path& source) {
  require_new_output(output, force);
  if (!is_there(output)) return;
  require_apart(output, {source});
  CRUMB_CHECK(is_folder(output) && (is_there(output / "config.json") || paths_in(output).empty()),
              "{} is no model folder; --force does not replace it", output.string());
}

void warn_about_dequantization(const Checkpoint& checkpoint, bool takes_codes) {
  if (checkpoint.kind() != CheckpointKind::gguf) return;
  std::set<std::string> types;
  int64_t linears = 0, dequantized = 0;
  for (const auto& tensor : checkpoint.tensors()) {
    if (tensor.desc.role != arch::TensorRole::linear) continue;
    ++linears;
    const bool is_float = tensor.dtype == "f32" || tensor.dtype == "f16" || tensor.dtype == "bf16";
    if (is_float || (takes_codes && tensor.format)) continue;
    ++dequantized;
    types.insert(tensor.dtype);
  }
  if (types.empty()) return;
  const std::string which =
      dequantized < linears ? fmt::format("{} of {} linears", dequantized, linears) : "its linears";
  log_warning("{}: {} are stored as {}; their dequantized values are taken for the full-precision model",
              checkpoint.path().string(), which, fmt::join(types, ", "));
}

std::vector<float> read_all(const Checkpoint& checkpoint, const StoredTensor& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.desc.elements()));
  checkpoint.read_rows(tensor, 0, tensor.desc.rows(), values.data());
  checkpoint.release_rows(tensor, 0, tensor.desc.rows());
  return values;
}

void check_finite(const float* values, int64_t count, const Path& path, const std::string& name) {
  CRUMB_CHECK(are_finite({values, static_cast<size_t>(count)}), "{}: tensor {} holds NaN or infinite values",
              path.string(), name);
}

void UsedParts::check_whole(const Path& path, const std::string& stored_name, int64_t elements) const {
  int64_t used = 0;
  for (const auto& [first_row, part] : parts_.at(stored_name)) used += part;
  CRUMB_CHECK(used == elements, "{}: tensor {} holds {} numbers, the tensors of the model within it {}", path.string(),
              stored_name, elements, used);
}

int64_t share_of_bytes(const arch::TensorDesc& desc, const arch::StoredSlice& slice, int64_t bytes) {
  const int64_t whole = std::accumulate(slice.shape.begin(), slice.shape.end(), int64_t{1}, std::multiplies<>());
  const int64_t unit = desc.shape.size() == 1 ? 1 : desc.cols();  // what a slice is counted in
  return bytes / (whole / unit) * (desc.elements() / unit);
}

void check_shape(const Path& path, const std::string& name, const std::vector<int64_t>& actual,
                 const std::vector<int64_t>& expected, const std::string& keys) {
  CRUMB_CHECK(actual == expected, "{}: tensor {} has shape [{}], the configuration asks for [{}]{}", path.string(),
              name, fmt::join(actual, ", "), fmt::join(expected, ", "), keys.empty() ? "" : " (" + keys + ")");
}

}  // namespace crumb::quant
