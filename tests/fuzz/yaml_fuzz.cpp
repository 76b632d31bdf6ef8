// Parts: a job of crumb train in YAML, then key=value arguments. What was read, written out and read again is the same.
#include "jobs/train_job.h"
#include "tests/fuzz/fuzz.h"

namespace crumb::fuzz {

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto parts = cut(as_text(data, size), 4);
  survives([&] {
    ConfigValue tree = parse_yaml_text(parts[0], "job.yaml");
    survives([&] { apply_overrides(tree, {parts.begin() + 1, parts.end()}); });
    const std::string written = to_yaml(write_config(read_config<jobs::TrainJob>(tree)));
    const auto again = read_config<jobs::TrainJob>(parse_yaml_text(written, "written"));
    CRUMB_ASSERT(to_yaml(write_config(again)) == written);
  });
  return 0;
}

}  // namespace crumb::fuzz
