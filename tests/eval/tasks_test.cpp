#include "eval/tasks.h"

#include <fmt/ranges.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/common/json.h"
#include "core/jinja/text.h"
#include "eval/questions.h"
#include "eval/runtime_scorer.h"
#include "eval/task_report.h"
#include "eval/written_answers.h"
#include "quant/checkpoint.h"
#include "tests/eval/fake_scorer.h"
#include "tests/testing/fake_tokenizer.h"
#include "tests/testing/testing.h"

namespace crumb::eval {
namespace {

using crumb::testing::error_of;
using crumb::testing::FakeTokenizer;
using crumb::testing::TempDir;
using crumb::testing::write_file;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using tokenizer::TokenId;
using Json = nlohmann::ordered_json;

void write_lines(const Path& path, const Json& items) {
  std::filesystem::create_directories(path.parent_path());
  std::string text;
  for (const auto& item : items) text += item.dump() + "\n";
  write_file(path, text);
}

Json golden(const std::string& name) {
  return Json::parse(crumb::testing::read_file(crumb::testing::source_dir() / "tests" / "eval" / name));
}

// lm_eval_prompts.json: pairs of prompt and answer as lm-evaluation-harness makes them (golden_prompts.py).
TEST(Tasks, AskWhatLmEvaluationHarnessAsks) {
  const auto prompts = golden("lm_eval_prompts.json");
  EXPECT_EQ(prompts.size(), builtin_task_names().size());
  for (const auto& [name, expected] : prompts.items()) {
    SCOPED_TRACE(name);
    const TempDir dir;
    const Task task = find_task(name, dir.path());
    write_lines(dir / task.options().data.back(), expected["items"]);
    if (!expected["examples"].empty()) write_lines(dir / task.options().fewshot_data.back(), expected["examples"]);
    Questions questions(task, dir.path(), expected["shots"].get<int64_t>());
    for (const auto& pairs : expected["pairs"]) {
      const auto asked = questions.next();
      ASSERT_TRUE(asked.has_value());
      Json got = Json::array();
      for (const auto& pair : asked->question.pairs) got.push_back({pair.context, pair.continuation});
      EXPECT_EQ(got, pairs);
    }
    EXPECT_FALSE(questions.next().has_value());
  }
}

// lm_eval_chats.json: the same prompts by the chat template of SmolLM2-135M-Instruct (golden_prompts.py MODEL).
TEST(Tasks, AskInChatsWhatLmEvaluationHarnessAsks) {
  CRUMB_NEED_MODEL(path, "SmolLM2-135M-Instruct");
  const auto tokenizer = tokenizer::load_tokenizer(path);
  const jinja::ChatTemplate chat(*tokenizer, "SmolLM2");
  const auto prompts = golden("lm_eval_prompts.json");
  int compared = 0;
  for (const auto& expected : golden("lm_eval_chats.json")) {
    const std::string name = expected["task"];
    SCOPED_TRACE(expected.dump().substr(0, 80));
    const auto& data = prompts[name];
    const TempDir dir;
    const Task task = find_task(name, dir.path());
    write_lines(dir / task.options().data.back(), data["items"]);
    if (!data["examples"].empty()) write_lines(dir / task.options().fewshot_data.back(), data["examples"]);
    const PromptOptions options{true, expected["multiturn"].get<bool>(), expected["system"].get<std::string>()};
    Questions questions(task, dir.path(), data["shots"].get<int64_t>(), options);
    for (const auto& pairs : expected["pairs"]) {
      const auto asked = questions.next();
      ASSERT_TRUE(asked.has_value());
      Json got = Json::array();
      for (const auto& pair : asked->question.pairs)
        got.push_back({chat_prompt(chat, pair.messages), pair.continuation});
      EXPECT_EQ(got, pairs);
      ++compared;
    }
  }
  EXPECT_GT(compared, 20);
}

// lm_eval_answers.json: what the harness takes of written texts (golden_answers.py).
TEST(Tasks, TakeOfTextsWhatLmEvaluationHarnessTakes) {
  const auto expected = golden("lm_eval_answers.json");
  const TempDir dir;
  for (const auto& one : expected["cases"]) {
    const Task task = find_task(one["task"], dir.path());
    const std::string taken = task.filtered(one["measure"], one["text"]);
    EXPECT_EQ(taken, one["taken"].get<std::string>()) << one["task"] << one["measure"] << one["text"];
    for (size_t i = 0; i < expected["answers"].size(); ++i)
      EXPECT_EQ(task.matches(taken, expected["answers"][i]), one["right"][i].get<bool>()) << taken << i;
  }
  const ExactMatch match({true, true, true, expected["options"]["regexes_to_ignore"]}, "");
  for (size_t i = 0; i < expected["pairs"].size(); ++i)
    EXPECT_EQ(match.equal(expected["pairs"][i][0], expected["pairs"][i][1]), expected["matches"][i].get<bool>()) << i;
}

TEST(Tasks, FindTheRightAnswer) {
  const auto prompts = golden("lm_eval_prompts.json");
  const auto targets = [&](const std::string& name) {
    const TempDir dir;
    const Task task = find_task(name, dir.path());
    write_lines(dir / task.options().data.back(), prompts[name]["items"]);
    Questions questions(task, dir.path(), 0);
    std::vector<int64_t> out;
    while (const auto asked = questions.next()) out.push_back(asked->question.target);
    return out;
  };
  EXPECT_THAT(targets("arc_easy"), ElementsAre(0, 1, 1));
  EXPECT_THAT(targets("piqa"), ElementsAre(1));
  EXPECT_THAT(targets("hellaswag"), ElementsAre(2, 0));
  EXPECT_THAT(targets("winogrande"), ElementsAre(1));
  EXPECT_THAT(targets("boolq"), ElementsAre(1, 0));
  EXPECT_THAT(targets("openbookqa"), ElementsAre(1));
  EXPECT_THAT(targets("social_iqa"), ElementsAre(0));
}

class OwnTask : public ::testing::Test {
 protected:
  /// A task of numbers: "n=3:" and four answers.
  void SetUp() override {
    write_file(dir_ / "own.yaml",
               "task: own\ndata: [own.jsonl, own.csv]\nget: make it\ndoc_to_text: \"n={{n}}:\"\n"
               "doc_to_choice: \"{{choices.split('|')}}\"\ndoc_to_target: \"{{right}}\"\nmetrics: [acc, acc_norm]\n");
  }
  std::string error_of_items(const std::string& items) {
    write_file(dir_ / "own.jsonl", items);
    return error_of([&] {
      const Task task = find_task("own", dir_.path());
      Questions questions(task, dir_.path(), 0);
      while (questions.next()) {
      }
    });
  }
  std::string at(const std::string& rest) const { return (dir_ / "own.jsonl").string() + ":" + rest; }
  TempDir dir_;
};

TEST_F(OwnTask, BadItemsAreToldByTheirLine) {
  const std::string good = R"({"n": 1, "choices": "a|b", "right": 0})", where = (dir_ / "own.yaml").string();
  EXPECT_EQ(error_of_items(good + "\n\n"), "");
  EXPECT_THAT(error_of_items(good + "\n\n{\"n\": 1,\n"), HasSubstr(at("3:")));
  EXPECT_EQ(error_of_items(good + "\n[1]\n"), at("2: not a JSON object but a list"));
  EXPECT_EQ(error_of_items("[" + good + "]"), at("1: a JSON list; write its items as JSON lines, an object each"));
  EXPECT_EQ(error_of_items(R"({"n": 1, "right": 0})"), at("1: " + where + ": doc_to_choice:1: 'choices' is undefined"));
  EXPECT_EQ(error_of_items(R"({"choices": "a|b", "right": 0})"),
            at("1: " + where + ": doc_to_text:1: 'n' is undefined"));
  EXPECT_EQ(error_of_items(R"({"n": 1, "choices": "a|b", "right": 2})"),
            at("1: the right answer is number 2 of 2 choices"));
  EXPECT_EQ(error_of_items(R"({"n": 1, "choices": "a|b", "right": "c"})"),
            at("1: the right answer \"c\" is none of the choices"));
  EXPECT_EQ(error_of_items(R"({"n": 1, "choices": "0|1|2", "right": "1"})"), "") << "number 1 is the text 1";
  EXPECT_THAT(error_of_items(R"({"n": 1, "choices": "1|2|3", "right": "2"})"),
              HasSubstr("\"2\" is both number 2 from 0 and the text of another choice"));
  EXPECT_EQ(error_of_items(R"({"n": 1, "choices": "a", "right": 0})"), at("1: doc_to_choice gives 1 choice"));
  EXPECT_EQ(error_of_items(R"({"id": 7, "n": 1, "choices": "a|b", "right": "b"})"
                           "\n"
                           R"({"id": 8, "n": 1, "choices": "a|b", "right": "b"})"
                           "\n"
                           R"({"id": 7, "n": 2, "choices": "a|b", "right": "b"})"),
            at("3: the id 7 is that of line 1, too"));
}

TEST_F(OwnTask, MissingDataSaysHowToGetIt) {
  const Task task = find_task("own", dir_.path());
  EXPECT_EQ(error_of([&] { Questions(task, dir_.path(), 0); }),
            "the task own needs own.jsonl or own.csv in " + dir_.path().string() + "; make it");
  EXPECT_THAT(error_of([&] { find_task("arc_eazy", dir_.path()); }),
              HasSubstr("there is no task \"arc_eazy\"; did you mean \"arc_easy\"?; known: arc_challenge, arc_easy, "));
}

TEST_F(OwnTask, ReadsCsv) {
  write_file(dir_ / "own.csv", "n,choices,right\r\n1,\"a|b\",1\n\"2, \"\"two\"\"\n\",x|y,0\n");
  const Task task = find_task("own", dir_.path());
  Questions questions(task, dir_.path(), 0);
  const auto first = questions.next(), second = questions.next();
  EXPECT_EQ(first->question.pairs[1].context + first->question.pairs[1].continuation, "n=1: b");
  EXPECT_EQ(first->question.target, 1);
  EXPECT_EQ(second->question.pairs[0].context, "n=2, \"two\"\n:");
  EXPECT_EQ(second->item.line, 3);
  EXPECT_FALSE(questions.next().has_value());
  write_file(dir_ / "own.csv", "n,choices,right\n1,a|b,1\n2,a|b\n");
  Questions broken(task, dir_.path(), 0);
  broken.next();
  EXPECT_EQ(error_of([&] { broken.next(); }), (dir_ / "own.csv").string() + ":3: 2 cells in a table of 3 columns");
}

TEST_F(OwnTask, AnItemIsNoExampleForItself) {
  std::string items;
  for (int i = 0; i < 4; ++i) items += Json{{"n", i}, {"choices", "a|b"}, {"right", i % 2}}.dump() + "\n";
  write_file(dir_ / "own.jsonl", items);
  const Task task = find_task("own", dir_.path());
  Questions questions(task, dir_.path(), 3);
  for (int i = 0; i < 4; ++i) {
    const std::string context = questions.next()->question.pairs[0].context;
    for (int j = 0; j < 4; ++j) {
      const std::string solved = fmt::format("n={}: {}\n\n", j, j % 2 == 0 ? "a" : "b");
      EXPECT_EQ(context.find(solved) != std::string::npos, i != j) << context;
    }
    EXPECT_TRUE(context.ends_with(fmt::format("n={}:", i)));
  }
  Questions few(task, dir_.path(), 4);
  EXPECT_EQ(error_of([&] { few.next(); }),
            at("").substr(0, at("").size() - 1) + ": 4 solved examples were asked for, 4 items are there");
}

TEST_F(OwnTask, MayBringItsSolvedExamples) {
  write_file(dir_ / "own.yaml",
             "task: own\nget: make it\ndata: own.jsonl\ndoc_to_text: \"n={{n}}:\"\ndoc_to_choice: [a, b]\n"
             "doc_to_target: right\nfewshot_sampler: first_n\nfewshot_samples:\n  - {n: \"7\", right: \"1\"}\n  - {n: "
             "\"8\", right: \"0\"}\n");
  write_file(dir_ / "own.jsonl", Json{{"n", 1}, {"right", 0}}.dump() + "\n");
  const Task task = find_task("own", dir_.path());
  EXPECT_EQ(Questions(task, dir_.path(), 1).next()->question.pairs[0].context, "n=7: b\n\nn=1:");
  EXPECT_EQ(Questions(task, dir_.path(), 2).next()->question.pairs[0].context, "n=7: b\n\nn=8: a\n\nn=1:");
  EXPECT_EQ(error_of([&] { Questions(task, dir_.path(), 3); }),
            "own: 3 solved examples were asked for, 2 samples are there");
}

TEST_F(OwnTask, ExamplesHaveTheLabelsOfTheirOwnLines) {
  write_file(
      dir_ / "own.yaml",
      "task: own\nget: make it\ndata: own.jsonl\nlabels: own.lst\nfewshot_group: kind\ndoc_to_text: \"n={{n}}:\"\n"
      "doc_to_choice: [a, b]\ndoc_to_target: label\n");
  std::string items, labels;
  for (int i = 0; i < 9; ++i) {
    items += Json{{"n", i}, {"kind", i % 3}}.dump() + "\n";
    labels += fmt::format("{}\n", i / 3 == 1 ? 1 : 0);
  }
  write_file(dir_ / "own.jsonl", items);
  write_file(dir_ / "own.lst", labels);
  const Task task = find_task("own", dir_.path());
  Questions questions(task, dir_.path(), 2);
  for (int i = 0; i < 9; ++i) {
    const auto asked = questions.next();
    for (int j = i % 3; j < 9; j += 3) {
      const std::string solved = fmt::format("n={}: {}\n\n", j, j / 3 == 1 ? "b" : "a");
      EXPECT_EQ(asked->question.pairs[0].context.find(solved) != std::string::npos, i != j) << i << " " << j;
    }
  }
  write_file(dir_ / "own.jsonl", items + "{\"n\": 9, \"kind\": 0}\n");
  EXPECT_EQ(error_of([&] {
              Questions more(task, dir_.path(), 0);
              while (more.next()) {
              }
            }),
            at("10: there is no label for it: 9 labels"));
  write_file(dir_ / "own.jsonl", "{\"n\": 0, \"kind\": 0, \"label\": 1}\n");
  EXPECT_EQ(error_of([&] { Questions(task, dir_.path(), 0).next(); }),
            at("1: its label is 1, in the file of labels \"0\"; remove one of them"));
}

TEST_F(OwnTask, ErrorsOfExamplesAreToldByTheirLine) {
  write_file(dir_ / "own.yaml",
             "task: own\nget: make it\ndata: own.jsonl\nfewshot_data: train.jsonl\ndoc_to_text: "
             "\"n={{n}}:\"\ndoc_to_choice: [a, b]\n"
             "doc_to_target: right\n");
  write_file(dir_ / "own.jsonl", "{\"n\": 0, \"right\": 1}\n");
  write_file(dir_ / "train.jsonl", "\n{\"n\": 0}\n");
  const Task task = find_task("own", dir_.path());
  EXPECT_THAT(error_of([&] { Questions(task, dir_.path(), 1).next(); }),
              ::testing::StartsWith((dir_ / "train.jsonl").string() + ":2: "));
}

TEST_F(OwnTask, TablesNeedAColumnNameEachAndClosedQuotes) {
  const auto error_of_table = [&](const std::string& table) {
    write_file(dir_ / "own.csv", table);
    const Task task = find_task("own", dir_.path());
    return error_of([&] { Questions(task, dir_.path(), 0).next(); });
  };
  const std::string csv = (dir_ / "own.csv").string();
  EXPECT_EQ(error_of_table("n,choices,n\n1,a|b,0\n"),
            csv + ": the columns are called n, choices, n: each needs a name of its own");
  EXPECT_EQ(error_of_table("n,choices,right\n1,\"a|b,0\n"), csv + ":2: a quote of this row is not closed");
  EXPECT_EQ(error_of_table("n,choices,right\n\xe9,a|b,0\n"), "") << "bytes that are not UTF-8 are read as U+FFFD";
}

TEST(EncodePair, GivesTheContinuationWhatItHasAlone) {
  FakeTokenizer tokenizer;
  const auto text = [](const std::vector<tokenizer::TokenId>& ids) { return std::string(ids.begin(), ids.end()); };
  auto pair = encode_pair(tokenizer, "Q: x\nA:", " yes", 100);
  EXPECT_EQ(text(pair.context), "Q: x\nA:");
  EXPECT_EQ(text(pair.continuation), " yes");
  // White space at the end goes to the answer.
  pair = encode_pair(tokenizer, "Once \n", "there", 100);
  EXPECT_EQ(text(pair.context), "Once");
  EXPECT_EQ(text(pair.continuation), " \nthere");
  pair = encode_pair(tokenizer, "", "ab", 100);
  EXPECT_THAT(pair.context, ElementsAre(FakeTokenizer::kBos));
  EXPECT_EQ(text(pair.continuation), "ab");
  // Cut from the left: the last token is not put in, so one more than the context fits.
  pair = encode_pair(tokenizer, "abcdefgh", "xyz", 6);
  EXPECT_EQ(text(pair.context), "efgh");
  EXPECT_TRUE(pair.is_truncated);
  EXPECT_FALSE(encode_pair(tokenizer, "efgh", "xyz", 6).is_truncated);
  EXPECT_EQ(error_of([&] { encode_pair(tokenizer, "a", "1234567", 6); }),
            "the answer has 7 tokens, more than the context of 6");
  EXPECT_EQ(error_of([&] { encode_pair(tokenizer, "a", "", 6); }),
            "the answer \"\" has no tokens of its own behind its prompt");
}

Judged fake_model(const std::string& name, uint64_t seed) {
  Judged model;
  model.facts.path = name;
  model.tokenizer = std::make_unique<FakeTokenizer>();
  model.scorer = std::make_unique<testing::FakeScorer>(258, seed, 2.0);
  return model;
}

/// Three answers of letters that differ from item to item.
std::vector<std::string> letters(int64_t i) {
  std::vector<std::string> out;
  for (int64_t c = 0; c < 3; ++c) {
    auto& choice = out.emplace_back();
    for (const auto id : testing::random_ids(4 + c % 2, 26, static_cast<uint64_t>(3 * i + c)))
      choice += static_cast<char>('a' + id);
  }
  return out;
}

void write_letters(const Path& path, int64_t items) {
  std::string lines;
  for (int64_t i = 0; i < items; ++i)
    lines += Json{{"n", i}, {"choices", fmt::format("{}", fmt::join(letters(i), "|"))}, {"right", i % 3}}.dump() + "\n";
  write_file(path, lines);
}

double plain_log_likelihood(const std::string& context, const std::string& answer, uint64_t seed) {
  std::vector<TokenId> seen(context.begin(), context.end());
  double sum = 0;
  for (const char c : answer) {
    sum += std::log(testing::plain_softmax(testing::fake_logits(seen, 258, seed, 2.0))[static_cast<size_t>(c)]);
    seen.push_back(c);
  }
  return sum;
}

TEST_F(OwnTask, CountsWhatEachModelGetsRightAndWhatWasLost) {
  const int64_t items = 60;
  write_letters(dir_ / "own.jsonl", items);
  const Judged model = fake_model("q", 1), base = fake_model("p", 2);
  const Judged* models[] = {&model};
  TaskRunOptions options;
  options.tasks = {"own"};
  options.folder = dir_.path();
  options.items = dir_ / "items.jsonl";
  const auto results = run_tasks(options, models, &base, serial_for);
  ASSERT_EQ(results.size(), 1u);

  const auto right = [&](int64_t i, uint64_t seed, bool by_length) {
    std::vector<double> scores;
    for (const auto& choice : letters(i))
      scores.push_back(plain_log_likelihood(fmt::format("n={}:", i), " " + choice, seed) /
                       (by_length ? static_cast<double>(choice.size()) : 1));
    return std::max_element(scores.begin(), scores.end()) - scores.begin() == i % 3;
  };
  const auto& measures = results[0].tasks[0].measures;
  for (const bool by_length : {false, true}) {
    int64_t hits = 0, lost = 0, gained = 0;
    for (int64_t i = 0; i < items; ++i) {
      const bool q = right(i, 1, by_length), p = right(i, 2, by_length);
      hits += q;
      lost += p && !q;
      gained += q && !p;
    }
    const auto& measure = measures[by_length ? 1 : 0];
    EXPECT_NEAR(measure.estimate.value, static_cast<double>(hits) / items, 1e-12);
    ASSERT_TRUE(measure.paired.has_value());
    EXPECT_EQ(measure.paired->lost, lost);
    EXPECT_EQ(measure.paired->gained, gained);
    EXPECT_GT(lost + gained, 5);
    EXPECT_NEAR(measure.paired->change.value, static_cast<double>(gained - lost) / items, 1e-12);
    // The variance of values -1, 0 and 1.
    const double n = items, d = static_cast<double>(gained - lost) / n;
    EXPECT_NEAR(*measure.paired->change.standard_error,
                std::sqrt((static_cast<double>(lost + gained) / n - d * d) / (n - 1)), 1e-12);
    EXPECT_EQ(measure.paired->p, mcnemar_exact(lost, gained));
    EXPECT_NEAR(measure.paired->loss_bound, -d + 1.6448536269514722 * *measure.paired->change.standard_error, 1e-12);
  }

  std::vector<Json> rows;
  std::istringstream file(crumb::testing::read_file(dir_ / "items.jsonl"));
  for (std::string line; std::getline(file, line);) rows.push_back(Json::parse(line));
  ASSERT_EQ(std::ssize(rows), 2 * items);
  EXPECT_EQ(rows[0]["line"], 1);
  EXPECT_NEAR(rows[0]["log_likelihoods"][1].get<double>(), plain_log_likelihood("n=0:", " " + letters(0)[1], 1), 1e-9);
}

/// Fails after so many calls, as a run that is ended does.
class EndingScorer : public testing::FakeScorer {
 public:
  EndingScorer(uint64_t seed, int calls) : FakeScorer(258, seed, 2.0), calls_(calls) {}
  void begin(std::span<const ScoreRequest> requests) override {
    if (calls_-- == 0) run_error("ended");
    FakeScorer::begin(requests);
  }

