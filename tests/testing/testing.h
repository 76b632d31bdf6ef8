// Support shared by the tests.
#pragma once

#include <gtest/gtest.h>

#include <unistd.h>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>

#include "core/common/error.h"

namespace crumb::testing {

namespace fs = std::filesystem;

/// A folder of its own for one test, removed at the end.
class TempDir {
 public:
  TempDir() {
    static int counter = 0;
    path_ = fs::temp_directory_path() / ("crumb-test-" + std::to_string(getpid()) + "-" + std::to_string(counter++));
    fs::create_directories(path_);
  }
  ~TempDir() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  const fs::path& path() const { return path_; }
  fs::path operator/(const std::string& name) const { return path_ / name; }

 private:
  fs::path path_;
};

/// The checkout and the build folder the tests were made in; the environment's variables of these names say where they
/// are on another machine.
inline fs::path source_dir() {
  const char* moved = std::getenv("CRUMB_SOURCE_DIR");
  return moved != nullptr ? moved : CRUMB_SOURCE_DIR;
}
inline fs::path binary_dir() {
  const char* moved = std::getenv("CRUMB_BINARY_DIR");
  return moved != nullptr ? moved : CRUMB_BINARY_DIR;
}
/// The built program.
inline fs::path program() { return binary_dir() / "bin" / "crumb"; }

/// A file or folder of the shared data set (models, texts, vectors); CRUMB_DATA names its place, default ../shared/data
/// beside the checkout. Empty if absent.
inline fs::path data(const std::string& name) {
  const char* root = std::getenv("CRUMB_DATA");
  const fs::path path = (root != nullptr ? fs::path(root) : source_dir() / ".." / "shared" / "data") / name;
  return fs::exists(path) ? path : fs::path();
}

/// A real model that scripts/models.sh fetched. Empty if absent.
inline fs::path model(const std::string& name) {
  const fs::path path = source_dir() / "models" / name;
  return fs::exists(path) ? path : fs::path();
}

/// The Python of the peers' environment (transformers, gguf, tokenizers ...), made by scripts/test.sh. Empty if absent.
inline fs::path peer_python() {
  const fs::path path = source_dir() / ".venv-peers" / "bin" / "python";
  return fs::exists(path) ? path : fs::path();
}

inline std::string read_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}
inline void write_file(const fs::path& path, const std::string& text) {
  std::ofstream out(path, std::ios::binary);
  out << text;
}

/// What a command printed and how it ended. stderr is kept apart.
struct CommandResult {
  int exit_code = -1;
  std::string out, err;
};
inline CommandResult run_command(const std::string& command) {
  const TempDir dir;
  const std::string full =
      "( " + command + " ) > " + (dir / "out").string() + " 2> " + (dir / "err").string() + " < /dev/null";
  const int status = std::system(full.c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), read_file(dir / "out"),
          read_file(dir / "err")};
}
inline CommandResult run_crumb(const std::string& arguments) {
  return run_command(program().string() + " " + arguments);
}

/// The message of the Error that `body` throws; "" if it throws none.
inline std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

}  // namespace crumb::testing

/// Ends a test that cannot run here: skipped with the reason, or failed where `require` is set in the environment,
/// as scripts/test.sh does for what it has installed.
#define CRUMB_CANNOT_RUN(require, reason)     \
  do {                                        \
    if (std::getenv(require) != nullptr) {    \
      FAIL() << (reason) << " (" require ")"; \
    }                                         \
    GTEST_SKIP() << (reason);                 \
  } while (0)

/// Needs a file of the shared data set.
#define CRUMB_NEED_DATA(variable, name)               \
  const auto variable = ::crumb::testing::data(name); \
  if (variable.empty())                               \
  CRUMB_CANNOT_RUN("CRUMB_REQUIRE_DATA", "needs the data file " + std::string(name) + "; set CRUMB_DATA")

/// Needs a real model.
#define CRUMB_NEED_MODEL(variable, name)               \
  const auto variable = ::crumb::testing::model(name); \
  if (variable.empty())                                \
  CRUMB_CANNOT_RUN("CRUMB_REQUIRE_MODELS", "needs models/" + std::string(name) + "; run scripts/models.sh")

/// Needs the peers' Python environment.
#define CRUMB_NEED_PEERS(variable)                       \
  const auto variable = ::crumb::testing::peer_python(); \
  if (variable.empty())                                  \
  CRUMB_CANNOT_RUN("CRUMB_REQUIRE_PEERS", "needs the Python peers in .venv-peers (scripts/setup.sh --peers)")
