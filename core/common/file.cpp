#include "core/common/file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/fs.h>
#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <mutex>
#include <set>
#include <system_error>
#include <utility>

#include "core/common/end_signals.h"
#include "core/common/error.h"

namespace crumb {
namespace fs = std::filesystem;
namespace {

/// Every mapped file of the process. Never destroyed: files may be mapped until the very end.
struct Mappings {
  std::mutex mutex;
  std::set<const MappedFile*> files;
};
Mappings& mappings() {
  static auto* all = new Mappings;
  return *all;
}

bool is_same_file(const struct stat& a, const struct stat& b) { return a.st_dev == b.st_dev && a.st_ino == b.st_ino; }

/// "x/" and "x/." are x.
Path without_slash(Path path) {
  while ((!path.has_filename() || path.filename() == ".") && path.has_parent_path() && path != path.parent_path())
    path = path.parent_path();
  return path;
}

/// What a write to `path` goes to: the target of a symbolic link, also of one whose target is absent yet.
Path target_of(const Path& path) {
  constexpr int kMostLinks = 40;
  std::error_code none;
  Path target = without_slash(path);
  for (int links = 0; fs::is_symlink(target, none); ++links) {
    CRUMB_CHECK(links < kMostLinks, "cannot write {}: {}", path.string(), system_error_text(ELOOP));
    target = without_slash(target.parent_path() / fs::read_symlink(target, none));
  }
  return target;
}

// Process id and a counter. A leading dot keeps unfinished work out of globs.
Path temporary_name(const Path& target) {
  static std::atomic<int> counter{0};
  return target.parent_path() / fmt::format(".{}.tmp-{}-{}", target.filename().string(), getpid(), counter++);
}

/// The failure of a disk is the run's, everything else a mistake in the name.
[[noreturn]] void cannot(const char* what, const Path& path, int error) {
  if (error == ENOSPC || error == EDQUOT || error == EIO || error == EMFILE || error == ENFILE)
    run_error("cannot {} {}: {}", what, path.string(), system_error_text(error));
  user_error("cannot {} {}: {}", what, path.string(), system_error_text(error));
}

/// Locks what was just made under `name`; false if a process that removes leftovers was faster. File systems without
/// locks: nobody can remove it as a leftover either.
bool lock_new(int fd, const Path& name) {
  if (flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) return false;
  struct stat opened = {};
  struct stat named = {};
  return fstat(fd, &opened) == 0 && lstat(name.c_str(), &named) == 0 && is_same_file(opened, named);
}

/// Opens a temporary file or folder that `create` makes, with its lock; `create` returns an open file or -1, and gets
/// new names until one is free: process ids come again, in containers soon, and then the leftover of a killed process
/// has the name.
template <class Create>
int make_temporary(const Path& path, const Path& target, Path& temporary, const Create& create) {
  for (;;) {
    const TemporariesLock lock;
    temporary = temporary_name(target);
    remember_temporary(temporary);
    const int fd = create(temporary), error = errno;
    if (fd >= 0 && lock_new(fd, temporary)) return fd;
    forget_temporary(temporary);
    if (fd >= 0)
      close(fd);
    else if (error != EEXIST)
      cannot("write", path, error);
  }
}

int rename_with(const Path& from, const Path& to, unsigned flags) {
  const TemporariesLock lock;
  const long status = flags == 0 ? std::rename(from.c_str(), to.c_str())
                                 : syscall(SYS_renameat2, AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), flags);
  return status == 0 ? 0 : errno;
}

/// The file system, or the kernel, knows rename() but no flags of it.
bool is_unknown_flag(int error) { return error == EINVAL || error == ENOSYS || error == EOPNOTSUPP; }

/// Gives `from` a name that nothing has; EEXIST if something has.
int rename_to_new(const Path& from, const Path& to) {
  const TemporariesLock lock;
  const int error = rename_with(from, to, RENAME_NOREPLACE);
  if (!is_unknown_flag(error)) return error;
  // The name is claimed by an empty file or folder, which rename() replaces.
  std::error_code ignored;
  const bool is_folder = fs::is_directory(from, ignored);
  const int claim =
      is_folder ? mkdir(to.c_str(), 0777) : open(to.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0666);
  if (claim < 0) return errno;
  if (!is_folder) close(claim);
  const int failed = rename_with(from, to, 0);
  if (failed != 0) fs::remove(to, ignored);
  return failed;
}

[[noreturn]] void cannot_place(const Path& path, int error) {
  if (error == EEXIST)
    run_error("{} has appeared while its content was made, and stays; give another name, or --force to replace it",
              path.string());
  run_error("cannot rename to {}: {}", path.string(), system_error_text(error));
}

void sync_path(const Path& path, int flags) {
  const int fd = open(path.c_str(), flags);
  if (fd < 0) run_error("cannot open {} to sync it: {}", path.string(), system_error_text(errno));
  const int status = fsync(fd);
  const int error = errno;
  close(fd);
  if (status != 0 && error != EINVAL && error != EROFS)
    run_error("cannot sync {}: {}", path.string(), system_error_text(error));
}

Path parent_of(const Path& path) {
  const Path parent = without_slash(path).parent_path();
  return parent.empty() ? Path(".") : parent;
}

/// What `git lfs` leaves in place of a large file that was not fetched.
bool is_lfs_pointer(std::span<const uint8_t> bytes) {
  constexpr size_t kLargest = 1024;
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), std::min(bytes.size(), kLargest));
  return bytes.size() <= kLargest && text.starts_with("version https://") &&
         text.find("\noid sha256:") != std::string_view::npos && text.find("\nsize ") != std::string_view::npos;
}

}  // namespace

