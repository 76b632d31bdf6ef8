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
#include <system_error>
#include <utility>

#include "core/common/error.h"

namespace crumb {
namespace fs = std::filesystem;
namespace {

// Process id and a counter. A leading dot keeps unfinished work out of globs.
Path temporary_name(const Path& path) {
  static std::atomic<int> counter{0};
  const Path clean = path.has_filename() ? path : path.parent_path();
  return clean.parent_path() / fmt::format(".{}.tmp-{}-{}", clean.filename().string(), getpid(), counter++);
}

/// Gives `create`, which returns 0 or an error number, new names until one is free: process ids come again, in
/// containers soon, and then the leftover of a killed process has the name.
template <class Create>
Path make_temporary(const Path& path, const Create& create) {
  for (;;) {
    Path name = temporary_name(path);
    const int error = create(name);
    if (error == 0) return name;
    if (error != EEXIST) user_error("cannot write {}: {}", path.string(), system_error_text(error));
  }
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
  const Path clean = path.has_filename() ? path : path.parent_path();
  const Path parent = clean.parent_path();
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
  if (size_ > 0) {
    void* p = mmap(nullptr, static_cast<size_t>(size_), PROT_READ, MAP_PRIVATE, fd, 0);
    const int error = errno;
    close(fd);
    if (p == MAP_FAILED) run_error("cannot map {}: {}", path.string(), system_error_text(error));
    data_ = static_cast<const uint8_t*>(p);
  } else {
    close(fd);
  }
  if (!is_lfs_pointer(bytes())) return;
  munmap(const_cast<uint8_t*>(data_), static_cast<size_t>(size_));  // a constructor that throws runs no destructor
  user_error("cannot read {}: a Git LFS pointer, not the file itself, which `git lfs pull` fetches", path.string());
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<uint8_t*>(data_), static_cast<size_t>(size_));
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)), data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

void MappedFile::release(int64_t offset, int64_t length) const {
  const int64_t page = sysconf(_SC_PAGESIZE);
  const int64_t begin = (offset + page - 1) / page * page, end = std::min(size_, offset + length) / page * page;
  if (data_ == nullptr || end <= begin) return;
  madvise(const_cast<uint8_t*>(data_) + begin, static_cast<size_t>(end - begin), MADV_DONTNEED);
}

AtomicFile::AtomicFile(const Path& path) : path_(path) {
  temporary_ = make_temporary(path, [&](const Path& name) {
    file_ = std::fopen(name.c_str(), "wbx");
    return file_ == nullptr ? errno : 0;
  });
  std::setvbuf(file_, nullptr, _IOFBF, 1 << 20);
}

AtomicFile::~AtomicFile() {
  if (file_ != nullptr) std::fclose(file_);
  std::error_code ignored;
  if (!committed_) fs::remove(temporary_, ignored);
}

void AtomicFile::fail(const char* what) const {
  run_error("cannot {} {}: {}; nothing was replaced", what, path_.string(), system_error_text(errno));
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
  flush();
  if (fsync(fileno(file_)) != 0) fail("sync");
  if (std::fclose(std::exchange(file_, nullptr)) != 0) fail("close");
  if (std::rename(temporary_.c_str(), path_.c_str()) != 0) {
    run_error("cannot rename to {}: {}", path_.string(), system_error_text(errno));
  }
  committed_ = true;
  sync_path(parent_of(path_), O_RDONLY | O_DIRECTORY);
}

AtomicFolder::AtomicFolder(const Path& path) : path_(path) {
  std::error_code error;
  fs::create_directories(parent_of(path), error);
  if (error) user_error("cannot write {}: {}", path.string(), error.message());
  temporary_ = make_temporary(path, [](const Path& name) { return mkdir(name.c_str(), 0777) == 0 ? 0 : errno; });
}

AtomicFolder::~AtomicFolder() {
  std::error_code ignored;
  if (!committed_) fs::remove_all(temporary_, ignored);
}

void AtomicFolder::commit() {
  sync_folder(temporary_);
  const Path target = path_.has_filename() ? path_ : path_.parent_path();
  if (fs::exists(target)) {
    if (syscall(SYS_renameat2, AT_FDCWD, temporary_.c_str(), AT_FDCWD, target.c_str(), RENAME_EXCHANGE) != 0) {
      run_error("cannot replace {}: {}", target.string(), system_error_text(errno));
    }
    std::error_code ignored;
    fs::remove_all(temporary_, ignored);
  } else if (std::rename(temporary_.c_str(), target.c_str()) != 0) {
    run_error("cannot rename to {}: {}", target.string(), system_error_text(errno));
  }
  committed_ = true;
  sync_path(parent_of(path_), O_RDONLY | O_DIRECTORY);
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

std::string read_text(const Path& path) {
  const MappedFile file(path);
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

void write_text(const Path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

void make_folders(const Path& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) user_error("cannot make the folder {}: {}", path.string(), error.message());
}

void require_new_output(const Path& path, bool force) {
  CRUMB_CHECK(!path.empty(), "no output given");
  const bool replaceable = !fs::exists(path) || fs::is_regular_file(path) || fs::is_directory(path);
  CRUMB_CHECK(replaceable, "{} is neither a file nor a folder; give another name", path.string());
  if (fs::exists(path) && !force)
    user_error("{} exists and is not this job's; give another name, or --force to replace it", path.string());
  Path folder = parent_of(path);
  while (!fs::exists(folder))
    folder = parent_of(folder);  // missing folders are made later, inside the first that exists
  CRUMB_CHECK(fs::is_directory(folder), "cannot write {}: {} is not a folder", path.string(), folder.string());
  CRUMB_CHECK(access(folder.c_str(), W_OK | X_OK) == 0, "cannot write {}: {}", path.string(), system_error_text(errno));
  make_folders(parent_of(path));
}

void require_apart(const Path& output, const std::vector<Path>& inputs) {
  if (!fs::exists(output)) return;
  const Path to = fs::canonical(output);
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

void remove_leftovers(const Path& folder, std::chrono::seconds age) {
  std::error_code none;
  std::vector<Path> leftovers;
  for (const auto& entry : fs::directory_iterator(folder, none)) {
    if (is_leftover(entry.path()) && fs::file_time_type::clock::now() - entry.last_write_time(none) >= age)
      leftovers.push_back(entry.path());
  }
  for (const auto& path : leftovers) fs::remove_all(path, none);
}

void sync_folder(const Path& path) {
  for (const auto& entry : fs::recursive_directory_iterator(path)) {
    if (entry.is_regular_file())
      sync_path(entry.path(), O_RDONLY);
    else if (entry.is_directory())
      sync_path(entry.path(), O_RDONLY | O_DIRECTORY);
  }
  sync_path(path, O_RDONLY | O_DIRECTORY);
}

}  // namespace crumb
