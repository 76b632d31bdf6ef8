#include "jobs/train_output.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "core/common/error.h"
#include "core/common/file.h"
#include "train/checkpoint.h"

namespace crumb::jobs {
namespace {

namespace fs = std::filesystem;

constexpr const char* kTokens = "tokens";  // where no cache folder can be written

/// What a run makes in its output folder, and what `--force` removes. Token files stay: their names say their content.
constexpr const char* kRunFiles[] = {"job.yaml", "log.jsonl",   "curves.html", "checkpoints", "model",        "last",
                                     "export",   "report.json", "report.md",   kStartFolder,  "start.partial"};

void require_inputs_apart(const TrainJob& job) {
  const std::vector<Path> folders = {job.model.source(), job.teacher.value_or({}), job.init_from.value_or({})};
  std::vector<Path> inputs = folders;
  if (const auto* qat = job.qat(); qat != nullptr && qat->start() != nullptr) inputs.push_back(*qat->start());
  if (job.model.tokenizer) inputs.push_back(*job.model.tokenizer);
  if (job.data.valid_path() != nullptr) inputs.push_back(*job.data.valid_path());
  for (const auto& source : job.data.train) inputs.push_back(source.path);
  for (const auto& text : job.evaluate.texts) inputs.push_back(text);
  for (const char* name : kRunFiles) require_apart(job.output / name, inputs);
  for (const Path& folder : folders) {
    std::error_code absent;
    CRUMB_CHECK(!fs::equivalent(job.output, folder, absent), "output: {} is read by the job; choose another",
                job.output.string());
  }
}

bool is_run(const ConfigValue& job) {
  return job.kind == ConfigValue::Kind::map && job.find("model") != nullptr && job.find("method") != nullptr;
}

/// A folder of something else may be used by force, but nothing in it is taken away.
void require_no_namesakes(const Path& output) {
  for (const char* name : kRunFiles)
    CRUMB_CHECK(!is_there(output / name), "{} exists and is not of a training run; choose another output",
                (output / name).string());
}

/// Nothing there but what a run that was killed before its first step leaves.
bool is_free(const Path& folder) {
  if (!is_there(folder)) return true;
  if (!is_folder(folder)) return false;
  const auto paths = paths_in(folder);
  return std::all_of(paths.begin(), paths.end(),
                     [](const Path& path) { return path.filename() == kTokens || is_leftover(path); });
}

void remove_all_leftovers(const Path& output) {
  for (const char* folder : {"", "export", kTokens}) remove_leftovers(output / folder);
}

}  // namespace

void check_train_output(TrainJob& job, bool force) {
  require_inputs_apart(job);
  const Path stored_path = job.output / "job.yaml";
  const bool is_stored = is_there(stored_path);
  const ConfigValue stored = is_stored ? parse_yaml_file(stored_path) : ConfigValue();
  CRUMB_CHECK(!is_stored || is_run(stored), "{} is not the job of a training run; choose another output",
              stored_path.string());
  if (is_stored && !force) {
    const ConfigValue now = write_config(job);
    const auto changes = changes_not_allowed(stored, now);
    CRUMB_CHECK(changes.empty(), "{} holds a run of another job ({}); choose another output, or --force to start again",
                job.output.string(), fmt::join(changes, "; "));
    CRUMB_CHECK(
        !is_there(job.output / "last") || train::newest_checkpoint(job.output).has_value(),
        "{} holds a finished run without a checkpoint to go on from; choose another output, or --force to start "
        "again",
        job.output.string());
    job = read_config<TrainJob>(with_stored_autos(stored, now));
    return;
  }
  if (!is_stored && is_there(job.output)) require_no_namesakes(job.output);
  CRUMB_CHECK(force || is_free(job.output),
              "{} exists and is not a training run; choose another output, or --force to use it", job.output.string());
}

void prepare_train_output(const TrainJob& job, bool force) {
  const Path stored_path = job.output / "job.yaml";
  const bool goes_on = is_there(stored_path) && !force;
  if (goes_on || is_free(job.output)) remove_all_leftovers(job.output);
  if (goes_on) return;
  require_new_output(job.output, true);
  if (is_there(job.output)) require_new_output(stored_path, true);  // tells an unwritable folder before the work
}

void claim_train_output(const TrainJob& job, bool force, std::optional<FolderLock>& lock) {
  if (!lock) {
    make_folders(job.output);
    lock.emplace(job.output);
    CRUMB_CHECK(force || is_free(job.output), "{} has become another run's meanwhile; choose another output",
                job.output.string());
  }
  if (!force) return;
  for (const char* name : kRunFiles) {
    std::error_code error;
    fs::remove_all(job.output / name, error);
    if (error) run_error("cannot remove {}: {}", (job.output / name).string(), error.message());
  }
}

}  // namespace crumb::jobs