MappedFile::MappedFile(const Path& path) : path_(path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a pipe is refused, not waited for
  if (fd < 0) user_error("cannot read {}: {}", path.string(), system_error_text(errno));
  struct stat st {};
  if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
    close(fd);
    user_error("cannot read {}: not a regular file", path.string());
  }
  size_ = st.st_size;
  device_ = st.st_dev, inode_ = st.st_ino;
  if (size_ > 0) {
    void* p = mmap(nullptr, static_cast<size_t>(size_), PROT_READ, MAP_PRIVATE, fd, 0);
    const int error = errno;
    close(fd);
    if (p == MAP_FAILED) run_error("cannot map {}: {}", path.string(), system_error_text(error));
    data_ = static_cast<const uint8_t*>(p);
  } else {
    close(fd);
  }
  if (is_lfs_pointer(bytes())) {
    munmap(const_cast<uint8_t*>(data_), static_cast<size_t>(size_));  // a constructor that throws runs no destructor
    user_error("cannot read {}: a Git LFS pointer, not the file itself, which `git lfs pull` fetches", path.string());
  }
  const std::lock_guard lock(mappings().mutex);
  mappings().files.insert(this);
}

MappedFile::~MappedFile() {
  {
    const std::lock_guard lock(mappings().mutex);
    mappings().files.erase(this);
  }
  if (data_ != nullptr) munmap(const_cast<uint8_t*>(data_), static_cast<size_t>(size_));
}

MappedFile::MappedFile(MappedFile&& other) noexcept : device_(other.device_), inode_(other.inode_) {
  const std::lock_guard lock(mappings().mutex);  // the handler of SIGBUS sees the one or the other
  path_ = std::move(other.path_);
  data_ = std::exchange(other.data_, nullptr);
  size_ = std::exchange(other.size_, 0);
  mappings().files.insert(this);
}

bool MappedFile::is_shorter() const {
  struct stat now {};
  return data_ != nullptr && stat(path_.c_str(), &now) == 0 && now.st_dev == device_ && now.st_ino == inode_ &&
         now.st_size < size_;
}

