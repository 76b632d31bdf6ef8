// crumb train as its user sees it: jobs, models, texts, results.
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "tests/cli/train_verb.h"

namespace crumb::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST_F(TrainVerb, EveryShippedJobOfTrainingLoads) {
  int loaded = 0;
  for (const char* folder : {"qat", "pretrain", "distill"}) {
    if (!fs::exists(config(folder))) continue;
    for (const auto& entry : fs::recursive_directory_iterator(config(folder))) {
      if (entry.path().extension() != ".yaml") continue;
      const bool is_random = std::string(folder) == "pretrain", has_teacher = std::string(folder) != "qat";
      const auto result = run_crumb("train " + entry.path().string() +
                                    words({is_random ? "model.config=m" : "model=m", "data.train=a.txt", "output=o",
                                           has_teacher ? "teacher=t" : "teacher=self"}) +
                                    " --print-config");
      EXPECT_EQ(result.exit_code, 0) << entry.path() << ": " << result.err;
      EXPECT_THAT(result.out, HasSubstr("schedule:"));
      ++loaded;
    }
  }
  EXPECT_EQ(loaded, 8);
}

TEST_F(TrainVerb, ATypoNamesFileLineKeyAndNearestName) {
  const TempDir dir;
  write_file(dir / "job.yaml",
             "model: m\noutput: o\ndata: {train: a.txt}\noptimizer:\n  learning_rate: 1\n  weight_decy: 0.1\n");
  const auto result = run_crumb("train " + (dir / "job.yaml").string() + " schedule.decay=cosin");
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err,
              HasSubstr("job.yaml:6:3: optimizer.weight_decy: unknown key; did you mean \"weight_decay\"?"));
  EXPECT_THAT(result.err, HasSubstr("job.yaml:5:3: optimizer.learning_rate: unknown key"));
  EXPECT_THAT(result.err, HasSubstr("schedule.decay: unknown value \"cosin\"; did you mean \"cosine\"?"));
}

TEST_F(TrainVerb, TrainsFromRandomValuesToAnOrdinaryModel) {
  const auto log = log_of(*shared_ / "teacher");
  EXPECT_LT(log.back().at("valid_cross_entropy").get<double>(),
            log.front().at("valid_cross_entropy").get<double>() - 1.0);
  const Json written = Json::parse(read_file(teacher() / "config.json"));
  EXPECT_FALSE(written.contains("quantization_config"));
  EXPECT_TRUE(fs::exists(teacher() / "tokenizer.json"));
  EXPECT_EQ(run_crumb("inspect " + teacher().string()).exit_code, 0);
}

