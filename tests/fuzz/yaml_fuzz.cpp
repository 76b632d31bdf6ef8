// Parts: a job in YAML, then key=value arguments. Read into the sections of a job that need no Torch; what was read,
// written out and read again is the same.
#include "core/common/config.h"
#include "eval/evaluate.h"
#include "quant/method_options.h"
#include "tests/fuzz/fuzz.h"
#include "train/options.h"

namespace crumb::fuzz {
namespace {

struct Job {
  quant::MethodOptions method;
  train::TrainedParts train;
  train::DataOptions data;
  train::OptimizerOptions optimizer;
  train::ScheduleOptions schedule;
  train::ValidateOptions validate;
  train::CheckpointOptions checkpoint;
  eval::EvalOptions evaluate;
  Path output;
  Auto<int64_t> threads;
  std::vector<std::string> export_targets;

  template <class V>
  void visit(V& v) {
    v.section("method", method, "");
    v.section("train", train, "");
    v.section("data", data, "");
    v.section("optimizer", optimizer, "");
    v.section("schedule", schedule, "");
    v.section("validate", validate, "");
    v.section("checkpoint", checkpoint, "");
    v.section("evaluate", evaluate, "");
    v.field("output", output, "");
    v.field("threads", threads, "", {.min = 1, .max = 1024});
    v.field("export", export_targets, "");
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto parts = cut(as_text(data, size), 4);
  survives([&] {
    ConfigValue tree = parse_yaml_text(parts[0], "job.yaml");
    survives([&] { apply_overrides(tree, {parts.begin() + 1, parts.end()}); });
    const std::string written = to_yaml(write_config(read_config<Job>(tree)));
    const auto again = read_config<Job>(parse_yaml_text(written, "written"));
    CRUMB_ASSERT(to_yaml(write_config(again)) == written);
  });
  return 0;
}

}  // namespace crumb::fuzz
