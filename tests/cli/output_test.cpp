// What a verb writes when it is ended, raced or robbed of its input.
#include <gmock/gmock.h>

#include "tests/export/test_models.h"
#include "tests/testing/running_crumb.h"

namespace crumb::testing {
namespace {

using arch::Architecture;
using ::testing::HasSubstr;

/// A command that reads a model of 40 MB and writes `name`.
struct Writer {
  std::string verb, target;  // "" for quantize
  std::string name;
  /// It keeps what is done as NAME.partial, for the same command to go on from.
  bool goes_on() const { return verb == "quantize"; }
};

const std::vector<Writer>& writers() {
  static const std::vector<Writer> all = {
      {"export", "gguf-q8_0", "out.gguf"},
      {"export", "hf-bf16", "folder"},
#ifdef CRUMB_WITH_TORCH
      {"quantize", "", "codes"},
#endif
  };
  return all;
}

class Output : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    shared_ = new TempDir;
    write_model(*shared_ / "model", small_spec(Architecture::llama, 1024));
  }
  static void TearDownTestSuite() {
    delete shared_;
    shared_ = nullptr;
  }
  static fs::path model() { return *shared_ / "model"; }

  static std::vector<std::string> command(const Writer& writer, const fs::path& model, const fs::path& output) {
    std::vector<std::string> words = {writer.verb, model.string(), "-o", output.string(), "--threads", "2", "--quiet"};
    if (!writer.target.empty()) words.insert(words.end(), {"--to", writer.target});
    return words;
  }
  static std::vector<std::string> leftovers_in(const fs::path& folder) {
    std::vector<std::string> names;
    std::error_code none;
    for (const auto& entry : fs::directory_iterator(folder, none)) {
      const std::string name = entry.path().filename().string();
      if (name.find(".tmp-") != std::string::npos || name.ends_with(".partial")) names.push_back(name);
    }
    return names;
  }
  static bool is_at_work(const fs::path& folder) { return !leftovers_in(folder).empty(); }

  static TempDir* shared_;
};
TempDir* Output::shared_ = nullptr;

TEST_F(Output, OfAKilledRunIsRemovedByTheNextRunOfAnyVerb) {
  for (const Writer& writer : writers()) {
    SCOPED_TRACE(writer.verb + " " + writer.target);
    const TempDir dir;
    RunningCrumb crumb(command(writer, model(), dir / "work" / writer.name), dir / "err");
    ASSERT_TRUE(crumb.wait_until([&] { return is_at_work(dir / "work"); })) << read_file(dir / "err");
    EXPECT_EQ(crumb.end(SIGKILL), 128 + SIGKILL);
    EXPECT_EQ(leftovers_in(dir / "work").size(), 1U);
    const auto next = run_crumb("export " + model().string() + " --to gguf-bf16 -o " + (dir / "work/next").string());
    EXPECT_EQ(next.exit_code, 0) << next.err;
    if (writer.goes_on()) {  // its work is for the same job
      EXPECT_EQ(leftovers_in(dir / "work").size(), 1U);
      RunningCrumb again(command(writer, model(), dir / "work" / writer.name), dir / "err");
      EXPECT_EQ(again.wait(), 0) << read_file(dir / "err");
    }
    EXPECT_EQ(leftovers_in(dir / "work"), std::vector<std::string>{});
  }
}

TEST_F(Output, OfALivingRunIsLeftAlone) {
  for (const Writer& writer : writers()) {
    SCOPED_TRACE(writer.verb + " " + writer.target);
    const TempDir dir;
    RunningCrumb crumb(command(writer, model(), dir / "work" / writer.name), dir / "err");
    ASSERT_TRUE(crumb.wait_until([&] { return is_at_work(dir / "work"); })) << read_file(dir / "err");
    crumb.stop();
    const auto next = run_crumb("export " + model().string() + " --to gguf-bf16 -o " + (dir / "work/next").string());
    crumb.go_on();
    EXPECT_EQ(next.exit_code, 0) << next.err;
    EXPECT_EQ(crumb.wait(), 0) << read_file(dir / "err");
    EXPECT_TRUE(fs::exists(dir / "work" / writer.name));
  }
}

TEST_F(Output, OfARunThatIsInterruptedGoesAtOnce) {
  for (const Writer& writer : writers()) {
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
      SCOPED_TRACE(writer.verb + " " + writer.target + " signal " + std::to_string(signal));
      const TempDir dir;
      RunningCrumb crumb(command(writer, model(), dir / "work" / writer.name), dir / "err");
      ASSERT_TRUE(crumb.wait_until([&] { return is_at_work(dir / "work"); })) << read_file(dir / "err");
      EXPECT_EQ(crumb.end(signal), 128 + signal);
      if (writer.goes_on()) {
        EXPECT_EQ(leftovers_in(dir / "work"), std::vector<std::string>{writer.name + ".partial"});
        RunningCrumb again(command(writer, model(), dir / "work" / writer.name), dir / "err");
        EXPECT_EQ(again.wait(), 0) << read_file(dir / "err");
        continue;
      }
      std::string left;
      for (const auto& entry : fs::recursive_directory_iterator(dir / "work")) left += entry.path().string() + " ";
      EXPECT_EQ(left, "");
    }
  }
}

