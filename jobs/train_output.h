// The folder of a training run: whose it is, and what a run may take away in it.
#pragma once

#include <optional>
#include <string>

#include "jobs/train_job.h"

namespace crumb::jobs {

/// Looks at job.output before any work and changes nothing. A run of this job goes on: what is auto in `job` becomes
/// what it was resolved to. An empty place is a new run. UserError: a run of another job or a folder of something else
/// (unless `force`, which still takes away nothing but a run's own files), or an output that is or holds what the job
/// reads.
void check_train_output(TrainJob& job, bool force);

/// Then: removes leftovers of killed runs. UserError: a place that cannot be written.
void prepare_train_output(const TrainJob& job, bool force);

/// Makes the folder of a new run and takes its lock, where it is not held yet; then, with `force`, removes what an
/// earlier run left there. Call it when nothing that the user can mistype is left to fail. UserError: another process
/// works there, or has done so since check_train_output().
void claim_train_output(const TrainJob& job, bool force, std::optional<FolderLock>& lock);

}  // namespace crumb::jobs
