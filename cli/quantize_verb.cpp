// crumb quantize MODEL|JOB.yaml [key=value ...]
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/verbs.h"
#include "core/common/config.h"
#include "core/common/error.h"
#include "core/common/json.h"
#include "core/common/quantity.h"
#include "ptq/quantize.h"

namespace crumb::cli {
namespace {

using ptq::QuantizeJob;
using ptq::QuantizePlan;
using ptq::QuantizeReport;
using ptq::TensorError;
using ptq::WeightError;

struct Options {
  std::string source;                  // model folder or job.yaml
  std::vector<std::string> overrides;  // key=value
  std::string method, grid, bits, group_size, init, output;
  std::vector<std::string> exclude, calibration;
  bool asymmetric = false, dry_run = false, print_config = false;
};

bool is_job_file(const Path& path) { return path.extension() == ".yaml" || path.extension() == ".yml"; }

ConfigValue on_command_line(ConfigValue value) {
  value.mark = value.key_mark = {"command line", 0, 0, "."};
  return value;
}

/// Flags become keys of the job as they are typed: their text is not read as YAML, where * and [ mean something.
class FlagValues {
 public:
  FlagValues(const CLI::App& app, ConfigValue& job) : app_(app), job_(job) {}

  void set(const char* flag, const std::string& key, const std::string& text) {
    if (app_.count(flag) > 0) place(key, ConfigValue::scalar(text));
  }
  void set(const char* flag, const std::string& key, const std::vector<std::string>& texts) {
    std::vector<ConfigValue> items;
    for (const auto& text : texts) items.push_back(on_command_line(ConfigValue::scalar(text, true)));
    if (app_.count(flag) > 0) place(key, ConfigValue::list(std::move(items)));
  }
  void place(const std::string& key, ConfigValue value) {
    apply_override(job_, key + "=0");  // makes the key, and its section
    ConfigValue* at = &job_;
    for (size_t begin = 0; begin != std::string::npos;) {
      const size_t dot = key.find('.', begin);
      at = at->find(std::string_view(key).substr(begin, dot == std::string::npos ? dot : dot - begin));
      begin = dot == std::string::npos ? dot : dot + 1;
    }
    *at = on_command_line(std::move(value));
  }

