// crumb export CKPT --to FORMAT -o OUT
#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/verbs.h"
#include "core/common/error.h"
#include "core/common/json.h"
#include "export/export.h"

namespace crumb::cli {
namespace {

using exporting::ExportPlan;
using exporting::ExportResult;
using exporting::TypeTotal;

struct Options {
  std::string checkpoint, output;
  exporting::ExportOptions exporting;
};

/// Tensors that are not of the target's own type, together by type and reason.
std::map<std::pair<std::string, std::string>, std::vector<std::string>> fallbacks(const ExportPlan& plan) {
  std::map<std::pair<std::string, std::string>, std::vector<std::string>> out;
  for (const auto& tensor : plan.tensors)
    if (!tensor.reason.empty())
      out[{std::string(formats::type_name(tensor.type)), tensor.reason}].push_back(tensor.desc.hf_name);
  return out;
}

void print_row(const std::string& name, const TypeTotal& total) {
  fmt::print("  {:<8} {:>8} {:>16} {:>12.3f}\n", name, total.tensors, total.bytes, total.bits());
}

void print_summary(const ExportResult& result, const std::string& output) {
  fmt::print("{}: {}, {} bytes\n", output, result.plan.target, result.file_bytes);
  fmt::print("  {:<8} {:>8} {:>16} {:>12}\n", "type", "tensors", "bytes", "bits/weight");
  for (const auto& [name, total] : result.plan.totals_by_type()) print_row(name, total);
  print_row("all", result.plan.total());
  for (const auto& [key, names] : fallbacks(result.plan))
    fmt::print("  {} for {} tensor{} ({}{}): {}\n", key.first, names.size(), names.size() == 1 ? "" : "s",
               names.front(), names.size() == 1 ? "" : ", ...", key.second);
  fmt::print("  read back {} tensors: equal\n", result.checked_tensors);
}

nlohmann::json to_json(const ExportResult& result, const std::string& output) {
  nlohmann::json types = nlohmann::json::array(), kept = nlohmann::json::array();
  for (const auto& [name, total] : result.plan.totals_by_type())
    types.push_back(
        {{"type", name}, {"tensors", total.tensors}, {"bytes", total.bytes}, {"bits_per_weight", total.bits()}});
  for (const auto& tensor : result.plan.tensors)
    if (!tensor.reason.empty())
      kept.push_back({{"tensor", tensor.desc.hf_name},
                      {"type", std::string(formats::type_name(tensor.type))},
                      {"reason", tensor.reason}});
  return {{"output", output},
          {"target", result.plan.target},
          {"file_bytes", result.file_bytes},
          {"data_bytes", result.plan.data_bytes},
          {"bits_per_weight", result.plan.total().bits()},
          {"types", types},
          {"fallbacks", kept},
          {"warnings", result.plan.warnings},
          {"tensors_read_back_equal", result.checked_tensors}};
}

int run(const Options& options, const Globals& globals) {
  exporting::ExportOptions exporting = options.exporting;
  exporting.force = globals.force;
  exporting.threads = static_cast<int>(globals.threads);
  const auto checkpoint = quant::open_checkpoint(options.checkpoint);
  const auto result = exporting::export_checkpoint(*checkpoint, options.output, exporting);
  if (globals.json)
    fmt::print("{}\n", dump_json(to_json(result, options.output)));
  else
    print_summary(result, options.output);
  return kExitOk;
}

std::string known_targets() {
  std::string out;
  for (const auto& name : exporting::target_names()) out += (out.empty() ? "" : ", ") + name;
  return out;
}

}  // namespace

Verb add_export(CLI::App& program, const Globals& globals) {
  auto options = std::make_shared<Options>();
  CLI::App* app = program.add_subcommand("export", "write a checkpoint as GGUF or as an ordinary bf16 HF folder");
  app->add_option("checkpoint", options->checkpoint, "codes-and-scales folder, HF folder or GGUF")->required();
  app->add_option("--to", options->exporting.target, known_targets())->required();
  app->add_option("-o,--output", options->output, "the file (gguf-*) or folder (hf-*) to write")->required();
  app->add_option("--embedding-type", options->exporting.embedding_type,
                  "q4_0, q6_k, q8_0, bf16, f16, f32; default q6_k where rows fit, bf16 in bf16 targets");
  app->add_option("--head-type", options->exporting.head_type,
                  "likewise, for a head of its own; with the same default");
  return {app, [options, &globals] { return run(*options, globals); }};
}

}  // namespace crumb::cli