TEST_F(Output, OfAModelThatBecameShorterIsRemovedWithOneLine) {
  for (const Writer& writer : writers()) {
    for (const int64_t size : {int64_t{4096}, static_cast<int64_t>(fs::file_size(model() / "model.safetensors")) - 1}) {
      SCOPED_TRACE(writer.verb + " " + writer.target + " to " + std::to_string(size));
      const TempDir dir;
      fs::copy(model(), dir / "model");
      const fs::path weights = dir / "model/model.safetensors";
      RunningCrumb crumb(command(writer, dir / "model", dir / "work" / writer.name), dir / "err");
      ASSERT_TRUE(crumb.wait_until([&] { return is_at_work(dir / "work"); })) << read_file(dir / "err");
      crumb.stop();
      fs::resize_file(weights, static_cast<uintmax_t>(size));
      crumb.go_on();
      EXPECT_EQ(crumb.wait(), 1);
      EXPECT_EQ(read_file(dir / "err"), "crumb: " + weights.string() + " became shorter while it was read\n");
      // A page that is gone ends the program at once: what was written to go on from stays then, of no use.
      const bool is_page_gone = size == 4096;
      EXPECT_TRUE((writer.goes_on() && is_page_gone) || fs::is_empty(dir / "work"));
      EXPECT_FALSE(fs::exists(dir / "work" / writer.name));
    }
  }
}

TEST_F(Output, ThatAppearsDuringTheWorkStays) {
  for (const Writer& writer : writers()) {
    SCOPED_TRACE(writer.verb + " " + writer.target);
    const TempDir dir;
    const fs::path output = dir / "work" / writer.name;
    RunningCrumb crumb(command(writer, model(), output), dir / "err");
    ASSERT_TRUE(crumb.wait_until([&] { return is_at_work(dir / "work"); })) << read_file(dir / "err");
    crumb.stop();
    write_file(output, "mine");
    crumb.go_on();
    EXPECT_EQ(crumb.wait(), 1);
    EXPECT_THAT(read_file(dir / "err"), HasSubstr(output.string() + " has appeared while its content was made"));
    EXPECT_EQ(read_file(output), "mine");
    EXPECT_EQ(leftovers_in(dir / "work"), std::vector<std::string>{});
  }
}

TEST_F(Output, IsThatOfOneOfTwoRuns) {
  for (const Writer& writer : writers()) {
    SCOPED_TRACE(writer.verb + " " + writer.target);
    const TempDir dir;
    const fs::path output = dir / "work" / writer.name;
    RunningCrumb first(command(writer, model(), output), dir / "err-1"),
        second(command(writer, model(), output), dir / "err-2");
    const int codes[] = {first.wait(), second.wait()};
    EXPECT_EQ(std::count(std::begin(codes), std::end(codes), 0), 1) << codes[0] << " and " << codes[1];
    const std::string loser = read_file(codes[0] == 0 ? dir / "err-2" : dir / "err-1");
    EXPECT_EQ(std::count(loser.begin(), loser.end(), '\n'), 1) << loser;
    const bool is_told_at_once = writer.goes_on() && loser.find("another process is writing") != std::string::npos;
    EXPECT_TRUE(is_told_at_once || loser.find("--force to replace it") != std::string::npos) << loser;
    EXPECT_EQ(run_crumb("inspect " + output.string()).exit_code, 0);
    EXPECT_EQ(leftovers_in(dir / "work"), std::vector<std::string>{});
  }
}

TEST_F(Output, ThatIsALinkIsWrittenWhereItPointsByForce) {
  for (const Writer& writer : writers()) {
    SCOPED_TRACE(writer.verb + " " + writer.target);
    const TempDir dir;
    fs::create_directories(dir / "far");
    const fs::path target = dir / "far" / writer.name, link = dir / writer.name;
    if (writer.target.starts_with("gguf")) {
      write_file(target, "old");
    } else {
      fs::create_directories(target);
    }
    fs::create_symlink(target, link);
    RunningCrumb refused(command(writer, model(), link), dir / "err");
    EXPECT_EQ(refused.wait(), 2);
    auto words = command(writer, model(), link);
    words.emplace_back("--force");
    RunningCrumb forced(words, dir / "err");
    EXPECT_EQ(forced.wait(), 0) << read_file(dir / "err");
    EXPECT_TRUE(fs::is_symlink(link));
    EXPECT_EQ(run_crumb("inspect " + target.string()).exit_code, 0);
  }
}

TEST_F(Output, OfAFileThatEndsInASlashIsRefusedBeforeTheWork) {
  const TempDir dir;
  const auto refused = [&](const std::string& command, const std::string& name) {
    const auto result = run_crumb(command + " " + (dir / name).string() + " --force");
    EXPECT_EQ(result.exit_code, 2);
    EXPECT_EQ(result.err, "crumb: " + (dir / name).string() + " names a folder; give the name of a file\n");
    EXPECT_TRUE(fs::is_empty(dir.path()));
  };
  refused("export " + model().string() + " --to gguf-q8_0 -o", "x.gguf/");
  refused("generate " + model().string() + " --corpus 8 -o", "x.jsonl/");
}

}  // namespace
}  // namespace crumb::testing
