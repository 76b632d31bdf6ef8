// What a training run computes on.
#pragma once

#include <torch/torch.h>

#include <string>

#include "jobs/train_job.h"

namespace crumb::jobs {

/// Whether it computes on a GPU: the job says so, or leaves it open and Torch sees one.
bool uses_cuda(const TrainJob& job);

/// Type of the matrix products, "fp32" or "bf16": what the job says, or what auto means here.
std::string compute_type(const TrainJob& job);

/// What is auto in job.device becomes what it is. UserError: cuda without a GPU.
torch::Device choose_device(TrainJob& job);

/// Type of the matrix products; what is auto becomes what it is. After choose_device.
torch::ScalarType choose_compute(TrainJob& job);

/// Sets the threads of Torch; what is auto becomes their number.
void choose_threads(TrainJob& job);

}  // namespace crumb::jobs
