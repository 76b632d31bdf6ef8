// crumb eval as its user sees it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/common/file.h"
#include "tests/testing/html_check.h"
#include "tests/testing/testing.h"

namespace crumb {
namespace {

using crumb::testing::CommandResult;
using crumb::testing::run_crumb;
using crumb::testing::TempDir;
using crumb::testing::write_file;
using ::testing::HasSubstr;

class EvalVerb : public ::testing::Test {
 protected:
  void SetUp() override {
    model_ = crumb::testing::data("models/stories260K-hf");
    other_ = crumb::testing::data("models/ref-llama-15m");
    if (model_.empty() || other_.empty())
      CRUMB_CANNOT_RUN("CRUMB_REQUIRE_DATA", "needs the data files models/*; set CRUMB_DATA");
    std::string text;
    for (int i = 0; i < 60; ++i)
      text += "Once upon a time there was a little cat. She liked to play.\n--\nTom had a red ball.\n--\n";
    write_file(dir_ / "cats.txt", text);
  }
  CommandResult eval(const std::string& arguments) {
    return run_crumb("eval -q --text " + (dir_ / "cats.txt").string() + " --context 64 --max-windows 3 " + arguments);
  }
  // The same weights behind norms that damp what they should only scale: surely another model.
  Path worse_model() {
    const Path copy = dir_ / "worse";
    std::filesystem::copy(model_, copy);
    auto config = nlohmann::json::parse(crumb::testing::read_file(copy / "config.json"));
    config["rms_norm_eps"] = 0.3;
    std::filesystem::remove(copy / "config.json");
    write_file(copy / "config.json", config.dump());
    return copy;
  }
  void expect_error(const CommandResult& r, const std::string& message) {
    EXPECT_EQ(r.exit_code, 2);
    EXPECT_EQ(r.err, "crumb: " + message + "\n");
    EXPECT_EQ(r.out, "");
  }
  TempDir dir_;
  Path model_, other_;
};

// The numbers of a run that went on are those of one that was not ended, bit for bit.
TEST_F(EvalVerb, GoesOnWhereItStopped) {
  const std::string journal = (dir_ / "run.journal").string(), kept = model_.string() + " --json --resume " + journal;
  const auto without_seconds = [](const CommandResult& r) {
    auto json = nlohmann::json::parse(r.out);
    json.erase("seconds");
    return json.dump();
  };
  const auto whole = eval(model_.string() + " --json");
  const auto first = eval(kept);
  ASSERT_EQ(first.exit_code, 0) << first.err;
  EXPECT_EQ(without_seconds(first), without_seconds(whole));
  const std::string text = crumb::testing::read_file(journal);
  write_file(journal, text.substr(0, text.size() - 20));
  EXPECT_EQ(without_seconds(eval(kept)), without_seconds(whole));
  EXPECT_EQ(crumb::testing::read_file(journal), text);
  const auto other = eval(kept + " --bos");
  EXPECT_EQ(other.exit_code, 2);
  EXPECT_THAT(other.err, HasSubstr(journal + ": of another run: texts was {"));
  const auto no_tasks = eval(model_.string() + " --apply-chat-template");
  expect_error(no_tasks, "--apply-chat-template, --fewshot-as-multiturn and --system-instruction need --tasks");
}

TEST_F(EvalVerb, GoesOnInTheMiddleOfATextBesideABaseline) {
  const std::string cats = crumb::testing::read_file(dir_ / "cats.txt");
  write_file(dir_ / "long.txt", cats + cats + cats);
  const std::string journal = (dir_ / "run.journal").string(), model = worse_model().string();
  const auto judge = [&](const std::string& more) {
    const auto r = run_crumb("eval --json --details --text " + (dir_ / "long.txt").string() + " --context 16 " +
                             "--max-windows 200 --separator '\\n--\\n' --clusters documents --bootstrap 100 " + model +
                             " --baseline " + model_.string() + more);
    EXPECT_EQ(r.exit_code, 0) << r.err;
    auto json = nlohmann::json::parse(r.out);
    json.erase("seconds");
    return std::pair(json.dump(), r.err);
  };
  const std::string whole = judge("").first, resume = " --resume " + journal;
  EXPECT_EQ(judge(resume).first, whole);
  const std::string text = crumb::testing::read_file(journal);
  EXPECT_THAT(judge(resume).second, HasSubstr(" records of an earlier run were used"));
  EXPECT_EQ(judge(resume).first, whole);
  const size_t second = text.find('\n', text.find('\n') + 1) + 1;  // behind the facts and a record
  ASSERT_LT(second, text.size()) << "more than one record";
  write_file(journal, text.substr(0, second));
  EXPECT_EQ(judge(resume).first, whole);
  EXPECT_EQ(crumb::testing::read_file(journal), text);
  write_file(journal, text.substr(0, text.find('\n') + 1) + "{\"scores\":[],\"window\":0}\n");
  EXPECT_THAT(run_crumb("eval -q --text " + (dir_ / "long.txt").string() + " --context 16 --max-windows 200 " +
                        "--separator '\\n--\\n' --clusters documents --bootstrap 100 --details " + model +
                        " --baseline " + model_.string() + resume)
                  .err,
              HasSubstr(journal + ":2: the record is damaged; remove the file to begin anew"));
}

TEST_F(EvalVerb, AJournalIsNobodyElsesFile) {
  const std::string other = (dir_ / "mine.json").string();
  write_file(other, "{\"mine\": 1}");
  expect_error(eval(model_.string() + " --resume " + other),
               other + ": not a journal of crumb eval; give another name");
  EXPECT_EQ(crumb::testing::read_file(other), "{\"mine\": 1}");
  expect_error(eval(model_.string() + " --bootstrap 5"),
               "--bootstrap: 5 resamples say nothing of the ends of an interval; at least 100");
  expect_error(eval(model_.string() + " --seed 5"), "--seed is of --bootstrap; give both");
}

TEST_F(EvalVerb, PrintsModelProtocolAndTable) {
  const auto r = eval(model_.string() + " --separator '\\n--\\n'");
  EXPECT_EQ(r.exit_code, 0) << r.err;
  EXPECT_THAT(r.out, HasSubstr("documents  plain files split at \"\\n--\\n\"; EOS after each document, no BOS\n"));
  EXPECT_THAT(r.out, HasSubstr("windows    3 of "));
  EXPECT_THAT(r.out, HasSubstr("\ncats.txt     192  "));
}

TEST_F(EvalVerb, ExitsWithThreeWhenALimitIsExceeded) {
  const Path worse = worse_model();
  const auto lost = eval(worse.string() + " --json --baseline " + model_.string() +
                         " --max-drop perplexity=1%,kl=0.001 --max-drop top1=100%");
  EXPECT_EQ(lost.exit_code, 3);
  EXPECT_THAT(lost.err,
              ::testing::MatchesRegex("crumb: kl drop [0-9.e-]+ nats/token exceeds the limit of 0.001 nats/token; "
                                      "perplexity drop [0-9.e+]+ % exceeds the limit of 1 %\n"));
  const auto json = nlohmann::json::parse(lost.out);
  EXPECT_TRUE(json["max_drop"]["kl"]["exceeded"].get<bool>());
  EXPECT_FALSE(json["max_drop"]["top1"]["exceeded"].get<bool>());
  EXPECT_GT(json["pooled"]["perplexity_change"]["value"].get<double>(), 0.01);

  const auto kept =
      eval(worse.string() + " --baseline " + model_.string() + " --max-drop perplexity=1000000% --max-drop kl=1000");
  EXPECT_EQ(kept.exit_code, 0) << kept.err;
  EXPECT_EQ(kept.err, "");
  EXPECT_THAT(kept.out, HasSubstr("is within the limit of 1000 nats/token\n"));
}

TEST_F(EvalVerb, ActivationsAreFloatOrInt8AndSaidSo) {
  const auto compute = [&](const std::string& options) {
    const auto r = eval(model_.string() + " --json " + options);
    return r.exit_code == 0 ? nlohmann::json::parse(r.out)["protocol"]["compute"].get<std::string>() : r.err;
  };
  EXPECT_EQ(compute(""), "float32");
  EXPECT_EQ(compute("--activations float"), "float32");
  EXPECT_EQ(compute("--activations int8"),
            "float32, int8 activations of quantized linears, bfloat16 of bfloat16 ones beside them");
  expect_error(eval(model_.string() + " --activations fp4"),
               "--activations: unknown \"fp4\"; known: auto, float, bf16, int8");
}

TEST_F(EvalVerb, JudgesSeveralModelsInOneTable) {
  const std::string worse = worse_model().string(), model = model_.string();
  const auto r = eval(worse + " " + model + " --baseline " + model + " --max-drop kl=0.001");
  EXPECT_EQ(r.exit_code, 3);
  EXPECT_THAT(r.err, ::testing::MatchesRegex("crumb: " + worse + ": kl drop [^\n]+ exceeds the limit of [^\n]+\n"));
  EXPECT_THAT(r.out, HasSubstr("\n" + model + "  "));
  EXPECT_THAT(r.out, HasSubstr("\n" + worse + "  "));
  EXPECT_THAT(r.out, HasSubstr(model + ": kl drop 0 nats/token is within the limit of 0.001 nats/token\n"));

  const auto together = nlohmann::json::parse(eval("--json " + worse + " " + model + " --baseline " + model).out);
  const auto alone = nlohmann::json::parse(eval("--json " + worse + " --baseline " + model).out);
  ASSERT_EQ(together.size(), 2u);
  EXPECT_EQ(together[0]["pooled"], alone["pooled"]);
  EXPECT_EQ(together[0]["protocol"], alone["protocol"]);
  EXPECT_EQ(together[1]["pooled"]["kl"]["value"], 0);
}

TEST_F(EvalVerb, JsonStatesTheProtocol) {
  const auto r = eval(model_.string() + " --json --bos --stride 16");
  ASSERT_EQ(r.exit_code, 0) << r.err;
  const auto p = nlohmann::json::parse(r.out)["protocol"];
  EXPECT_EQ(p["context"], 64);
  EXPECT_EQ(p["stride"], 16);
  EXPECT_EQ(p["windows"], 3);
  EXPECT_EQ(p["scored_tokens"], 64 + 2 * 16);
  EXPECT_EQ(p["bos"], true);
  EXPECT_EQ(p["eos"], true);
}

TEST_F(EvalVerb, WritesAReportButOverNothing) {
  const std::string out = (dir_ / "report.md").string();
  EXPECT_EQ(eval(model_.string() + " -o " + out).exit_code, 0);
  EXPECT_THAT(crumb::testing::read_file(out), HasSubstr("| cats.txt | 192 | "));
  EXPECT_THAT(crumb::testing::read_file(out), ::testing::Not(HasSubstr("context 33-64")));
  const std::string details = (dir_ / "details.md").string();
  EXPECT_EQ(eval(worse_model().string() + " --baseline " + model_.string() + " --details -o " + details).exit_code, 0);
  EXPECT_THAT(crumb::testing::read_file(details), HasSubstr("| context 33-64 | "));
  expect_error(eval(model_.string() + " -o " + out), out + " exists; give another name, or --force to replace it");
  EXPECT_EQ(eval(model_.string() + " --force -o " + out).exit_code, 0);
  expect_error(eval(model_.string() + " -o report.txt"), "--out: report.txt: the name must end in .md, .json or .html");
}

TEST_F(EvalVerb, WritesAPage) {
  const std::string out = (dir_ / "r.html").string(), bench = (dir_ / "bench.json").string();
  const std::string model = model_.string(), both = worse_model().string() + " --baseline " + model;
  write_file(bench, R"({"rows": []})");
  const auto r = eval(both + " --separator 'a <b' --max-drop perplexity=1% --bench " + bench + " -o " + out);
  EXPECT_EQ(r.exit_code, 3) << r.err;
  const std::string page = crumb::testing::read_file(out);
  EXPECT_EQ(crumb::testing::html_fault(page), "");
  EXPECT_THAT(page, HasSubstr("<p class='fail'>"));
  EXPECT_THAT(page, HasSubstr("<polyline points="));
  EXPECT_THAT(page, HasSubstr(" --separator &#39;a &lt;b&#39; --max-drop perplexity=1% ")) << "the command, quoted";
  expect_error(eval(both + " --bench " + bench), "--bench: speed stands in a page alone; give --out NAME.html");
  write_file(bench, "no");
  EXPECT_EQ(eval(both + " --force --bench " + bench + " -o " + out).exit_code, 2);
}

TEST_F(EvalVerb, JudgesDropsByTheirBoundsToo) {
  const std::string models = worse_model().string() + " --baseline " + model_.string() + " --separator '\\n--\\n' ";
  const auto check = [&](const std::string& options) {
    const auto json = nlohmann::json::parse(eval(models + "--json --max-drop kl=1000 " + options).out);
    return std::pair(json["max_drop"]["kl"]["drop"].get<double>(), json["pooled"]["kl"]);
  };
  const auto estimate = check("");
  const double by_windows = check("--judge-by bound").first;
  EXPECT_NEAR(by_windows, estimate.first + 1.644854 * estimate.second["standard_error"].get<double>(), 1e-6);
  EXPECT_FALSE(estimate.second.contains("interval_95"));
  const auto drawn = check("--judge-by bound --clusters documents --bootstrap 100 --seed 3");
  EXPECT_GT(drawn.first, estimate.first);
  EXPECT_LT(drawn.second["interval_95"][0].get<double>(), estimate.first);
  EXPECT_GT(drawn.second["interval_95"][1].get<double>(), drawn.first);
  EXPECT_EQ(check("--judge-by bound --clusters documents --bootstrap 100 --seed 3").first, drawn.first);
  EXPECT_NE(check("--judge-by bound --clusters documents --bootstrap 100 --seed 4").first, drawn.first);
  EXPECT_THAT(eval(models + "--bootstrap 100").out,
              HasSubstr("perplexity: worse (95 % intervals of 100 resamples: change +"));
  expect_error(eval(models + "--clusters sentences"), "--clusters: unknown \"sentences\"; known: windows, documents");
  expect_error(eval(model_.string() + " --protocol llama.cpp --clusters documents"),
               "--clusters documents: --protocol llama.cpp takes a text as a whole");
}

TEST_F(EvalVerb, MapsTheDamage) {
  const std::string model = model_.string(), small = (dir_ / "small.gguf").string(), out = (dir_ / "map.html").string();
  ASSERT_EQ(run_crumb("export -q " + model + " --to gguf-q4_0 -o " + small).exit_code, 0);
  const auto r = eval(small + " --baseline " + model + " --json --damage layers --damage-windows 2 -o " + out);
  ASSERT_EQ(r.exit_code, 0) << r.err;
  const auto map = nlohmann::json::parse(r.out)["damage"];
  EXPECT_EQ(map["windows"], 2);
  EXPECT_EQ(map["layers"].size() * 7, map["linears"].size());
  EXPECT_GT(map["layers"][0]["kl"]["value"].get<double>(), 0);
  EXPECT_GT(map["linears"][0]["output_error"].get<double>(), 0);
  EXPECT_THAT(crumb::testing::read_file(out), HasSubstr("<h2>Damage map</h2>"));
  EXPECT_EQ(crumb::testing::html_fault(crumb::testing::read_file(out)), "");
  EXPECT_THAT(eval(small + " --baseline " + model + " --damage outputs").out,
              HasSubstr("\nDamage, the 10 worst of 35 linears\n"));
  expect_error(eval(model + " --baseline " + model + " --damage outputs"),
               "--damage: " + model + " has no linear in another type than the baseline " + model);
  expect_error(eval(model + " --damage outputs"), "--damage needs --baseline and --text, and no --protocol rolling");
  expect_error(eval(model + " --damage much"), "--damage: unknown \"much\"; known: outputs, layers, linears");
}

TEST_F(EvalVerb, ComparesModels) {
  const std::string worse = worse_model().string(), model = model_.string();
  const std::string text = " --text " + (dir_ / "cats.txt").string() + " --context 64 --max-windows 3";
  const auto compared = run_crumb("compare -q --json " + worse + " " + model + text + " --baseline " + model);
  ASSERT_EQ(compared.exit_code, 0) << compared.err;
  const auto json = nlohmann::json::parse(compared.out);
  EXPECT_FALSE(json[0]["on_pareto_front"].get<bool>()) << "as large, and farther away";
  EXPECT_TRUE(json[1]["on_pareto_front"].get<bool>());
  EXPECT_EQ(json[0]["pooled"], nlohmann::json::parse(eval("--json " + worse + " --baseline " + model).out)["pooled"]);
  expect_error(run_crumb("compare " + model + text + " --baseline " + model),
               "compare needs two models or more; eval judges one");
  expect_error(run_crumb("compare " + model + " " + worse + text),
               "compare needs --baseline, which all are compared with");
}

TEST_F(EvalVerb, RefusesBadInputInOneLine) {
  const std::string model = model_.string() + " ";
  expect_error(eval(model + "--max-drop kl=0.1"), "max_drop: a drop needs a baseline to compare with");
  expect_error(eval(model + "--max-drop kl"),
               "--max-drop: \"kl\": expected MEASURE=LIMIT, such as perplexity=5% or kl=0.05");
  expect_error(eval(model + "--max-drop perplexity=5"),
               "--max-drop: perplexity=5 would be 5 times the baseline; write 5% for per cent");
  expect_error(eval(model + "--max-drop kl=1,kl=2"), "--max-drop: kl is given twice");
  expect_error(eval(model + "--max-drop perplexty=5%"),
               "command line: max_drop.perplexty: unknown value \"perplexty\"; did you mean \"perplexity\"?; known: "
               "perplexity, kl, top1");
  expect_error(eval(model + "--max-drop foo=1"),
               "command line: max_drop.foo: unknown value \"foo\"; known: perplexity, kl, top1");
  expect_error(eval(model + "--max-drop foo=few"),
               "command line: max_drop.foo: unknown value \"foo\"; known: perplexity, kl, top1");
  expect_error(eval(model + "--max-drop kl=few"), "command line: max_drop.kl: expected number, got \"few\"");
  expect_error(eval(model + "--details"), "--details needs --text and --baseline: it tells where the two differ");
  expect_error(eval(model + "--stride 0"), "command line: stride: 0 is out of range, expected at least 1");
  expect_error(eval(model + "--stride 65"),
               "stride: 65 is longer than the context (64): tokens between windows would not count");
  expect_error(eval(model + "--baseline " + other_.string()),
               model_.string() + " has a vocabulary of 512, the baseline " + other_.string() +
                   " one of 4096: their predictions cannot be compared");
  const auto none = run_crumb("eval " + model + "--text " + (dir_ / "none.txt").string());
  expect_error(none, "cannot read " + (dir_ / "none.txt").string() + ": No such file or directory");
  const auto absent = eval((dir_ / "none").string());
  EXPECT_EQ(absent.exit_code, 2);
  EXPECT_THAT(absent.err, HasSubstr((dir_ / "none").string()));
  EXPECT_EQ(std::count(absent.err.begin(), absent.err.end(), '\n'), 1);
}

TEST_F(EvalVerb, SavesLogitsAndTakesThemForABaseline) {
  const std::string logits = (dir_ / "cats.logits").string(), model = model_.string();
  const std::string llamacpp = " --protocol llama.cpp ";
  EXPECT_EQ(eval(model + llamacpp + "--save-logits " + logits).exit_code, 0);
  const auto r = eval(worse_model().string() + llamacpp + "--json --baseline-logits " + logits);
  ASSERT_EQ(r.exit_code, 0) << r.err;
  const auto json = nlohmann::json::parse(r.out);
  EXPECT_EQ(json["baseline"]["path"], logits);
  EXPECT_FALSE(json["baseline"].contains("parameters"));
  EXPECT_GT(json["pooled"]["kl"]["value"].get<double>(), 0.01);
  EXPECT_EQ(eval(model + llamacpp + "--max-drop kl=0.01 --baseline-logits " + logits).exit_code, 0);
  expect_error(eval(model + llamacpp + "--save-logits " + logits),
               logits + " exists; give another name, or --force to replace it");
  expect_error(eval(model + llamacpp + "--force --save-logits " + (dir_ / "cats.txt").string()),
               (dir_ / "cats.txt").string() + " is or holds " + (dir_ / "cats.txt").string() +
                   ", which is read; choose another output");
  expect_error(eval(model + " --save-logits " + (dir_ / "more.logits").string()),
               "--save-logits: the file is of the windows of a text by --protocol llama.cpp; give both");
  expect_error(eval(model + " " + model + llamacpp + "--save-logits " + (dir_ / "more.logits").string()),
               "--save-logits: of which of the 2 models? Give --baseline, or one model");
}

TEST_F(EvalVerb, RunsTasks) {
  write_file(dir_ / "pets.yaml",
             "task: pets\ndata: [pets.jsonl]\nget: write it\ndoc_to_text: \"{{start}}\"\ndoc_to_choice: \"{{ends}}\"\n"
             "doc_to_target: right\n");
  std::string items;
  for (int i = 0; i < 6; ++i)
    items += R"({"start": "Once upon a", "ends": ["time", "stone"], "right": )" + std::to_string(i % 2) + "}\n";
  write_file(dir_ / "pets.jsonl", items);
  const std::string tasks = " --tasks pets --tasks-dir " + dir_.path().string();
  const std::string model = model_.string(), worse = worse_model().string(), out = (dir_ / "items.jsonl").string();

  const auto alone = run_crumb("eval -q --json " + model + tasks + " --items " + out);
  ASSERT_EQ(alone.exit_code, 0) << alone.err;
  const auto acc = nlohmann::json::parse(alone.out)["tasks"]["pets"]["measures"]["acc"];
  EXPECT_EQ(acc["value"], 0.5);
  EXPECT_NEAR(acc["standard_error"].get<double>(), std::sqrt(0.25 / 5), 1e-12);
  const std::string rows = crumb::testing::read_file(out);
  EXPECT_EQ(std::count(rows.begin(), rows.end(), '\n'), 6);

  const auto both = eval(worse + tasks + " --baseline " + model + " --max-drop tasks=60%,kl=100");
  EXPECT_EQ(both.exit_code, 0) << both.err;
  EXPECT_THAT(both.out, HasSubstr("KL, nats/token"));
  EXPECT_THAT(both.out, HasSubstr("no significant change"));
  EXPECT_THAT(both.out, HasSubstr("\npets drop "));
  const auto limited = run_crumb("eval -q " + model + tasks + " --limit 3");
  EXPECT_THAT(limited.out, HasSubstr("pets: the first 3 items only\n"));

  expect_error(run_crumb("eval " + model), "--text or --tasks must be given: there is nothing to judge by");
  expect_error(run_crumb("eval " + model + " --tasks pets"), "--tasks needs --tasks-dir, the folder of their data");
  expect_error(eval(model + " --limit 3"), "--items, --limit and --num-fewshot need --tasks");
  expect_error(run_crumb("eval -q " + model + tasks + " --judge-by luck"),
               "--judge-by: unknown \"luck\"; known: estimate, bound");
  expect_error(run_crumb("eval -q " + model + tasks + " --baseline " + model + " --max-drop pets=3"),
               "--max-drop: pets=3 is more than everything; write 3% for per cent");
  expect_error(run_crumb("eval -q " + model + tasks + " --baseline " + model + " --max-drop kl=1"),
               "max_drop: kl is of texts, and none was given");
  expect_error(
      run_crumb("eval -q " + model + tasks + " --context 64"),
      "--context, --stride, --max-windows, --separator, --bos, --protocol, --clusters and --bootstrap need --text");
  expect_error(eval(model + " --tasks-dir x"), "--tasks-dir needs --tasks");
  expect_error(eval(model + " --judge-by bound"), "--judge-by needs --max-drop, which it is about");
  expect_error(run_crumb("eval -q " + model + tasks + " --baseline " + model + " --max-drop dogs=3%"),
               "--max-drop: dogs is none of the tasks that are run");
}

}  // namespace
}  // namespace crumb
