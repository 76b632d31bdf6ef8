// crumb train job.yaml [key=value ...]: quantization-aware training, distillation, plain training.
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/print_plan.h"
#include "cli/verbs.h"
#include "core/common/error.h"
#include "core/common/json.h"
#include "core/common/log.h"
#include "core/common/progress.h"
#include "eval/report.h"
#include "jobs/train.h"

namespace crumb::cli {
namespace {

struct Arguments {
  std::string job;
  std::vector<std::string> overrides;
  bool dry_run = false, print_config = false;
};

void print_summary(const jobs::TrainResult& result) {
  const auto& summary = result.summary;
  const char* measure = summary.measure == "kl" ? "KL" : "cross-entropy";
  fmt::print("{}: {} of {} tokens in {} steps, {} at {:.0f} tokens/s\n", result.job.output.string(),
             format_count(summary.tokens), format_count(result.job.schedule.tokens.value_or(0)),
             format_count(summary.steps), format_duration(summary.seconds), summary.tokens_per_second);
  fmt::print("  model/: best by validation, {} {:.4f} nats a token at step {} ({:.4f} at the start)\n", measure,
             summary.best_value, summary.best_step, summary.start_value);
  if (summary.best_step == 0 && summary.steps > 0)
    log_warning("training did not improve on the start, which is what model/ holds; try a lower optimizer.lr");
  for (const auto& path : result.exports) fmt::print("  {}\n", path.string());
  for (const auto& evaluation : result.evaluations) fmt::print("\n{}", eval::to_table(evaluation));
}

nlohmann::ordered_json to_json(const jobs::TrainResult& result) {
  const auto& summary = result.summary;
  nlohmann::ordered_json json{{"output", result.job.output.string()},
                              {"steps", summary.steps},
                              {"tokens", summary.tokens},
                              {"stopped", summary.is_stopped},
                              {"measure", summary.measure},
                              {"start", summary.start_value},
                              {"best", summary.best_value},
                              {"best_step", summary.best_step},
                              {"lr", result.job.optimizer.lr.value_or(0)},
                              {"median_scale", result.median_scale},
                              {"seconds", summary.seconds},
                              {"tokens_per_second", summary.tokens_per_second}};
  json["exports"] = nlohmann::ordered_json::array();
  for (const auto& path : result.exports) json["exports"].push_back(path.string());
  json["evaluations"] = nlohmann::ordered_json::array();
  for (const auto& evaluation : result.evaluations) json["evaluations"].push_back(eval::to_json(evaluation));
  return json;
}

int finish(const jobs::TrainResult& result, const Globals& globals) {
  if (result.summary.is_stopped) {
    run_error("stopped by a signal after step {}; the checkpoint is saved, the same command goes on",
              result.summary.steps);
  }
  if (globals.json) {
    fmt::print("{}\n", dump_json(to_json(result)));
  } else {
    print_summary(result);
  }
  std::fflush(stdout);
  int code = kExitOk;
  for (const auto& evaluation : result.evaluations) {
    if (!evaluation.exceeded()) continue;
    print_error({eval::exceeded_text(evaluation)});
    code = kExitMaxDrop;
  }
  return code;
}

int run(const Arguments& arguments, const Globals& globals) {
  jobs::TrainJob job = jobs::load_train_job(arguments.job, arguments.overrides);
  if (globals.threads > 0) job.threads = globals.threads;
  if (arguments.print_config) {
    fmt::print("{}", to_yaml(write_config(job)));
    return kExitOk;
  }
  if (arguments.dry_run) {
    const jobs::DryRun plan = jobs::plan_train_job(std::move(job), globals.force);
    fmt::print("{}", globals.json ? dump_json(cli::to_json(plan)) + "\n" : to_text(plan));
    return kExitOk;
  }
  return finish(jobs::run_train_job(std::move(job), globals.force), globals);
}

}  // namespace

Verb add_train(CLI::App& program, const Globals& globals) {
  CLI::App* app = program.add_subcommand(
      "train", "Train a model: to two bits, from a teacher, or plainly; goes on where it was stopped");
  const auto a = std::make_shared<Arguments>();
  app->add_option("JOB", a->job, "job file (configs/, docs/config.md)")->required();
  app->add_option("key=value", a->overrides,
                  "settings that override the file: model=DIR data.train=[a.txt] output=runs/a");
  app->add_flag("--dry-run", a->dry_run,
                "print parameters, steps, memory, time and the bytes of the final file; train nothing");
  app->add_flag("--print-config", a->print_config, "print the job with every setting");
  return {app, [a, &globals] { return run(*a, globals); }};
}

}  // namespace crumb::cli
