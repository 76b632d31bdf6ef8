// Files. Reading is by read-only memory maps; writing is to a temporary name beside the target, synced, then renamed,
// so that a killed or failed run leaves the old file or the new one, never half of one.
//
// A temporary file or folder is locked (flock) while its process lives; one that can be locked is a leftover, whatever
// process has its number now, also where several containers share a folder.
//
// A mapped file that becomes shorter has pages without content: touching one is SIGBUS (core/common/end_signals.h), and
// what is missing of the last page reads as zeros, so release() after a read and every commit() look at the size again.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>
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
  /// small. Throws like require_whole().
  void release(int64_t offset, int64_t length) const;
  /// Throws RunError if the file has become shorter: what was read of it may be zeros.
  void require_whole() const;
  /// Whether the file has fewer bytes now than were mapped. One that was replaced or removed has not: its bytes stay.
  bool is_shorter() const;
  /// The file of this process that is mapped at `address`, or nullptr. For a handler of SIGBUS: the lock it takes is
  /// never held where mapped bytes are read.
  static const MappedFile* at(const void* address);

 private:
  Path path_;
  const uint8_t* data_ = nullptr;
  int64_t size_ = 0;
  uint64_t device_ = 0, inode_ = 0;
};

/// require_whole() of every file that is mapped.
void require_mapped_files_whole();

/// May commit() replace what stands under the name by then? Overwrite{force}.
enum class Overwrite : bool { no, yes };

/// A new file that appears under its name only at commit(). Where the name is a symbolic link, its target is written.
class AtomicFile {
 public:
  /// Throws UserError if the folder does not exist or cannot be written, RunError for a full disk.
  explicit AtomicFile(const Path& path, Overwrite overwrite = Overwrite::yes);
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
  /// Flush, fsync, rename, fsync of the folder. RunError, and the temporary file goes: a full disk, a mapped file that
  /// became shorter, or (Overwrite::no) another file that appeared under the name meanwhile.
  void commit();

 private:
  [[noreturn]] void fail(const char* what) const;

  Path path_, target_, temporary_;
  Overwrite overwrite_;
  std::FILE* file_ = nullptr;  // holds the lock
  int64_t position_ = 0;
  bool committed_ = false;
};

/// A new file of a known size whose bytes come in any order, in a folder that appears as a whole (AtomicFolder).
/// RunError with the path for a full disk and whatever else fails.
class PlacedFile {
 public:
  /// A file that is there keeps its bytes; a symbolic link is not followed.
  PlacedFile(const Path& path, int64_t size);
  ~PlacedFile();
  PlacedFile(PlacedFile&& other) noexcept : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)) {}
  PlacedFile& operator=(PlacedFile&&) = delete;

  void write(int64_t offset, const void* data, int64_t size);
  void read(int64_t offset, void* out, int64_t size) const;

 private:
  Path path_;
  int fd_;
};

/// What becomes of an output that its writer leaves without commit().
enum class Unfinished { removed, kept };

/// A new folder that appears under its name only at commit(); an existing one is exchanged atomically and then removed.
/// (A file system that cannot exchange: it is renamed to NAME.replaced for that moment.) Symbolic links and errors as
/// for AtomicFile.
///
/// Unfinished::kept: it is written as NAME.partial, which stays when the writer fails or is killed, for another one to
/// go on from. UserError when another process holds it, or when something else than a folder has the name.
class AtomicFolder {
 public:
  explicit AtomicFolder(const Path& path, Overwrite overwrite = Overwrite::yes,
                        Unfinished unfinished = Unfinished::removed);
  /// NAME.partial of an output.
  static Path partial_path(const Path& path);
  ~AtomicFolder();  // without commit(): removes the temporary folder, unless it is to be kept
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;

  const Path& path() const { return path_; }
  /// Write here.
  const Path& temporary_path() const { return temporary_; }
  /// It holds what an earlier writer left.
  bool is_resumed() const { return is_resumed_; }
  /// Removes what an earlier writer left.
  void clear();
  /// It is not to be kept after all.
  void discard() { unfinished_ = Unfinished::removed; }
  void commit();

 private:
  void make_partial();
  void replace();

  Path path_, target_, temporary_;
  Overwrite overwrite_;
  Unfinished unfinished_;
  int lock_ = -1;
  bool is_partial_ = false, is_resumed_ = false, committed_ = false;
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

/// What stands under a name; links are followed. UserError where that cannot be found out: a link to itself, a folder
/// that may not be searched, a name that is too long. (The functions of std::filesystem throw an error that names no
/// mistake.)
bool is_there(const Path& path);
bool is_file(const Path& path);
bool is_folder(const Path& path);
/// What is in a folder, sorted by name. UserError if it cannot be read.
std::vector<Path> paths_in(const Path& folder);
/// The one name of what is there: absolute, without links. UserError if there is nothing.
Path canonical_path(const Path& path);
/// The system's folder for temporary files (TMPDIR). UserError if it is none.
Path temporary_folder();

/// Throws UserError if the file cannot be read.
std::string read_text(const Path& path);
/// Through AtomicFile.
void write_text(const Path& path, std::string_view text, Overwrite overwrite = Overwrite::yes);
/// mkdir -p; throws UserError when that is not possible.
void make_folders(const Path& path);
/// Throws UserError("PATH exists; ... --force to replace it") unless it is absent or `force` is given, if it is
/// neither a file nor a folder (a device), and if its parent folder does not exist or cannot be written. Removes
/// leftovers beside it. Call it before the work; what appears during the work is the business of commit().
void require_new_output(const Path& path, bool force);
/// The same for an output that is a file: UserError also for a folder, and for "x.gguf/", which names one.
void require_new_file(const Path& path, bool force);
/// Throws UserError when writing `output` would take away one of `inputs`: it is that file or folder, or holds it.
/// Empty paths and absent files are passed over.
void require_apart(const Path& output, const std::vector<Path>& inputs);
/// Whether the name is that of a temporary file or folder of ours: ".NAME.tmp-PID-COUNTER".
bool is_leftover(const Path& path);
/// Removes what killed runs left half written in `folder`: temporary files and folders of this user that nobody holds.
void remove_leftovers(const Path& folder);
/// Removes a folder so that a kill leaves it whole under its name, or a leftover.
void remove_folder(const Path& folder);
/// fsync of every file of a folder and of the folder itself.
void sync_folder(const Path& path);

}  // namespace crumb
