// The program running beside a test: to be signalled, or raced.
#pragma once

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "tests/testing/testing.h"

namespace crumb::testing {

/// The program running beside the test.
class RunningCrumb {
 public:
  RunningCrumb(const std::vector<std::string>& arguments, const fs::path& errors) {
    std::vector<std::string> words = {program().string()};
    words.insert(words.end(), arguments.begin(), arguments.end());
    std::vector<char*> argv;
    for (auto& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    pid_ = fork();
    if (pid_ == 0) {
      if (freopen(errors.c_str(), "w", stderr) == nullptr || freopen("/dev/null", "w", stdout) == nullptr) _exit(127);
      execv(argv[0], argv.data());
      _exit(127);
    }
  }
  ~RunningCrumb() {
    if (pid_ > 0) end(SIGKILL);
  }
  RunningCrumb(const RunningCrumb&) = delete;
  RunningCrumb& operator=(const RunningCrumb&) = delete;

  /// Waits until `is_so`; false if the program ended before.
  bool wait_until(const std::function<bool()>& is_so) {
    while (waitpid(pid_, &status_, WNOHANG) == 0) {
      if (is_so()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    pid_ = -1;
    return false;
  }
  /// Waits until the log has this many lines; false if the program ended before.
  bool wait_for_lines(const fs::path& log, size_t lines) {
    return wait_until([&] {
      const std::string text = read_file(log);
      return static_cast<size_t>(std::count(text.begin(), text.end(), '\n')) >= lines;
    });
  }
  void stop() const { kill(pid_, SIGSTOP); }
  void go_on() const { kill(pid_, SIGCONT); }
  /// Waits for its end; the exit code, or 128 + the signal that ended it.
  int wait() { return end(0); }
  /// Sends the signal and waits; the exit code, or 128 + the signal that ended it.
  int end(int signal) {
    kill(pid_, signal);
    waitpid(pid_, &status_, 0);
    pid_ = -1;
    return WIFEXITED(status_) ? WEXITSTATUS(status_) : 128 + WTERMSIG(status_);
  }

 private:
  pid_t pid_ = -1;
  int status_ = 0;
};

}  // namespace crumb::testing
