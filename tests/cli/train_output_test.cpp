// The folder of crumb train: runs that go on, and what is not taken away.
#include <gmock/gmock.h>

#include <algorithm>

#include "tests/cli/train_verb.h"
#include "tests/testing/small_disk.h"

namespace crumb::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST_F(TrainVerb, KilledAtAnyMomentItEndsBitForBitAsIfNothingHappened) {
  const TempDir dir;
  ASSERT_EQ(run_qat(dir / "whole").exit_code, 0);
  const fs::path run = dir / "killed", log = run / "log.jsonl";
  const auto seed = static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
  SCOPED_TRACE("moments of the kills by seed " + std::to_string(seed));
  const Rng rng(seed);
  int kills = 0;
  for (uint64_t attempt = 0; attempt < 5; ++attempt) {
    RunningCrumb crumb(qat(run), dir / "err");
    if (!crumb.wait_for_lines(log, 1 + rng.below(attempt, 60))) continue;  // it was done first
    std::this_thread::sleep_for(std::chrono::microseconds(rng.below(100 + attempt, 20000)));
    crumb.end(SIGKILL);
    ++kills;
  }
  EXPECT_GT(kills, 0);
  const auto last = run_qat(run);
  ASSERT_EQ(last.exit_code, 0) << last.err;
  expect_same_run(run, dir / "whole");
  for (const auto& entry : fs::recursive_directory_iterator(run))
    EXPECT_THAT(entry.path().filename().string(), Not(HasSubstr(".tmp-")));
}

TEST_F(TrainVerb, AnInterruptedRunSavesAndGoesOn) {
  const TempDir dir;
  ASSERT_EQ(run_qat(dir / "whole").exit_code, 0);
  const fs::path run = dir / "stopped";
  size_t lines = 14;
  for (const int signal : {SIGTERM, SIGINT}) {
    RunningCrumb crumb(qat(run), dir / "err");
    ASSERT_TRUE(crumb.wait_for_lines(run / "log.jsonl", lines)) << read_file(dir / "err");
    EXPECT_EQ(crumb.end(signal), 1);
    const int64_t step = steps_of(run).back();
    EXPECT_THAT(read_file(dir / "err"), HasSubstr("stopped by a signal after step " + std::to_string(step)));
    EXPECT_TRUE(fs::exists(run / "checkpoints" / ("step-0000" + std::to_string(step)) / "state.json")) << step;
    lines += 20;
  }
  ASSERT_EQ(run_qat(run).exit_code, 0);
  expect_same_run(run, dir / "whole");
}

TEST_F(TrainVerb, OtherThreadsWarnThatTheEndWillDiffer) {
  const TempDir dir;
  ASSERT_EQ(run_qat(dir / "run", {"schedule.tokens=320"}).exit_code, 0);
  const auto other = run_qat(dir / "run", {"schedule.tokens=640", "threads=1"});
  EXPECT_EQ(other.exit_code, 0);
  EXPECT_THAT(other.err, HasSubstr("began with 2 threads"));
}

TEST_F(TrainVerb, AChangedJobIsRefusedAndALongerOneGoesOn) {
  const TempDir dir;
  ASSERT_EQ(run_qat(dir / "run").exit_code, 0);
  const auto changed = run_qat(dir / "run", {"optimizer.weight_decay=0.5", "seed=3"});
  EXPECT_EQ(changed.exit_code, 2);
  EXPECT_THAT(changed.err, HasSubstr("optimizer.weight_decay: 0, now 0.5"));
  EXPECT_THAT(changed.err, HasSubstr("seed: 0, now 3"));
  EXPECT_TRUE(is_one_line(changed.err)) << changed.err;
  EXPECT_EQ(log_of(dir / "run").size(), 61U);
  const auto longer =
      run_qat(dir / "run", {"schedule.tokens=2240", "checkpoint.keep=1", "checkpoint.every=20", "validate.every=10"});
  EXPECT_EQ(longer.exit_code, 0) << longer.err;
  EXPECT_THAT(longer.err, HasSubstr("its learning rate had come to its end"));
  EXPECT_EQ(steps_of(dir / "run").back(), 70);
  const auto shorter = run_qat(dir / "run", {"schedule.tokens=640"});
  EXPECT_EQ(shorter.exit_code, 2);
  EXPECT_THAT(shorter.err, HasSubstr("schedule.tokens: 640 is less than the 2,240"));
  EXPECT_THAT(read_file(dir / "run/job.yaml"), HasSubstr("tokens: 2240"));
  EXPECT_EQ(log_of(dir / "run").size(), 71U);
}

