// crumb bench: how fast models run here, beside each other.
#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cli/named_model.h"
#include "cli/numbers.h"
#include "cli/print_now.h"
#include "cli/sampling_options.h"
#include "cli/verbs.h"
#include "core/common/error.h"
#include "core/common/file.h"
#include "core/common/thread_pool.h"
#include "jobs/bench_report.h"

namespace crumb::cli {
namespace {

struct Arguments {
  std::vector<std::string> models, activations = {"auto"};
  std::vector<int64_t> prompts, contexts, threads;
  int64_t new_tokens = jobs::BenchJob().new_tokens, rounds = jobs::BenchJob().rounds;
  std::string cache_type = "f16", device = "cpu", format, out, plot;
};

/// The format that the name of a report says.
std::string format_of(const Path& path) {
  const std::string ending = path.extension().string();
  CRUMB_CHECK(ending == ".md" || ending == ".json" || ending == ".csv",
              "--out: {}: the name must end in .md, .json or .csv", path.string());
  return ending.substr(1);
}

jobs::BenchJob make_job(const Arguments& arguments, const Globals& globals) {
  jobs::BenchJob job;
  for (const auto& model : arguments.models) job.models.push_back(named_model(model));
  job.activations.clear();
  for (const auto& name : arguments.activations) {
    const auto precision = runtime::precision_from_names(name, arguments.cache_type, arguments.device);
    const auto activations = precision.activations;
    job.cache_type = precision.cache_type;
    job.device = precision.device;
    CRUMB_CHECK(std::ranges::count(job.activations, activations) == 0, "--activations: {} is given twice", name);
    job.activations.push_back(activations);
  }
  if (!arguments.prompts.empty()) job.prompts = arguments.prompts;
  if (!arguments.contexts.empty()) job.contexts = arguments.contexts;
  CRUMB_CHECK(arguments.threads.empty() || globals.threads == 0,
              "--threads is given before and behind the verb; give it once");
  job.threads = arguments.threads.empty() ? std::vector{globals.threads} : arguments.threads;
  job.new_tokens = arguments.new_tokens;
  job.rounds = arguments.rounds;
  return job;
}

std::string shown_format(const Arguments& arguments, const Globals& globals) {
  if (arguments.format.empty()) return globals.json ? "json" : "md";
  jobs::check_bench_format(arguments.format, "--format");
  CRUMB_CHECK(!globals.json || arguments.format == "json", "--format {} and --json say different things",
              arguments.format);
  return arguments.format;
}

int run(const Arguments& arguments, const Globals& globals) {
  const auto job = make_job(arguments, globals);
  const std::string format = shown_format(arguments, globals);
  const Path out = arguments.out, plot = arguments.plot;
  const std::string out_format = out.empty() ? "" : format_of(out);
  CRUMB_CHECK(plot.empty() || plot.extension() == ".svg", "--plot: {}: the name must end in .svg", plot.string());
  for (const Path& file : {out, plot}) {
    if (!file.empty()) require_new_file(file, globals.force);
  }
  const auto result = jobs::bench(job);
  print_now(jobs::bench_text(result, format, "--format"));  // before a full disk can lose it
  if (!out.empty()) write_text(out, jobs::bench_text(result, out_format, "--out"), Overwrite{globals.force});
  if (!plot.empty()) write_text(plot, jobs::bench_svg(result), Overwrite{globals.force});
  return kExitOk;
}

}  // namespace

Verb add_bench(CLI::App& program, const Globals& globals) {
  auto* app = program.add_subcommand(
      "bench", "Time to first token, tokens a second, memory and bandwidth of models, measured in turns");
  const auto a = std::make_shared<Arguments>();
  app->add_option("MODEL", a->models, "NAME=PATH or PATH of an HF folder, codes-and-scales folder or GGUF; several")
      ->required();
  app->add_option("--activations", a->activations,
                  "what linears read: float, bf16, int8 (of quantized ones), auto (int8 where a model has such "
                  "linears), or several to "
                  "compare them: float,int8")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->capture_default_str();
  app->add_option("--cache-type", a->cache_type, "what keys and values are held in: f32, f16 or q8")
      ->capture_default_str();
  add_device(*app, a->device);
  add_wholes(*app, "--prompt", a->prompts,
             "tokens of prompts whose first new token is waited for; default: 64,128,256,512,1024 as far as the "
             "models hold them",
             {.least = 1});
  add_wholes(*app, "--context", a->contexts,
             "tokens before those whose speed is measured; default: 0,512 as far as the models hold them");
  add_whole(*app, "--new", a->new_tokens, "tokens whose speed is measured", {.least = 1});
  add_whole(*app, "--rounds", a->rounds, "times that everything is measured", {.least = 1});
  add_wholes(*app, "--threads", a->threads, "threads to use, several to compare; 0: one per processor",
             {.most = kMostThreads});
  app->add_option("--format", a->format, "what is printed: md, json or csv; default: md");
  app->add_option("-o,--out", a->out, "write a report, too: NAME.md, NAME.json or NAME.csv; default: none");
  app->add_option("--plot", a->plot, "write bars: NAME.svg; default: none");
  return {app, [a, &globals] { return run(*a, globals); }};
}

}  // namespace crumb::cli
