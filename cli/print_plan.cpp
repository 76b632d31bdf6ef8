#include "cli/print_plan.h"

#include "core/common/progress.h"

namespace crumb::cli {
namespace {

using arch::TensorRole;
using exporting::ExportPlan;
using jobs::DiskEstimate;
using jobs::DryRun;
using jobs::MemoryEstimate;

std::string bytes_text(const std::optional<int64_t>& bytes) {
  return bytes ? fmt::format("{} ({})", format_count(*bytes), format_bytes(*bytes)) : "unknown";
}

void row(std::string& out, const std::string& name, const std::string& value) {
  out += fmt::format("  {:<22} {}\n", name, value);
}

std::string plan_text(const DryRun& run) {
  std::string out = "training\n";
  row(out, "windows of text", run.available_windows ? format_count(*run.available_windows) : "unknown");
  if (run.calibration_tokens)
    row(out, "tokens of method.init", format_count(*run.calibration_tokens) + ", before the first step");
  if (!run.plan) {
    row(out, "steps, tokens", "unknown");
    return out;
  }
  row(out, "tokens", format_count(run.plan->tokens));
  row(out, "steps",
      fmt::format("{} of {} windows of {}, {} at once", format_count(run.plan->steps), run.plan->batch_windows,
                  run.plan->sequence_length, run.plan->micro_windows));
  row(out, "time on this CPU",
      fmt::format("about {}: {} threads, computing in {}, by the speed of float32 products",
                  format_duration(*run.seconds), run.threads, run.compute));
  return out;
}

std::string memory_text(const MemoryEstimate& memory) {
  std::string out = fmt::format("memory, about {}\n", format_bytes(memory.total()));
  const auto line = [&out](const char* name, int64_t bytes) {
    if (bytes > 0) row(out, name, format_bytes(bytes));
  };
  line("masters", memory.masters);
  line("gradients", memory.gradients);
  line("optimizer", memory.moments);
  line("quantized weights", memory.quantized);
  line("teacher", memory.teacher);
  line("activations", memory.activations);
  line("logits", memory.logits);
  return out;
}

std::string disk_text(const DryRun& run) {
  const DiskEstimate& disk = run.disk;
  std::string out = fmt::format("disk, at most about {}\n", format_bytes(disk.total()));
  row(out, "checkpoints",
      fmt::format("{} each, {} kept and one being written", bytes_text(disk.checkpoint), format_count(disk.kept)));
  row(out, "model/ and last/", fmt::format("{} each", bytes_text(disk.model)));
  if (disk.start > 0) row(out, "start/", fmt::format("{}, with the weights that were rounded", bytes_text(disk.start)));
  if (disk.exports > 0) row(out, "export/", bytes_text(disk.exports));
  row(out, "free there", bytes_text(run.free_bytes));
  return out;
}

constexpr std::pair<TensorRole, const char*> kRoles[] = {{TensorRole::linear, "linears"},
                                                         {TensorRole::embedding, "embedding"},
                                                         {TensorRole::head, "head"},
                                                         {TensorRole::norm, "norms"},
                                                         {TensorRole::bias, "biases"}};

std::string export_text(const ExportPlan& plan) {
  std::string out = fmt::format("{}: {} bytes of tensors ({}), and metadata: unknown\n", plan.target,
                                format_count(plan.data_bytes), format_bytes(plan.data_bytes));
  for (const auto& [role, name] : kRoles) {
    const int64_t bytes = plan.bytes_of(role);
    if (bytes > 0) row(out, name, fmt::format("{} ({})", format_count(bytes), format_bytes(bytes)));
  }
  for (const auto& [name, total] : plan.totals_by_type())
    row(out, "of type " + name, fmt::format("{} tensors, {}", total.tensors, format_bytes(total.bytes)));
  for (const auto& warning : plan.warnings) out += "  warning: " + warning + "\n";
  return out;
}

}  // namespace

std::string to_text(const DryRun& run) {
  std::string out = fmt::format("model: {}\n", run.architecture);
  row(out, "parameters", format_count(run.parameters));
  row(out, "trained", format_count(run.trained));
  row(out, "quantized", format_count(run.quantized));
  row(out, "bytes of its files", bytes_text(run.source_bytes));
  out += plan_text(run);
  if (run.memory) out += memory_text(*run.memory);
  out += disk_text(run);
  for (const auto& plan : run.exports) out += export_text(plan);
  if (!run.unknown.empty()) out += "unknown\n";
  for (const auto& line : run.unknown) out += "  " + line + "\n";
  return out;
}

nlohmann::ordered_json to_json(const DryRun& run) {
  using Json = nlohmann::ordered_json;
  Json json{{"architecture", run.architecture},
            {"parameters", run.parameters},
            {"trained", run.trained},
            {"quantized", run.quantized}};
  json["source_bytes"] = run.source_bytes ? Json(*run.source_bytes) : Json();
  json["available_windows"] = run.available_windows ? Json(*run.available_windows) : Json();
  json["calibration_tokens"] = run.calibration_tokens ? Json(*run.calibration_tokens) : Json();
  json["plan"] = run.plan ? Json{{"tokens", run.plan->tokens},
                                 {"steps", run.plan->steps},
                                 {"batch_tokens", run.plan->batch_tokens()},
                                 {"sequence_length", run.plan->sequence_length},
                                 {"micro_batch", run.plan->micro_windows}}
                          : Json();
  json["memory_bytes"] = run.memory ? Json(run.memory->total()) : Json();
  json["seconds"] = run.seconds ? Json(*run.seconds) : Json();
  json["threads"] = run.plan ? Json(run.threads) : Json();
  json["compute"] = run.plan ? Json(run.compute) : Json();
  json["disk"] = {
      {"checkpoint_bytes", run.disk.checkpoint}, {"checkpoints_kept", run.disk.kept},
      {"model_bytes", run.disk.model},           {"last_bytes", run.disk.model},
      {"start_bytes", run.disk.start},           {"export_bytes", run.disk.exports},
      {"total_bytes", run.disk.total()},         {"free_bytes", run.free_bytes ? Json(*run.free_bytes) : Json()}};
  json["exports"] = Json::array();
  for (const auto& plan : run.exports) {
    Json entry{{"target", plan.target}, {"data_bytes", plan.data_bytes}};
    for (const auto& [role, name] : kRoles) entry[std::string(name) + "_bytes"] = plan.bytes_of(role);
    entry["metadata_bytes"] = Json();
    entry["types"] = Json::array();
    for (const auto& [name, total] : plan.totals_by_type())
      entry["types"].push_back({{"type", name}, {"tensors", total.tensors}, {"bytes", total.bytes}});
    entry["warnings"] = plan.warnings;
    json["exports"].push_back(entry);
  }
  json["unknown"] = run.unknown;
  return json;
}

}  // namespace crumb::cli
