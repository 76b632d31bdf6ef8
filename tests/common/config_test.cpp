#include "core/common/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/testing.h"

namespace crumb {
namespace {

using crumb::testing::error_of;
using crumb::testing::TempDir;
using crumb::testing::write_file;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

struct Schedule {
  Auto<int64_t> tokens;
  double warmup = 0.03;
  std::string decay = "cosine";
  template <class V>
  void visit(V& v) {
    v.field("tokens", tokens, "tokens to train on; auto: one epoch", {.min = 1});
    v.field("warmup", warmup, "share of the steps", {.min = 0, .max = 1});
    v.field("decay", decay, "shape of the decay", {.choices = {"cosine", "linear", "wsd"}});
  }
};

struct Job {
  Path model;
  std::vector<Path> texts;
  std::vector<std::string> exclude{"lm_head", "embed_tokens"};
  std::vector<double> betas{0.9, 0.95};
  std::map<std::string, double> max_drop;
  bool tied = false;
  int64_t seed = 0;
  Schedule schedule;
  double alpha = 0;
  template <class V>
  void visit(V& v) {
    v.field("model", model, "the model", {.required = true});
    v.field("texts", texts, "texts");
    v.field("exclude", exclude, "globs");
    v.field("betas", betas, "AdamW's betas", {.min = 0, .max = 1});
    v.field("max_drop", max_drop, "limits", {.min = 0, .choices = {"perplexity", "kl"}});
    v.field("tied", tied, "whether");
    v.field("seed", seed, "seed", {.min = 0});
    v.section("schedule", schedule, "how long");
    v.field("alpha", alpha, "weight of KL(p || q)");
  }
};

Job read(const std::string& text, const std::vector<std::string>& overrides = {}) {
  ConfigValue tree = parse_yaml_text(text, "job.yaml", "/jobs");
  apply_overrides(tree, overrides);
  return read_config<Job>(tree);
}

std::string error(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return error_of([&] { read(text, overrides); });
}

TEST(Config, ReadsEveryKindOfField) {
  const Job job = read(
      "model: m\ntexts: [a.txt, /b.txt]\nexclude: head\nbetas: [0.8, 90%]\nmax_drop: {kl: 0.05, perplexity: 5%}\n"
      "tied: true\nseed: 16k\nschedule:\n  tokens: 10M\n  warmup: 3%\n  decay: wsd\n");
  EXPECT_EQ(job.model, "/jobs/m");
  EXPECT_THAT(job.texts, ElementsAre("/jobs/a.txt", "/b.txt"));
  EXPECT_THAT(job.exclude, ElementsAre("head"));
  EXPECT_THAT(job.betas, ElementsAre(0.8, 0.9));
  EXPECT_EQ(job.max_drop, (std::map<std::string, double>{{"kl", 0.05}, {"perplexity", 0.05}}));
  EXPECT_TRUE(job.tied);
  EXPECT_EQ(job.seed, 16384);
  EXPECT_EQ(job.schedule.tokens.value, 10485760);
  EXPECT_EQ(job.schedule.warmup, 0.03);
  EXPECT_EQ(job.schedule.decay, "wsd");
}

TEST(Config, KeepsDefaultsOfKeysThatAreAbsent) {
  const Job job = read("model: m\nschedule:\n");
  EXPECT_THAT(job.exclude, ElementsAre("lm_head", "embed_tokens"));
  EXPECT_TRUE(job.schedule.tokens.is_auto());
  EXPECT_EQ(job.schedule.tokens.value_or(5), 5);
  EXPECT_EQ(job.schedule.decay, "cosine");
  EXPECT_TRUE(read("model: m\nschedule: {tokens: auto}").schedule.tokens.is_auto());
}

TEST(Config, TypoNamesFileLineKeyAndNearestName) {
  EXPECT_EQ(error("model: m\nschedule:\n  warm_up: 1\n"),
            "job.yaml:3:3: schedule.warm_up: unknown key; did you mean \"warmup\"?; known: tokens, warmup, decay");
  EXPECT_EQ(error("model: m\nschedul: {}\n"),
            "job.yaml:2:1: schedul: unknown key; did you mean \"schedule\"?; known: model, texts, exclude, betas, "
            "max_drop, tied, seed, schedule, alpha");
  EXPECT_EQ(error("model: m\nschedule: {something_else: 1}\n"),
            "job.yaml:2:12: schedule.something_else: unknown key; known: tokens, warmup, decay");
}

TEST(Config, WrongTypesSayWhatWasExpectedAndWhatCame) {
  EXPECT_EQ(error("model: m\nseed: soon\n"), "job.yaml:2:7: seed: expected whole number, got \"soon\"");
  EXPECT_EQ(error("model: m\nseed: \"3\"\n"), "job.yaml:2:7: seed: expected whole number, got \"3\"")
      << "quoted text is no number";
  EXPECT_EQ(error("model: m\nseed: 1.5\n"), "job.yaml:2:7: seed: expected whole number, got \"1.5\"");
  EXPECT_EQ(error("model: m\nseed: [1]\n"), "job.yaml:2:7: seed: expected whole number, got a list");
  EXPECT_EQ(error("model: m\nseed:\n"), "job.yaml:2:1: seed: expected whole number, got nothing");
  EXPECT_EQ(error("model: m\ntied: yes\n"), "job.yaml:2:7: tied: expected true or false, got \"yes\"");
  EXPECT_EQ(error("model: {a: 1}\n"), "job.yaml:1:9: model: expected path, got a map");
  EXPECT_EQ(error("model: \"\"\n"), "job.yaml:1:8: model: expected path, got \"\"");
  EXPECT_EQ(error("model: m\nmax_drop: 5%\n"),
            "job.yaml:2:11: max_drop: expected a map of names to numbers, got \"5%\"");
  EXPECT_EQ(error("model: m\nbetas: [0.9, x]\n"), "job.yaml:2:14: betas[1]: expected number, got \"x\"");
  EXPECT_EQ(error("model: m\nschedule: {tokens: few}\n"),
            "job.yaml:2:20: schedule.tokens: expected whole number or auto, got \"few\"");
  EXPECT_EQ(error("model: m\nschedule: 5\n"), "job.yaml:2:11: schedule: expected keys, got \"5\"");
  EXPECT_EQ(error("model: m\nschedule: [a]\n"), "job.yaml:2:11: schedule: expected keys, got a list");
}

TEST(Config, ValuesOutOfRangeAreRefused) {
  EXPECT_EQ(error("model: m\nseed: -1\n"), "job.yaml:2:7: seed: -1 is out of range, expected at least 0");
  EXPECT_EQ(error("model: m\nschedule: {warmup: 110%}\n"),
            "job.yaml:2:20: schedule.warmup: 110% is out of range, expected 0 to 1");
  EXPECT_EQ(error("model: m\nschedule: {tokens: 0}\n"),
            "job.yaml:2:20: schedule.tokens: 0 is out of range, expected at least 1");
  EXPECT_EQ(error("model: m\nbetas: [0.9, 2]\n"), "job.yaml:2:14: betas[1]: 2 is out of range, expected 0 to 1");
  EXPECT_EQ(
      error("model: m\nschedule: {decay: cosinus}\n"),
      "job.yaml:2:19: schedule.decay: unknown value \"cosinus\"; did you mean \"cosine\"?; known: cosine, linear, wsd");
  EXPECT_EQ(error("model: m\nschedule: {decay: \"\"}\n"),
            "job.yaml:2:19: schedule.decay: unknown value \"\"; known: cosine, linear, wsd");
  EXPECT_EQ(error("model: m\nmax_drop: {kl: -1}\n"),
            "job.yaml:2:16: max_drop.kl: -1 is out of range, expected at least 0");
}

TEST(Config, TellsAllMistakesAtOnce) {
  EXPECT_EQ(error("texts: 3\nsed: 1\ntied: 1\nschedule:\n  warmup: 2\n  decya: wsd\n"),
            "job.yaml:1:1: model: must be given\n"
            "job.yaml:3:7: tied: expected true or false, got \"1\"\n"
            "job.yaml:5:11: schedule.warmup: 2 is out of range, expected 0 to 1\n"
            "job.yaml:6:3: schedule.decya: unknown key; did you mean \"decay\"?; known: tokens, warmup, decay\n"
            "job.yaml:2:1: sed: unknown key; did you mean \"seed\"?; known: model, texts, exclude, betas, max_drop, "
            "tied, seed, schedule, alpha");
}

TEST(Config, QuestionMarksAreAValueThatMustBeGiven) {
  EXPECT_EQ(error("model: ???\n"), "job.yaml:1:8: model: must be given");
  EXPECT_EQ(error("seed: 1\n"), "job.yaml:1:1: model: must be given");
  EXPECT_EQ(error("model: ???\n", {"model=x"}), "");
  EXPECT_EQ(error("model: m\nseed: ???\n"), "job.yaml:2:7: seed: must be given")
      << "whoever writes ??? wants it filled in";
}

TEST(Config, DuplicateAndMergeKeysAreRefused) {
  EXPECT_EQ(error("model: a\nseed: 1\nmodel: b\n"), "job.yaml:3:1: model: given twice");
  EXPECT_EQ(error("model: m\nschedule: {warmup: 0, warmup: 1}\n"), "job.yaml:2:23: schedule.warmup: given twice");
  EXPECT_EQ(error("model: m\nmax_drop: {kl: 1, kl: 2}\n"), "job.yaml:2:19: max_drop.kl: given twice");
  EXPECT_EQ(error("model: a\nsed: 1\nmodel: b\ntied: 1\n", {"schedule={warmup: 0, warmup: 1}"}),
            "job.yaml:3:1: model: given twice\n"
            "command line: schedule.warmup: given twice\n"
            "job.yaml:4:7: tied: expected true or false, got \"1\"\n"
            "job.yaml:2:1: sed: unknown key; did you mean \"seed\"?; known: model, texts, exclude, betas, max_drop, "
            "tied, seed, schedule, alpha");
  EXPECT_EQ(error("base: &b {seed: 1}\n<<: *b\nmodel: m\n"), "job.yaml:2:1: merge keys (<<) are not supported");
  EXPECT_EQ(error("[a]: 1\n"), "job.yaml:1:1: a key must be plain text");
}

struct Outer {
  Job job;
  template <class V>
  void visit(V& v) {
    v.section("job", job, "the job");
  }
};

TEST(Config, ASectionThatIsAbsentOrEmptyIsMissedWhereItShouldStand) {
  const auto error_of_outer = [](const std::string& text) {
    return error_of([&] { read_config<Outer>(parse_yaml_text(text, "job.yaml")); });
  };
  EXPECT_EQ(error_of_outer("job:\n"), "job.yaml:1:1: job.model: must be given");
  EXPECT_EQ(error_of_outer("{}\n"), "job.yaml:1:1: job.model: must be given");
  EXPECT_EQ(error_of_outer("job:\n  seed: 1\n"), "job.yaml:2:3: job.model: must be given");
}

TEST(Config, AliasesThatNeverEndAreRefused) {
  EXPECT_EQ(error("model: &x [*x]\n"), "job.yaml:1:12: an alias stands inside its own anchor");
  std::string text = "a0: &a0 [1, 2]\n";
  for (int i = 1; i < 40; ++i) text += fmt::format("a{0}: &a{0} [*a{1}, *a{1}]\n", i, i - 1);
  EXPECT_THAT(error(text), AllOf(StartsWith("job.yaml:15:18"), HasSubstr(": more than 100000 values, those of aliases "
                                                                         "included")));
}

TEST(Config, AliasesMayNotMakeMuchTextOfLittle) {
  std::string text = "a: &a \"" + std::string(100'000, 'x') + "\"\nb: [*a";
  for (int i = 0; i < 200; ++i) text += ", *a";
  EXPECT_THAT(error(text + "]\n"), HasSubstr(": more than 16777216 bytes of text, those of aliases included"));
}

TEST(Config, TextAfterTheValueIsRefusedWhereItBegins) {
  const auto error_in = [](const std::string& text) { return error_of([&] { parse_yaml_text(text, "a.yaml"); }); };
  EXPECT_EQ(error_in("[a.txt],"), "a.yaml:1:8: not valid YAML: \",\" after the end of the value");
  EXPECT_EQ(error_in("#\n,"), "a.yaml:2:1: not valid YAML: \",\" after the end of the value");
  EXPECT_THAT(error_in("a: 1\n}"), StartsWith("a.yaml:2:1: not valid YAML: "));
  EXPECT_EQ(error("model: m\n", {"texts=[a.txt],"}),
            "command line:1:8: not valid YAML: \",\" after the end of the value");
}

TEST(Config, ShortTextsOfEverySignAreReadOrRefused) {
  // Every text of up to three of these, none of which may take the parser for ever.
  const std::string signs = "#,[]{}:-&*!|>'\"%@\n\t a?";
  int read = 0, texts = 0;
  const auto try_text = [&](const std::string& text) {
    ++texts;
    read += error_of([&] { parse_yaml_text(text, "a.yaml"); }).empty();
  };
  for (const char a : signs) {
    try_text({a});
    for (const char b : signs) {
      try_text({a, b});
      for (const char c : signs) try_text({a, b, c});
    }
  }
  EXPECT_EQ(texts, 22 + 484 + 10'648);
  EXPECT_GT(read, 3'000);
  EXPECT_LT(read, 5'000);
}

TEST(Config, NestingAndSizeHaveLimits) {
  const auto error_in = [](const std::string& text) { return error_of([&] { parse_yaml_text(text, "a.yaml"); }); };
  std::string lists;
  for (int i = 0; i < 10'000; ++i) lists += "- ";
  EXPECT_EQ(error_in(lists), "a.yaml:1:129: nested deeper than 64 levels");
  EXPECT_EQ(error_in(std::string(300'000, '#')), "a.yaml: 300000 bytes of YAML; at most 262144 are read");
  std::string key = "a";
  for (int i = 0; i < 64; ++i) key += ".a";
  EXPECT_THAT(error("model: m\n", {key + "=1"}), HasSubstr("...: nested deeper than 64 levels"));
}

TEST(Config, TagsAreRefused) {
  EXPECT_EQ(error("seed: !!int \"3\"\n"), "job.yaml:1:7: tags (tag:yaml.org,2002:int) are not supported");
  EXPECT_EQ(error("texts: !set [a]\n"), "job.yaml:1:8: tags (!set) are not supported");
}

TEST(Config, ASecondDocumentIsRefused) {
  EXPECT_EQ(error("---\nmodel: m\n---\nseed: 1\n"),
            "job.yaml:3:1: a second document (---) begins here; only one is read");
  EXPECT_EQ(read("---\nmodel: m\n...\n").model, "/jobs/m");
}

TEST(Config, ResolvesAnchors) {
  EXPECT_THAT(read("model: &m x\ntexts: [*m, b]\n").texts, ElementsAre("/jobs/x", "/jobs/b"));
}

TEST(Config, TextThatIsNotYamlIsRefusedWhereItBreaks) {
  EXPECT_THAT(error("model: m\n  seed: [1\n"), StartsWith("job.yaml:2:"));
  EXPECT_THAT(error("model: m: n\n"), HasSubstr("not valid YAML"));
  EXPECT_THAT(error("a: *b\n"), AllOf(StartsWith("job.yaml:1:"), HasSubstr("not valid YAML")));
}

TEST(Config, FilesMustHoldAMap) {
  const TempDir dir;
  const std::string path = (dir / "job.yaml").string();
  write_file(path, "- a\n");
  EXPECT_EQ(error_of([&] { parse_yaml_file(path); }), path + ": expected a map of keys to values");
  write_file(path, "");
  EXPECT_EQ(error_of([&] { read_config<Job>(parse_yaml_file(path)); }), path + ":1:1: model: must be given");
  EXPECT_EQ(error_of([&] { parse_yaml_file(dir / "none.yaml"); }),
            "cannot read " + (dir / "none.yaml").string() + ": No such file or directory");
}

TEST(Config, PathsAreRelativeToTheFileTheyAreWrittenIn) {
  const TempDir dir;
  write_file(dir / "job.yaml", "model: ../m\n");
  EXPECT_EQ(read_config<Job>(parse_yaml_file(dir / "job.yaml")).model, dir.path() / "../m");
  EXPECT_EQ(read("model: m\n", {"model=sub/x", "texts=[a.txt]"}).model, "sub/x");
  EXPECT_THAT(read("model: m\n", {"texts=[a.txt]"}).texts, ElementsAre("a.txt"));
}

TEST(Override, ReplacesAddsAndReachesIntoSections) {
  const Job job = read("model: m\nschedule: {warmup: 0.1}\n", {"schedule.warmup=0.2", "schedule.tokens=2k",
                                                               "exclude=[]", "max_drop.kl=0.5", "seed=4", "seed=5"});
  EXPECT_EQ(job.schedule.warmup, 0.2);
  EXPECT_EQ(job.schedule.tokens.value, 2048);
  EXPECT_TRUE(job.exclude.empty());
  EXPECT_EQ(job.max_drop.at("kl"), 0.5);
  EXPECT_EQ(job.seed, 5);
  EXPECT_EQ(read("model: m\n", {"exclude=a=b"}).exclude.at(0), "a=b");
}

TEST(Override, MistakesNameTheCommandLine) {
  EXPECT_EQ(error("model: m\n", {"seed"}), "command line: \"seed\": expected key=value");
  EXPECT_EQ(error("model: m\n", {"=3"}), "command line: \"=3\": expected key=value");
  EXPECT_EQ(error("model: m\n", {"a..b=3"}), "command line: a..b: not a dotted key");
  EXPECT_EQ(error("model: m\n", {"a.=3"}), "command line: a.: not a dotted key");
  EXPECT_EQ(error("model: m\n", {"seed=x"}), "command line: seed: expected whole number, got \"x\"");
  EXPECT_EQ(error("model: m\n", {"sead=1"}),
            "command line: sead: unknown key; did you mean \"seed\"?; known: model, texts, exclude, betas, max_drop, "
            "tied, seed, schedule, alpha");
  EXPECT_EQ(error("model: m\n", {"model.path=x"}), "command line: model.path: model holds a value, not keys");
  EXPECT_EQ(error("model: m\n", {"schedule.warmup.x=1"}), "command line: schedule.warmup: expected number, got a map");
  EXPECT_THAT(error("model: m\n", {"texts=[a"}), AllOf(StartsWith("command line"), HasSubstr("not valid YAML")));
}

TEST(Override, AllThatCannotBeReadAreToldAtOnce) {
  ConfigValue tree = parse_yaml_text("model: m\n", "job.yaml");
  EXPECT_EQ(error_of([&] {
              apply_overrides(tree, {"seed", "seed=2", "model.path=x", "a..b=3"});
            }),
            "command line: \"seed\": expected key=value\n"
            "command line: model.path: model holds a value, not keys\n"
            "command line: a..b: not a dotted key");
  EXPECT_EQ(tree.find("seed")->text, "2");
}

TEST(ToYaml, ReadsBackAsTheSameOptions) {
  Job job = read("model: m\n");
  job.exclude = {"", "a: b", "#c", "12", "true", "~", "é\"\\\n\t\r\x01", " x ", "- y", "???", "auto", "{", "*z"};
  job.betas = {0.1, 1.0 / 3, 1};
  job.max_drop = {{"kl", 1e-300}};
  job.schedule.tokens = int64_t{123};
  const std::string text = to_yaml(write_config(job));
  const Job again = read(text);
  EXPECT_EQ(again.model, job.model);
  EXPECT_EQ(again.exclude, job.exclude);
  EXPECT_EQ(again.betas, job.betas);
  EXPECT_EQ(again.max_drop, job.max_drop);
  EXPECT_EQ(again.schedule.tokens.value, 123);
  EXPECT_EQ(to_yaml(write_config(again)), text);
}

TEST(ToYaml, KeepsListsOfMapsAndEmptyThings) {
  const ConfigValue tree = parse_yaml_text(
      "mix: [{path: \"a\", weight: 0.5}, {path: \"b\"}]\nnone: []\nempty: {}\nnull_value:\nnested: [[1, 2], [], [3]]\n",
      "x");
  const ConfigValue again = parse_yaml_text(to_yaml(tree), "x");
  EXPECT_EQ(to_yaml(again), to_yaml(tree));
  ASSERT_EQ(again.find("mix")->items.size(), 2u);
  EXPECT_EQ(again.find("mix")->items[0].find("weight")->text, "0.5");
  EXPECT_EQ(again.find("none")->kind, ConfigValue::Kind::list);
  EXPECT_EQ(again.find("empty")->kind, ConfigValue::Kind::map);
  EXPECT_EQ(again.find("null_value")->kind, ConfigValue::Kind::null);
  ASSERT_EQ(again.find("nested")->items.size(), 3u);
  EXPECT_EQ(again.find("nested")->items[0].items.size(), 2u);
  EXPECT_EQ(again.find("nested")->items[0].items[1].text, "2");
  EXPECT_EQ(again.find("nested")->items[1].items.size(), 0u);
}

TEST(ToYaml, QuotesKeysThatNeedIt) {
  ConfigValue tree = ConfigValue::map({{"a: b", ConfigValue::scalar("1")},
                                       {"#x", ConfigValue::scalar("2")},
                                       {"plain.key_1", ConfigValue::scalar("3")}});
  const ConfigValue again = parse_yaml_text(to_yaml(tree), "x");
  ASSERT_EQ(again.entries.size(), 3u);
  EXPECT_EQ(again.entries[0].first, "a: b");
  EXPECT_EQ(again.entries[1].first, "#x");
  EXPECT_THAT(to_yaml(tree), HasSubstr("\nplain.key_1: 3\n"));
}

TEST(NearestName, OffersOnlyLikelyMistakes) {
  const std::vector<std::string> known{"temperature", "top_p", "top_k", "kl"};
  EXPECT_EQ(nearest_name("temprature", known), "temperature");
  EXPECT_EQ(nearest_name("top-k", known), "top_k");
  EXPECT_EQ(nearest_name("completely_else", known), std::nullopt);
  EXPECT_EQ(nearest_name("x", known), std::nullopt) << "two letters changed of one is no typing mistake";
}

TEST(ConfigDocs, ListsEveryFieldWithTypeDefaultAndRange) {
  ConfigDocs docs;
  Job job;
  job.visit(docs);
  EXPECT_THAT(docs.markdown(), HasSubstr("| `model` | path | must be given |  | the model |\n"));
  EXPECT_THAT(docs.markdown(), HasSubstr("| `seed` | whole number | `0` | at least 0 | seed |\n"));
  EXPECT_THAT(
      docs.markdown(),
      HasSubstr("\n### schedule\n\nhow long\n\n| key | type | default | allowed | meaning |\n|---|---|---|---|---|\n"
                "| `schedule.tokens` | whole number or auto | `auto` | at least 1 | tokens to train on; auto: one "
                "epoch |\n"));
  // A key after a section belongs to the job's own table; a bar inside a cell would end it.
  EXPECT_THAT(docs.markdown(), HasSubstr("| `alpha` | number | `0` |  | weight of KL(p \\|\\| q) |\n\n### schedule"));
  EXPECT_THAT(docs.markdown(),
              HasSubstr("| `schedule.decay` | text | `\"cosine\"` | cosine, linear, wsd | shape of the decay |\n"));
  EXPECT_THAT(docs.markdown(),
              HasSubstr("| `exclude` | list of text | `[\"lm_head\", \"embed_tokens\"]` |  | globs |\n"));
}

}  // namespace
}  // namespace crumb
