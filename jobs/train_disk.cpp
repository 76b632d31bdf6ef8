#include "jobs/train_disk.h"

#include <sys/statvfs.h>

#include <cerrno>

#include "core/common/error.h"
#include "core/common/log.h"
#include "core/common/quantity.h"
#include "model/float_model.h"
#include "quant/checkpoint.h"
#include "quant/codes_parts.h"
#include "train/parameters.h"

namespace crumb::jobs {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kFloat = 4;
constexpr int64_t kShapeBytes = 16;  // beside the codes of a linear

/// Of a weight that is not quantized.
int64_t plain_bytes(const TrainJob& job) {
  if (!job.model.is_gguf()) return formats::dtype_bytes(model::stored_dtype(model::read_hf_config(job.model.source())));
  if (job.quantizes()) return kFloat;  // block types are kept as float32
  return formats::dtype_bytes(model::stored_dtype(quant::open_checkpoint(job.model.source())->hf_config()));
}

int64_t held_bytes(const Path& output) {
  int64_t bytes = 0;
  std::error_code none;
  for (const char* name : {"checkpoints", "model", "last", "export", kStartFolder}) {
    for (const auto& entry : fs::recursive_directory_iterator(output / name, none))
      bytes += entry.is_regular_file(none) ? static_cast<int64_t>(entry.file_size(none)) : 0;
  }
  return bytes;
}

}  // namespace

DiskEstimate estimate_disk(const TrainJob& job, const arch::DecoderSpec& spec,
                           const std::map<std::string, quant::QuantFormat>& formats,
                           const std::vector<exporting::ExportPlan>& plans) {
  const int64_t plain = plain_bytes(job);
  int64_t scales = 0;
  const bool makes_start = job.quantizes() && job.qat()->makes_start();
  DiskEstimate disk{.kept = job.checkpoint.keep};
  for (const auto& desc : arch::tensor_table(spec)) {
    const auto format = formats.find(desc.hf_name);
    if (format == formats.end()) {
      disk.model += desc.elements() * (arch::is_small(desc.role) && job.quantizes() ? kFloat : plain);
      continue;
    }
    disk.model += quant::codes_bytes(desc.rows(), desc.cols(), format->second) + kShapeBytes;
    if (makes_start) disk.start += kFloat * desc.elements();
    if (job.train.linears) scales += desc.rows() * format->second.groups(desc.cols());
  }
  if (makes_start) disk.start += disk.model;
  const int64_t masters = train::count_trained(spec, job.train), copies = job.optimizer.ema > 0 ? 4 : 3;
  disk.checkpoint = kFloat * (masters + train::count_optimizer_state(spec, job.train, job.optimizer) + copies * scales);
  for (const auto& plan : plans) disk.exports += plan.data_bytes;
  return disk;
}

int64_t free_bytes(const Path& output) {
  std::error_code none;
  Path folder = fs::absolute(output);
  while (!fs::exists(folder, none) && folder.has_relative_path()) folder = folder.parent_path();
  struct statvfs disk {};
  CRUMB_CHECK(statvfs(folder.c_str(), &disk) == 0, "{}: {}", folder.string(), system_error_text(errno));
  return static_cast<int64_t>(disk.f_bavail) * static_cast<int64_t>(disk.f_frsize);
}

void warn_about_space(const DiskEstimate& disk, const Path& output) {
  const int64_t needed = disk.total() - held_bytes(output), free = free_bytes(output);
  if (needed <= free) return;
  log_warning(
      "{} may take {} more, and {} are free there: {} checkpoints of {} (one more than checkpoint.keep) and "
      "the models; lower checkpoint.keep, make room, or choose another output",
      output.string(), format_bytes(needed), format_bytes(free), disk.kept + 1, format_bytes(disk.checkpoint));
}

}  // namespace crumb::jobs
