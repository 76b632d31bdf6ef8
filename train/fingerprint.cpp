#include "train/fingerprint.h"

#include <algorithm>
#include <vector>

#include "core/common/error.h"
#include "core/common/hash.h"
#include "core/common/rng.h"
#include "core/formats/gguf.h"

namespace crumb::train {

namespace fs = std::filesystem;

std::string weights_fingerprint(const Path& path) {
  uint64_t h = hash_name("model");
  std::vector<Path> files;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(path, none)) {
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
  }
  if (fs::is_regular_file(path))
    files = path.extension() == ".json" ? std::vector{path} : formats::GgufReader(path).files();
  std::sort(files.begin(), files.end());
  for (const auto& file : files) {
    if (fs::is_regular_file(file)) h = hash_file_sample(hash_word(h, hash_name(file.filename().string())), file);
  }
  return fmt::format("{:016x}", h);
}

std::string config_fingerprint(const Path& path) {
  const Path config = path / "config.json";
  if (!fs::is_regular_file(config)) return "";
  return fmt::format("{:016x}", hash_file_sample(hash_name("config"), config));
}

}  // namespace crumb::train