 private:
  int calls_;
};

TEST_F(OwnTask, ARunThatWasEndedGoesOnWhereItStopped) {
  write_letters(dir_ / "own.jsonl", 100);
  TaskRunOptions options;
  options.tasks = {"own"};
  options.folder = dir_.path();
  const Judged base = fake_model("p", 2);
  const auto run = [&](int calls, const std::string& items, bool is_kept) {
    Judged model = fake_model("q", 1);
    auto scorer = std::make_unique<EndingScorer>(1, calls);
    const auto* scored = scorer.get();
    model.scorer = std::move(scorer);
    const Judged* models[] = {&model};
    options.items = dir_ / items;
    std::optional<Journal> journal;
    if (is_kept) journal.emplace(dir_ / "run.journal", facts_of(options));
    const auto results = run_tasks(options, models, &base, serial_for, journal ? &*journal : nullptr);
    return std::pair(to_json(results[0]).dump(), scored->begins);
  };
  const auto [whole, all_calls] = run(-1, "whole.jsonl", false);
  EXPECT_EQ(error_of([&] { run(2, "a.jsonl", true); }), "ended");
  EXPECT_FALSE(std::filesystem::exists(dir_ / "a.jsonl"));
  // A kill in the middle of a line.
  std::string journal = crumb::testing::read_file(dir_ / "run.journal");
  EXPECT_GT(std::ranges::count(journal, '\n'), 20);
  write_file(dir_ / "run.journal", journal.substr(0, journal.size() - 9));
  EXPECT_EQ(error_of([&] { run(1, "a.jsonl", true); }), "ended");
  const auto [resumed, calls] = run(-1, "a.jsonl", true);
  EXPECT_EQ(resumed, whole);
  EXPECT_LT(calls, all_calls);
  EXPECT_EQ(crumb::testing::read_file(dir_ / "a.jsonl"), crumb::testing::read_file(dir_ / "whole.jsonl"));
  options.overwrite_items = Overwrite::yes;
  EXPECT_EQ(run(0, "a.jsonl", true).first, whole) << "all of it is known";

  options.limit = 7;
  const std::string where = (dir_ / "run.journal").string();
  EXPECT_EQ(error_of([&] { run(-1, "b.jsonl", true); }),
            where + ": of another run: limit was 0, now 7; remove it, or give another name");
  options.limit = 0;
  const Journal held(dir_ / "run.journal", facts_of(options));
  EXPECT_EQ(error_of([&] { run(-1, "b.jsonl", true); }), where + ": another process works with it");
  write_letters(dir_ / "own.jsonl", 101);
  write_file(dir_ / "notes.txt", "{not a journal}\n");
  EXPECT_EQ(error_of([&] { Journal(dir_ / "notes.txt", nlohmann::json::object()); }),
            (dir_ / "notes.txt").string() + ": not a journal of crumb eval; give another name");
  EXPECT_EQ(crumb::testing::read_file(dir_ / "notes.txt"), "{not a journal}\n");
}

TEST_F(OwnTask, DamagedRecordsAreToldByTheirLine) {
  const nlohmann::json facts = {{"limit", 0}};
  { Journal(dir_ / "j", facts).append({{"item", "own:1"}, {"answers", 1}}); }
  const std::string text = crumb::testing::read_file(dir_ / "j"), where = (dir_ / "j").string();
  Journal journal(dir_ / "j", facts);
  EXPECT_THAT(error_of([&] { journal.next("item", "own:2"); }),
              HasSubstr(where + ":2: the record is not that of item \"own:2\""));
  write_file(dir_ / "k", text.substr(0, text.size() - 5) + "\n");
  EXPECT_THAT(error_of([&] { Journal(dir_ / "k", facts).next("item", "own:1"); }), HasSubstr("k:2:"));
  EXPECT_THAT(error_of([&] {
                Journal(dir_ / "k", {{"limit", 0}, {"more", 1}});
              }),
              HasSubstr("more was nothing, now 1"));
}

class WritingTask : public ::testing::Test {
 protected:
  void SetUp() override {
    CRUMB_NEED_DATA(path, "models/stories260K-hf");
    model_ = load_judged(path, {}, std::make_shared<ThreadPool>());
  }
  TempDir dir_;
  Judged model_;
};

// Against a plain loop: the likeliest token of the whole text so far, again and again.
TEST_F(WritingTask, WritesTheLikeliestTokensUpToAStop) {
  const std::vector<std::string> prompts = {"Once upon a time", "Tom had a red ball", "Lily", "The cat saw a dog and"};
  GenerationOptions options;
  options.until = {" the ", "zzz"};
  options.max_gen_toks = 24;
  const auto got = write_answers(model_, prompts, options);
  bool was_cut = false;
  for (size_t i = 0; i < prompts.size(); ++i) {
    auto tokens = encode_prompt(*model_.tokenizer, prompts[i]);
    std::vector<TokenId> written;
    for (int n = 0; n < 24; ++n) {
      TokenId best = 0;
      const auto state = model_.scorer->decoder()->new_state();
      const runtime::SequenceInput input{state.get(), tokens};
      model_.scorer->decoder()->forward({&input, 1}, runtime::LogitsFor::last,
                                        [&](int64_t, int64_t, std::span<const float> row) {
                                          best = static_cast<TokenId>(std::ranges::max_element(row) - row.begin());
                                        });
      if (std::ranges::count(model_.tokenizer->special().end, best) > 0) break;
      tokens.push_back(best);
      written.push_back(best);
    }
    const std::string text = model_.tokenizer->decode(written);
    EXPECT_EQ(got[i].text, text.substr(0, text.find(" the "))) << text;
    was_cut = was_cut || text.find(" the ") != std::string::npos;
    EXPECT_FALSE(got[i].is_truncated);
  }
  EXPECT_TRUE(was_cut);
  options.max_gen_toks = model_.scorer->context_length() - 2;
  EXPECT_TRUE(write_answers(model_, {prompts[0]}, options)[0].is_truncated);
  options.max_gen_toks += 2;
  EXPECT_THAT(error_of([&] { write_answers(model_, prompts, options); }), HasSubstr("leaves nothing of its context"));
  EXPECT_THAT(error_of([&] { write_answers(fake_model("q", 1), prompts, {}); }), HasSubstr("writes no answers"));
}

TEST_F(WritingTask, CountsWhatIsWrittenRight) {
  const std::string first = write_answers(model_, {"Once upon a time"}, {.until = {"."}, .max_gen_toks = 30})[0].text;
  ASSERT_FALSE(first.empty());
  write_file(dir_ / "own.yaml",
             "task: own\noutput_type: generate_until\ndata: own.jsonl\nget: make it\ndoc_to_text: text\n"
             "doc_to_target: right\ngeneration_kwargs: {until: [.], max_gen_toks: 30}\nfilter_list:\n"
             "  - {name: all, filter: {function: remove_whitespace}}\n"
             "  - {name: word, filter: {function: regex, regex_pattern: '\\w+'}}\n");
  const std::string stripped(jinja::strip(first, jinja::Ends::both));
  write_lines(dir_ / "own.jsonl",
              {{{"text", "Once upon a time"}, {"right", stripped}}, {{"text", "Once upon a time"}, {"right", "no"}}});
  TaskRunOptions options;
  options.tasks = {"own"};
  options.folder = dir_.path();
  options.items = dir_ / "items.jsonl";
  const Judged* models[] = {&model_};
  const auto scores = run_tasks(options, models, nullptr, serial_for)[0].tasks[0];
  ASSERT_EQ(scores.measures.size(), 2u);
  EXPECT_EQ(scores.measures[0].name, "exact_match,all");
  EXPECT_EQ(scores.measures[0].estimate.value, 0.5);
  EXPECT_EQ(scores.measures[1].estimate.value, 0);
  std::istringstream lines(crumb::testing::read_file(options.items));
  std::string line;
  std::getline(lines, line);
  EXPECT_EQ(Json::parse(line)["text"], first);
  EXPECT_EQ(Json::parse(line)["filtered_exact_match,all"], stripped);
}

TEST_F(OwnTask, LimitsHoldForTheEstimateOrForItsBound) {
  write_letters(dir_ / "own.jsonl", 30);
  const Judged model = fake_model("q", 1), base = fake_model("p", 2);
  const Judged* models[] = {&model};
  TaskRunOptions options;
  options.tasks = {"own"};
  options.folder = dir_.path();
  const auto paired = *run_tasks(options, models, &base, serial_for)[0].tasks[0].measures[0].paired;
  ASSERT_GT(paired.loss_bound, std::max(0.0, paired.loss));
  options.max_drop = {{"tasks", (paired.loss_bound + std::max(0.0, paired.loss)) / 2}};
  EXPECT_FALSE(run_tasks(options, models, &base, serial_for)[0].exceeded());
  options.judge_bound = true;
  const auto judged = run_tasks(options, models, &base, serial_for)[0];
  EXPECT_TRUE(judged.exceeded());
  EXPECT_THAT(exceeded_text(judged), HasSubstr("own drop at most "));
  options.max_drop = {{"other", 0.1}};
  EXPECT_EQ(error_of([&] { check_tasks(options, true); }), "--max-drop: other is none of the tasks that are run");
  options.max_drop = {{"average", 0.1}};
  EXPECT_EQ(error_of([&] { check_tasks(options, true); }),
            "--max-drop: average needs two tasks at least whose first metric is an accuracy");
  EXPECT_EQ(error_of([&] { check_tasks(options, false); }), "max_drop: a drop needs a baseline to compare with");
}

// Requests with the same context, and contexts that begin alike, are computed once: fewer tokens, the same bits.
TEST(RuntimeScorer, SharesContextsBitForBit) {
  CRUMB_NEED_DATA(path, "models/stories260K-hf");
  const auto checkpoint = quant::open_checkpoint(path);
  const auto pool = std::make_shared<ThreadPool>();
  RuntimeScorer together(runtime::load_decoder(*checkpoint, pool)), alone(runtime::load_decoder(*checkpoint, pool));
  const auto beginning = testing::random_ids(70, 500, 1);
  std::vector<std::vector<TokenId>> contexts, answers;
  for (uint64_t i = 0; i < 9; ++i) {
    auto& context = contexts.emplace_back(beginning);
    const auto rest = testing::random_ids(1 + static_cast<int64_t>(i / 3) * 5, 500, 10 + i / 3);  // three of each
    context.insert(context.end(), rest.begin(), rest.end());
    answers.push_back(testing::random_ids(1 + static_cast<int64_t>(i % 3), 500, 100 + i));
  }
  std::vector<ScoreRequest> requests;
  for (size_t i = 0; i < contexts.size(); ++i) requests.push_back({contexts[i], answers[i]});
  Scorer* const first[] = {&together};
  Scorer* const second[] = {&alone};
  for (int round = 0; round < 2; ++round) {
    const auto got = score_requests(first, nullptr, requests, serial_for).at(0);
    for (size_t i = 0; i < requests.size(); ++i) {
      const auto expected = score_requests(second, nullptr, {&requests[i], 1}, serial_for).at(0).at(0);
      ASSERT_EQ(got[i].size(), expected.size());
      for (size_t t = 0; t < expected.size(); ++t) EXPECT_EQ(got[i][t].nll, expected[t].nll) << i << " " << t;
    }
  }
  EXPECT_LT(together.computed_tokens(), alone.computed_tokens() / 5);
}

// lm_eval_golden.json: what lm-evaluation-harness found of local files with this model (golden_tasks.py).
class LmEvalParity : public ::testing::TestWithParam<std::string> {};

TEST_P(LmEvalParity, OfSmolLM2ItemByItem) {
  CRUMB_NEED_MODEL(path, "SmolLM2-135M-Instruct");
  CRUMB_NEED_DATA(bench, "bench");
  const std::string name = GetParam();
  const auto expected = golden("lm_eval_golden.json")["tasks"][name];
  const bool is_long = std::getenv("CRUMB_LONG_TESTS") != nullptr;
  const auto all = static_cast<int64_t>(expected["items"].size());
  const TempDir dir;
  TaskRunOptions options;
  options.folder = bench;
  options.limit = is_long ? all : 2;
  options.items = dir / "items.jsonl";
  options.tasks = {name};
  if (name == "arc_easy_5_shot") {  // with examples from a file that is there
    write_file(
        dir / "five.yaml",
        crumb::testing::read_file(crumb::testing::source_dir() / "configs/tasks/arc_easy.yaml") + "num_fewshot: 5\n");
    std::string yaml = crumb::testing::read_file(dir / "five.yaml");
    const std::string from = "arc/ARC-Easy-Train.jsonl";
    yaml.replace(yaml.find(from), from.size(), "arc/ARC-Easy-Dev.jsonl");
    write_file(dir / "five.yaml", yaml);
    options.tasks = {(dir / "five.yaml").string()};
  }
  if (name == "hellaswag") {
    CRUMB_NEED_PEERS(python);
    std::filesystem::create_directories(dir / "hellaswag");
    options.folder = dir.path();
    const auto script = crumb::testing::source_dir() / "tests/eval/hellaswag_jsonl.py";
    const auto unpacked = crumb::testing::run_command(python.string() + " " + script.string() + " " +
                                                      (bench / "hellaswag/hellaswag_val_full.txt.bz2").string() +
                                                      " > " + (dir / "hellaswag/hellaswag_val.jsonl").string());
    ASSERT_EQ(unpacked.exit_code, 0) << unpacked.err;
  }
  // Loaded once for all tasks.
  static const auto pool = std::make_shared<ThreadPool>();
  static const Judged model = load_judged(path, {}, pool);
  const Judged* models[] = {&model};
  const auto results = run_tasks(options, models, nullptr, pool->as_parallel_for());
  std::istringstream file(crumb::testing::read_file(options.items));
  int64_t i = 0;
  for (std::string line; std::getline(file, line); ++i) {
    const auto got = Json::parse(line), wanted = expected["items"][static_cast<size_t>(i)];
    for (size_t c = 0; c < wanted["log_likelihoods"].size(); ++c) {
      const double ll = wanted["log_likelihoods"][c].get<double>();
      EXPECT_NEAR(got["log_likelihoods"][c].get<double>(), ll, kRounding * std::max(1.0, -ll)) << name << " " << i;
    }
    if (got["close"].get<bool>()) continue;  // told as such; either choice is right
    EXPECT_EQ(got["acc"].get<double>(), wanted["acc"].get<double>()) << name << " " << i;
    if (wanted.contains("acc_norm")) {
      EXPECT_EQ(got["acc_norm"].get<double>(), wanted["acc_norm"].get<double>()) << name << " " << i;
    }
  }
  EXPECT_EQ(i, options.limit);
  if (!is_long || results[0].tasks[0].close > 0) return;
  for (const auto& measure : results[0].tasks[0].measures) {
    const auto& wanted = expected["results"];
    EXPECT_NEAR(measure.estimate.value, wanted[measure.name].get<double>(), 1e-5 * measure.estimate.value);
  }
}

INSTANTIATE_TEST_SUITE_P(Tasks, LmEvalParity,
                         ::testing::Values("arc_easy", "arc_challenge", "piqa", "lambada_openai", "arc_easy_5_shot",
                                           "boolq", "hellaswag"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace crumb::eval
