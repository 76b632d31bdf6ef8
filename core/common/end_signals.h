// Signals that end the program. Before they do, temporary files and folders are removed; a mapped file that became
// shorter (SIGBUS) is told as one line.
#pragma once

#include <filesystem>

namespace crumb {

/// For main(): a library leaves signals to its host. SIGINT, SIGTERM, SIGHUP and SIGPIPE, where they would end the
/// program: they still do, so its exit status says the signal. SIGXFSZ becomes an error of the write (EFBIG). SIGBUS at
/// a mapped file: the line, exit code 1.
///
/// An error cannot be thrown out of a signal handler, and the thread that touched the page may be any, so the handler
/// ends the process itself.
void install_end_signals();

/// Names to remove when a signal ends the program. Only so many are kept; others stay for the next run to remove.
void remember_temporary(const std::filesystem::path& path);
void forget_temporary(const std::filesystem::path& path);

}  // namespace crumb