const MappedFile* MappedFile::at(const void* address) {
  const std::lock_guard lock(mappings().mutex);
  for (const MappedFile* file : mappings().files) {
    if (file->data_ <= address && address < file->data_ + file->size_) return file;
  }
  return nullptr;
}

void MappedFile::require_whole() const {
  if (is_shorter()) run_error("{} became shorter while it was read", path_.string());
}

void require_mapped_files_whole() {
  const std::lock_guard lock(mappings().mutex);
  for (const MappedFile* file : mappings().files) file->require_whole();
}

void MappedFile::release(int64_t offset, int64_t length) const {
  require_whole();
  const int64_t page = sysconf(_SC_PAGESIZE);
  const int64_t begin = (offset + page - 1) / page * page, end = std::min(size_, offset + length) / page * page;
  if (data_ == nullptr || end <= begin) return;
  madvise(const_cast<uint8_t*>(data_) + begin, static_cast<size_t>(end - begin), MADV_DONTNEED);
}

AtomicFile::AtomicFile(const Path& path, Overwrite overwrite)
    : path_(path), target_(target_of(path)), overwrite_(overwrite) {
  const int fd = make_temporary(path_, target_, temporary_, [](const Path& name) {
    return open(name.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0666);
  });
  file_ = fdopen(fd, "wb");
  CRUMB_ASSERT(file_ != nullptr);
  std::setvbuf(file_, nullptr, _IOFBF, 1 << 20);
}

AtomicFile::~AtomicFile() {
  std::error_code ignored;
  if (!committed_) fs::remove(temporary_, ignored);
  forget_temporary(temporary_);
  if (file_ != nullptr) std::fclose(file_);
}

void AtomicFile::fail(const char* what) const {
  const int error = errno;
  if (error == EFAULT) require_mapped_files_whole();  // what is written was read from one
  run_error("cannot {} {}: {}; nothing was replaced", what, path_.string(), system_error_text(error));
}

void AtomicFile::write(const void* data, int64_t size) {
  if (size > 0 && std::fwrite(data, 1, static_cast<size_t>(size), file_) != static_cast<size_t>(size)) fail("write");
  position_ += size;
}

void AtomicFile::write_zeros(int64_t count) {
  static constexpr std::array<char, 4096> zeros{};
  for (; count > 0; count -= static_cast<int64_t>(zeros.size()))
    write(zeros.data(), std::min<int64_t>(count, zeros.size()));
}

void AtomicFile::rewrite(int64_t offset, const void* data, int64_t size) {
  if (std::fseek(file_, offset, SEEK_SET) != 0) fail("write");
  if (std::fwrite(data, 1, static_cast<size_t>(size), file_) != static_cast<size_t>(size)) fail("write");
  if (std::fseek(file_, 0, SEEK_END) != 0) fail("write");
}

void AtomicFile::flush() {
  if (std::fflush(file_) != 0) fail("write");
}

void AtomicFile::commit() {
  require_mapped_files_whole();
  flush();
  if (fsync(fileno(file_)) != 0) fail("sync");
  const int error =
      overwrite_ == Overwrite::no ? rename_to_new(temporary_, target_) : rename_with(temporary_, target_, 0);
  if (error != 0) cannot_place(path_, error);
  committed_ = true;
  sync_path(parent_of(target_), O_RDONLY | O_DIRECTORY);
}

PlacedFile::PlacedFile(const Path& path, int64_t size)
    : path_(path), fd_(open(path.c_str(), O_CREAT | O_RDWR | O_NOFOLLOW | O_CLOEXEC, 0666)) {
  if (fd_ < 0) run_error("cannot open {}: {}", path.string(), system_error_text(errno));
  if (ftruncate(fd_, size) == 0) return;
  const int error = errno;
  close(fd_);
  run_error("cannot write {}: {}", path.string(), system_error_text(error));
}

PlacedFile::~PlacedFile() {
  if (fd_ >= 0) close(fd_);
}

