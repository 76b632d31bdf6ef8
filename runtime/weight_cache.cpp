#include "runtime/weight_cache.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/common/error.h"
#include "core/common/hash.h"
#include "core/common/log.h"
#include "quant/quantization_config.h"

namespace crumb::runtime {
namespace {

using formats::DType;

/// The number is that of the order in which kernels read weights (kernels/code_matmul.h, kernels/matmul.h).
constexpr const char *kFormat = "crumb weight cache 1", *kAnyFormat = "crumb weight cache";
constexpr const char *kFormats = "formats", *kHash = "hash of ", *kHeaderHash = "hash";
constexpr size_t kPiece = size_t{1} << 20;  // bytes that a thread takes at once: hashed where they were copied

template <class Byte>
struct Piece {
  std::span<Byte> bytes;
  size_t offset;  // in the matrix
};
template <class Byte>
std::vector<Piece<Byte>> pieces_of(const std::vector<std::span<Byte>>& parts) {
  std::vector<Piece<Byte>> pieces;
  size_t offset = 0;
  for (const auto& part : parts) {
    for (size_t begin = 0; begin < part.size(); begin += kPiece) {
      const auto piece = part.subspan(begin, std::min(kPiece, part.size() - begin));
      pieces.push_back({piece, offset});
      offset += piece.size();
    }
  }
  return pieces;
}

template <class Byte>
int64_t total_bytes(const std::vector<std::span<Byte>>& parts) {
  size_t bytes = 0;
  for (const auto& part : parts) bytes += part.size();
  return static_cast<int64_t>(bytes);
}

/// Four chains beside each other: one alone waits for its multiplications.
uint64_t hash_of(std::span<const uint8_t> bytes) {
  constexpr size_t kChains = 4, kWord = sizeof(uint64_t);
  std::array<uint64_t, kChains> chains{};
  size_t begin = 0;
  for (; begin + kChains * kWord <= bytes.size(); begin += kChains * kWord) {
    std::array<uint64_t, kChains> words;
    std::memcpy(words.data(), bytes.data() + begin, sizeof(words));
    for (size_t i = 0; i < kChains; ++i) chains[i] = hash_word(chains[i], words[i]);
  }
  const auto rest = bytes.subspan(begin);
  uint64_t h = hash_bytes(bytes.size(), {reinterpret_cast<const char*>(rest.data()), rest.size()});
  for (const uint64_t chain : chains) h = hash_word(h, chain);
  return h;
}

/// Of the hashes of the pieces, each behind a call of fill(piece).
template <class Byte, class Fill>
std::string hash_pieces(const std::vector<std::span<Byte>>& parts, Executor& executor, const Fill& fill) {
  const auto pieces = pieces_of(parts);
  std::vector<uint64_t> hashes(pieces.size());
  executor.run_in_turns(static_cast<int64_t>(pieces.size()), 1, [&](int64_t begin, int64_t end, int) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
      fill(pieces[i]);
      hashes[i] = hash_of(pieces[i].bytes);
    }
  });
  uint64_t h = 0;
  for (const uint64_t hash : hashes) h = hash_word(h, hash);
  return fmt::format("{:016x}", h);
}

struct HeaderTensor {
  std::string name;
  DType type;
  int64_t elements;
};
/// Of everything in the header but where the data lies, which readers check, and this hash. Tensors by name.
std::string hash_header(const std::map<std::string, std::string>& metadata, const std::vector<HeaderTensor>& tensors) {
  uint64_t h = 0;
  for (const auto& [key, value] : metadata)
    if (key != kHeaderHash) h = hash_bytes(hash_bytes(h, key), value);
  for (const auto& [name, type, elements] : tensors)
    h = hash_word(hash_word(hash_bytes(h, name), static_cast<uint64_t>(type)), static_cast<uint64_t>(elements));
  return fmt::format("{:016x}", h);
}
/// Each as a codes-and-scales folder with that linear alone would say it.
std::string formats_to_json(const quant::Checkpoint& checkpoint) {
  auto json = nlohmann::json::object();
  if (checkpoint.kind() != quant::CheckpointKind::gguf) return json.dump();  // folders say it themselves
  for (const auto& tensor : checkpoint.tensors()) {
    const std::string& name = tensor.desc.hf_name;
    if (tensor.format)
      json[name] = {{"quantization_config", quant::make_quantization_config({{name, *tensor.format}}, {})}};
  }
  return json.dump();
}
quant::KnownFormats formats_from_json(const std::string& text, const std::string& where) {
  const auto json = nlohmann::json::parse(text, nullptr, false);
  quant::KnownFormats formats;
  for (const auto& [name, config] : json.items()) formats.emplace(name, quant::format_of_module(config, name, where));
  return formats;
}

