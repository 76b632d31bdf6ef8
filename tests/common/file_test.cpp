#include "core/common/file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/common/error.h"
#include "tests/testing/in_child.h"
#include "tests/testing/small_disk.h"
#include "tests/testing/testing.h"

namespace crumb {
namespace {

namespace fs = std::filesystem;
using crumb::testing::error_of;
using crumb::testing::in_child;
using crumb::testing::names_in;
using crumb::testing::read_file;
using crumb::testing::SmallDisk;
using crumb::testing::TempDir;
using crumb::testing::write_file;
using ::testing::HasSubstr;

TEST(MappedFile, HoldsTheBytesOfTheFile) {
  const TempDir dir;
  write_file(dir / "a", std::string("one\0two", 7));
  const MappedFile file(dir / "a");
  EXPECT_EQ(file.size(), 7);
  EXPECT_EQ(std::string(file.bytes().begin(), file.bytes().end()), std::string("one\0two", 7));
  write_file(dir / "empty", "");
  EXPECT_EQ(MappedFile(dir / "empty").size(), 0);
  EXPECT_TRUE(MappedFile(dir / "empty").bytes().empty());
}

TEST(MappedFile, RefusesAGitLfsPointerInPlaceOfTheFile) {
  const TempDir dir;
  const std::string pointer =
      "version https://git-lfs.github.com/spec/v1\noid sha256:" + std::string(64, 'a') + "\nsize 123456789\n";
  write_file(dir / "a.json", pointer);
  const auto message = "cannot read " + (dir / "a.json").string() +
                       ": a Git LFS pointer, not the file itself, which `git lfs pull` fetches";
  EXPECT_EQ(error_of([&] { MappedFile(dir / "a.json"); }), message);
  EXPECT_EQ(error_of([&] { read_text(dir / "a.json"); }), message);
  write_file(dir / "a.txt", "version https://example.org of the text\n");
  EXPECT_EQ(MappedFile(dir / "a.txt").size(), 40);
}

TEST(MappedFile, ReadsReleasedPagesAgain) {
  const TempDir dir;
  const std::string text(100'000, 'x');
  write_file(dir / "a", text);
  const MappedFile file(dir / "a");
  for (const auto& [offset, length] :
       {std::pair<int64_t, int64_t>{0, 100'000}, {5, 10}, {4096, 4096}, {99'999, 50}, {0, 0}}) {
    file.release(offset, length);
    EXPECT_EQ(std::string(file.bytes().begin(), file.bytes().end()), text);
  }
}

TEST(MappedFile, NamesWhatCannotBeRead) {
  const TempDir dir;
  EXPECT_EQ(error_of([&] { MappedFile(dir / "none"); }),
            "cannot read " + (dir / "none").string() + ": No such file or directory");
  EXPECT_EQ(error_of([&] { MappedFile(dir.path()); }), "cannot read " + dir.path().string() + ": not a regular file");
}

TEST(MappedFile, DoesNotWaitForAPipe) {
  const TempDir dir;
  ASSERT_EQ(mkfifo((dir / "pipe").c_str(), 0600), 0);
  EXPECT_EQ(error_of([&] { MappedFile(dir / "pipe"); }),
            "cannot read " + (dir / "pipe").string() + ": not a regular file");
}

/// The next `count` temporary names that this process would choose for `path`, the one in use left out.
std::vector<Path> next_temporaries(const Path& path, int count) {
  const std::string used = AtomicFile(path).temporary_path().string();
  const size_t dash = used.rfind('-');
  std::vector<Path> names;
  for (int i = 1; i <= count; ++i)
    names.emplace_back(used.substr(0, dash + 1) + std::to_string(std::stoi(used.substr(dash + 1)) + i));
  return names;
}

TEST(AtomicFile, LeftoversOfAProcessWithTheSameNumberAreInNobodysWay) {
  const TempDir dir;
  for (const auto& name : next_temporaries(dir / "a", 2)) write_file(name, "stale");
  write_text(dir / "a", "new");
  EXPECT_EQ(read_file(dir / "a"), "new");
  EXPECT_EQ(names_in(dir.path()).size(), 3u) << "the leftovers stay for remove_leftovers";
}

TEST(AtomicFolder, LeftoversOfAProcessWithTheSameNumberDoNotGetIn) {
  const TempDir dir;
  for (const auto& name : next_temporaries(dir / "f", 2)) {
    fs::create_directories(name);
    write_file(name / "stale", "stale");
  }
  AtomicFolder folder(dir / "f");
  write_file(folder.temporary_path() / "new", "new");
  folder.commit();
  EXPECT_EQ(names_in(dir / "f"), std::vector<std::string>{"new"});
}

constexpr int64_t kPages = 16 * 4096;

TEST(MappedFile, ThatBecameShorterIsAnErrorOfReleaseAndCommit) {
  const TempDir dir;
  write_file(dir / "a", std::string(kPages, 'a'));
  write_file(dir / "old", "old");
  const std::string error = (dir / "a").string() + " became shorter while it was read";
  {
    const MappedFile file(dir / "a");
    const MappedFile moved(MappedFile(dir / "a"));
    EXPECT_NO_THROW(require_mapped_files_whole());
    fs::resize_file(dir / "a", kPages - 1);  // the last page is still there: its end reads as zeros
    EXPECT_EQ(file.bytes().back(), 0);
    EXPECT_TRUE(file.is_shorter());
    EXPECT_EQ(error_of([&] { file.release(0, 1); }), error);
    EXPECT_EQ(error_of([&] { write_text(dir / "old", "new"); }), error);
    EXPECT_EQ(error_of([&] { AtomicFolder(dir / "f").commit(); }), error);
    EXPECT_EQ(moved.at(file.bytes().data()), &file);
    EXPECT_EQ(moved.at(moved.bytes().data() + kPages - 1), &moved);
    EXPECT_EQ(moved.at(&error), nullptr);
  }
  EXPECT_EQ(read_file(dir / "old"), "old");
  EXPECT_EQ(names_in(dir.path()), (std::vector<std::string>{"a", "old"}));
  EXPECT_NO_THROW(require_mapped_files_whole()) << "it is no longer mapped";
}

TEST(MappedFile, ThatWasReplacedOrRemovedStaysWhole) {
  const TempDir dir;
  write_file(dir / "a", std::string(kPages, 'a'));
  const MappedFile file(dir / "a");
  write_text(dir / "a", "short");
  EXPECT_NO_THROW(file.require_whole());
  fs::remove(dir / "a");
  EXPECT_NO_THROW(file.require_whole());
  EXPECT_EQ(file.bytes()[kPages - 1], 'a');
}

TEST(Names, ThatCannotBeLookedUpAreMistakesOfTheUser) {
  const TempDir dir;
  fs::create_symlink("loop", dir / "loop");
  const std::string message = "cannot read " + (dir / "loop").string() + ": Too many levels of symbolic links";
  EXPECT_EQ(error_of([&] { is_there(dir / "loop"); }), message);
  EXPECT_EQ(error_of([&] { is_file(dir / "loop"); }), message);
  EXPECT_EQ(error_of([&] { is_folder(dir / "loop"); }), message);
  EXPECT_EQ(error_of([&] { paths_in(dir / "loop"); }), message);
  EXPECT_EQ(error_of([&] { canonical_path(dir / "loop"); }), message);
  EXPECT_FALSE(is_there(dir / "absent"));
  EXPECT_FALSE(is_folder(dir / "absent/inside"));
  write_file(dir / "b", "");
  write_file(dir / "a", "");
  EXPECT_THAT(paths_in(dir.path()), ::testing::ElementsAre(dir / "a", dir / "b", dir / "loop"));
}

TEST(AtomicFile, AppearsOnlyAtCommit) {
  const TempDir dir;
  write_file(dir / "a", "old");
  {
    AtomicFile file(dir / "a");
    file.write("new!");
    file.write_zeros(5000);
    file.write("end");
    file.rewrite(3, ".", 1);
    EXPECT_EQ(file.position(), 5007);
    file.flush();
    EXPECT_EQ(read_file(file.temporary_path()).size(), 5007u);
    EXPECT_EQ(read_file(dir / "a"), "old");
    file.write("!");
    file.commit();
  }
  EXPECT_EQ(read_file(dir / "a"), "new." + std::string(5000, '\0') + "end!");
  EXPECT_EQ(names_in(dir.path()), std::vector<std::string>{"a"});
}

TEST(AtomicFile, WithoutCommitLeavesTheOldFileAndNothingElse) {
  const TempDir dir;
  write_file(dir / "a", "old");
  { AtomicFile(dir / "a").write("new"); }
  EXPECT_EQ(read_file(dir / "a"), "old");
  EXPECT_EQ(names_in(dir.path()), std::vector<std::string>{"a"});
}

TEST(AtomicFile, KilledBeforeCommitLeavesTheOldFile) {
  const TempDir dir;
  write_file(dir / "a", "old");
  EXPECT_EQ(in_child([&] {
              AtomicFile file(dir / "a");
              file.write(std::string(3'000'000, 'n'));
              file.flush();
              kill(getpid(), SIGKILL);
            }),
            128 + SIGKILL);
  EXPECT_EQ(read_file(dir / "a"), "old");
  write_text(dir / "a", "new");  // the leftover of the killed process is in nobody's way
  EXPECT_EQ(read_file(dir / "a"), "new");
}

// A limit on the size of files stands for a full disk: writes past it fail.
int write_past_limit(const Path& path, int64_t bytes, bool at_once) {
  return in_child([&] {
    signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{1'500'000, 1'500'000};
    setrlimit(RLIMIT_FSIZE, &limit);
    const std::string expected = "cannot write " + path.string() + ": File too large; nothing was replaced";
    const std::string message = error_of([&] {
      AtomicFile file(path);
      for (int64_t left = bytes; left > 0;) {
        const int64_t n = at_once ? left : std::min<int64_t>(left, 100);
        file.write(std::string(static_cast<size_t>(n), 'n'));
        left -= n;
      }
      file.commit();
    });
    _exit(message == expected ? 7 : 8);
  });
}

/// Runs `body` in a child that cannot use renameat2(): what a file system without its flags answers.
int without_rename_flags(const std::function<void()>& body) {
  return in_child([&] {
    sock_filter code[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
                          BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_renameat2, 0, 1),
                          BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
                          BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    const sock_fprog program{static_cast<unsigned short>(std::size(code)), code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
      _exit(77);
    body();
  });
}
std::string has_appeared(const Path& path) {
  return path.string() +
         " has appeared while its content was made, and stays; give another name, or --force to replace it";
}

TEST(AtomicFile, WithoutOverwriteLeavesWhatAppearedMeanwhile) {
  for (const bool flags : {true, false}) {
    const TempDir dir;
    const auto body = [&] {
      AtomicFile absent(dir / "new", Overwrite::no), file(dir / "a", Overwrite::no);
      absent.write("new");
      absent.commit();
      file.write("late");
      write_file(dir / "a", "early");
      _exit(error_of([&] { file.commit(); }) == has_appeared(dir / "a") ? 7 : 8);
    };
    EXPECT_EQ(flags ? in_child(body) : without_rename_flags(body), 7) << flags;
    EXPECT_EQ(read_file(dir / "new"), "new");
    EXPECT_EQ(read_file(dir / "a"), "early");
  }
}

TEST(AtomicFolder, WithoutOverwriteLeavesWhatAppearedMeanwhile) {
  for (const bool flags : {true, false}) {
    const TempDir dir;
    const auto body = [&] {
      AtomicFolder absent(dir / "new", Overwrite::no), folder(dir / "f", Overwrite::no);
      write_file(absent.temporary_path() / "x", "new");
      absent.commit();
      write_file(folder.temporary_path() / "x", "late");
      fs::create_directories(dir / "f");
      _exit(error_of([&] { folder.commit(); }) == has_appeared(dir / "f") ? 7 : 8);
    };
    EXPECT_EQ(flags ? in_child(body) : without_rename_flags(body), 7) << flags;
    EXPECT_EQ(read_file(dir / "new/x"), "new");
    EXPECT_TRUE(fs::is_empty(dir / "f"));
  }
}

TEST(AtomicFolder, ReplacesWhereFoldersCannotBeExchanged) {
  const TempDir dir;
  fs::create_directories(dir / "f");
  write_file(dir / "f/old", "old");
  EXPECT_EQ(without_rename_flags([&] {
              AtomicFolder folder(dir / "f");
              write_file(folder.temporary_path() / "new", "new");
              folder.commit();
              _exit(7);
            }),
            7);
  EXPECT_EQ(names_in(dir / "f"), std::vector<std::string>{"new"});
  EXPECT_EQ(names_in(dir.path()), std::vector<std::string>{"f"});
}

TEST(AtomicFolder, NeverReplacesAFile) {
  const TempDir dir;
  write_file(dir / "f", "mine");
  EXPECT_EQ(error_of([&] { AtomicFolder(dir / "f").commit(); }),
            "cannot replace " + (dir / "f").string() + ": it is not a folder");
  EXPECT_EQ(read_file(dir / "f"), "mine");
}

TEST(AtomicFile, WritesTheTargetOfALink) {
  const TempDir dir;
  fs::create_directories(dir / "far");
  write_file(dir / "far/a", "old");
  fs::create_symlink("far/a", dir / "a");
  fs::create_symlink("a", dir / "link to a link");
  fs::create_symlink("far/absent", dir / "dangling");
  write_text(dir / "link to a link", "new");
  write_text(dir / "dangling", "made", Overwrite::no);
  EXPECT_EQ(read_file(dir / "far/a"), "new");
  EXPECT_EQ(read_file(dir / "far/absent"), "made");
  for (const char* link : {"a", "link to a link", "dangling"}) EXPECT_TRUE(fs::is_symlink(dir / link)) << link;
  EXPECT_EQ(names_in(dir / "far"), (std::vector<std::string>{"a", "absent"}));
  fs::create_symlink("round", dir / "round");
  EXPECT_EQ(error_of([&] { write_text(dir / "round", ""); }),
            "cannot write " + (dir / "round").string() + ": Too many levels of symbolic links");
}

TEST(AtomicFolder, ReplacesTheTargetOfALink) {
  const TempDir dir;
  fs::create_directories(dir / "far/f");
  write_file(dir / "far/f/old", "old");
  fs::create_directory_symlink("far/f", dir / "f");
  AtomicFolder folder((dir / "f").string() + "/");
  write_file(folder.temporary_path() / "new", "new");
  folder.commit();
  EXPECT_TRUE(fs::is_symlink(dir / "f"));
  EXPECT_EQ(names_in(dir / "far/f"), std::vector<std::string>{"new"});
  EXPECT_EQ(names_in(dir / "far"), std::vector<std::string>{"f"});
}

TEST(AtomicFile, OnAFullDiskFailsWithThePathAndKeepsTheOldFile) {
  const TempDir dir;
  write_file(dir / "a", "old");
  EXPECT_EQ(write_past_limit(dir / "a", 4'000'000, true), 7);
  EXPECT_EQ(write_past_limit(dir / "a", 4'000'000, false), 7);
  EXPECT_EQ(write_past_limit(dir / "a", 1'500'001, false), 7) << "the last bytes fail at commit";
  EXPECT_EQ(read_file(dir / "a"), "old");
  EXPECT_EQ(names_in(dir.path()), std::vector<std::string>{"a"});
}

/// The exit code and message of the Error that `body` throws.
std::pair<int, std::string> failure_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& e) {
    return {e.exit_code(), e.what()};
  }
  return {0, ""};
}

TEST(FullDisk, FailsAtWriteOrFlushAndKeepsTheOldFile) {
  const TempDir dir;
  const SmallDisk disk(dir / "disk", 64 << 10);
  if (!disk.is_mounted()) GTEST_SKIP() << "no disk can be mounted here";
  write_text(dir / "disk/a", "old");
  for (const size_t bytes : {size_t{100'000}, size_t{4'000'000}}) {
    const auto failure = failure_of([&] { write_text(dir / "disk/a", std::string(bytes, 'n')); });
    EXPECT_EQ(failure, std::pair(kExitRun, "cannot write " + (dir / "disk/a").string() +
                                               ": No space left on device; nothing was replaced"));
  }
  EXPECT_EQ(read_file(dir / "disk/a"), "old");
  EXPECT_EQ(names_in(dir / "disk"), std::vector<std::string>{"a"});
}

TEST(FullDisk, WithoutRoomForANameFailsTheRun) {
  const TempDir dir;
  const SmallDisk disk(dir / "disk", 64 << 10, 2);
  if (!disk.is_mounted()) GTEST_SKIP() << "no disk can be mounted here";
  write_text(dir / "disk/a", "old");
  const std::string reason = ": No space left on device";
  EXPECT_EQ(failure_of([&] { AtomicFile(dir / "disk/a"); }),
            std::pair(kExitRun, "cannot write " + (dir / "disk/a").string() + reason));
  EXPECT_EQ(failure_of([&] { AtomicFolder(dir / "disk/f"); }),
            std::pair(kExitRun, "cannot write " + (dir / "disk/f").string() + reason));
  EXPECT_EQ(failure_of([&] { make_folders(dir / "disk/f"); }),
            std::pair(kExitRun, "cannot make the folder " + (dir / "disk/f").string() + reason));
  EXPECT_EQ(read_file(dir / "disk/a"), "old");
}

TEST(AtomicFile, InAFolderThatIsNotThereFailsAtOnce) {
  const TempDir dir;
  EXPECT_EQ(error_of([&] { AtomicFile(dir / "none/a"); }),
            "cannot write " + (dir / "none/a").string() + ": No such file or directory");
}

TEST(AtomicFile, OntoAFolderFailsAndRemovesItsTemporary) {
  const TempDir dir;
  fs::create_directories(dir / "a/b");
  EXPECT_THAT(error_of([&] {
                AtomicFile file(dir / "a");
                file.commit();
              }),
              HasSubstr("cannot rename to " + (dir / "a").string()));
  EXPECT_EQ(names_in(dir.path()), std::vector<std::string>{"a"});
}

TEST(AtomicFolder, AppearsOnlyAtCommit) {
  const TempDir dir;
  AtomicFolder folder(dir / "f");
  fs::create_directories(folder.temporary_path() / "sub");
  write_file(folder.temporary_path() / "sub/x", "new");
  EXPECT_FALSE(fs::exists(dir / "f"));
  folder.commit();
  EXPECT_EQ(read_file(dir / "f/sub/x"), "new");
  EXPECT_EQ(names_in(dir.path()), std::vector<std::string>{"f"});
}

TEST(AtomicFolder, ReplacesAnExistingOneAsAWhole) {
  const TempDir dir;
  fs::create_directories(dir / "f");
  write_file(dir / "f/old", "old");
  {
    AtomicFolder folder((dir / "f").string() + "/");  // a trailing slash is no other name
    write_file(folder.temporary_path() / "new", "new");
    EXPECT_EQ(names_in(dir / "f"), std::vector<std::string>{"old"});
    folder.commit();
  }
  EXPECT_EQ(names_in(dir / "f"), std::vector<std::string>{"new"});
  EXPECT_EQ(names_in(dir.path()), std::vector<std::string>{"f"});
}

TEST(AtomicFolder, WithoutCommitOrKilledLeavesTheOldOne) {
  const TempDir dir;
  fs::create_directories(dir / "f");
  write_file(dir / "f/old", "old");
  { const AtomicFolder folder(dir / "f"); }
  EXPECT_EQ(names_in(dir.path()), std::vector<std::string>{"f"});
  EXPECT_EQ(in_child([&] {
              const AtomicFolder folder(dir / "f");
              write_file(folder.temporary_path() / "new", "new");
              kill(getpid(), SIGKILL);
            }),
            128 + SIGKILL);
  EXPECT_EQ(names_in(dir / "f"), std::vector<std::string>{"old"});
}

TEST(RequireNewOutput, RefusesWhatExistsUnlessForced) {
  const TempDir dir;
  write_file(dir / "a", "old");
  EXPECT_EQ(error_of([&] { require_new_output(dir / "a", false); }),
            (dir / "a").string() + " exists; give another name, or --force to replace it");
  EXPECT_NO_THROW(require_new_output(dir / "a", true));
  EXPECT_EQ(read_file(dir / "a"), "old");
  EXPECT_EQ(error_of([&] { require_new_output("", false); }), "no output given");
}

TEST(RequireNewFile, RefusesTheNameOfAFolder) {
  const TempDir dir;
  for (const char* name : {"x.gguf/", "x.gguf/.", "x/.."}) {
    const Path path = dir / name;
    for (const bool force : {false, true})
      EXPECT_EQ(error_of([&] { require_new_file(path, force); }),
                path.string() + " names a folder; give the name of a file");
  }
  fs::create_directories(dir / "f");
  EXPECT_EQ(error_of([&] { require_new_file(dir / "f", true); }),
            (dir / "f").string() + " is a folder; give the name of a file");
  EXPECT_EQ(names_in(dir.path()), std::vector<std::string>{"f"}) << "nothing is made for a name that is refused";
  EXPECT_NO_THROW(require_new_file(dir / "x.gguf", false));
}

TEST(RequireNewOutput, LooksAtTheTargetOfALink) {
  const TempDir dir;
  write_file(dir / "a", "old");
  fs::create_symlink("a", dir / "link");
  fs::create_symlink("absent", dir / "dangling");
  EXPECT_THAT(error_of([&] { require_new_output(dir / "link", false); }), HasSubstr("link exists"));
  EXPECT_NO_THROW(require_new_output(dir / "dangling", false));
}

TEST(RequireNewOutput, RefusesADeviceAlsoWhenForced) {
  for (const bool force : {false, true}) {
    EXPECT_EQ(error_of([&] { require_new_output("/dev/null", force); }),
              "/dev/null is neither a file nor a folder; give another name");
  }
}

TEST(RequireNewOutput, MakesMissingFoldersAndNamesWhatIsNone) {
  const TempDir dir;
  require_new_output(dir / "x/y/out", false);
  EXPECT_TRUE(fs::is_directory(dir / "x/y"));
  EXPECT_FALSE(fs::exists(dir / "x/y/out"));
  write_file(dir / "file", "");
  EXPECT_EQ(error_of([&] { require_new_output(dir / "file/out", false); }),
            "cannot write " + (dir / "file/out").string() + ": " + (dir / "file").string() + " is not a folder");
}

TEST(RequireNewOutput, RefusesAFolderItMayNotWriteTo) {
  const TempDir dir;
  fs::create_directories(dir / "locked");
  fs::permissions(dir / "locked", fs::perms{0555});
  const std::string expected = "cannot write " + (dir / "locked/out").string() + ": Permission denied";
  EXPECT_EQ(in_child([&] {
              if (geteuid() == 0 && setuid(65534) != 0) _exit(9);  // root may write everywhere: become nobody
              _exit(error_of([&] { require_new_output(dir / "locked/out", false); }) == expected ? 7 : 8);
            }),
            7);
}

TEST(RequireApart, RefusesAnOutputThatIsOrHoldsAnInput) {
  const TempDir dir;
  fs::create_directories(dir / "a/b");
  write_file(dir / "a/b/file", "");
  const auto error = [&](const fs::path& output) {
    return error_of([&] { require_apart(output, {"", dir / "absent", dir / "a/b"}); });
  };
  EXPECT_EQ(error(dir / "a"),
            (dir / "a").string() + " is or holds " + (dir / "a/b").string() + ", which is read; choose another output");
  EXPECT_NE(error(dir / "a/b"), "");
  EXPECT_NE(error(dir / "a/b/../b/"), "");
  EXPECT_EQ(error(dir / "a/b/file"), "") << "an output inside an input takes nothing of it away";
  EXPECT_EQ(error(dir / "new"), "");
}

TEST(RemoveLeftovers, TakesWhatNobodyHoldsAndNothingElse) {
  const TempDir dir;
  fs::create_directories(dir / ".model.tmp-12-0/inner");
  write_file(dir / ".log.tmp-12-1", "half");
  write_file(dir / ".hidden", "mine");
  write_file(dir / "a.tmp-1", "mine");
  write_file(dir / ".notes.tmp-today", "mine");
  fs::create_symlink("a.tmp-1", dir / ".link.tmp-1-2");
  AtomicFile living(dir / "living");
  AtomicFolder growing(dir / "growing");
  write_file(growing.temporary_path() / "x", "new");
  remove_leftovers(dir.path());
  auto expected = std::vector<std::string>{".hidden", ".link.tmp-1-2", ".notes.tmp-today", "a.tmp-1"};
  expected.push_back(living.temporary_path().filename().string());
  expected.push_back(growing.temporary_path().filename().string());
  std::sort(expected.begin(), expected.end());
  EXPECT_EQ(names_in(dir.path()), expected);
  living.commit();
  growing.commit();
  EXPECT_EQ(read_file(dir / "growing/x"), "new");
  remove_leftovers(dir / "absent");
}

TEST(RemoveLeftovers, NeverTakesThoseOfAnotherUser) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can give a file away";
  const TempDir dir;
  write_file(dir / ".theirs.tmp-1-1", "half");
  ASSERT_EQ(chown((dir / ".theirs.tmp-1-1").c_str(), 65534, 65534), 0);
  remove_leftovers(dir.path());
  EXPECT_TRUE(fs::exists(dir / ".theirs.tmp-1-1"));
}

TEST(RemoveLeftovers, TakesThoseOfAKilledProcessWhoeverHasItsNumberNow) {
  const TempDir dir;
  const auto kill_at_work = [&] {
    return in_child([&] {
      AtomicFile file(dir / "file");
      file.write("half");
      const AtomicFolder folder(dir / "folder");
      write_file(folder.temporary_path() / "half", "half");
      kill(getpid(), SIGKILL);
    });
  };
  EXPECT_EQ(kill_at_work(), 128 + SIGKILL);
  ASSERT_EQ(names_in(dir.path()).size(), 2U);
  for (const auto& name : names_in(dir.path()))  // this process lives and has that number
    fs::rename(dir / name, dir / (name.substr(0, name.find("-") + 1) + std::to_string(getpid()) + "-0"));
  require_new_output(dir / "another", false);
  EXPECT_EQ(names_in(dir.path()), std::vector<std::string>{});
}

TEST(RemoveFolder, LeavesNothing) {
  const TempDir dir;
  fs::create_directories(dir / "f/inner");
  write_file(dir / "f/inner/x", "x");
  remove_folder((dir / "f").string() + "/");
  EXPECT_EQ(names_in(dir.path()), std::vector<std::string>{});
  EXPECT_EQ(error_of([&] { remove_folder(dir / "f"); }),
            "cannot remove " + (dir / "f").string() + ": No such file or directory");
}

TEST(FolderLock, IsHeldByOneProcessAtATime) {
  const TempDir dir;
  {
    const FolderLock lock(dir.path());
    EXPECT_EQ(
        in_child([&] {
          _exit(error_of([&] { FolderLock second(dir.path()); }).starts_with("another process is working in") ? 7 : 8);
        }),
        7);
  }
  EXPECT_EQ(error_of([&] { FolderLock again(dir.path()); }), "");
}

TEST(WriteText, ReplacesAFileByItsText) {
  const TempDir dir;
  write_text(dir / "a", "one");
  write_text(dir / "a", "");
  EXPECT_EQ(read_text(dir / "a"), "");
  write_text(dir / "a", "two");
  EXPECT_EQ(read_text(dir / "a"), "two");
}

}  // namespace
}  // namespace crumb
