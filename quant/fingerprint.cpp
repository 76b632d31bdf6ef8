#include "quant/fingerprint.h"

#include <sys/stat.h>

#include <cerrno>
#include <vector>

#include "core/common/error.h"
#include "core/common/hash.h"
#include "core/common/rng.h"
#include "core/formats/gguf.h"

namespace crumb::quant {

std::vector<Path> weight_files(const Path& path) {
  std::vector<Path> files;
  if (is_folder(path)) {
    for (const Path& file : paths_in(path))
      if (file.extension() == ".safetensors") files.push_back(file);
  }
  if (is_file(path)) files = path.extension() == ".json" ? std::vector{path} : formats::GgufReader(path).files();
  return files;
}

std::string weights_fingerprint(const Path& path) { return weights_fingerprint(weight_files(path)); }

std::string weights_fingerprint(const std::vector<Path>& files) {
  uint64_t h = hash_name("model");
  for (const auto& file : files) {
    if (is_file(file)) h = hash_file_sample(hash_word(h, hash_name(file.filename().string())), file);
  }
  return fmt::format("{:016x}", h);
}

std::string weights_times(const std::vector<Path>& files) {
  std::string times;
  for (const Path& file : files) {
    std::error_code error;
    if (!times.empty()) times += ' ';
    times += fmt::format("{}", std::filesystem::last_write_time(file, error).time_since_epoch().count());
  }
  return times;
}

std::string weights_change_times(const std::vector<Path>& files) {
  std::string times;
  for (const Path& file : files) {
    struct stat status {};
    if (::stat(file.c_str(), &status) != 0) run_error("{}: {}", file.string(), system_error_text(errno));
    times += fmt::format("{}{}.{:09}", times.empty() ? "" : " ", status.st_ctim.tv_sec, status.st_ctim.tv_nsec);
  }
  return times;
}

std::string config_fingerprint(const Path& path) {
  const Path config = path / "config.json";
  if (!is_file(config)) return "";
  return fmt::format("{:016x}", hash_file_sample(hash_name("config"), config));
}

}  // namespace crumb::quant
