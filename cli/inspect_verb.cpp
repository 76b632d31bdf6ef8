// crumb inspect: what is in a checkpoint, a GGUF or a safetensors file.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "cli/verbs.h"
#include "core/arch/spec_compare.h"
#include "core/common/json.h"
#include "core/common/quantity.h"
#include "jobs/inspect.h"

namespace crumb::cli {
namespace {

using jobs::Contents;
using nlohmann::json;

struct Options {
  std::string path;
  bool tensors = false;
};

/// What layers have, by the keys of the JSON: one number where all have the same, else one for each layer.
struct LayerValues {
  explicit LayerValues(const arch::DecoderSpec& spec)
      : heads(values_of_layers(spec, [](const auto& layer) { return layer.gqa().heads; })),
        kv_heads(values_of_layers(spec, [](const auto& layer) { return layer.gqa().kv_heads; })),
        head_dim(values_of_layers(spec, [](const auto& layer) { return layer.gqa().head_dim; })),
        intermediate(values_of_layers(spec, [](const auto& layer) { return layer.mlp().intermediate; })),
        rope_base(values_of_layers(spec, [](const auto& layer) { return layer.rope.base; })) {}
  std::vector<int64_t> heads, kv_heads, head_dim, intermediate;
  std::vector<double> rope_base;
};

json spec_json(const arch::DecoderSpec& spec) {
  const LayerValues layers(spec);
  const auto one_or_all = [](const auto& values) { return values.size() == 1 ? json(values[0]) : json(values); };
  return {{"layers", spec.num_layers()},
          {"hidden_size", spec.hidden_size},
          {"heads", one_or_all(layers.heads)},
          {"kv_heads", one_or_all(layers.kv_heads)},
          {"head_dim", one_or_all(layers.head_dim)},
          {"intermediate_size", one_or_all(layers.intermediate)},
          {"vocab_size", spec.vocab_size},
          {"context_length", spec.context_length},
          {"tied_head", spec.tied_head},
          {"rope_base", one_or_all(layers.rope_base)}};
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

json entry_json(const jobs::StoredEntry& entry) {
  json result = {{"name", entry.name},
                 {"type", entry.type},
                 {"shape", entry.shape},
                 {"bytes", entry.bytes},
                 {"readable", entry.is_readable}};
  if (!entry.codes_histogram.empty()) result["codes"] = entry.codes_histogram;
  if (entry.pruned > 0) result["pruned"] = entry.pruned;
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
    if (total.pruned > 0) result["types"][type]["pruned"] = total.pruned;
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
    const LayerValues layers(spec);
    const auto text = [](const auto& values) { return fmt::format("{}", fmt::join(values, " ")); };
    fmt::print("  {} layers, hidden {}, {}/{} heads of {}, feed-forward {}, vocabulary {} ({} head), context {}\n",
               spec.num_layers(), spec.hidden_size, text(layers.heads), text(layers.kv_heads), text(layers.head_dim),
               text(layers.intermediate), format_count(spec.vocab_size), spec.tied_head ? "tied" : "own",
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

/// Weights that masks take out.
void print_pruned(const Contents& contents) {
  for (const auto& [type, total] : totals_by_type(contents)) {
    if (total.pruned == 0) continue;
    fmt::print("\n  pruned of {}: {} weights, {:.2f} %\n", type, format_count(total.pruned),
               100.0 * static_cast<double>(total.pruned) / static_cast<double>(total.elements));
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
  const auto contents = jobs::inspect(options.path);
  if (globals.json) {
    print_json(contents, options);
    return kExitOk;
  }
  fmt::print("{}: {}{}\n", options.path, contents.kind,
             contents.architecture.empty() ? "" : ", architecture " + contents.architecture);
  print_summary(contents);
  print_types(contents);
  print_codes(contents);
  print_pruned(contents);
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