TEST_F(TrainVerb, TrainingToTwoBitsLowersTheDivergence) {
  const TempDir dir;
  const auto result = run_qat(dir / "run", {"--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const Json json = Json::parse(result.out);
  EXPECT_LT(json.at("best").get<double>(), 0.8 * json.at("start").get<double>());
  EXPECT_GT(json.at("lr").get<double>(), 0);
  const auto log = log_of(dir / "run");
  EXPECT_EQ(log.size(), 61U);
  EXPECT_EQ(log.front().at("flipped_share").get<double>(), 0);
  EXPECT_GT(log.back().at("flipped_share").get<double>(), 0);
  EXPECT_GT(log.back().at("weight_distance").get<double>(), 0);
  EXPECT_THAT(read_file(dir / "run/curves.html"), HasSubstr("<svg"));
  EXPECT_TRUE(Json::parse(read_file(dir / "run/model/config.json")).contains("quantization_config"));
}

TEST_F(TrainVerb, OnAGpuItLearnsAsOnTheCpuAndGoesOnBitForBit) {
  const TempDir dir;
  const auto whole = run_qat(dir / "whole", {"device=cuda", "--json"});
  if (whole.err.find("Torch sees no GPU") != std::string::npos) {
    EXPECT_EQ(whole.exit_code, 2);
    EXPECT_FALSE(fs::exists(dir / "whole"));
    CRUMB_CANNOT_RUN("CRUMB_REQUIRE_CUDA", "needs a GPU that Torch sees, and a build with its libraries");
  }
  ASSERT_EQ(whole.exit_code, 0) << whole.err;
  const auto here = run_qat(dir / "here", {"device=cpu", "--json"});
  const Json gpu = Json::parse(whole.out), cpu = Json::parse(here.out);
  EXPECT_NEAR(gpu.at("start").get<double>(), cpu.at("start").get<double>(), 1e-3 * cpu.at("start").get<double>());
  EXPECT_NEAR(gpu.at("best").get<double>(), cpu.at("best").get<double>(), 0.1 * cpu.at("best").get<double>());
  const fs::path run = dir / "stopped";
  RunningCrumb crumb(qat(run, {"device=cuda"}), dir / "err");
  ASSERT_TRUE(crumb.wait_for_lines(run / "log.jsonl", 14)) << read_file(dir / "err");
  EXPECT_EQ(crumb.end(SIGTERM), 1);
  ASSERT_EQ(run_qat(run, {"device=cuda"}).exit_code, 0);
  expect_same_run(run, dir / "whole");
}

TEST_F(TrainVerb, AQuantizedModelIsNotQuantizedAgain) {
  const TempDir dir;
  ASSERT_EQ(run_qat(dir / "run", {"schedule.tokens=64"}).exit_code, 0);
  auto arguments = qat(dir / "again");
  arguments[2] = "model=" + (dir / "run/model").string();
  const auto result = run_crumb(words(arguments));
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("is quantized already"));
}

// Training begins with the codes that crumb quantize chose, and its teacher lives in the same coordinates.
TEST_F(TrainVerb, BeginsWithAQuantizedFolder) {
  const TempDir dir;
  const auto quantize = [&](const std::string& name, const std::string& more) {
    return run_crumb("quantize " + teacher().string() + " --method gptq -o " + (dir / name).string() +
                     " calibration.text=" + text() + " calibration.sequence_length=32 calibration.tokens=1024 " + more);
  };
  const auto train = [&](const std::string& name, const std::string& start, const std::vector<std::string>& more) {
    std::vector<std::string> all = {"method.init=" + (dir / start).string(), "objective={kl: 1.0, hidden_mse: 1.0}"};
    all.insert(all.end(), more.begin(), more.end());
    return run_qat(dir / name, all);
  };
  for (const std::string rotation : {"", "rotation.residual=true rotation.heads=true"}) {
    const std::string start = rotation.empty() ? "gptq" : "rotated";
    const auto made = quantize(start, "masters=true " + rotation);
    ASSERT_EQ(made.exit_code, 0) << made.err;
    // without steps that move anything, the model is the folder
    const auto still = train(start + "-still", start, {"optimizer.lr=0", "optimizer.scale_lr=0", "schedule.tokens=64"});
    ASSERT_EQ(still.exit_code, 0) << still.err;
    EXPECT_EQ(read_file(dir / (start + "-still") / "model/model.safetensors"),
              read_file(dir / start / "model.safetensors"));
    const auto trained = train(start + "-trained", start, {});
    ASSERT_EQ(trained.exit_code, 0) << trained.err;
    EXPECT_EQ(trained.err, "");
    const auto log = log_of(dir / (start + "-trained"));
    EXPECT_LT(log.back()["valid_kl"], log.front()["valid_kl"]);
    // states are compared in the same coordinates: theirs would be off by as much as they are long
    EXPECT_LT(log.at(1).at("hidden_mse").get<double>(), 0.7);
    const auto judged = run_crumb("eval " + (dir / (start + "-trained") / "model").string() + " --baseline " +
                                  teacher().string() + " --text " + text() + " --context 32 --max-windows 20 --json");
    ASSERT_EQ(judged.exit_code, 0) << judged.err;
  }
  // better than rounding, before any step
  const auto rounded = run_qat(dir / "rounded", {"schedule.tokens=64"});
  ASSERT_EQ(rounded.exit_code, 0) << rounded.err;
  EXPECT_LT(log_of(dir / "gptq-trained").front()["valid_kl"], log_of(dir / "rounded").front()["valid_kl"]);

  ASSERT_EQ(quantize("bare", "").exit_code, 0);
  const auto bare = train("from-bare", "bare", {"schedule.tokens=64"});
  EXPECT_EQ(bare.exit_code, 0) << bare.err;
  EXPECT_THAT(bare.err, HasSubstr("holds no masters"));
  const auto other = train("other", "gptq", {"method.group_size=16"});
  EXPECT_EQ(other.exit_code, 2);
  EXPECT_THAT(other.err, HasSubstr("is SEQ, group_size 0, the job has SEQ, group_size 16"));
  const auto absent = train("absent", "nowhere", {});
  EXPECT_EQ(absent.exit_code, 2);
  EXPECT_THAT(absent.err,
              HasSubstr("nowhere does not exist; it is none of absmax, absmean, mse, gptq, blockwise either"));
  // states of a rotated student are not those of a teacher that is not
  const auto apart = train("apart", "rotated", {"teacher=" + teacher().string()});
  EXPECT_EQ(apart.exit_code, 2);
  EXPECT_THAT(apart.err,
              HasSubstr("are rotated, those of another teacher are not; leave teacher: self, or set hidden_mse to 0"));
  // a model of the same shape is another model
  const auto made = run_command(pretrain() + " seed=5 schedule.tokens=256 output=" + (dir / "stranger").string());
  ASSERT_EQ(made.exit_code, 0) << made.err;
  const auto strange = train("strange", "gptq", {"model=" + (dir / "stranger/model").string()});
  EXPECT_EQ(strange.exit_code, 2);
  EXPECT_THAT(strange.err, HasSubstr("its embedding has other values"));
  const auto plain = run_qat(dir / "plain", {"method.init=" + teacher().string()});
  EXPECT_EQ(plain.exit_code, 2);
  EXPECT_THAT(plain.err, HasSubstr("is no quantized folder"));
}

// The same in one job: what crumb quantize would make of the first windows of the run is what training begins with.
TEST_F(TrainVerb, MakesItsStartItself) {
  const TempDir dir;
  const auto train = [&](const std::string& name, const std::vector<std::string>& more) {
    std::vector<std::string> all = {"objective={kl: 1.0, hidden_mse: 1.0}", "calibration.tokens=1024"};
    all.insert(all.end(), more.begin(), more.end());
    return run_qat(dir / name, all);
  };
  const std::vector<std::string> rotated = {"method.init=gptq", "rotation={residual: true, heads: true}"};
  const auto with = [](std::vector<std::string> list, const std::vector<std::string>& more) {
    list.insert(list.end(), more.begin(), more.end());
    return list;
  };
  const auto plan = run_crumb(words(qat(dir / "plan", with(rotated, {"calibration.tokens=1024", "--dry-run"}))));
  ASSERT_EQ(plan.exit_code, 0) << plan.err;
  EXPECT_THAT(plan.out, HasSubstr("tokens of method.init"));
  EXPECT_THAT(plan.out, HasSubstr("1,024, before the first step"));
  EXPECT_THAT(plan.out, HasSubstr("start/"));
  EXPECT_FALSE(fs::exists(dir / "plan"));

  const auto still = train("still", with(rotated, {"optimizer.lr=0", "optimizer.scale_lr=0", "schedule.tokens=64"}));
  ASSERT_EQ(still.exit_code, 0) << still.err;
  EXPECT_EQ(read_file(dir / "still/model/model.safetensors"), read_file(dir / "still/start/model.safetensors"));

  const auto trained = train("trained", rotated);
  ASSERT_EQ(trained.exit_code, 0) << trained.err;
  EXPECT_EQ(trained.err, "");
  EXPECT_EQ(read_file(dir / "trained/start/model.safetensors"), read_file(dir / "still/start/model.safetensors"));
  const auto log = log_of(dir / "trained");
  EXPECT_LT(log.back()["valid_kl"], log.front()["valid_kl"]);
  EXPECT_LT(log.at(1).at("hidden_mse").get<double>(), 0.7);  // the teacher is rotated alike

  const auto blockwise = train("blockwise", {"method.init=blockwise", "schedule.tokens=64"});
  ASSERT_EQ(blockwise.exit_code, 0) << blockwise.err;
  const auto gptq = train("gptq", {"method.init=gptq", "schedule.tokens=64"});
  ASSERT_EQ(gptq.exit_code, 0) << gptq.err;
  const auto rounded = run_qat(dir / "rounded", {"schedule.tokens=64"});
  ASSERT_EQ(rounded.exit_code, 0) << rounded.err;
  EXPECT_LT(log_of(dir / "gptq").front()["valid_kl"], log_of(dir / "rounded").front()["valid_kl"]);
  EXPECT_LT(log_of(dir / "blockwise").front()["valid_kl"], log_of(dir / "rounded").front()["valid_kl"]);
}

TEST_F(TrainVerb, AStartThatIsMadeGoesOnAfterAKill) {
  const TempDir dir;
  const std::vector<std::string> start = {"method.init=gptq", "calibration.tokens=1024"};
  ASSERT_EQ(run_qat(dir / "whole", start).exit_code, 0);
  const fs::path run = dir / "stopped";
  RunningCrumb crumb(qat(run, start), dir / "err");
  ASSERT_TRUE(crumb.wait_for_lines(run / "log.jsonl", 14)) << read_file(dir / "err");
  EXPECT_EQ(crumb.end(SIGTERM), 1);
  ASSERT_EQ(run_qat(run, start).exit_code, 0);
  expect_same_run(run, dir / "whole");

  // killed between its start and its first step: the start is not made again
  const fs::path early = dir / "early";
  fs::create_directories(early);
  fs::copy(dir / "whole/start", early / "start", fs::copy_options::recursive);
  std::string job = read_file(dir / "whole/job.yaml");
  job.replace(job.find((dir / "whole").string()), (dir / "whole").string().size(), early.string());
  write_file(early / "job.yaml", job);
  const auto before = fs::last_write_time(early / "start/model.safetensors");
  ASSERT_EQ(run_qat(early, start).exit_code, 0);
  EXPECT_EQ(fs::last_write_time(early / "start/model.safetensors"), before);
  expect_same_run(early, dir / "whole");

  // a start of a model that has changed since is told
  const fs::path changed = dir / "changed";
  fs::create_directories(changed);
  fs::copy(dir / "whole/start", changed / "start", fs::copy_options::recursive);
  const auto strange = run_command(pretrain() + " seed=5 schedule.tokens=256 output=" + (dir / "stranger").string());
  ASSERT_EQ(strange.exit_code, 0) << strange.err;
  std::string other_job = read_file(dir / "whole/job.yaml");
  other_job.replace(other_job.find((dir / "whole").string()), (dir / "whole").string().size(), changed.string());
  other_job.replace(other_job.find(teacher().string()), teacher().string().size(), (dir / "stranger/model").string());
  write_file(changed / "job.yaml", other_job);
  auto with_stranger = start;
  with_stranger.push_back("model=" + (dir / "stranger/model").string());
  const auto mixed = run_qat(changed, with_stranger);
  EXPECT_EQ(mixed.exit_code, 2);
  EXPECT_THAT(mixed.err, HasSubstr("its embedding has other values"));

  // a run of a rotated model is not what a plain one goes on from
  ASSERT_EQ(run_qat(dir / "rotated",
                    {"method.init=gptq", "calibration.tokens=1024", "rotation.heads=true", "schedule.tokens=64"})
                .exit_code,
            0);
  const auto plain = run_qat(dir / "plain", {"init_from=" + (dir / "rotated").string(), "schedule.tokens=64"});
  EXPECT_EQ(plain.exit_code, 2);
  EXPECT_THAT(plain.err, HasSubstr("is of a model rotated otherwise; begin with its method.init and rotation"));

  // by force everything is made anew
  ASSERT_EQ(run_qat(early, {"method.init=blockwise", "calibration.tokens=1024", "--force"}).exit_code, 0);
  EXPECT_NE(read_file(early / "start/model.safetensors"), read_file(dir / "whole/start/model.safetensors"));
  const auto other = run_qat(early, start);
  EXPECT_EQ(other.exit_code, 2);
  EXPECT_THAT(other.err, HasSubstr("(method.init: \"blockwise\", now \"gptq\")"));
}

TEST_F(TrainVerb, KeysOfAStartThatIsNotMadeAreRefused) {
  const TempDir dir;
  const auto refuse = [&](const std::vector<std::string>& keys, const std::string& message) {
    const auto result = run_qat(dir / "run", keys);
    EXPECT_EQ(result.exit_code, 2) << keys[0];
    EXPECT_THAT(result.err, HasSubstr(message));
    EXPECT_TRUE(is_one_line(result.err)) << result.err;
    EXPECT_FALSE(fs::exists(dir / "run"));
  };
  refuse({"rotation.heads=true"}, "rotation: is for method.init: gptq or blockwise");
  refuse({"calibration.tokens=64"}, "calibration: is for method.init: gptq or blockwise");
  refuse({"method.init=gptq", "calibration.tokens=100M"},
         "calibration.tokens: 104857600 asked for, the training text has");
  refuse({"method.init=gptq", "rotation.residual=true", "teacher=" + teacher().string()},
         "objective.hidden_mse: rotation.residual turns the states of the model");
  refuse({"method.init=gptq", "calibration.tokens=31"}, "calibration.tokens: 31 are less than one window of 32");
  refuse({"method.init=gptq", "init_from=" + (dir / "earlier").string()}, "init_from: brings what method.init: gptq");
  refuse({"method.init=gpqt"}, "it is none of absmax, absmean, mse, gptq, blockwise either");
}

TEST_F(TrainVerb, IntegersAreTrainedFromRounding) {
  const TempDir dir;
  for (const std::string& grid : std::vector<std::string>{"method.grid=int method.bits=3", "method.grid=ternary"}) {
    const std::string name = grid.substr(12, 3);
    std::vector<std::string> more = {grid.substr(0, grid.find(' '))};
    if (grid.find(' ') != std::string::npos) more.push_back(grid.substr(grid.find(' ') + 1));
    const auto result = run_qat(dir / name, more);
    ASSERT_EQ(result.exit_code, 0) << result.err;
    const auto log = log_of(dir / name);
    EXPECT_LT(log.back()["valid_kl"], log.front()["valid_kl"]) << grid;
    EXPECT_GT(log.back()["flipped_share"], 0.0) << grid;
  }
}

// What crumb quantize has pruned stays so: in training, in the folder it writes, and in a run that goes on from it.
TEST_F(TrainVerb, APrunedStartStaysPruned) {
  const TempDir dir;
  const auto made =
      run_crumb("quantize " + teacher().string() + " --method gptq --grid int --bits 4 -o " + (dir / "start").string() +
                " calibration.text=" + text() + " calibration.sequence_length=32 calibration.tokens=1024 masters=true" +
                " pruning.method=sparsegpt pruning.pattern=2:4");
  ASSERT_EQ(made.exit_code, 0) << made.err;
  const std::vector<std::string> method = {"method.init=" + (dir / "start").string(), "method.grid=int",
                                           "method.bits=4"};
  const auto train = [&](const std::string& name, std::vector<std::string> more) {
    more.insert(more.begin(), method.begin(), method.end());
    return run_qat(dir / name, more);
  };
  const auto still = train("still", {"optimizer.lr=0", "optimizer.scale_lr=0", "schedule.tokens=64"});
  ASSERT_EQ(still.exit_code, 0) << still.err;
  EXPECT_EQ(read_file(dir / "still/model/model.safetensors"), read_file(dir / "start/model.safetensors"));
  EXPECT_EQ(read_file(dir / "still/model/config.json"), read_file(dir / "start/config.json"));

  const auto trained = train("trained", {"optimizer.weight_decay=0.1"});
  ASSERT_EQ(trained.exit_code, 0) << trained.err;
  const auto log = log_of(dir / "trained");
  EXPECT_LT(log.back()["valid_kl"], log.front()["valid_kl"]);
  EXPECT_GT(log.back()["flipped_share"], 0.0);
  const auto tensors = [](const fs::path& folder) {
    return Json::parse(run_crumb("inspect --json --tensors " + folder.string()).out);
  };
  const auto before = tensors(dir / "start"), after = tensors(dir / "trained/last");
  EXPECT_EQ(before.at("types").at("int4").at("pruned"),
            before.at("types").at("int4").at("parameters").get<int64_t>() / 2);
  EXPECT_EQ(after.at("types"), before.at("types"));

  // the masks of a run that goes on from it are those of its start, or it is refused
  const auto again = train("again", {"init_from=" + (dir / "trained").string(), "schedule.tokens=64"});
  EXPECT_EQ(again.exit_code, 0) << again.err;
  const auto lost = run_qat(dir / "lost", {"method.grid=int", "method.bits=4",
                                           "init_from=" + (dir / "trained").string(), "schedule.tokens=64"});
  EXPECT_EQ(lost.exit_code, 2);
  EXPECT_THAT(lost.err, HasSubstr("is pruned, and not so here; begin with its method.init"));
  // a dry run counts the masks
  auto dry = qat(dir / "dry", method);
  dry.push_back("--dry-run");
  dry.push_back("--json");
  const auto plan = run_crumb(words(dry));
  ASSERT_EQ(plan.exit_code, 0) << plan.err;
  constexpr int64_t kShapes = 14 * 16;
  EXPECT_EQ(Json::parse(plan.out).at("disk").at("model_bytes"), after.at("tensor_bytes").get<int64_t>() + kShapes);
}

TEST_F(TrainVerb, AGgufTrainsAsTheFolderItWasMadeFrom) {
  const TempDir dir;
  const auto exported = [&](const fs::path& from, const std::string& target, const std::string& name) {
    const auto result = run_crumb("export " + from.string() + " --to " + target + " -o " + (dir / name).string());
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return dir / name;
  };
  const fs::path folder = exported(teacher(), "hf-bf16", "folder");
  const fs::path gguf = exported(folder, "gguf-bf16", "model.gguf");
  for (const auto& [model, run] : {std::pair{folder, dir / "a"}, std::pair{gguf, dir / "b"}}) {
    const auto result = run_qat(run, {"model=" + model.string(), "schedule.tokens=320"});
    ASSERT_EQ(result.exit_code, 0) << result.err;
  }
  EXPECT_TRUE(read_file(dir / "a/model/model.safetensors") == read_file(dir / "b/model/model.safetensors"));
  const auto plan = run_crumb(words(qat(dir / "c", {"model=" + gguf.string(), "--dry-run"})));
  EXPECT_EQ(plan.exit_code, 0) << plan.err;
  EXPECT_THAT(plan.out, Not(HasSubstr("weights: ")));  // nothing is unknown of them
}

TEST_F(TrainVerb, WhatFailsAtTheEndIsToldAtTheStart) {
  const TempDir dir;
  const auto absent = run_qat(dir / "run", {"evaluate.text=" + (dir / "absent.txt").string()});
  EXPECT_EQ(absent.exit_code, 2);
  EXPECT_THAT(absent.err, HasSubstr("absent.txt is not a file"));
  const auto export_of_float =
      run_crumb("train " + config("qat/seq_w2.yaml").string() +
                words({"model=" + teacher().string(), "data.train=" + text(), "output=" + (dir / "float").string(),
                       "method.name=none", "export=[gguf-q2_k]", "schedule.tokens=64"}));
  EXPECT_EQ(export_of_float.exit_code, 2);
  EXPECT_FALSE(fs::exists(dir / "run/job.yaml"));
  EXPECT_FALSE(fs::exists(dir / "float/job.yaml"));
}

TEST_F(TrainVerb, OverridesGiveSomeLinearsOtherGroups) {
  const TempDir dir;
  const auto result = run_qat(dir / "run", {"method.overrides={down_proj: {group_size: 16}}", "schedule.tokens=320"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const auto config = nlohmann::json::parse(read_file(dir / "run/model/config.json"));
  int overridden = 0;
  for (const auto& [module, format] : config["quantization_config"]["modules"].items()) {
    EXPECT_TRUE(module.ends_with("down_proj")) << module;
    EXPECT_EQ(format["group_size"], 16);
    ++overridden;
  }
  EXPECT_GT(overridden, 0);
  EXPECT_EQ(config["quantization_config"]["group_size"], 0);
}

TEST_F(TrainVerb, ARunWhoseJobLacksANewerKeyGoesOnUnlessItIsSet) {
  const TempDir dir;
  ASSERT_EQ(run_qat(dir / "run", {"schedule.tokens=320"}).exit_code, 0);
  std::string job = read_file(dir / "run/job.yaml");
  const std::string line = "  overrides: {}\n";
  const size_t at = job.find(line);
  ASSERT_NE(at, std::string::npos) << job;
  write_file(dir / "run/job.yaml", job.erase(at, line.size()));
  EXPECT_THAT(run_qat(dir / "run", {"schedule.tokens=640", "method.overrides={down_proj: {group_size: 16}}"}).err,
              HasSubstr("method.overrides: {}, now {down_proj: {group_size: 16}}"));
  const auto result = run_qat(dir / "run", {"schedule.tokens=640"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
}

TEST_F(TrainVerb, KeysOfAnotherMethodAreToldOf) {
  const TempDir dir;
  const auto result = run_qat(dir / "run", {"method.name=none", "export=[]", "schedule.tokens=320"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.err, HasSubstr("method.grid: has no meaning with name: none, it is left out"));
  EXPECT_THAT(read_file(dir / "run/job.yaml"), HasSubstr("method:\n  name: none\n"));
  EXPECT_THAT(read_file(dir / "run/job.yaml"), Not(HasSubstr("grid")));
}

TEST_F(TrainVerb, ValidationTextIsNeverTrainedOn) {
  const TempDir dir;
  EXPECT_THAT(run_qat(dir / "run", {"data.valid=" + text()}).err, HasSubstr("is trained on, too"));
  auto arguments = qat(dir / "run");
  arguments[3] = "data.train=[" + text() + ", " + text() + "]";
  EXPECT_THAT(run_crumb(words(arguments)).err, HasSubstr("is given twice"));
}

TEST_F(TrainVerb, ValidationComparesWithTheModelItselfWhoeverTeaches) {
  const TempDir dir;
  const auto first_kl = [&](const std::string& run) { return log_of(dir / run).front().at("valid_kl").get<double>(); };
  ASSERT_EQ(run_qat(dir / "self", {"schedule.tokens=64"}).exit_code, 0);
  // A teacher that has learned less: its predictions are others.
  ASSERT_EQ(run_command(pretrain() + " schedule.tokens=640 output=" + (dir / "young").string()).exit_code, 0);
  const auto taught = run_qat(dir / "taught", {"schedule.tokens=64", "teacher=" + (dir / "young/model").string()});
  ASSERT_EQ(taught.exit_code, 0) << taught.err;
  EXPECT_EQ(first_kl("taught"), first_kl("self"));
  EXPECT_NE(log_of(dir / "taught").at(1).at("kl"), log_of(dir / "self").at(1).at("kl"));
}

TEST_F(TrainVerb, EveryDivergenceTeaches) {
  const TempDir dir;
  for (const std::string name : {"kl", "reverse_kl", "jsd", "cakld"}) {
    const auto run = run_qat(dir / name, {std::string("objective={") + (name == "kl" ? "" : "kl: 0, ") + name + ": 1}",
                                          "schedule.tokens=3840"});
    ASSERT_EQ(run.exit_code, 0) << run.err;
    const auto log = log_of(dir / name);
    EXPECT_EQ(log.back().at("loss").get<double>(), static_cast<float>(log.back().at(name).get<double>())) << name;
    EXPECT_LT(log.back().at(name), log.at(1).at(name)) << name;
    EXPECT_LT(log.back().at("valid_kl"), log.front().at("valid_kl")) << name;
  }
  const auto unsure = run_qat(dir / "unsure", {"objective={kl: 0, jsd: 1, jsd_beta: 1}"});
  EXPECT_EQ(unsure.exit_code, 2);
  EXPECT_THAT(unsure.err, HasSubstr("objective.jsd_beta"));
}

TEST_F(TrainVerb, BadTextsAreNamed) {
  const TempDir dir;
  const auto error_with = [&](const std::string& name, const std::string& content,
                              const std::vector<std::string>& more = {}) {
    write_file(dir / name, content);
    auto arguments = qat(dir / "run", more);
    arguments[3] = "data.train=" + (dir / name).string();
    const auto result = run_crumb(words(arguments));
    EXPECT_EQ(result.exit_code, 2);
    EXPECT_TRUE(is_one_line(result.err)) << result.err;
    return result.err;
  };
  EXPECT_THAT(error_with("empty.txt", ""), HasSubstr("empty.txt: the text is empty"));
  EXPECT_THAT(error_with("short.txt", "only this"), HasSubstr("too few for a window of 32"));
  EXPECT_THAT(error_with("chat.jsonl", "{\"messages\": []}\n"), HasSubstr("it has no chat template"));
  EXPECT_FALSE(fs::exists(dir / "run/job.yaml"));
}

TEST_F(TrainVerb, BadModelsAreNamed) {
  const TempDir dir;
  const auto error_with = [&](const std::string& model) {
    auto arguments = qat(dir / "run");
    arguments[2] = "model=" + model;
    const auto result = run_crumb(words(arguments));
    EXPECT_EQ(result.exit_code, 2);
    EXPECT_TRUE(is_one_line(result.err)) << result.err;
    return result.err;
  };
  write_file(dir / "model.gguf", "GGUF");
  EXPECT_THAT(error_with((dir / "model.gguf").string()),
              HasSubstr("model.gguf: the header runs past the end of the file"));
  EXPECT_THAT(error_with((dir / "absent").string()), HasSubstr("does not exist"));
  EXPECT_THAT(error_with((*shared_ / "blank").string()), HasSubstr("safetensors"));
}

TEST_F(TrainVerb, WeightsThatAreNotNumbersAreNamed) {
  const TempDir dir;
  fs::copy(teacher(), dir / "model", fs::copy_options::recursive);
  std::string weights = read_file(dir / "model/model.safetensors");
  weights.replace(weights.size() - 8, 8, std::string(8, '\xff'));  // NaN in float32
  write_file(dir / "model/model.safetensors", weights);
  auto arguments = qat(dir / "run");
  arguments[2] = "model=" + (dir / "model").string();
  const auto result = run_crumb(words(arguments));
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("holds NaN or infinite values"));
  EXPECT_FALSE(fs::exists(dir / "run/job.yaml"));
}

TEST_F(TrainVerb, ALossThatIsNotFiniteStopsTheRun) {
  const TempDir dir;
  const auto result = run_qat(dir / "run", {"optimizer.lr=1e30", "optimizer.grad_clip=0", "schedule.warmup=0"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("is not finite"));
  EXPECT_THAT(result.err, HasSubstr("optimizer.lr"));
  EXPECT_TRUE(is_one_line(result.err)) << result.err;
}

TEST_F(TrainVerb, InitFromGoesOnFromAFinishedRun) {
  const TempDir dir;
  ASSERT_EQ(run_qat(dir / "first").exit_code, 0);
  ASSERT_EQ(run_qat(dir / "second", {"init_from=" + (dir / "first").string()}).exit_code, 0);
  const double end = log_of(dir / "first").back().at("valid_kl"), start = log_of(dir / "second").front().at("valid_kl");
  EXPECT_DOUBLE_EQ(start, end);
  EXPECT_THAT(run_qat(dir / "third", {"init_from=" + (dir / "absent").string()}).err,
              HasSubstr("holds no training checkpoint"));
  fs::remove_all(dir / "first/last");
  EXPECT_THAT(run_qat(dir / "third", {"init_from=" + (dir / "first").string()}).err, HasSubstr("has not finished"));
  EXPECT_FALSE(fs::exists(dir / "third/job.yaml"));
}

TEST_F(TrainVerb, ExportsAndJudgesAtTheEnd) {
  const TempDir dir;
  const auto result =
      run_qat(dir / "run", {"export=[gguf-q4_0, hf-bf16]", "evaluate.text=" + text(), "evaluate.max_windows=8"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_TRUE(fs::exists(dir / "run/export/gguf-q4_0.gguf"));
  EXPECT_TRUE(fs::exists(dir / "run/export/hf-bf16/config.json"));
  EXPECT_TRUE(fs::exists(dir / "run/report.md"));
  for (const char* report : {"report.json", "export/gguf-q4_0.report.json", "export/hf-bf16.report.json"})
    EXPECT_TRUE(Json::parse(read_file(dir / "run" / report)).is_object()) << report;
  EXPECT_EQ(run_qat(dir / "strict", {"schedule.tokens=64", "evaluate.text=" + text(), "evaluate.max_windows=8",
                                     "evaluate.max_drop={kl: 1e-9}"})
                .exit_code,
            3);
}

TEST_F(TrainVerb, MixesByWeight) {
  const TempDir dir;
  write_file(dir / "a.txt", sentences(150));
  write_file(dir / "b.jsonl", "{\"text\": \"" + std::string(2000, 'z') + "\"}\n");
  auto arguments = qat(dir / "run", {"schedule.tokens=320"});
  arguments[3] = "data.train=[{path: " + (dir / "a.txt").string() +
                 ", weight: 0.75}, {path: " + (dir / "b.jsonl").string() + ", weight: 0.25}]";
  ASSERT_EQ(run_crumb(words(arguments)).exit_code, 0);
  ASSERT_EQ(run_qat(dir / "unmixed", {"schedule.tokens=320"}).exit_code, 0);
  EXPECT_NE(log_of(dir / "run").back().at("loss"), log_of(dir / "unmixed").back().at("loss"));
  arguments[3] = "data.train=[{path: a.txt, weight: 1}, b.txt]";
  EXPECT_THAT(run_crumb(words(arguments)).err, HasSubstr("either every entry has a weight or none"));
}

/// The shared model with a chat template, and conversations.
class ChatTraining : public TrainVerb {
 protected:
  ChatTraining() {
    fs::copy(teacher(), dir_ / "model", fs::copy_options::recursive);
    write_template(
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}");
    for (int i = 0; i < 150; ++i) {
      const Json messages = Json::array({{{"role", "user"}, {"content", "How many? " + std::to_string(i)}},
                                         {{"role", "assistant"}, {"content", std::to_string(i * 7) + " times."}}});
      lines_ += Json{{"messages", messages}}.dump() + "\n";
    }
  }
  void write_template(const std::string& text) { write_file(dir_ / "model" / "chat_template.jinja", text); }
  CommandResult train(const std::string& lines, const std::vector<std::string>& more = {}) {
    write_file(dir_ / "chat.jsonl", lines);
    auto arguments = qat(dir_ / "run", {"schedule.tokens=320"});
    arguments.insert(arguments.end(), more.begin(), more.end());
    arguments[2] = "model=" + (dir_ / "model").string();
    arguments[3] = "data.train=" + (dir_ / "chat.jsonl").string();
    return run_crumb(words(arguments));
  }

  TempDir dir_;
  std::string lines_;
};

TEST_F(ChatTraining, LearnsTheAssistantsTurnsAlone) {
  const auto result = train(lines_, {"data.isolate_documents=true"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const Json line = log_of(dir_ / "run").at(1);
  EXPECT_GT(line.at("supervised"), 0);
  EXPECT_LT(line.at("supervised"), 20);  // of 32; an answer is 9 to 12 of 42 to 48 tokens
  EXPECT_TRUE(fs::exists(dir_ / "run/last"));
}

TEST_F(ChatTraining, MistakesAreToldBeforeTraining) {
  const auto error = [&](const std::string& lines, const std::vector<std::string>& more = {}) {
    const auto result = train(lines, more);
    EXPECT_EQ(result.exit_code, 2) << result.err;
    EXPECT_TRUE(is_one_line(result.err)) << result.err;
    EXPECT_FALSE(fs::exists(dir_ / "run/job.yaml"));
    return result.err;
  };
  EXPECT_THAT(error(lines_, {"data.roles=[asistant]"}), HasSubstr("no conversation has the role"));
  EXPECT_THAT(error(lines_, {"data.roles=[]"}), HasSubstr("data.roles: none given"));
  EXPECT_THAT(error(lines_ + "{\"messages\": [{}]}\n"), HasSubstr("chat.jsonl:151: messages[0]: no \"role\""));
  write_template("{% if messages|length > 2 %}{{ raise_exception('too long') }}{% endif %}{{ messages[0].content }}");
  EXPECT_THAT(error(lines_ + Json{{"messages", Json::array({{{"role", "a"}, {"content", "b"}},
                                                            {{"role", "a"}, {"content", "b"}},
                                                            {{"role", "a"}, {"content", "b"}}})}}
                                 .dump()),
              HasSubstr("chat.jsonl:151: "));
}

}  // namespace
}  // namespace crumb::testing
