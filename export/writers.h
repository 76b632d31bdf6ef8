// The two kinds of output behind export_checkpoint(). Each writes under a temporary name, reads that back, compares and
// only then renames.
#pragma once

#include <map>
#include <set>
#include <string>

#include "core/common/progress.h"
#include "core/common/thread_pool.h"
#include "export/export.h"

namespace crumb::exporting {

/// What a writer needs and what it finds out.
struct ExportJob {
  const quant::Checkpoint& checkpoint;
  const ExportPlan& plan;
  Path output;
  Overwrite overwrite;
  ThreadPool& pool;
  Progress& progress;                        // counts tensor bytes, once written and once compared
  std::set<std::string> rounded = {};        // names of the tensors a 16-bit type rounded
  std::map<std::string, int64_t> lost = {};  // rows that a block type does not hold, by name
  int64_t file_bytes = 0;
  int64_t checked_tensors = 0;
};

void write_gguf(ExportJob& job);
/// See check_vocabulary_exports().
void check_gguf_vocabulary(const arch::DecoderSpec& spec, const tokenizer::Tokenizer& tokenizer);
void write_hf(ExportJob& job);

}  // namespace crumb::exporting
