// Errors. The user's mistake is a UserError (exit code 2), a run that went wrong is a RunError (exit code 1), a mistake
// of ours stops the program. Only main() catches; a message is one line that says what, where and what to do.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace crumb {

inline constexpr int kExitOk = 0;
inline constexpr int kExitRun = 1;      // the run failed: full disk, NaN loss, interrupted
inline constexpr int kExitUser = 2;     // the input is wrong: files, options, configuration
inline constexpr int kExitMaxDrop = 3;  // eval: --max-drop exceeded

class Error : public std::runtime_error {
 public:
  Error(const std::string& message, int exit_code) : Error(std::vector{message}, exit_code) {}
  /// Several messages, each a line; what() holds them all.
  Error(std::vector<std::string> messages, int exit_code);
  int exit_code() const { return exit_code_; }
  const std::vector<std::string>& messages() const { return messages_; }

 private:
  std::vector<std::string> messages_;
  int exit_code_;
};

/// The user's input cannot be used.
class UserError : public Error {
 public:
  explicit UserError(const std::string& message) : Error(message, kExitUser) {}
  explicit UserError(std::vector<std::string> messages) : Error(std::move(messages), kExitUser) {}
};

/// The input is fine, the run is not.
class RunError : public Error {
 public:
  explicit RunError(const std::string& message) : Error(message, kExitRun) {}
};

template <class... Args>
[[noreturn]] void user_error(fmt::format_string<Args...> format, Args&&... args) {
  throw UserError(fmt::format(format, std::forward<Args>(args)...));
}

template <class... Args>
[[noreturn]] void run_error(fmt::format_string<Args...> format, Args&&... args) {
  throw RunError(fmt::format(format, std::forward<Args>(args)...));
}

[[noreturn]] void assertion_failed(const char* condition, const char* file, int line);

/// "strerror(errno)" as text, for messages about files.
std::string system_error_text(int error_number);

}  // namespace crumb

/// The user's mistake: throws UserError with a formatted message.
#define CRUMB_CHECK(condition, ...)                     \
  do {                                                  \
    if (!(condition)) ::crumb::user_error(__VA_ARGS__); \
  } while (0)

/// Our mistake: prints the condition and stops the program.
#define CRUMB_ASSERT(condition)                                                  \
  do {                                                                           \
    if (!(condition)) ::crumb::assertion_failed(#condition, __FILE__, __LINE__); \
  } while (0)