/// UserError if it is no weight cache, of whatever version.
formats::SafetensorsReader open_cache(const Path& file) {
  try {
    formats::SafetensorsReader reader(file);
    if (reader.metadata("format").starts_with(kAnyFormat)) return reader;
  } catch (const UserError& error) {
    user_error("{}; no weight cache, or a damaged one: remove it, or name another file", error.what());
  }
  user_error("{}: this is no weight cache; name another file", file.string());
}

}  // namespace

WeightCache::WeightCache(Path file, const std::string& model) : file_(std::move(file)), model_(model) {
  if (!is_there(file_)) {
    require_new_file(file_, false);
    return;
  }
  formats::SafetensorsReader reader = open_cache(file_);
  const std::string format = reader.metadata("format");
  if (format != kFormat || reader.metadata("model") != model) {
    log_warning("{}: weights of another model, of a file that has changed since, or of another version; written anew",
                file_.string());
    return;
  }
  std::vector<HeaderTensor> tensors;
  for (const auto& tensor : reader.tensors()) tensors.push_back({tensor.name, tensor.dtype, tensor.elements()});
  std::ranges::sort(tensors, {}, &HeaderTensor::name);
  CRUMB_CHECK(reader.metadata(kHeaderHash) == hash_header(reader.metadata(), tensors),
              "{}: its header is damaged; remove the weight cache", file_.string());
  formats_ = formats_from_json(reader.metadata(kFormats), file_.string());
  reader_.emplace(std::move(reader));
}

const formats::TensorInfo& WeightCache::tensor(const std::string& name) const {
  const auto* tensor = reader_.value().find(name);
  CRUMB_CHECK(tensor != nullptr, "{}: {} is missing; remove the weight cache", file_.string(), name);
  return *tensor;
}

DType WeightCache::type_of(const std::string& name) const { return tensor(name).dtype; }

void WeightCache::read(const std::string& name, const WeightParts& parts, Executor& executor) const {
  const auto& tensor = this->tensor(name);
  CRUMB_CHECK(tensor.bytes == total_bytes(parts), "{}: {} has {} bytes, the model's has {}; remove the weight cache",
              file_.string(), name, tensor.bytes, total_bytes(parts));
  const uint8_t* from = reader_->bytes(tensor).data();
  const std::string hash = hash_pieces(parts, executor, [from](const auto& piece) {
    std::memcpy(piece.bytes.data(), from + piece.offset, piece.bytes.size());
  });
  CRUMB_CHECK(hash == reader_->metadata(kHash + name), "{}: {} is damaged; remove the weight cache", file_.string(),
              name);
  reader_->release_rows(tensor, 0, tensor.rows());
}

void WeightCache::keep(const std::string& name, DType type, ConstWeightParts parts, std::shared_ptr<const void> owner) {
  kept_.insert_or_assign(name, Kept{type, std::move(parts), std::move(owner)});
}

void WeightCache::write(const quant::Checkpoint& checkpoint, Executor& executor) const {
  std::map<std::string, std::string> facts = {
      {"format", kFormat}, {"model", model_}, {kFormats, formats_to_json(checkpoint)}};
  for (const auto& [name, kept] : kept_) facts[kHash + name] = hash_pieces(kept.parts, executor, [](const auto&) {});
  std::vector<HeaderTensor> tensors;
  for (const auto& [name, kept] : kept_)
    tensors.push_back({name, kept.type, total_bytes(kept.parts) / formats::dtype_bytes(kept.type)});
  facts[kHeaderHash] = hash_header(facts, tensors);
  formats::SafetensorsWriter writer(std::move(facts));
  for (const auto& [name, type, elements] : tensors) writer.declare(name, type, {elements});
  writer.begin_file(file_);
  for (const auto& [name, kept] : kept_) {
    for (const auto& part : kept.parts) writer.write(part.data(), static_cast<int64_t>(part.size()));
  }
  writer.finish();
}

void WeightCache::save(const quant::Checkpoint& checkpoint, Executor& executor) {
  if (is_read()) return;
  try {
    write(checkpoint, executor);
    log_info("{}: weights written for the next start", file_.string());
  } catch (const Error& error) {
    log_warning("{}; the weights are not kept", error.what());
  }
  kept_.clear();
}

}  // namespace crumb::runtime
