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
                                       {"null", ConfigValue::scalar("4")},
                                       {"plain.key_1", ConfigValue::scalar("3")}});
  const ConfigValue again = parse_yaml_text(to_yaml(tree), "x");
  ASSERT_EQ(again.entries.size(), 4u);
  EXPECT_EQ(again.entries[2].first, "null");
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

// --- Structs, words and variants as values
// ----------------------------------------------------------------------------

struct Source {
  static constexpr const char* kShort = "path";
  Path path;
  std::optional<double> weight = std::nullopt;
  std::string format = "text";
  template <class V>
  void visit(V& v) {
    v.field("path", path, "the file", {.required = true});
    v.field("weight", weight, "its share", {.min = 0});
    v.field("format", format, "what it holds", {.choices = {"text", "chat"}});
  }
};

struct Choice {
  static constexpr const char* kShort = "path";
  std::optional<Path> path, config;
  template <class V>
  void visit(V& v) {
    v.field("path", path, "what is there");
    v.field("config", config, "what is to be made");
    v.check("path", path && config ? "either this or config" : "");
  }
};

struct Change {
  std::optional<int64_t> bits = std::nullopt;
  template <class V>
  void visit(V& v) {
    v.field("bits", bits, "bits a weight", {.min = 2, .max = 8});
  }
};

struct Shared {
  int64_t bits = 2;
  template <class V>
  void visit(V& v) {
    v.field("bits", bits, "bits a weight", {.min = 2, .max = 8});
  }
};

struct Gptq {
  static constexpr const char* kName = "gptq";
  Shared shared;
  double damping = 0.01;
  template <class V>
  void visit(V& v) {
    shared.visit(v);
    v.field("damping", damping, "added to the diagonal", {.min = 0});
  }
};

struct Rtn {
  static constexpr const char* kName = "rtn";
  Shared shared;
  template <class V>
  void visit(V& v) {
    shared.visit(v);
  }
};

struct Nothing {
  static constexpr const char* kName = "none";
  template <class V>
  void visit(V& /*v*/) {}
};

struct Range {
  double from = 0, to = 1;
  template <class V>
  void visit(V& v) {
    v.field("from", from, "begin");
    v.field("to", to, "end");
    v.check("to", to < from ? "lies before from" : "");
  }
};

struct Rich {
  Choice choice;
  std::vector<Source> mix;
  NamedList<Change> overrides;
  WordOr<Path, "self"> teacher;
  std::variant<double, Path> valid = 0.01;
  std::variant<Path, Range> part;
  std::variant<Rtn, Gptq, Nothing> method;
  std::vector<std::variant<Rtn, Gptq>> stages;
  template <class V>
  void visit(V& v) {
    v.field("choice", choice, "one of two");
    v.field("mix", mix, "texts");
    v.field("overrides", overrides, "by glob");
    v.field("teacher", teacher, "who teaches");
    v.field("valid", valid, "share or text", {.min = 0, .max = 0.5});
    v.field("part", part, "which part");
    v.section("method", method, "how");
    v.field("stages", stages, "one after the other");
  }
};

Rich rich(const std::string& text) { return read_config<Rich>(parse_yaml_text(text, "job.yaml", "/jobs")); }
std::string rich_error(const std::string& text) {
  return error_of([&] { rich(text); });
}

TEST(ConfigValues, AListOfStructsTakesTheShortFormToo) {
  const Rich job = rich("mix: [a.txt, {path: b.txt, weight: 30%, format: chat}]\n");
  ASSERT_EQ(job.mix.size(), 2u);
  EXPECT_EQ(job.mix[0].path, "/jobs/a.txt");
  EXPECT_EQ(job.mix[0].weight, std::nullopt);
  EXPECT_EQ(job.mix[1].path, "/jobs/b.txt");
  EXPECT_EQ(job.mix[1].weight, 0.3);
  EXPECT_EQ(job.mix[1].format, "chat");
  EXPECT_EQ(rich("mix: a.txt\n").mix.at(0).path, "/jobs/a.txt") << "one value stands for a list of one";
  EXPECT_EQ(rich("mix: {path: a.txt}\n").mix.at(0).path, "/jobs/a.txt");
  EXPECT_EQ(rich_error("mix: [a.txt, {pth: b, weight: -1}]\n"),
            "job.yaml:1:15: mix[1].path: must be given\n"
            "job.yaml:1:31: mix[1].weight: -1 is out of range, expected at least 0\n"
            "job.yaml:1:15: mix[1].pth: unknown key; did you mean \"path\"?; known: path, weight, format");
  EXPECT_EQ(rich_error("mix: [[a]]\n"), "job.yaml:1:7: mix[0].path: expected path, got a list");
}

