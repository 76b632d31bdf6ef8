// Signals that end the program. Before they do, temporary files and folders are removed; a mapped file that became
// shorter (SIGBUS) is told as one line.
#pragma once

#include <csignal>
#include <filesystem>

namespace crumb {

/// For main(): a library leaves signals to its host. SIGINT, SIGTERM, SIGHUP and SIGPIPE, where they would end the
/// program: they still do, so its exit status says the signal. SIGXFSZ becomes an error of the write (EFBIG). SIGBUS at
/// a mapped file: the line, exit code 1.
///
/// An error cannot be thrown out of a signal handler, and the thread that touched the page may be any, so the handler
/// ends the process itself.
void install_end_signals();

/// While it lives, no signal that ends the program removes temporaries: this thread holds such signals back, and a
/// thread that gets one waits. Whoever makes, renames or removes files inside a temporary folder, or under a temporary
/// name, holds one meanwhile, for a moment only: a file that were made while the handler removes would stay behind. The
/// handler never lets go, so nothing is made after it either. One may be made inside another.
class TemporariesLock {
 public:
  TemporariesLock();
  ~TemporariesLock();
  TemporariesLock(const TemporariesLock&) = delete;
  TemporariesLock& operator=(const TemporariesLock&) = delete;

 private:
  sigset_t before_;
};

/// Names to remove when a signal ends the program. Only so many are kept; others stay for the next run to remove.
void remember_temporary(const std::filesystem::path& path);
void forget_temporary(const std::filesystem::path& path);

}  // namespace crumb