void PlacedFile::write(int64_t offset, const void* data, int64_t size) {
  const auto* from = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t done = pwrite(fd_, from, static_cast<size_t>(size), offset);
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) {
      const int error = errno;
      if (error == EFAULT) require_mapped_files_whole();  // what is written was read from one
      run_error("cannot write {}: {}", path_.string(), system_error_text(error));
    }
    from += done, offset += done, size -= done;
  }
}

void PlacedFile::read(int64_t offset, void* out, int64_t size) const {
  auto* to = static_cast<char*>(out);
  while (size > 0) {
    const ssize_t done = pread(fd_, to, static_cast<size_t>(size), offset);
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0)
      run_error("cannot read {}: {}", path_.string(), done < 0 ? system_error_text(errno) : "it ends early");
    to += done, offset += done, size -= done;
  }
}

namespace {

int make_folder(const Path& name) {
  if (mkdir(name.c_str(), 0777) != 0) return -1;
  const int fd = open(name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0 && errno == ENOENT) errno = EEXIST;  // taken for a leftover before it was locked: another name
  return fd;
}

bool stands_under(int fd, const Path& path) {
  struct stat opened = {};
  struct stat named = {};
  return fstat(fd, &opened) == 0 && stat(path.c_str(), &named) == 0 && is_same_file(opened, named);
}

}  // namespace

AtomicFolder::AtomicFolder(const Path& path, Overwrite overwrite, Unfinished unfinished)
    : path_(path), target_(target_of(path)), overwrite_(overwrite), unfinished_(unfinished) {
  std::error_code error;
  fs::create_directories(parent_of(target_), error);
  if (error) cannot("write", path, error.value());
  if (unfinished == Unfinished::kept)
    make_partial();
  else
    lock_ = make_temporary(path_, target_, temporary_, make_folder);
}

Path AtomicFolder::partial_path(const Path& path) { return without_slash(target_of(path)).string() + ".partial"; }