TEST(ConfigValues, TheShortFormMayStandForAKeyThatMayBeAbsent) {
  EXPECT_EQ(rich("choice: a\n").choice.path, "/jobs/a");
  EXPECT_EQ(rich("choice: {config: c}\n").choice.config, "/jobs/c");
  EXPECT_EQ(rich_error("choice: {path: a, config: c}\n"), "job.yaml:1:16: choice.path: either this or config");
  EXPECT_THAT(to_yaml(write_config(rich("choice: a\n"))), HasSubstr("choice: \"/jobs/a\"\n"));
  EXPECT_THAT(to_yaml(write_config(rich("choice: {config: c}\n"))), HasSubstr("choice:\n  config: \"/jobs/c\"\n"));
  EXPECT_THAT(to_yaml(write_config(Rich())), StartsWith("mix: []\n"));
}

TEST(ConfigValues, AMapOfStructsKeepsItsOrder) {
  const Rich job = rich("overrides: {\"z*\": {bits: 4}, a: {}}\n");
  ASSERT_EQ(job.overrides.size(), 2u);
  EXPECT_EQ(job.overrides[0].first, "z*");
  EXPECT_EQ(job.overrides[0].second.bits, 4);
  EXPECT_EQ(job.overrides[1].first, "a");
  EXPECT_EQ(job.overrides[1].second.bits, std::nullopt);
  EXPECT_EQ(rich_error("overrides: {a: {bits: 9}}\n"),
            "job.yaml:1:23: overrides.a.bits: 9 is out of range, expected 2 to 8");
  EXPECT_EQ(rich_error("overrides: [a]\n"), "job.yaml:1:12: overrides: expected a map of names to {bits}, got a list");
  EXPECT_EQ(rich_error("overrides: {a: 4}\n"), "job.yaml:1:16: overrides.a: expected keys, got \"4\"");
}

TEST(ConfigValues, AWordStandsForNoValue) {
  EXPECT_TRUE(rich("teacher: self\n").teacher.is_word());
  EXPECT_EQ(rich("teacher: \"self\"\n").teacher.value, "/jobs/self") << "quoted, it is a path";
  EXPECT_EQ(rich("teacher: big\n").teacher.value, "/jobs/big");
  EXPECT_EQ(rich_error("teacher: [a]\n"), "job.yaml:1:10: teacher: expected path or self, got a list");
}

TEST(ConfigValues, AVariantTakesWhatReadsTheValue) {
  EXPECT_EQ(std::get<double>(rich("valid: 2%\n").valid), 0.02);
  EXPECT_EQ(std::get<Path>(rich("valid: v.txt\n").valid), "/jobs/v.txt");
  EXPECT_EQ(std::get<Path>(rich("valid: \"0.1\"\n").valid), "/jobs/0.1") << "quoted text is no number";
  EXPECT_EQ(rich_error("valid: 0.6\n"), "job.yaml:1:8: valid: 0.6 is out of range, expected 0 to 0.5");
  EXPECT_EQ(rich_error("valid: [a]\n"), "job.yaml:1:8: valid: expected number or path, got a list");
  EXPECT_EQ(std::get<Path>(rich("part: p\n").part), "/jobs/p");
  EXPECT_EQ(std::get<Range>(rich("part: {from: 0.5}\n").part).from, 0.5);
  EXPECT_EQ(rich_error("part: [a]\n"), "job.yaml:1:7: part: expected path or {from, to}, got a list");
}

TEST(ConfigValues, FieldsMayContradictEachOther) {
  EXPECT_EQ(rich_error("part: {from: 2, to: 1}\n"), "job.yaml:1:21: part.to: lies before from");
  EXPECT_EQ(rich_error("part: {from: 2}\n"), "job.yaml:1:8: part.to: lies before from");
}

TEST(ConfigValues, TheNameChoosesWhichKeysThereAre) {
  EXPECT_EQ(std::get<Rtn>(rich("").method).shared.bits, 2) << "the first is the default";
  EXPECT_EQ(std::get<Rtn>(rich("method: {bits: 3}\n").method).shared.bits, 3);
  const auto gptq = std::get<Gptq>(rich("method: {damping: 5%, name: gptq, bits: 4}\n").method);
  EXPECT_EQ(gptq.damping, 0.05);
  EXPECT_EQ(gptq.shared.bits, 4);
  EXPECT_EQ(rich_error("method: {name: gtpq, bits: 9}\n"),
            "job.yaml:1:16: method.name: unknown value \"gtpq\"; did you mean \"gptq\"?; known: rtn, gptq, none")
      << "which keys there are is not known, so nothing is said of them";
  EXPECT_EQ(rich_error("method:\n  name: ???\n"), "job.yaml:2:9: method.name: must be given");
  EXPECT_EQ(rich_error("method: {name: gptq, dampng: 1}\n"),
            "job.yaml:1:22: method.dampng: unknown key; did you mean \"damping\"?; known: name, bits, damping");
  EXPECT_EQ(rich_error("method: gptq\n"), "job.yaml:1:9: method: expected keys, got \"gptq\"");
}