TEST_F(TrainVerb, OutputThatIsNotARunIsLeftAlone) {
  const TempDir dir;
  fs::create_directories(dir / "mine");
  write_file(dir / "mine/notes.txt", "keep");
  const auto refused = run_qat(dir / "mine");
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.err, HasSubstr("exists and is not a training run"));
  EXPECT_THAT(refused.err, HasSubstr("--force"));
  EXPECT_FALSE(fs::exists(dir / "mine/job.yaml"));
  write_file(dir / "mine/job.yaml", "services: {web: {image: nginx}}\n");
  for (const std::vector<std::string>& force : {std::vector<std::string>{}, {"--force"}})
    EXPECT_THAT(run_qat(dir / "mine", force).err, HasSubstr("job.yaml is not the job of a training run"));
  fs::remove(dir / "mine/job.yaml");
  write_file(dir / "mine/model", "my notes on a model");
  EXPECT_THAT(run_qat(dir / "mine", {"--force"}).err, HasSubstr("model exists and is not of a training run"));
  EXPECT_EQ(read_file(dir / "mine/model"), "my notes on a model");
  fs::remove(dir / "mine/model");
  const auto forced = run_qat(dir / "mine", {"--force", "schedule.tokens=64"});
  EXPECT_EQ(forced.exit_code, 0) << forced.err;
  EXPECT_EQ(read_file(dir / "mine/notes.txt"), "keep");
  write_file(dir / "file", "");
  EXPECT_THAT(run_qat(dir / "file/run").err, HasSubstr("is not a folder"));
}

TEST_F(TrainVerb, ARunKilledBeforeItsFirstStepStartsAgain) {
  const TempDir dir;
  fs::create_directories(dir / "run/tokens");
  write_file(dir / "run/tokens/.0123.tokens.tmp-1-0", "half");
  write_file(dir / "run/.job.yaml.tmp-1-1", "half");
  const auto result = run_qat(dir / "run", {"schedule.tokens=64"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_FALSE(fs::exists(dir / "run/.job.yaml.tmp-1-1"));
  EXPECT_FALSE(fs::exists(dir / "run/tokens/.0123.tokens.tmp-1-0"));
}

TEST_F(TrainVerb, ForceTakesAwayNothingBeforeTheJobHasBeenOpened) {
  const TempDir dir;
  ASSERT_EQ(run_qat(dir / "run", {"schedule.tokens=64"}).exit_code, 0);
  const auto log = read_file(dir / "run/log.jsonl");
  const auto mistyped = run_qat(dir / "run", {"--force", "teacher=" + (dir / "absent").string()});
  EXPECT_EQ(mistyped.exit_code, 2);
  EXPECT_EQ(read_file(dir / "run/log.jsonl"), log);
  EXPECT_TRUE(fs::exists(dir / "run/model/config.json"));
}

TEST_F(TrainVerb, AnOutputThatHoldsTheModelIsRefused) {
  const TempDir dir;
  fs::create_directories(dir / "mine");
  fs::copy(teacher(), dir / "mine/model", fs::copy_options::recursive);
  auto arguments = qat(dir / "mine", {"--force"});
  arguments[2] = "model=" + (dir / "mine/model").string();
  const auto result = run_crumb(words(arguments));
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("which is read; choose another output"));
  EXPECT_TRUE(fs::exists(dir / "mine/model/model.safetensors"));
  arguments[4] = "output=" + (dir / "mine/model").string();
  EXPECT_THAT(run_crumb(words(arguments)).err, HasSubstr("is read by the job"));
  EXPECT_FALSE(fs::exists(dir / "mine/model/job.yaml"));
}

TEST_F(TrainVerb, OneRunAtATimeWorksInAnOutput) {
  const TempDir dir;
  RunningCrumb first(qat(dir / "run", {"schedule.tokens=64k"}), dir / "err");
  ASSERT_TRUE(first.wait_for_lines(dir / "run/log.jsonl", 2)) << read_file(dir / "err");
  const auto second = run_qat(dir / "run", {"schedule.tokens=64k"});
  EXPECT_EQ(second.exit_code, 2);
  EXPECT_THAT(second.err, HasSubstr("another process is working in"));
}

TEST_F(TrainVerb, AMistakeThatIsCorrectedDoesNotMakeAnotherJob) {
  const TempDir dir;
  const auto wrong = run_qat(dir / "run", {"teacher=" + (dir / "absent").string()});
  EXPECT_EQ(wrong.exit_code, 2);
  const auto corrected = run_qat(dir / "run", {"schedule.tokens=64"});
  EXPECT_EQ(corrected.exit_code, 0) << corrected.err;
}

TEST_F(TrainVerb, AChangedTextOrModelIsRefusedWhenTheRunGoesOn) {
  const TempDir dir;
  write_file(dir / "text.txt", sentences(300));
  fs::copy(teacher(), dir / "model", fs::copy_options::recursive);
  auto arguments = qat(dir / "run");
  arguments[2] = "model=" + (dir / "model").string();
  arguments[3] = "data.train=" + (dir / "text.txt").string();
  arguments[5] = "schedule.tokens=320";
  ASSERT_EQ(run_crumb(words(arguments)).exit_code, 0);
  arguments[5] = "schedule.tokens=640";
  write_file(dir / "text.txt", sentences(301));
  EXPECT_THAT(run_crumb(words(arguments)).err, HasSubstr("the text has changed since the run began"));
  write_file(dir / "text.txt", sentences(300));
  std::string weights = read_file(dir / "model/model.safetensors");
  weights[weights.size() - 100] ^= 1;
  write_file(dir / "model/model.safetensors", weights);
  EXPECT_THAT(run_crumb(words(arguments)).err, HasSubstr("the model has changed since the run began"));
  weights[weights.size() - 100] ^= 1;
  write_file(dir / "model/model.safetensors", weights);
  EXPECT_EQ(run_crumb(words(arguments)).exit_code, 0);
}

void flip_bit_in_the_middle(const fs::path& path) {
  std::string bytes = read_file(path);
  bytes[bytes.size() / 2] ^= 1;
  write_file(path, bytes);
}

TEST_F(TrainVerb, ADamagedCheckpointIsPassedOverAndTheEndIsTheSame) {
  const TempDir dir;
  ASSERT_EQ(run_qat(dir / "whole").exit_code, 0);
  ASSERT_EQ(run_qat(dir / "run").exit_code, 0);
  fs::remove_all(dir / "run/last");
  const fs::path masters = dir / "run/checkpoints/step-000060/masters.safetensors";
  flip_bit_in_the_middle(masters);
  const auto result = run_qat(dir / "run");
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.err, "warning: " + masters.parent_path().string() +
                            " is damaged (masters.safetensors is not as it was written) and passed over\n");
  expect_same_run(dir / "run", dir / "whole");
}

