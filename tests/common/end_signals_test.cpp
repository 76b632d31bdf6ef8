#include "core/common/end_signals.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <thread>

#include "core/common/error.h"
#include "core/common/file.h"
#include "tests/testing/in_child.h"
#include "tests/testing/testing.h"

namespace crumb {
namespace {

namespace fs = std::filesystem;
using crumb::testing::in_child;
using crumb::testing::names_in;
using crumb::testing::read_file;
using crumb::testing::TempDir;
using crumb::testing::write_file;

constexpr int64_t kPages = 16 * 4096;

/// The exit code of a child with the handlers of the program, and what it printed on stderr.
std::pair<int, std::string> with_handlers(const Path& errors, const std::function<void()>& body) {
  const int code = in_child([&] {
    if (freopen(errors.c_str(), "w", stderr) == nullptr) _exit(9);
    install_end_signals();
    body();
  });
  return {code, read_file(errors)};
}

TEST(EndSignals, AMissingPageIsOneLineAndLeavesNoTemporary) {
  const TempDir dir;
  for (const int threads : {1, 4}) {
    write_file(dir / "a", std::string(kPages, 'a'));
    const auto [code, errors] = with_handlers(dir / "err", [&] {
      const MappedFile file(dir / "a");
      AtomicFile out(dir / "out");
      out.write("half");
      out.flush();
      const AtomicFolder folder(dir / "f");
      fs::create_directories(folder.temporary_path() / "inner");
      write_file(folder.temporary_path() / "inner/half", "half");
      fs::resize_file(dir / "a", 4096);
      std::vector<std::thread> readers;
      std::atomic<int> sum{0};
      for (int i = 0; i < threads; ++i) readers.emplace_back([&] { sum += file.bytes()[kPages - 1]; });
      for (auto& reader : readers) reader.join();
      _exit(sum > 0 ? 8 : 9);
    });
    EXPECT_EQ(code, kExitRun);
    EXPECT_EQ(errors, "crumb: " + (dir / "a").string() + " became shorter while it was read\n");
    EXPECT_EQ(names_in(dir.path()), (std::vector<std::string>{"a", "err"})) << threads;
  }
}

TEST(EndSignals, AnotherFaultEndsAsAlways) {
  const TempDir dir;
  const auto no_core = [] {
    const rlimit none{0, 0};
    setrlimit(RLIMIT_CORE, &none);
  };
  EXPECT_EQ(with_handlers(dir / "err",
                          [&] {
                            no_core();
                            raise(SIGBUS);
                          })
                .first,
            128 + SIGBUS);
  EXPECT_EQ(with_handlers(dir / "err",
                          [&] {
                            no_core();
                            write_file(dir / "a", std::string(kPages, 'a'));
                            const int fd = open((dir / "a").c_str(), O_RDONLY);
                            auto* p = static_cast<volatile char*>(mmap(nullptr, kPages, PROT_READ, MAP_PRIVATE, fd, 0));
                            fs::resize_file(dir / "a", 0);
                            _exit(p[0] == 'a' ? 8 : 9);
                          })
                .first,
            128 + SIGBUS);
}

TEST(EndSignals, EndTheProgramAsAlwaysWithoutLeavingATemporary) {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGPIPE}) {
    const TempDir dir;
    const auto [code, errors] = with_handlers(dir / "err", [&] {
      AtomicFile out(dir / "out");
      const AtomicFolder folder(dir / "f");
      write_file(folder.temporary_path() / "half", "half");
      AtomicFile done(dir / "done");
      done.commit();
      raise(signal);
      _exit(8);
    });
    EXPECT_EQ(code, 128 + signal);
    EXPECT_EQ(names_in(dir.path()), (std::vector<std::string>{"done", "err"})) << signal;
  }
}

TEST(EndSignals, LeaveAnIgnoredSignalIgnored) {
  const TempDir dir;
  EXPECT_EQ(in_child([] {
              signal(SIGHUP, SIG_IGN);
              install_end_signals();
              raise(SIGHUP);
              _exit(7);
            }),
            7);
}

/// For the file that is made at this moment, too, and for whatever would be made after it.
TEST(EndSignals, LeaveNothingOfWhatOtherThreadsGoOnMaking) {
  for (int round = 0; round < 40; ++round) {
    const TempDir dir;
    fs::create_directories(dir / "work");
    const auto [code, errors] = with_handlers(dir / "err", [&] {
      std::thread maker([&] {
        sigset_t all;
        sigfillset(&all);
        pthread_sigmask(SIG_BLOCK, &all, nullptr);  // the signal goes to the other thread
        for (;;) {
          const AtomicFolder folder(dir / "work/out");
          std::vector<std::unique_ptr<AtomicFile>> files;
          for (int i = 0; i < 100; ++i)
            files.push_back(std::make_unique<AtomicFile>(folder.temporary_path() / std::to_string(i)));
        }
      });
      while (fs::is_empty(dir / "work")) usleep(10);
      usleep(static_cast<useconds_t>(round * 37));
      raise(SIGTERM);
    });
    EXPECT_EQ(code, 128 + SIGTERM) << errors;
    EXPECT_EQ(names_in(dir / "work"), std::vector<std::string>{}) << "round " << round;
  }
}

TEST(EndSignals, ASecondSignalDuringTheRemovalEndsTheProgramAllTheSame) {
  const TempDir dir;
  const auto [code, errors] = with_handlers(dir / "err", [&] {
    const AtomicFile file(dir / "out");
    {
      const TemporariesLock lock;  // both arrive when it ends
      raise(SIGTERM);
      raise(SIGHUP);
      EXPECT_TRUE(fs::exists(file.temporary_path()));
    }
    _exit(7);
  });
  EXPECT_TRUE(code == 128 + SIGTERM || code == 128 + SIGHUP) << code << errors;
  EXPECT_EQ(names_in(dir.path()), std::vector<std::string>{"err"});
}

}  // namespace
}  // namespace crumb