TEST(ConfigValues, KeysOfAnotherChoiceAreLeftOutWithAWarning) {
  ::testing::internal::CaptureStderr();
  EXPECT_TRUE(std::holds_alternative<Nothing>(rich("method: {name: none, bits: 4, damping: 1}\n").method));
  const std::string words = ::testing::internal::GetCapturedStderr();
  EXPECT_THAT(words, HasSubstr("job.yaml:1:22: method.bits: has no meaning with name: none, it is left out"));
  EXPECT_THAT(words, HasSubstr("job.yaml:1:31: method.damping: has no meaning with name: none, it is left out"));
}

TEST(ConfigValues, AListMayHoldStepsOfSeveralKinds) {
  const Rich job = rich("stages: [{name: gptq, bits: 4}, {name: rtn}]\n");
  ASSERT_EQ(job.stages.size(), 2u);
  EXPECT_EQ(std::get<Gptq>(job.stages[0]).shared.bits, 4);
  EXPECT_TRUE(std::holds_alternative<Rtn>(job.stages[1]));
  EXPECT_EQ(rich_error("stages: [{name: gptq, damping: -1}]\n"),
            "job.yaml:1:32: stages[0].damping: -1 is out of range, expected at least 0");
}

TEST(ConfigValues, AreWrittenAsTheyAreRead) {
  const std::string text =
      "choice: a\nmix: [a.txt, {path: b.txt, weight: 0.3}]\noverrides: {\"z*\": {bits: 4}, a: {}}\nteacher: "
      "big\nvalid: v.txt\n"
      "part: {from: 0.5, to: 2}\nmethod: {name: gptq, bits: 4}\nstages: [{name: rtn}, {name: gptq, damping: 1}]\n";
  const std::string written = to_yaml(write_config(rich(text)));
  EXPECT_EQ(written,
            "choice: \"/jobs/a\"\nmix:\n  - \"/jobs/a.txt\"\n  -\n    path: \"/jobs/b.txt\"\n    weight: 0.3\n    "
            "format: \"text\"\n"
            "overrides:\n  \"z*\":\n    bits: 4\n  a: {}\n"
            "teacher: \"/jobs/big\"\nvalid: \"/jobs/v.txt\"\npart:\n  from: 0.5\n  to: 2\n"
            "method:\n  name: gptq\n  bits: 4\n  damping: 0.01\n"
            "stages:\n  -\n    name: rtn\n    bits: 2\n  -\n    name: gptq\n    bits: 2\n    damping: 1\n");
  EXPECT_EQ(to_yaml(write_config(rich(written))), written);
  const std::string usual = to_yaml(write_config(Rich()));
  EXPECT_THAT(usual, HasSubstr("teacher: self\n"));
  EXPECT_THAT(usual, HasSubstr("method:\n  name: rtn\n  bits: 2\n"));
}

TEST(ConfigDocs, SaysWhoseKeyItIsAndWhatIsInsideAValue) {
  ConfigDocs docs;
  Rich job;
  job.visit(docs);
  const std::string page = docs.markdown();
  EXPECT_THAT(page, HasSubstr("| `mix` | list of path or {path, weight, format} | `[]` |  | texts |\n"
                              "| `mix[].path` | path | must be given |  | the file |\n"
                              "| `mix[].weight` | number |  | at least 0 | its share |\n"));
  EXPECT_THAT(page, HasSubstr("| `overrides.NAME.bits` | whole number |  | 2 to 8 | bits a weight |\n"));
  EXPECT_THAT(page, HasSubstr("| `teacher` | path or self | `self` |  | who teaches |\n"));
  EXPECT_THAT(page, HasSubstr("| `part.from` | number | `0` |  | begin |\n"));
  EXPECT_THAT(page, HasSubstr("\n### method\n\nhow\n\n| key | type | default | allowed | meaning |\n"
                              "|---|---|---|---|---|\n"
                              "| `method.name` | text | `rtn` | rtn, gptq, none | which of them; the other keys depend "
                              "on it |\n"
                              "| `method.bits` | whole number | `2` | 2 to 8 | rtn, gptq: bits a weight |\n"
                              "| `method.damping` | number | `0.01` | at least 0 | gptq: added to the diagonal |\n"));
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
