// Beside train_job.cpp, because these checks ask what can be trained: a job is also read where there is no LibTorch.
#include <fmt/ranges.h>

#include <algorithm>

#include "core/common/error.h"
#include "export/export.h"
#include "jobs/train_job.h"

namespace crumb::jobs {
namespace {

Path to_absolute(const Path& path) { return path.empty() ? path : std::filesystem::absolute(path).lexically_normal(); }

/// A job is stored in its output folder, where relative paths would mean something else.
void make_paths_absolute(TrainJob& job) {
  job.output = to_absolute(job.output);
  for (auto* path :
       {&job.model.path, &job.model.config, &job.model.tokenizer, &job.teacher.value, &job.init_from.value})
    if (*path) **path = to_absolute(**path);
  if (auto* valid = std::get_if<Path>(&job.data.valid)) *valid = to_absolute(*valid);
  if (auto* qat = std::get_if<qat::QatMethod>(&job.method)) {
    if (auto* start = std::get_if<Path>(&qat->init)) *start = to_absolute(*start);
  }
  for (auto& source : job.data.train) source.path = to_absolute(source.path);
  for (auto& text : job.evaluate.texts) text = to_absolute(text);
}

void check(const TrainJob& job) {
  if (job.quantizes()) job.qat()->check();
  const bool makes_start = job.quantizes() && job.qat()->makes_start();
  CRUMB_CHECK(makes_start || !job.rotation.rotates(),
              "rotation: is for method.init: gptq or blockwise; a folder of `crumb quantize` brings its own");
  CRUMB_CHECK(makes_start || (job.calibration.tokens.is_auto() && job.calibration.memory.is_word()),
              "calibration: is for method.init: gptq or blockwise");
  CRUMB_CHECK(!job.rotation.residual || job.teacher.is_word() || job.objective.hidden_mse == 0,
              "objective.hidden_mse: rotation.residual turns the states of the model, those of another teacher stay; "
              "leave teacher: self, or set hidden_mse to 0");
  CRUMB_CHECK(!makes_start || job.init_from.is_word(),
              "init_from: brings what method.init: gptq or blockwise would make; give one of them");
  distill::check_weights(job.objective);
  CRUMB_CHECK(job.optimizer.betas.size() == 2, "optimizer.betas: expected two numbers, got {}",
              job.optimizer.betas.size());
  CRUMB_CHECK(!job.quantizes() || !job.model.is_random(),
              "model.init: random values are trained with method.name: none");
  const bool needs_other_teacher =
      job.model.is_random() && job.teacher.is_word() && distill::needs_teacher(job.objective);
  CRUMB_CHECK(!needs_other_teacher,
              "teacher: a model of random values cannot teach itself; set objective: {{kl: 0, cross_entropy: 1}}, or "
              "name another teacher");
  for (const auto& target : job.export_targets) {
    const auto& known = exporting::target_names();
    CRUMB_CHECK(std::find(known.begin(), known.end(), target) != known.end(),
                "export: unknown target \"{}\"; known: {}", target, fmt::join(known, ", "));
  }
  CRUMB_CHECK(!job.model.is_random() || job.evaluate.max_drop.size() == 0,
              "evaluate.max_drop: a model of random values has no baseline to drop from");
  CRUMB_CHECK(!job.evaluate.max_drop.size() || !job.evaluate.texts.empty(), "evaluate.max_drop: needs evaluate.text");
}

}  // namespace

TrainJob load_train_job(const Path& file, const std::vector<std::string>& overrides) {
  ConfigValue tree = parse_yaml_file(file);
  apply_overrides(tree, overrides);
  auto job = read_config<TrainJob>(tree);
  make_paths_absolute(job);
  check(job);
  return job;
}

}  // namespace crumb::jobs
