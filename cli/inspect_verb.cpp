// crumb inspect: what is in a checkpoint, a GGUF or a safetensors file.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "cli/verbs.h"
#include "core/arch/gguf_metadata.h"
#include "core/common/error.h"
#include "core/common/json.h"
#include "core/common/quantity.h"
#include "core/formats/safetensors.h"
#include "core/tokenizer/tokenizer.h"
#include "quant/checkpoint.h"
#include "quant/codes_writer.h"

namespace crumb::cli {
namespace {

using nlohmann::json;

struct Options {
  std::string path;
  bool tensors = false;
};

struct Entry {
  std::string name, type;
  std::vector<int64_t> shape;
  int64_t bytes = 0;
  bool is_vocabulary = false;            // embedding or head
  bool is_readable = true;               // Crumb has a codec for it
  std::vector<int64_t> codes_histogram;  // of codes and scales only

  int64_t elements() const { return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>()); }
};

struct Contents {
  std::string kind, architecture, note;
  std::unique_ptr<arch::DecoderSpec> spec;  // of supported architectures
  std::vector<Entry> entries;
  std::vector<std::pair<std::string, std::string>> metadata;
  std::unique_ptr<tokenizer::Tokenizer> tokenizer = nullptr;
  std::string tokenizer_note = {};  // why there is none
};

struct Total {
  int64_t tensors = 0, elements = 0, bytes = 0;
  void add(const Entry& entry) {
    ++tensors;
    elements += entry.elements();
    bytes += entry.bytes;
  }
  double bits() const { return elements == 0 ? 0.0 : 8.0 * static_cast<double>(bytes) / static_cast<double>(elements); }
};

// --- Reading -----------------------------------------------------------------------------------------------------

Entry gguf_entry(const formats::GgufTensor& tensor) {
  Entry entry{tensor.name, "", tensor.shape, tensor.bytes, false, tensor.readable, {}};
  entry.is_vocabulary = tensor.name == "token_embd.weight" || tensor.name == "output.weight";
  entry.type = tensor.type_name;
  return entry;
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
  for (const auto& tensor : gguf.tensors()) contents.entries.push_back(gguf_entry(tensor));
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

std::vector<int64_t> histogram(const quant::Checkpoint& checkpoint, const quant::StoredTensor& tensor) {
  std::vector<int64_t> counts(256);
  const int64_t step = quant::rows_per_block(tensor.desc.cols());
  for (int64_t begin = 0; begin < tensor.desc.rows(); begin += step) {
    const int64_t end = std::min(begin + step, tensor.desc.rows());
    for (const auto code : checkpoint.read_codes(tensor, begin, end).codes) ++counts[code];
    checkpoint.release_rows(tensor, begin, end);
  }
  counts.resize(size_t{1} << tensor.format->bits);
  return counts;
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
    Entry entry{desc.hf_name, tensor.dtype, desc.shape, tensor.stored_bytes, is_vocabulary, true, {}};
    if (tensor.format) entry.codes_histogram = histogram(checkpoint, tensor);
    contents.entries.push_back(std::move(entry));
  }
  const auto config = checkpoint.hf_config();
  for (const auto& [key, value] : config.items()) contents.metadata.emplace_back(key, dump_json(value));
  return contents;
}

Contents read_tensors(const Path& path) {
  CRUMB_CHECK(std::filesystem::exists(path), "{}: no such file or folder", path.string());
  if (std::filesystem::is_directory(path)) return read_folder(*quant::open_checkpoint(path));
  if (path.extension() == ".safetensors") return read_safetensors(formats::SafetensorsReader(path));
  return read_gguf(formats::GgufReader(path));
}

/// A model without a tokenizer, or with one that cannot be read, is shown all the same.
void read_tokenizer(const Path& path, Contents& contents) {
  const bool is_folder = std::filesystem::is_directory(path);
  const bool has_one = is_folder
                           ? std::filesystem::exists(path / "tokenizer.json")
                           : std::any_of(contents.metadata.begin(), contents.metadata.end(),
                                         [](const auto& entry) { return entry.first == "tokenizer.ggml.tokens"; });
  if (!has_one) return;
  try {
    contents.tokenizer = tokenizer::load_tokenizer(path);
  } catch (const UserError& error) {
    contents.tokenizer_note = error.what();
  }
}

Contents read_contents(const Path& path) {
  Contents contents = read_tensors(path);
  read_tokenizer(path, contents);
  return contents;
}

// --- Totals ------------------------------------------------------------------------------------------------------

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

/// Codes of all tensors of one type, "seq2" -> counts.
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

// --- Printing ----------------------------------------------------------------------------------------------------

json spec_json(const arch::DecoderSpec& spec) {
  const auto& layer = spec.layers.front();
  return {{"layers", spec.num_layers()},      {"hidden_size", spec.hidden_size},
          {"heads", layer.gqa().heads},       {"kv_heads", layer.gqa().kv_heads},
          {"head_dim", layer.gqa().head_dim}, {"intermediate_size", layer.mlp().intermediate},
          {"vocab_size", spec.vocab_size},    {"context_length", spec.context_length},
          {"tied_head", spec.tied_head},      {"rope_base", layer.rope.base}};
}

/// What stands around a text, and what ends a generation.
json tokenizer_json(const Contents& contents) {
  if (contents.tokenizer == nullptr) return {{"note", contents.tokenizer_note}};
  const auto& special = contents.tokenizer->special();
  const auto id = [](std::optional<tokenizer::TokenId> token) { return token ? json(*token) : json(); };
  return {{"tokens", contents.tokenizer->vocab_size()},
          {"bos", id(special.bos)},
          {"eos", id(special.eos)},
          {"adds_bos", special.add_bos},
          {"adds_eos", special.add_eos},
          {"ends", special.end}};
}

void print_tokenizer(const Contents& contents) {
  if (!contents.tokenizer_note.empty()) fmt::print("  no tokenizer that Crumb runs: {}\n", contents.tokenizer_note);
  if (contents.tokenizer == nullptr) return;
  const auto& special = contents.tokenizer->special();
  const auto name = [&](tokenizer::TokenId id) { return fmt::format("{} ({})", contents.tokenizer->piece(id), id); };
  std::string ends;
  for (const auto id : special.end) ends += (ends.empty() ? "" : ", ") + name(id);
  fmt::print("  tokenizer of {}: {} before and {} after a text; {}\n", format_count(contents.tokenizer->vocab_size()),
             special.add_bos ? name(*special.bos) : "nothing", special.add_eos ? name(*special.eos) : "nothing",
             ends.empty() ? "no token ends a generation" : "a generation ends at " + ends);
}

json entry_json(const Entry& entry) {
  json result = {{"name", entry.name},
                 {"type", entry.type},
                 {"shape", entry.shape},
                 {"bytes", entry.bytes},
                 {"readable", entry.is_readable}};
  if (!entry.codes_histogram.empty()) result["codes"] = entry.codes_histogram;
  return result;
}

void print_json(const Contents& contents, const Options& options) {
  const auto all = total_of(contents, true), inner = total_of(contents, false);
  json result = {{"path", options.path},
                 {"kind", contents.kind},
                 {"architecture", contents.architecture},
                 {"parameters", all.elements},
                 {"tensor_bytes", all.bytes},
                 {"bits_per_weight", all.bits()},
                 {"bits_per_weight_without_embeddings", inner.bits()},
                 {"types", json::object()},
                 {"metadata", json::object()}};
  if (contents.spec) result["model"] = spec_json(*contents.spec);
  if (!contents.note.empty()) result["note"] = contents.note;
  if (contents.tokenizer != nullptr || !contents.tokenizer_note.empty()) result["tokenizer"] = tokenizer_json(contents);
  for (const auto& [type, total] : totals_by_type(contents)) {
    result["types"][type] = {
        {"tensors", total.tensors}, {"parameters", total.elements}, {"bytes", total.bytes}, {"bits", total.bits()}};
  }
  for (const auto& [type, counts] : codes_by_type(contents)) result["codes"][type] = counts;
  for (const auto& [key, value] : contents.metadata) result["metadata"][key] = value;
  if (options.tensors) {
    for (const auto& entry : contents.entries) result["tensors"].push_back(entry_json(entry));
  }
  fmt::print("{}\n", dump_json(result));
}

void print_summary(const Contents& contents) {
  const auto all = total_of(contents, true), inner = total_of(contents, false);
  if (contents.spec) {
    const auto& spec = *contents.spec;
    const auto& layer = spec.layers.front();
    fmt::print("  {} layers, hidden {}, {}/{} heads of {}, feed-forward {}, vocabulary {} ({} head), context {}\n",
               spec.num_layers(), spec.hidden_size, layer.gqa().heads, layer.gqa().kv_heads, layer.gqa().head_dim,
               layer.mlp().intermediate, format_count(spec.vocab_size), spec.tied_head ? "tied" : "own",
               format_count(spec.context_length));
  }
  if (!contents.note.empty()) fmt::print("  not a model that Crumb runs: {}\n", contents.note);
  print_tokenizer(contents);
  fmt::print("  {} parameters in {}: {:.3f} bits a weight, {:.3f} without embedding and head\n\n",
             format_count(all.elements), format_bytes(all.bytes), all.bits(), inner.bits());
}

void print_types(const Contents& contents) {
  fmt::print("  {:10} {:>8} {:>16} {:>12} {:>8}\n", "type", "tensors", "parameters", "size", "bits");
  for (const auto& [type, total] : totals_by_type(contents)) {
    fmt::print("  {:10} {:>8} {:>16} {:>12} {:>8.3f}\n", type, total.tensors, format_count(total.elements),
               format_bytes(total.bytes), total.bits());
  }
}

void print_codes(const Contents& contents) {
  for (const auto& [type, counts] : codes_by_type(contents)) {
    const auto sum = static_cast<double>(std::accumulate(counts.begin(), counts.end(), int64_t{0}));
    fmt::print("\n  codes of {}:", type);
    for (size_t code = 0; code < counts.size(); ++code) {
      fmt::print("{}{}: {:.1f} %", code % 8 == 0 && code > 0 ? "\n    " : "  ", code,
                 100.0 * static_cast<double>(counts[code]) / sum);
    }
    fmt::print("\n");
  }
}

/// One line of a value, not longer than a terminal shows; control characters would break the line.
std::string shortened(std::string text) {
  constexpr size_t kLongest = 100;
  std::replace_if(
      text.begin(), text.end(), [](unsigned char c) { return c < ' '; }, ' ');
  if (text.size() <= kLongest) return text;
  size_t cut = kLongest - 3;
  while (cut > 0 && (static_cast<unsigned char>(text[cut]) & 0xC0) == 0x80) --cut;  // not inside a UTF-8 character
  return text.substr(0, cut) + "...";
}

void print_metadata(const Contents& contents) {
  if (contents.metadata.empty()) return;
  fmt::print("\n  metadata\n");
  for (const auto& [key, value] : contents.metadata) fmt::print("    {} = {}\n", key, shortened(value));
}

void print_tensors(const Contents& contents) {
  fmt::print("\n  tensors\n");
  for (const auto& entry : contents.entries) {
    const auto shape = fmt::format("[{}]", fmt::join(entry.shape, ", "));
    fmt::print("    {:48} {:8} {:>18} {:>12}{}\n", entry.name, entry.type, shape, format_bytes(entry.bytes),
               entry.is_readable ? "" : "  (not readable)");
  }
}

int run(const Options& options, const Globals& globals) {
  const auto contents = read_contents(options.path);
  if (globals.json) {
    print_json(contents, options);
    return kExitOk;
  }
  fmt::print("{}: {}{}\n", options.path, contents.kind,
             contents.architecture.empty() ? "" : ", architecture " + contents.architecture);
  print_summary(contents);
  print_types(contents);
  print_codes(contents);
  print_metadata(contents);
  if (options.tensors) print_tensors(contents);
  return kExitOk;
}

}  // namespace

Verb add_inspect(CLI::App& program, const Globals& globals) {
  auto options = std::make_shared<Options>();
  CLI::App* app = program.add_subcommand(
      "inspect", "what is in a checkpoint or GGUF file: tensors, types, bits a weight, codes, metadata");
  app->add_option("path", options->path, "HF folder, codes-and-scales folder, GGUF or safetensors file")->required();
  app->add_flag("--tensors", options->tensors, "list every tensor");
  return {app, [options, &globals] { return run(*options, globals); }};
}

}  // namespace crumb::cli
