#include "core/common/end_signals.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstring>
#include <mutex>

#include "core/common/error.h"
#include "core/common/file.h"
#include "core/common/log.h"

namespace crumb {
namespace {

// What the handlers call is async-signal-safe: any thread may hold any lock at that moment. (The two locks they take:
// that of MappedFile::at is held by no thread that touches a page, that of temporaries by none that a handler
// interrupts.)

constexpr int kEndSignals[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE};

sigset_t end_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : kEndSignals) sigaddset(&set, signal);
  return set;
}

/// Held for good by the first handler that runs.
std::recursive_mutex& temporaries_mutex() {
  static auto* mutex = new std::recursive_mutex;  // never destroyed: threads may run until the very end
  return *mutex;
}

/// One name. It is copied, so that a handler never reads memory that was given back.
struct Slot {
  std::atomic<bool> is_set{false};
  std::array<char, PATH_MAX> path;
};
std::array<Slot, 32> slots;

bool is_dots(const char* name) { return std::strcmp(name, ".") == 0 || std::strcmp(name, "..") == 0; }

/// A file, or a folder with what is in it.
void remove_at(int folder, const char* name) {
  if (unlinkat(folder, name, 0) == 0 || errno != EISDIR) return;
  const int fd = openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return;
  alignas(dirent64) char entries[4096];
  for (long bytes = 0; (bytes = syscall(SYS_getdents64, fd, entries, sizeof entries)) > 0;) {
    for (long at = 0; at < bytes;) {
      const auto* entry = reinterpret_cast<const dirent64*>(entries + at);
      if (!is_dots(entry->d_name)) remove_at(fd, entry->d_name);
      at += entry->d_reclen;
    }
  }
  close(fd);
  unlinkat(folder, name, AT_REMOVEDIR);
}

void remove_temporaries() {
  temporaries_mutex().lock();
  for (const Slot& slot : slots) {
    if (slot.is_set) remove_at(AT_FDCWD, slot.path.data());
  }
}

/// The signal acts as always as soon as this returns; so does another that came meanwhile.
void end_by(int signal) {
  remove_temporaries();
  for (const int other : kEndSignals) std::signal(other, SIG_DFL);
  raise(signal);
}

void print(const char* text) {
  for (size_t left = std::strlen(text); left > 0;) {
    const ssize_t written = write(STDERR_FILENO, text, left);
    if (written <= 0) return;
    text += written;
    left -= static_cast<size_t>(written);
  }
}

void print_one_line(const char* text) {
  while (*text != '\0') {
    int bytes = control_bytes(text);
    const char plain[] = {*text, '\0'};
    if (bytes == 0) print(plain), ++text;
    for (; bytes > 0; --bytes) print(written_out(*text++).data());
  }
}

void end_by_missing_page(int /*signal*/, siginfo_t* info, void* /*context*/) {
  static std::atomic_flag is_ending;
  const MappedFile* file = info->si_code == BUS_ADRERR ? MappedFile::at(info->si_addr) : nullptr;
  if (file == nullptr) {  // another fault, or sent by a process: the same again, without a handler
    signal(SIGBUS, SIG_DFL);
    raise(SIGBUS);
    return;
  }
  while (is_ending.test_and_set()) pause();  // another thread touched one, too
  print(is_line_open() ? "\r\033[Kcrumb: " : "crumb: ");
  print_one_line(file->path().c_str());
  print(file->is_shorter() ? " became shorter while it was read\n" : " cannot be read: its disk reports an error\n");
  remove_temporaries();
  _exit(kExitRun);
}

}  // namespace

void install_end_signals() {
  temporaries_mutex();  // made here, not in a handler
  struct sigaction action {};
  action.sa_mask = end_signals();  // of handlers, one at a time in a thread
  for (const int signal : kEndSignals) {
    struct sigaction before {};
    sigaction(signal, nullptr, &before);
    if (before.sa_handler != SIG_DFL) continue;  // ignored, as under nohup
    action.sa_handler = end_by;
    action.sa_flags = 0;
    sigaction(signal, &action, nullptr);
  }
  action.sa_sigaction = end_by_missing_page;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGBUS, &action, nullptr);
  signal(SIGXFSZ, SIG_IGN);
}

TemporariesLock::TemporariesLock() {
  const sigset_t signals = end_signals();
  pthread_sigmask(SIG_BLOCK, &signals, &before_);
  temporaries_mutex().lock();
}

TemporariesLock::~TemporariesLock() {
  temporaries_mutex().unlock();
  pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

void remember_temporary(const std::filesystem::path& path) {
  const std::string& name = path.native();
  if (name.size() >= PATH_MAX) return;
  const TemporariesLock lock;
  for (Slot& slot : slots) {
    if (slot.is_set) continue;
    std::memcpy(slot.path.data(), name.c_str(), name.size() + 1);
    slot.is_set = true;
    return;
  }
}

void forget_temporary(const std::filesystem::path& path) {
  const TemporariesLock lock;
  for (Slot& slot : slots) {
    if (slot.is_set && path == slot.path.data()) slot.is_set = false;
  }
}

}  // namespace crumb
