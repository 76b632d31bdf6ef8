#include <algorithm>

#include "core/common/error.h"
#include "core/common/json.h"
#include "core/formats/safetensors.h"
#include "export/tensor_rows.h"
#include "export/writers.h"

namespace crumb::exporting {
namespace {

constexpr int64_t kMaxShardBytes = 5'000'000'000;

/// The source's config.json as that of an ordinary bf16 model.
void write_config(const quant::Checkpoint& checkpoint, const Path& folder) {
  nlohmann::json config = checkpoint.hf_config();
  config.erase("quantization_config");
  const bool has_both = config.contains("dtype") && config.contains("torch_dtype");
  if (has_both) config.erase("torch_dtype");  // the older name
  config[config.contains("dtype") ? "dtype" : "torch_dtype"] = "bfloat16";
  write_text(folder / "config.json", dump_json(config, 2) + "\n");
}

void write_weights(ExportJob& job, const Path& folder) {
  formats::SafetensorsWriter writer;
  for (const auto& planned : job.plan.tensors)
    writer.declare(planned.desc.hf_name, formats::DType::bf16, planned.desc.shape);
  writer.begin_folder(folder, kMaxShardBytes);
  for (const auto& planned : job.plan.tensors) {
    TensorRows rows(job.checkpoint, planned, RowOrder::hf, job.pool);
    for (int64_t begin = 0; begin < rows.rows(); begin += rows.block_rows()) {
      const auto bytes = rows.encode(begin, std::min(rows.rows(), begin + rows.block_rows()));
      writer.write(bytes.data(), static_cast<int64_t>(bytes.size()));
      job.progress.add(static_cast<int64_t>(bytes.size()));
    }
    if (rows.was_rounded()) job.rounded.insert(planned.desc.hf_name);
    if (rows.lost_rows() > 0) job.lost[planned.desc.hf_name] = rows.lost_rows();
  }
  writer.finish();
}

void check_weights(ExportJob& job, const Path& folder) {
  const formats::SafetensorsReader file(folder);
  if (file.tensors().size() != job.plan.tensors.size()) run_error("read-back: the number of tensors differs");
  for (const auto& planned : job.plan.tensors) {
    const auto& info = file.at(planned.desc.hf_name);
    if (info.dtype != formats::DType::bf16 || info.shape != planned.desc.shape)
      run_error("read-back of {}: type or shape differs from what was written", planned.desc.hf_name);
    TensorRows rows(job.checkpoint, planned, RowOrder::hf, job.pool);
    for (int64_t begin = 0; begin < rows.rows(); begin += rows.block_rows()) {
      const int64_t end = std::min(rows.rows(), begin + rows.block_rows());
      const int64_t size = (end - begin) * rows.row_bytes();
      rows.check(begin, end,
                 file.bytes(info).subspan(static_cast<size_t>(begin * rows.row_bytes()), static_cast<size_t>(size)));
      file.release_rows(info, begin, end);
      job.progress.add(size);
    }
  }
  job.checked_tensors = static_cast<int64_t>(file.tensors().size());
}

int64_t folder_bytes(const Path& folder) {
  int64_t bytes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    bytes += entry.is_regular_file() ? static_cast<int64_t>(entry.file_size()) : 0;
  return bytes;
}

}  // namespace

void write_hf(ExportJob& job) {
  AtomicFolder folder(job.output, job.overwrite);
  write_config(job.checkpoint, folder.temporary_path());
  job.checkpoint.write_companions(folder.temporary_path());
  write_weights(job, folder.temporary_path());
  check_weights(job, folder.temporary_path());
  quant::check_vocabulary(
      *quant::open_checkpoint(folder.temporary_path()));  // config.json and the tokenizer read again
  job.file_bytes = folder_bytes(folder.temporary_path());
  if (job.overwrite == Overwrite::yes)  // again: it may have become another folder
    quant::require_model_output(job.output, true, job.checkpoint.path());
  folder.commit();
}

}  // namespace crumb::exporting