void AtomicFolder::make_partial() {
  is_partial_ = true;
  temporary_ = partial_path(path_);
  do {  // until what is locked is what stands under the name: its holder may have renamed it meanwhile
    if (lock_ >= 0) close(lock_);
    const bool is_new = mkdir(temporary_.c_str(), 0777) == 0;
    if (!is_new && errno != EEXIST) cannot("write", path_, errno);
    is_resumed_ = !is_new;
    lock_ = open(temporary_.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (lock_ < 0 && errno == ENOENT) continue;  // it was renamed at this moment
    if (lock_ < 0 && (errno == ENOTDIR || errno == ELOOP))
      user_error("{} is no folder, and has the name that unfinished work needs; remove it, or choose another output",
                 temporary_.string());
    if (lock_ < 0) cannot("write", temporary_, errno);
    if (flock(lock_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
      close(lock_);
      user_error("another process is writing {}; wait for it, or choose another output", path_.string());
    }
  } while (lock_ < 0 || !stands_under(lock_, temporary_));
  remove_leftovers(temporary_);
}

void AtomicFolder::clear() {
  std::error_code error;
  for (const Path& path : paths_in(temporary_)) {
    fs::remove_all(path, error);
    if (error) run_error("cannot remove {}: {}", path.string(), error.message());
  }
  is_resumed_ = false;
}

AtomicFolder::~AtomicFolder() {
  std::error_code ignored;
  if (!committed_ && unfinished_ == Unfinished::removed) fs::remove_all(temporary_, ignored);
  forget_temporary(temporary_);
  close(lock_);
}

void AtomicFolder::commit() {
  require_mapped_files_whole();
  sync_folder(temporary_);
  const int error = rename_to_new(temporary_, target_);
  if (error == EEXIST && overwrite_ == Overwrite::yes)
    replace();
  else if (error != 0)
    cannot_place(path_, error);
  committed_ = true;
  sync_path(parent_of(target_), O_RDONLY | O_DIRECTORY);
}

void AtomicFolder::replace() {
  std::error_code ignored;
  if (!fs::is_directory(target_, ignored)) run_error("cannot replace {}: it is not a folder", path_.string());
  if (is_partial_) {
    // What the exchange leaves under the temporary name is the old output: no work to go on from.
    Path temporary;
    const int lock = make_temporary(path_, target_, temporary, make_folder);
    const int error = rename_with(temporary_, temporary, 0);  // over the empty folder
    close(lock);
    if (error != 0) cannot_place(path_, error);
    temporary_ = temporary;
    discard();  // a leftover from here on
  }
  int error = rename_with(temporary_, target_, RENAME_EXCHANGE);
  if (error == 0) {
    fs::remove_all(temporary_, ignored);
    return;
  }
  const Path aside = target_.string() + ".replaced";
  {
    const TemporariesLock lock;
    if (is_unknown_flag(error)) error = rename_to_new(target_, aside);
    if (error == 0) error = rename_to_new(temporary_, target_);
  }
  if (error != 0) run_error("cannot replace {}: {}", path_.string(), system_error_text(error));
  remove_folder(aside);
}

FolderLock::FolderLock(const Path& folder) : fd_(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
  if (fd_ < 0) user_error("cannot open the folder {}: {}", folder.string(), system_error_text(errno));
  if (flock(fd_, LOCK_EX | LOCK_NB) == 0) return;
  const bool is_taken = errno == EWOULDBLOCK;
  close(fd_);
  // File systems without locks: go on without.
  fd_ = -1;
  if (is_taken) user_error("another process is working in {}; wait for it, or choose another output", folder.string());
}

FolderLock::~FolderLock() {
  if (fd_ >= 0) close(fd_);
}

namespace {

fs::file_status status_of(const Path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (status.type() == fs::file_type::none) cannot("read", path, error.value());
  return status;
}

}  // namespace

bool is_there(const Path& path) { return fs::exists(status_of(path)); }

bool is_file(const Path& path) { return fs::is_regular_file(status_of(path)); }

bool is_folder(const Path& path) { return fs::is_directory(status_of(path)); }

std::vector<Path> paths_in(const Path& folder) {
  std::error_code error;
  std::vector<Path> paths;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error))
    paths.push_back(at->path());
  if (error) cannot("read", folder, error.value());
  std::sort(paths.begin(), paths.end());
  return paths;
}

Path canonical_path(const Path& path) {
  std::error_code error;
  Path canonical = fs::canonical(path, error);
  if (error) cannot("read", path, error.value());
  return canonical;
}

Path temporary_folder() {
  std::error_code error;
  Path folder = fs::temp_directory_path(error);
  CRUMB_CHECK(!error, "no folder for temporary files: {} (TMPDIR must name one)", error.message());
  return folder;
}

std::string read_text(const Path& path) {
  const MappedFile file(path);
  std::string text(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  file.require_whole();
  return text;
}

void write_text(const Path& path, std::string_view text, Overwrite overwrite) {
  AtomicFile file(path, overwrite);
  file.write(text);
  file.commit();
}

void make_folders(const Path& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) cannot("make the folder", path, error.value());
}

void require_new_output(const Path& path, bool force) {
  CRUMB_CHECK(!path.empty(), "no output given");
  const Path target = target_of(path);
  std::error_code error;
  const fs::file_status status = fs::status(target, error);
  CRUMB_CHECK(status.type() != fs::file_type::none, "cannot write {}: {}", path.string(), error.message());
  const bool replaceable = !fs::exists(status) || fs::is_regular_file(status) || fs::is_directory(status);
  CRUMB_CHECK(replaceable, "{} is neither a file nor a folder; give another name", path.string());
  if (fs::exists(status) && !force) user_error("{} exists; give another name, or --force to replace it", path.string());
  Path folder = parent_of(target);
  while (!fs::exists(folder, error))
    folder = parent_of(folder);  // missing folders are made later, inside the first that exists
  CRUMB_CHECK(fs::is_directory(folder, error), "cannot write {}: {} is not a folder", path.string(), folder.string());
  CRUMB_CHECK(access(folder.c_str(), W_OK | X_OK) == 0, "cannot write {}: {}", path.string(), system_error_text(errno));
  make_folders(parent_of(target));
  remove_leftovers(parent_of(target));
}

