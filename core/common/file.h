// Files. Reading is by read-only memory maps; writing is to a temporary name beside the target, synced, then renamed,
// so that a killed or failed run leaves the old file or the new one, never half of one.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace crumb {

using Path = std::filesystem::path;

/// A whole file, mapped read-only.
class MappedFile {
 public:
  /// Throws UserError: missing, a folder, not readable, a Git LFS pointer in place of the file.
  explicit MappedFile(const Path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;
  MappedFile(const MappedFile&) = delete;

  const Path& path() const { return path_; }
  int64_t size() const { return size_; }
  std::span<const uint8_t> bytes() const { return {data_, static_cast<size_t>(size_)}; }
  /// Gives the pages of a range back to the system (they are read again when touched): keeps streaming converters
  /// small.
  void release(int64_t offset, int64_t length) const;

 private:
  Path path_;
  const uint8_t* data_ = nullptr;
  int64_t size_ = 0;
};

/// A new file that appears under its name only at commit().
class AtomicFile {
 public:
  /// Throws UserError if the folder does not exist or cannot be written.
  explicit AtomicFile(const Path& path);
  ~AtomicFile();  // without commit(): removes the temporary file
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  const Path& path() const { return path_; }
  const Path& temporary_path() const { return temporary_; }
  int64_t position() const { return position_; }
  /// Throws RunError (full disk) with the path.
  void write(const void* data, int64_t size);
  void write(std::string_view text) { write(text.data(), static_cast<int64_t>(text.size())); }
  void write_zeros(int64_t count);
  /// Overwrites bytes that were written before (a header patched at the end).
  void rewrite(int64_t offset, const void* data, int64_t size);
  /// Makes what was written visible through temporary_path(), for a read-back before commit().
  void flush();
  /// Flush, fsync, rename, fsync of the folder.
  void commit();

 private:
  [[noreturn]] void fail(const char* what) const;

  Path path_, temporary_;
  std::FILE* file_ = nullptr;
  int64_t position_ = 0;
  bool committed_ = false;
};

/// A new folder that appears under its name only at commit(); an existing one is exchanged atomically and then removed.
class AtomicFolder {
 public:
  explicit AtomicFolder(const Path& path);
  ~AtomicFolder();  // without commit(): removes the temporary folder
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;

  const Path& path() const { return path_; }
  /// Write here.
  const Path& temporary_path() const { return temporary_; }
  void commit();

 private:
  Path path_, temporary_;
  bool committed_ = false;
};

/// While it lives, no other process holds the lock of this folder. Throws UserError if one does.
class FolderLock {
 public:
  explicit FolderLock(const Path& folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int fd_ = -1;
};

/// Throws UserError if the file cannot be read.
std::string read_text(const Path& path);
/// Through AtomicFile.
void write_text(const Path& path, std::string_view text);
/// mkdir -p; throws UserError when that is not possible.
void make_folders(const Path& path);
/// Throws UserError("PATH exists ...; use --force to replace it") unless it is absent or `force` is given, if it is
/// neither a file nor a folder (a device), and if its parent folder does not exist or cannot be written. Call it before
/// the work, not after.
void require_new_output(const Path& path, bool force);
/// Throws UserError when writing `output` would take away one of `inputs`: it is that file or folder, or holds it.
/// Empty paths and absent files are passed over.
void require_apart(const Path& output, const std::vector<Path>& inputs);
/// Whether the name is that of a temporary file or folder of ours: ".NAME.tmp-PID-COUNTER".
bool is_leftover(const Path& path);
/// Removes what a killed run left half written in `folder`: temporary files and folders at least this old.
void remove_leftovers(const Path& folder, std::chrono::seconds age = std::chrono::seconds(0));
/// fsync of every file of a folder and of the folder itself.
void sync_folder(const Path& path);

}  // namespace crumb
