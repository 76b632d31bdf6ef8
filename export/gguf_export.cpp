#include <unistd.h>

#include <algorithm>

#include "core/arch/gguf_metadata.h"
#include "core/common/error.h"
#include "core/formats/gguf.h"
#include "export/tensor_rows.h"
#include "export/writers.h"

namespace crumb::exporting {
namespace {

using formats::TensorType;

constexpr uint32_t kQuantizationVersion = 2;  // of ggml's block types

/// general.file_type: llama.cpp's llama_ftype; 39 is Q2_0C in its pull request 19357 and in the published files.
uint32_t file_type(TensorType type) {
  switch (type) {
    case TensorType::f32:
      return 0;
    case TensorType::f16:
      return 1;
    case TensorType::q4_0:
      return 2;
    case TensorType::q4_1:
      return 3;
    case TensorType::q8_0:
      return 7;
    case TensorType::q2_k:
      return 10;
    case TensorType::q6_k:
      return 18;
    case TensorType::bf16:
      return 32;
    case TensorType::q2_0c:
      return 39;
    default:
      CRUMB_ASSERT(false && "a target of a type that is only read");
  }
  return 0;
}

/// The folder's name; runs are told apart by their own folder, not by its "model" inside.
std::string model_name(const quant::Checkpoint& checkpoint) {
  Path path = std::filesystem::absolute(checkpoint.path()).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  const bool inside_run = path.filename() == "model" || path.filename() == "last";
  return (inside_run ? path.parent_path() : path).filename().string();
}

void set_metadata(const ExportJob& job, formats::GgufWriter& writer) {
  const auto& spec = job.checkpoint.spec();
  arch::set_gguf_metadata(spec, writer);
  writer.set_string("general.type", "model");
  writer.set_string("general.name", model_name(job.checkpoint));
  writer.set_u32("general.file_type", file_type(job.plan.main_type()));
  const bool has_blocks = std::ranges::any_of(
      job.plan.tensors, [](const PlannedTensor& tensor) { return formats::block_size(tensor.type) > 1; });
  if (has_blocks) writer.set_u32("general.quantization_version", kQuantizationVersion);
  job.checkpoint.load_tokenizer()->set_gguf_metadata(spec.vocab_size, writer);
}

void write_tensor(ExportJob& job, const PlannedTensor& planned, formats::GgufWriter& writer) {
  if (planned.desc.id.slot == arch::Slot::rope_freqs) {
    const auto freqs = arch::rope_freqs(job.checkpoint.spec());
    writer.write(freqs.data(), planned.bytes);
    return;
  }
  TensorRows rows(job.checkpoint, planned, RowOrder::gguf, job.pool);
  for (int64_t begin = 0; begin < rows.rows(); begin += rows.block_rows()) {
    const auto bytes = rows.encode(begin, std::min(rows.rows(), begin + rows.block_rows()));
    writer.write(bytes.data(), static_cast<int64_t>(bytes.size()));
    job.progress.add(static_cast<int64_t>(bytes.size()));
  }
  if (rows.was_rounded()) job.rounded.insert(planned.desc.hf_name);
  if (rows.lost_rows() > 0) job.lost[planned.desc.hf_name] = rows.lost_rows();
}

void check_tensor(ExportJob& job, const PlannedTensor& planned, const formats::GgufReader& file) {
  const auto& tensor = file.tensor(planned.desc.gguf.name);
  if (tensor.type != planned.type || tensor.shape != planned.desc.shape || tensor.bytes != planned.bytes)
    run_error("read-back of {}: type or shape differs from what was written", planned.desc.gguf.name);
  const auto bytes = file.bytes(tensor);
  if (planned.desc.id.slot == arch::Slot::rope_freqs) {
    const auto freqs = arch::rope_freqs(job.checkpoint.spec());
    if (!std::equal(bytes.begin(), bytes.end(), reinterpret_cast<const uint8_t*>(freqs.data())))
      run_error("read-back of {}: values differ from what was written", planned.desc.gguf.name);
    return;
  }
  TensorRows rows(job.checkpoint, planned, RowOrder::gguf, job.pool);
  for (int64_t begin = 0; begin < rows.rows(); begin += rows.block_rows()) {
    const int64_t end = std::min(rows.rows(), begin + rows.block_rows());
    const int64_t size = (end - begin) * rows.row_bytes();
    rows.check(begin, end, bytes.subspan(static_cast<size_t>(begin * rows.row_bytes()), static_cast<size_t>(size)));
    file.release_rows(tensor, begin, end);
    job.progress.add(size);
  }
}

void check_tokens(const tokenizer::Tokenizer& source, const tokenizer::Tokenizer& written) {
  for (tokenizer::TokenId id = 0; id < source.vocab_size(); ++id) {
    if (written.token_bytes(id) != source.token_bytes(id))
      run_error("read-back: token {} of the vocabulary differs from what was written", id);
  }
}

}  // namespace

void check_gguf_vocabulary(const arch::DecoderSpec& spec, const tokenizer::Tokenizer& tokenizer) {
  formats::GgufWriter writer;
  arch::set_gguf_metadata(spec, writer);
  tokenizer.set_gguf_metadata(spec.vocab_size, writer);
  writer.begin(temporary_folder() / fmt::format("crumb-vocabulary-{}.gguf", getpid()));
  writer.finish();
  const formats::GgufReader file(writer.temporary_path());  // which goes with the writer, as it is not committed
  check_tokens(tokenizer, *tokenizer::load_tokenizer(file));
}

void write_gguf(ExportJob& job) {
  formats::GgufWriter writer;
  set_metadata(job, writer);
  for (const auto& planned : job.plan.tensors) writer.declare(planned.desc.gguf.name, planned.type, planned.desc.shape);
  writer.begin(job.output, job.overwrite);
  for (const auto& planned : job.plan.tensors) write_tensor(job, planned, writer);
  writer.finish();

  {
    const formats::GgufReader file(writer.temporary_path());
    if (file.tensors().size() != job.plan.tensors.size()) run_error("read-back: the number of tensors differs");
    for (const auto& planned : job.plan.tensors) check_tensor(job, planned, file);
    arch::check_read_back(file, job.checkpoint.spec());
    job.checked_tensors = static_cast<int64_t>(file.tensors().size());
    job.file_bytes = file.file_bytes();
  }
  const auto written = quant::open_checkpoint(writer.temporary_path());
  check_tokens(*job.checkpoint.load_tokenizer(), *written->load_tokenizer());
  writer.commit();
}

}  // namespace crumb::exporting
