#include "core/common/file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/testing/testing.h"

namespace crumb {
namespace {

namespace fs = std::filesystem;
using crumb::testing::error_of;
using crumb::testing::read_file;
using crumb::testing::TempDir;
using crumb::testing::write_file;
using ::testing::HasSubstr;

std::vector<std::string> names_in(const Path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

/// Runs `body` in a child process; returns its exit code, or 128 + the signal that ended it.
int in_child(const std::function<void()>& body) {
  const pid_t pid = fork();
  if (pid == 0) {
    body();
    _exit(0);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

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

TEST(AtomicFile, OnAFullDiskFailsWithThePathAndKeepsTheOldFile) {
  const TempDir dir;
  write_file(dir / "a", "old");
  EXPECT_EQ(write_past_limit(dir / "a", 4'000'000, true), 7);
  EXPECT_EQ(write_past_limit(dir / "a", 4'000'000, false), 7);
  EXPECT_EQ(write_past_limit(dir / "a", 1'500'001, false), 7) << "the last bytes fail at commit";
  EXPECT_EQ(read_file(dir / "a"), "old");
  EXPECT_EQ(names_in(dir.path()), std::vector<std::string>{"a"});
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
            (dir / "a").string() + " exists and is not this job's; give another name, or --force to replace it");
  EXPECT_NO_THROW(require_new_output(dir / "a", true));
  EXPECT_EQ(read_file(dir / "a"), "old");
  EXPECT_EQ(error_of([&] { require_new_output("", false); }), "no output given");
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

TEST(RemoveLeftovers, TakesTemporaryFilesOfTheAgeAndNothingElse) {
  const TempDir dir;
  fs::create_directories(dir / ".model.tmp-12-0/inner");
  write_file(dir / ".log.tmp-12-1", "half");
  write_file(dir / ".hidden", "mine");
  write_file(dir / "a.tmp-1", "mine");
  write_file(dir / ".notes.tmp-today", "mine");
  remove_leftovers(dir.path(), std::chrono::hours(1));
  EXPECT_EQ(names_in(dir.path()).size(), 5U);
  remove_leftovers(dir.path());
  EXPECT_EQ(names_in(dir.path()), (std::vector<std::string>{".hidden", ".notes.tmp-today", "a.tmp-1"}));
  remove_leftovers(dir / "absent");
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