 private:
  const CLI::App& app_;
  ConfigValue& job_;
};

QuantizeJob read_job(const CLI::App& app, const Options& options) {
  ConfigValue tree = is_job_file(options.source) ? parse_yaml_file(options.source) : ConfigValue::map({});
  if (tree.mark.file.empty()) tree = on_command_line(std::move(tree));
  FlagValues flags(app, tree);
  if (!is_job_file(options.source)) flags.place("model", ConfigValue::scalar(options.source, true));
  flags.set("--method", "method.name", options.method);
  flags.set("--grid", "method.grid", options.grid);
  flags.set("--bits", "method.bits", options.bits);
  flags.set("--group-size", "method.group_size", options.group_size);
  flags.set("--asymmetric", "method.symmetric", options.asymmetric ? "false" : "true");
  flags.set("--init", "method.init", options.init);
  flags.set("--exclude", "method.exclude", options.exclude);
  flags.set("--calibration", "calibration.text", options.calibration);
  flags.set("--output", "output", options.output);
  apply_overrides(tree, options.overrides);
  return read_config<QuantizeJob>(tree);
}

/// "seq (2 bits) or int"
std::string grid_words() {
  std::vector<std::string> words;
  for (const quant::Grid grid : quant::known_grids()) {
    const bool has_one_width = grid.facts().least_bits == grid.facts().most_bits;
    words.push_back(fmt::format("{}{}", grid.facts().name,
                                has_one_width ? fmt::format(" ({} bits)", quant::bits_range(grid)) : ""));
  }
  return fmt::format("{}", fmt::join(words, " or "));
}

/// "bits a weight: 2 for seq, 2 to 8 for int"
std::string bits_words() {
  std::vector<std::string> words;
  for (const quant::Grid grid : quant::known_grids())
    words.push_back(fmt::format("{} for {}", quant::bits_range(grid), grid.facts().name));
  return fmt::format("bits a weight: {}", fmt::join(words, ", "));
}

/// A row a layer, a column a kind of linear.
void print_table(const QuantizeReport& report, const char* title, double (*value)(const TensorError&)) {
  const auto kinds = report.kinds();
  int layers = 0;
  for (const auto& tensor : report.tensors) layers = std::max(layers, tensor.layer + 1);
  fmt::print("  {}\n  {:>5}", title, "layer");
  for (const auto& kind : kinds) fmt::print(" {:>10}", kind);
  fmt::print("\n");
  for (int layer = 0; layer < layers; ++layer) {
    fmt::print("  {:>5}", layer);
    for (const auto& kind : kinds) {
      const auto at = [&](const TensorError& tensor) { return tensor.layer == layer && tensor.kind() == kind; };
      const auto found = std::find_if(report.tensors.begin(), report.tensors.end(), at);
      fmt::print(" {:>10}", found == report.tensors.end() ? "-" : fmt::format("{:.3g}", value(*found)));
    }
    fmt::print("\n");
  }
}

void print_tables(const QuantizeReport& report) {
  print_table(report, "relative squared error of weights", [](const TensorError& t) { return t.error.relative(); });
  const auto kinds = report.kinds();
  fmt::print("  {:>5}", "all");
  for (const auto& kind : kinds) fmt::print(" {:>10.3g}", report.of_kind(kind).relative());
  fmt::print("\n  {:>5}", "dB");
  for (const auto& kind : kinds) fmt::print(" {:>10.2f}", report.of_kind(kind).sqnr_db());
  fmt::print("\n");
  if (!report.has_outputs()) return;
  print_table(report, "relative squared error of outputs on the calibration text",
              [](const TensorError& t) { return t.output.relative(); });
  print_table(report, "largest input", [](const TensorError& t) { return t.largest_input; });
}

std::string words(const quant::QuantFormat& format) {
  return format.title() + (format.group_size == 0 ? "" : fmt::format(" g{}", format.group_size));
}

const quant::LinearFormats& linears_of(const QuantizeJob& job) {
  return std::visit([](const auto& method) -> const quant::LinearFormats& { return method.linears; }, job.method);
}

void print_budget(const ptq::BudgetReport& budget, const QuantizeJob& job) {
  const bool is_kl = budget.sensitivity == "fisher";
  fmt::print("budget: {} of {} bytes for {} linears; {} {:.4g}, and no choice of formats is below {:.4g}\n",
             format_count(budget.used_bytes), format_count(budget.budget_bytes), budget.lines.size(),
             is_kl ? "predicted KL" : "predicted loss", budget.loss, budget.bound);
  fmt::print("  {:<40} {:<20} {:>10}   {}\n", "linear", "format", "loses", "the next format would lose, for");
  for (const auto& line : budget.lines) {
    fmt::print("  {:<40} {:<20} {:>10.3g}", line.module, words(line.format), line.loss);
    if (line.next)
      fmt::print("   {}: {:.3g}, {} more", words(line.next->format), line.next->loss, format_bytes(line.next->bytes));
    fmt::print("\n");
  }
  fmt::print("  to have these without choosing again, under method:\n{}", budget.overrides_yaml(linears_of(job)));
}

void print_summary(const QuantizeReport& report, const QuantizeJob& job) {
  const auto total = report.total();
  fmt::print("{}: {} linears, {} weights at {:.3f} bits; {} parameters kept\n", job.output.string(),
             report.tensors.size(), format_count(total.weights), report.bits_per_weight(),
             format_count(report.kept_weights));
  if (report.pruned() > 0)
    fmt::print("  pruned: {} weights, {:.2f} %\n", format_count(report.pruned()),
               100.0 * static_cast<double>(report.pruned()) / static_cast<double>(total.weights));
  if (report.budget) print_budget(*report.budget, job);
  print_tables(report);
  fmt::print("  all linears: relative squared error {:.4g}, SQNR {:.2f} dB\n", total.relative(), total.sqnr_db());
  for (const auto& line : report.outstanding()) fmt::print("  {}\n", line);
}

nlohmann::json to_json(const quant::QuantFormat& format) {
  return {{"grid", format.grid.facts().name},
          {"bits", format.bits},
          {"symmetric", format.symmetric},
          {"zero_point", quant::zero_point_name(format)},
          {"group_size", format.group_size}};
}

nlohmann::json to_json(const ptq::BudgetReport& budget) {
  auto linears = nlohmann::json::array();
  for (const auto& line : budget.lines) {
    nlohmann::json entry = {{"name", line.module},
                            {"format", to_json(line.format)},
                            {"bytes", line.bytes},
                            {"loss", line.loss},
                            {"next", nullptr}};
    if (line.next)
      entry["next"] = {
          {"format", to_json(line.next->format)}, {"more_bytes", line.next->bytes}, {"loss", line.next->loss}};
    linears.push_back(std::move(entry));
  }
  return {{"sensitivity", budget.sensitivity},
          {"budget_bytes", budget.budget_bytes},
          {"used_bytes", budget.used_bytes},
          {"loss", budget.loss},
          {"bound", budget.bound},
          {"linears", linears}};
}

nlohmann::json to_json(const WeightError& error) {
  nlohmann::json out = {{"weights", error.weights}, {"relative_squared_error", error.relative()}};
  out["sqnr_db"] = std::isfinite(error.sqnr_db()) ? nlohmann::json(error.sqnr_db()) : nlohmann::json(nullptr);
  return out;
}

nlohmann::json to_json(const QuantizeReport& report, const QuantizeJob& job) {
  auto tensors = nlohmann::json::array();
  for (const auto& tensor : report.tensors) {
    auto entry = to_json(tensor.error);
    entry["name"] = tensor.module;
    entry["scales"] = tensor.scales;
    entry["clamped_scales"] = tensor.clamped_scales;
    entry["pruned"] = tensor.pruned;
    if (report.has_outputs()) {
      entry["relative_squared_error_of_outputs"] = tensor.output.relative();
      entry["largest_input"] = tensor.largest_input;
    }
    tensors.push_back(std::move(entry));
  }
  auto kinds = nlohmann::json::object();
  for (const auto& kind : report.kinds()) kinds[kind] = to_json(report.of_kind(kind));
  return {{"output", job.output.string()},
          {"method", ptq::method_name(job)},
          {"bits_per_weight", report.bits_per_weight()},
          {"kept_parameters", report.kept_weights},
          {"pruned", report.pruned()},
          {"budget", report.budget ? to_json(*report.budget) : nlohmann::json(nullptr)},
          {"tensors", tensors},
          {"kinds", kinds},
          {"total", to_json(report.total())}};
}

/// What there is to choose; the formats are not known without weights.
void print_frame(const QuantizePlan& plan, const QuantizeJob& job) {
  const auto& budget = *plan.budget;
  fmt::print("{}: {} parameters kept, {}\n", job.output.string(), format_count(plan.kept_parameters),
             format_bytes(plan.kept_bytes));
  if (budget.fixed_bytes > 0) fmt::print("  method.overrides names linears of {}\n", format_bytes(budget.fixed_bytes));
  fmt::print("  the budget leaves {} bytes ({}) for {} linears of {} weights: {:.3f} bits each\n",
             format_count(budget.bytes), format_bytes(budget.bytes), budget.linears.size(),
             format_count(budget.weights), budget.bits(budget.bytes));
  fmt::print(
      "  the choices reach from {:.3f} bits ({}) to {:.3f} ({}); which linear gets which is measured by the run\n",
      budget.bits(budget.least_bytes), format_bytes(budget.least_bytes), budget.bits(budget.most_bytes),
      format_bytes(budget.most_bytes));
  if (plan.added_head) fmt::print("  {}\n", ptq::to_text(*plan.added_head));
}

void print_plan(const QuantizePlan& plan, const QuantizeJob& job) {
  if (plan.budget) return print_frame(plan, job);
  const auto total = plan.total();
  fmt::print("{}: {} linears, {} weights at {:.3f} bits; {} parameters kept\n", job.output.string(), total.linears,
             format_count(total.weights), plan.bits_per_weight(), format_count(plan.kept_parameters));
  for (const auto& part : plan.parts) {
    fmt::print("  {:<22} {:>5} linears, {} weights, {}\n", words(part.format), part.linears, format_count(part.weights),
               format_bytes(part.bytes));
  }
  fmt::print("  {:<22} {} bytes ({}): codes {}, kept tensors {}{}\n", "in all", format_count(plan.all_bytes()),
             format_bytes(plan.all_bytes()), format_bytes(total.bytes), format_bytes(plan.kept_bytes),
             plan.masters_bytes == 0 ? "" : ", masters " + format_bytes(plan.masters_bytes));
  if (plan.added_head) fmt::print("  {}\n", ptq::to_text(*plan.added_head));
}

nlohmann::json to_json(const QuantizePlan& plan, const QuantizeJob& job) {
  auto formats = nlohmann::json::array();
  for (const auto& part : plan.parts) {
    auto entry = to_json(part.format);
    entry["mask"] = part.format.has_mask;
    entry["linears"] = part.linears;
    entry["weights"] = part.weights;
    entry["bytes"] = part.bytes;
    formats.push_back(std::move(entry));
  }
  const auto total = plan.total();
  nlohmann::json out = {{"output", job.output.string()},
                        {"method", ptq::method_name(job)},
                        {"linears", total.linears},
                        {"weights", total.weights},
                        {"bits_per_weight", plan.bits_per_weight()},
                        {"codes_bytes", total.bytes},
                        {"kept_parameters", plan.kept_parameters},
                        {"kept_bytes", plan.kept_bytes},
                        {"masters_bytes", plan.masters_bytes},
                        {"formats", formats},
                        {"budget", nullptr},
                        {"added_head", nullptr}};
  if (const auto& budget = plan.budget) {
    // What the method's keys alone would make is not what is made.
    for (const char* key : {"bits_per_weight", "codes_bytes", "formats"}) out[key] = nullptr;
    out["budget"] = {{"bytes", budget->bytes},
                     {"bits_per_weight", budget->bits(budget->bytes)},
                     {"least_bytes", budget->least_bytes},
                     {"most_bytes", budget->most_bytes},
                     {"fixed_bytes", budget->fixed_bytes},
                     {"linears", budget->linears.size()},
                     {"weights", budget->weights}};
  }
  if (const auto& head = plan.added_head)
    out["added_head"] = {{"parameters", head->parameters}, {"bytes", head->bytes}, {"dtype", head->dtype}};
  return out;
}

int run(const CLI::App& app, const Options& options, const Globals& globals) {
  const QuantizeJob job = read_job(app, options);
  if (options.print_config) {
    fmt::print("{}", to_yaml(write_config(job)));
    return kExitOk;
  }
  if (options.dry_run) {
    const QuantizePlan plan = ptq::plan_quantize(job, globals.force);
    if (globals.json)
      fmt::print("{}\n", dump_json(to_json(plan, job)));
    else
      print_plan(plan, job);
    return kExitOk;
  }
  ThreadPool pool(static_cast<int>(globals.threads));
  const QuantizeReport report = ptq::quantize(job, globals.force, pool);
  if (globals.json)
    fmt::print("{}\n", dump_json(to_json(report, job)));
  else
    print_summary(report, job);
  return kExitOk;
}

}  // namespace

Verb add_quantize(CLI::App& program, const Globals& globals) {
  auto options = std::make_shared<Options>();
  CLI::App* app = program.add_subcommand("quantize", "quantize a model without training: codes and scales in a minute");
  app->add_option("source", options->source, "HF folder or GGUF, or a job (*.yaml)")->required();
  app->add_option("overrides", options->overrides, "key=value of the job, for example method.bits=4");
  const ptq::RtnMethod usual;
  const auto& linears = usual.linears;
  app->add_option("--method", options->method,
                  "rtn: round to nearest; hqq, gptq, awq, smoothquant, autoround, blockwise: docs/ptq.md")
      ->default_str(usual.kName);
  app->add_option("--grid", options->grid, grid_words())->default_str(linears.grid);
  app->add_option("--bits", options->bits, bits_words())->default_str(fmt::format("{}", linears.bits));
  app->add_option("--group-size", options->group_size, "weights that share a scale; 0: a whole row")
      ->default_str(fmt::format("{}", linears.group_size));
  app->add_flag("--asymmetric", options->asymmetric,
                "grid int with zero points: integers, or floats with method.zero_point=float");
  app->add_option("--init", options->init, "scales: mse, absmax or absmean; hqq begins with absmax")
      ->default_str(usual.init);
  app->add_option("--exclude", options->exclude,
                  "glob on names of modules that stay as they are (repeatable); a bare word matches one part of a name")
      ->default_str(fmt::format("{}", fmt::join(linears.exclude, ", ")))
      ->allow_extra_args(false);
  app->add_option("--calibration", options->calibration,
                  "text whose activations gptq, awq, smoothquant, autoround, blockwise and rtn with "
                  "method.importance=activations look at "
                  "(repeatable)")
      ->allow_extra_args(false);
  app->add_option("-o,--output", options->output, "the folder to write");
  app->add_flag("--dry-run", options->dry_run, "print formats, bits and bytes of what would be made; write nothing");
  app->add_flag("--print-config", options->print_config, "print the whole job and stop");
  return {app, [app, options, &globals] { return run(*app, *options, globals); }};
}

}  // namespace crumb::cli
