// Prints docs/config.md: every key of every job, from the option structs. scripts/make_docs.sh writes the page, the
// tests compare it.
#include <cstdio>
#include <string>

#include "core/common/config.h"
#include "jobs/train_job.h"
#include "ptq/quantize.h"

namespace {

template <class Job>
std::string page_of(const char* title, const char* about) {
  Job job;
  crumb::ConfigDocs docs;
  const std::string head = std::string("\n## ") + title + "\n\n" + about +
                           "\n\n| key | type | default | allowed | meaning |\n|---|---|---|---|---|\n";
  job.visit(docs);
  return head + docs.markdown();
}

}  // namespace

int main() {
  std::string text =
      "# Configuration\n\n"
      "Generated from the option structs by `scripts/make_docs.sh`; do not edit.\n\n"
      "A job is one YAML file. Any key can be overridden on the command line as `dotted.key=value`; the value is YAML. "
      "Unknown keys, values out of\n"
      "range and missing ones are errors that name file, line and column. Counts may be written `10M` (2^20) or `16k` "
      "(1024), shares as `3%`. `auto` is\n"
      "resolved once and stored in the job.yaml of the run. Paths in a file are relative to the file, on the command "
      "line to the working directory.\n"
      "`--print-config` prints the job with every default.\n";
  text += page_of<crumb::jobs::TrainJob>("crumb train",
                                         "Examples: `configs/qat/`, `configs/distill/`, `configs/pretrain/`.");
  text += page_of<crumb::ptq::QuantizeJob>("crumb quantize",
                                           "Examples: `configs/ptq/`. What a method does without training.");
  std::fputs(text.c_str(), stdout);
  return 0;
}
