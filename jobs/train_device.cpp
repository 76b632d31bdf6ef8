#include "jobs/train_device.h"

#include <ATen/Parallel.h>

#include <cstdlib>

#include "core/common/error.h"
#include "core/common/thread_pool.h"
#include "kernels/cpu_features.h"

namespace crumb::jobs {

bool uses_cuda(const TrainJob& job) { return job.device != "cpu" && torch::cuda::is_available(); }

std::string compute_type(const TrainJob& job) {
  if (job.compute != "auto") return job.compute;
  return uses_cuda(job) || kernels::has_fast_bf16() ? "bf16" : "fp32";
}

torch::Device choose_device(TrainJob& job) {
  if (job.device == "auto") job.device = uses_cuda(job) ? "cuda" : "cpu";
  CRUMB_CHECK(job.device != "cuda" || uses_cuda(job),
              "device: cuda, but Torch sees no GPU (this build or this machine has none); use device: cpu");
  return job.device == "cuda" ? torch::Device(torch::kCUDA) : torch::Device(torch::kCPU);
}

torch::ScalarType choose_compute(TrainJob& job) {
  job.compute = compute_type(job);
  return job.compute == "bf16" ? torch::kBFloat16 : torch::kFloat32;
}

void choose_threads(TrainJob& job) {
  if (job.threads.is_auto()) job.threads = static_cast<int64_t>(available_processors());
  setenv("MKL_DYNAMIC", "FALSE", 1);  // else MKL may use fewer threads than asked, and sums would change
  at::set_num_threads(static_cast<int>(*job.threads.value));
}

}  // namespace crumb::jobs