void require_new_file(const Path& path, bool force) {
  const bool names_folder = path.filename().empty() || path.filename() == "." || path.filename() == "..";
  CRUMB_CHECK(path.empty() || !names_folder, "{} names a folder; give the name of a file", path.string());
  std::error_code error;
  CRUMB_CHECK(!fs::is_directory(path, error), "{} is a folder; give the name of a file", path.string());
  require_new_output(path, force);
}

void require_apart(const Path& output, const std::vector<Path>& inputs) {
  if (!is_there(output)) return;
  const Path to = canonical_path(output);
  for (const Path& input : inputs) {
    std::error_code absent;
    const Path from = input.empty() ? Path() : fs::canonical(input, absent);
    if (from.empty() || absent) continue;
    CRUMB_CHECK(*from.lexically_relative(to).begin() == "..", "{} is or holds {}, which is read; choose another output",
                output.string(), input.string());
  }
}

bool is_leftover(const Path& path) {
  const std::string name = path.filename().string();
  const size_t tail = name.rfind(".tmp-");
  if (!name.starts_with(".") || tail == std::string::npos || tail == 0) return false;
  const std::string_view numbers = std::string_view(name).substr(tail + 5);  // PID-COUNTER
  const size_t dash = numbers.find('-');
  return dash != std::string_view::npos && dash > 0 && dash + 1 < numbers.size() &&
         numbers.find_first_not_of("0123456789-") == std::string_view::npos;
}

namespace {

/// Open, if it is a file or folder of this user that no living process holds: with its lock.
int open_leftover(const Path& path) {
  constexpr int kFlags = O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
  int fd = open(path.c_str(), O_RDWR | kFlags);  // some network file systems lock only what is open for writing
  if (fd < 0 && errno == EISDIR) fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | kFlags);
  if (fd < 0) return -1;
  struct stat st {};
  const bool is_ours = fstat(fd, &st) == 0 && st.st_uid == geteuid() && (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode));
  if (is_ours && flock(fd, LOCK_EX | LOCK_NB) == 0) return fd;
  close(fd);
  return -1;
}

}  // namespace

void remove_leftovers(const Path& folder) {
  std::error_code none;
  std::vector<Path> leftovers;
  for (const auto& entry : fs::directory_iterator(folder, none)) {
    if (is_leftover(entry.path())) leftovers.push_back(entry.path());
  }
  for (const auto& path : leftovers) {
    const int fd = open_leftover(path);
    if (fd < 0) continue;
    fs::remove_all(path, none);
    close(fd);
  }
}

void remove_folder(const Path& folder) {
  const Path target = without_slash(folder);
  Path aside;
  int error = 0;
  do {
    const TemporariesLock lock;
    aside = temporary_name(target);
    error = rename_to_new(target, aside);
    if (error == 0) remember_temporary(aside);
  } while (error == EEXIST);
  if (error != 0) run_error("cannot remove {}: {}", folder.string(), system_error_text(error));
  std::error_code ignored;  // what stays is a leftover
  fs::remove_all(aside, ignored);
  forget_temporary(aside);
}

void sync_folder(const Path& path) {
  for (const Path& inside : paths_in(path)) {
    if (fs::is_symlink(inside)) continue;
    if (is_folder(inside))
      sync_folder(inside);
    else if (is_file(inside))
      sync_path(inside, O_RDONLY);
  }
  sync_path(path, O_RDONLY | O_DIRECTORY);
}

}  // namespace crumb
