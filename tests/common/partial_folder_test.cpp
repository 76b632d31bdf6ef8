// Folders whose unfinished work is kept, and files whose bytes come in any order.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include "core/common/file.h"
#include "tests/testing/in_child.h"
#include "tests/testing/small_disk.h"
#include "tests/testing/testing.h"

namespace crumb {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using testing::error_of;
using ::testing::HasSubstr;
using testing::in_child;
using testing::names_in;
using testing::read_file;
using testing::TempDir;
using testing::write_file;

TEST(PlacedFile, TakesBytesInAnyOrderAndKeepsThoseThatAreThere) {
  const TempDir dir;
  {
    PlacedFile file(dir / "a", 6);
    file.write(4, "ef", 2);
    file.write(0, "ab", 2);
  }
  PlacedFile again(dir / "a", 6);
  again.write(2, "cd", 2);
  std::string text(4, ' ');
  again.read(1, text.data(), 4);
  EXPECT_EQ(text, "bcde");
  EXPECT_EQ(read_file(dir / "a"), "abcdef");
  EXPECT_EQ(error_of([&] { again.read(4, text.data(), 4); }),
            "cannot read " + (dir / "a").string() + ": it ends early");
}

TEST(PlacedFile, SaysThatTheDiskIsFull) {
  const TempDir dir;
  const testing::SmallDisk disk(dir / "disk", 1 << 20);
  if (!disk.is_mounted()) GTEST_SKIP() << "needs the right to mount";
  PlacedFile file(dir / "disk/a", 1 << 22);
  const std::string bytes(1 << 22, 'x');
  EXPECT_EQ(error_of([&] { file.write(0, bytes.data(), 1 << 22); }),
            "cannot write " + (dir / "disk/a").string() + ": No space left on device");
}

TEST(PartialFolder, KeepsWhatAKilledProcessLeftForTheNextToGoOnFrom) {
  const TempDir dir;
  EXPECT_EQ(in_child([&] {
              const AtomicFolder folder(dir / "f", Overwrite::no, Unfinished::kept);
              write_file(folder.temporary_path() / "done", "first");
              write_file(folder.temporary_path() / ".done.tmp-1-0", "half of a file");
              kill(getpid(), SIGKILL);
            }),
            128 + SIGKILL);
  EXPECT_THAT(names_in(dir.path()), ElementsAre("f.partial"));
  remove_leftovers(dir.path());
  EXPECT_THAT(names_in(dir.path()), ElementsAre("f.partial")) << "it is no leftover";
  {
    AtomicFolder folder((dir / "f").string() + "/", Overwrite::no, Unfinished::kept);
    EXPECT_TRUE(folder.is_resumed());
    EXPECT_THAT(names_in(folder.temporary_path()), ElementsAre("done"));
    write_file(folder.temporary_path() / "more", "second");
    folder.commit();
  }
  EXPECT_THAT(names_in(dir.path()), ElementsAre("f"));
  EXPECT_THAT(names_in(dir / "f"), ElementsAre("done", "more"));
}

TEST(PartialFolder, IsHeldByOneWriterAtATime) {
  const TempDir dir;
  const AtomicFolder folder(dir / "f", Overwrite::no, Unfinished::kept);
  EXPECT_FALSE(folder.is_resumed());
  EXPECT_EQ(error_of([&] { AtomicFolder(dir / "f", Overwrite::no, Unfinished::kept); }),
            "another process is writing " + (dir / "f").string() + "; wait for it, or choose another output");
}

TEST(PartialFolder, MayBeClearedAndDiscarded) {
  const TempDir dir;
  { const AtomicFolder folder(dir / "f", Overwrite::no, Unfinished::kept); }
  fs::create_directories(dir / "f.partial/sub");
  write_file(dir / "f.partial/sub/x", "old");
  {
    AtomicFolder folder(dir / "f", Overwrite::no, Unfinished::kept);
    folder.clear();
    EXPECT_FALSE(folder.is_resumed());
    EXPECT_THAT(names_in(folder.temporary_path()), ElementsAre());
    folder.discard();
  }
  EXPECT_THAT(names_in(dir.path()), ElementsAre());
}

TEST(PartialFolder, IsNoLinkAndNoFile) {
  const TempDir dir;
  fs::create_directories(dir / "other");
  write_file(dir / "other/mine", "precious");
  const std::string message =
      (dir / "f.partial").string() +
      " is no folder, and has the name that unfinished work needs; remove it, or choose another output";
  const auto error = [&] { return error_of([&] { AtomicFolder(dir / "f", Overwrite::yes, Unfinished::kept); }); };
  fs::create_symlink("other", dir / "f.partial");
  EXPECT_EQ(error(), message);
  fs::remove(dir / "f.partial");
  fs::create_symlink("nowhere", dir / "f.partial");
  EXPECT_EQ(error(), message);
  fs::remove(dir / "f.partial");
  write_file(dir / "f.partial", "mine");
  EXPECT_EQ(error(), message);
  EXPECT_EQ(read_file(dir / "other/mine"), "precious");
  fs::create_symlink("other/mine", dir / "link");
  EXPECT_THAT(error_of([&] { PlacedFile(dir / "link", 1); }), HasSubstr("cannot open"));
}

TEST(PartialFolder, ReplacesAnExistingOneAndLeavesNothing) {
  const TempDir dir;
  fs::create_directories(dir / "f");
  write_file(dir / "f/old", "old");
  {
    AtomicFolder folder(dir / "f", Overwrite::no, Unfinished::kept);
    EXPECT_THAT(error_of([&] { folder.commit(); }), HasSubstr("has appeared while its content was made"));
  }
  EXPECT_THAT(names_in(dir / "f"), ElementsAre("old"));
  {
    AtomicFolder folder(dir / "f", Overwrite::yes, Unfinished::kept);
    EXPECT_TRUE(folder.is_resumed()) << "what could not be placed was kept";
    write_file(folder.temporary_path() / "new", "new");
    folder.commit();
  }
  EXPECT_THAT(names_in(dir / "f"), ElementsAre("new"));
  EXPECT_THAT(names_in(dir.path()), ElementsAre("f"));
}

}  // namespace
}  // namespace crumb