TEST_F(TrainVerb, InitFromADamagedCheckpointIsRefused) {
  const TempDir dir;
  ASSERT_EQ(run_qat(dir / "first", {"schedule.tokens=64"}).exit_code, 0);
  const fs::path checkpoint = dir / "first/checkpoints/step-000002";
  flip_bit_in_the_middle(checkpoint / "masters.safetensors");
  const auto result = run_qat(dir / "second", {"init_from=" + (dir / "first").string()});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_EQ(result.err, "crumb: init_from: " + checkpoint.string() +
                            " is damaged (masters.safetensors is not as it was written); run its job again, which "
                            "goes on from the one before it\n");
  EXPECT_FALSE(fs::exists(dir / "second/job.yaml"));
}

TEST_F(TrainVerb, AFullDiskIsWarnedOfAndTheRunGoesOnWhenThereIsRoom) {
  const TempDir dir;
  SmallDisk disk(dir / "disk", 500'000, 1000);
  if (!disk.is_mounted()) GTEST_SKIP() << "no disk can be mounted here";
  ASSERT_EQ(run_qat(dir / "whole").exit_code, 0);
  const fs::path run = dir / "disk/run";
  const auto full = run_qat(run);
  EXPECT_EQ(full.exit_code, 1);
  EXPECT_THAT(full.err, HasSubstr("warning: " + run.string() + " may take "));
  EXPECT_THAT(full.err, HasSubstr("lower checkpoint.keep, make room, or choose another output"));
  EXPECT_THAT(full.err, HasSubstr("No space left on device"));
  EXPECT_EQ(std::count(full.err.begin(), full.err.end(), '\n'), 2) << full.err;
  EXPECT_TRUE(fs::exists(run / "checkpoints/step-000010/state.json"));
  disk.grow_to(8'000'000);
  const auto again = run_qat(run);
  EXPECT_EQ(again.exit_code, 0);
  EXPECT_EQ(again.err, "");
  expect_same_run(run, dir / "whole");
}

}  // namespace
}  // namespace crumb::testing
