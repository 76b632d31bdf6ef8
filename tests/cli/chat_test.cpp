// crumb chat as its user sees it, from a pipe.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "core/common/file.h"
#include "tests/testing/testing.h"

namespace crumb {
namespace {

using crumb::testing::read_file;
using crumb::testing::TempDir;
using ::testing::HasSubstr;
using ::testing::StartsWith;

/// A model of 260,000 parameters with a chat template: its answers are stories.
class ChatVerb : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto stories = crumb::testing::data("models/stories260K-hf");
    if (stories.empty())
      CRUMB_CANNOT_RUN("CRUMB_REQUIRE_DATA", "needs the data file models/stories260K-hf; set CRUMB_DATA");
    testing::fs::copy(stories, model_, testing::fs::copy_options::recursive);
    set_template(
        "{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}. {% elif m.role == 'user' %}{{ bos_token ~ "
        "m.content }}"
        "{% else %}{{ m.content ~ '\n' }}{% endif %}{% endfor %}");
  }
  void set_template(const std::string& source) { testing::write_file(model_ / "chat_template.jinja", source); }

  testing::CommandResult chat(const std::string& input, const std::string& arguments = "", int max_tokens = 12,
                              const std::string& models = "") {
    testing::write_file(dir_ / "input", input);
    return testing::run_command(fmt::format("{} chat {} --temperature 0 --max-tokens {} {} < {}",
                                            testing::program().string(), models.empty() ? model_.string() : models,
                                            max_tokens, arguments, (dir_ / "input").string()));
  }
  static std::vector<nlohmann::json> lines_of(const std::string& text) {
    std::vector<nlohmann::json> out;
    std::istringstream in(text);
    for (std::string line; std::getline(in, line);) out.push_back(nlohmann::json::parse(line));
    return out;
  }
  void expect_error(const testing::CommandResult& r, const std::string& message) {
    EXPECT_EQ(r.exit_code, 2);
    EXPECT_EQ(r.err, "crumb: " + message + "\n");
  }

  TempDir dir_;
  testing::fs::path model_ = dir_ / "model";
};

TEST_F(ChatVerb, AnswersEveryLineAndComputesOnlyWhatIsNew) {
  const auto r = chat("Once upon a time\nThe next day\n", "--json");
  ASSERT_EQ(r.exit_code, 0) << r.err;
  const auto answers = lines_of(r.out);
  ASSERT_EQ(answers.size(), 2u);
  EXPECT_THAT(answers[0]["content"].get<std::string>(), StartsWith(", there was a little girl"));
  EXPECT_EQ(answers[0]["known_tokens"], 0);
  EXPECT_EQ(answers[0]["finish_reason"], "length");
  const auto known = answers[1]["known_tokens"].get<int64_t>(), first = answers[0]["prompt_tokens"].get<int64_t>();
  EXPECT_GE(known, first) << "the first message, and the answer as far as its text gives the same tokens again";
  EXPECT_LT(known, answers[1]["prompt_tokens"].get<int64_t>());
  EXPECT_EQ(chat("Once upon a time\nThe next day\n").out,
            answers[0]["content"].get<std::string>() + "\n" + answers[1]["content"].get<std::string>() + "\n");
}

TEST_F(ChatVerb, TheHistoryDecidesAndResetForgetsIt) {
  const auto alone = chat("The next day\n").out;
  EXPECT_EQ(chat("Once upon a time\n/reset\nThe next day\n").out, chat("Once upon a time\n").out + alone);
  const auto saved = dir_ / "saved.jsonl";
  ASSERT_EQ(chat("Once\n/reset\nTwice\n/save " + saved.string() + "\n", "--system Sys").exit_code, 0);
  const auto messages = lines_of(read_file(saved)).at(0)["messages"];
  ASSERT_EQ(messages.size(), 3u);
  EXPECT_EQ(messages[0], (nlohmann::json{{"role", "system"}, {"content", "Sys"}}));
  EXPECT_EQ(messages[1], (nlohmann::json{{"role", "user"}, {"content", "Twice"}}));
  EXPECT_EQ(messages[2]["role"], "assistant");
}

TEST_F(ChatVerb, ABackslashJoinsLines) {
  const auto saved = dir_ / "saved.jsonl";
  ASSERT_EQ(chat("Once\\\nupon a\\\n\\\ntime\n\n/save " + saved.string() + "\n").exit_code, 0);
  EXPECT_EQ(lines_of(read_file(saved)).at(0)["messages"][0]["content"], "Once\nupon a\n\ntime");
}

TEST_F(ChatVerb, StopTextsEndAnAnswerWithoutBeingShown) {
  const auto r = chat("Once upon a time\n", "--json --stop 'never' --stop 'was a'");
  ASSERT_EQ(r.exit_code, 0) << r.err;
  EXPECT_EQ(lines_of(r.out).at(0)["content"], ", there ");
  EXPECT_EQ(lines_of(r.out).at(0)["finish_reason"], "stop");
}

TEST_F(ChatVerb, AnotherModelGoesOnWithTheConversation) {
  const auto second = dir_ / "second.gguf";
  ASSERT_EQ(testing::run_crumb("export -q " + model_.string() + " --to gguf-q4_0 -o " + second.string()).exit_code, 0);
  const auto saved = dir_ / "saved.jsonl";
  const auto r =
      chat("Once upon a time\n/model small\nThe next day\n/model big\nThe end\n/save " + saved.string() + "\n",
           "--json", 12, "big=" + model_.string() + " small=" + second.string());
  ASSERT_EQ(r.exit_code, 0) << r.err;
  EXPECT_THAT(r.err, ::testing::StartsWith("small answers\nbig answers\n"));
  const auto answers = lines_of(r.out);
  ASSERT_EQ(answers.size(), 3u);
  EXPECT_EQ(answers[0]["model"], "big");
  EXPECT_EQ(answers[1]["model"], "small");
  EXPECT_EQ(answers[1]["known_tokens"], 0) << "it has seen nothing of the conversation";
  EXPECT_GT(answers[1]["prompt_tokens"].get<int64_t>(), answers[0]["prompt_tokens"].get<int64_t>() + 12)
      << "but is told all of it";
  EXPECT_GE(answers[2]["known_tokens"].get<int64_t>(), answers[0]["prompt_tokens"].get<int64_t>());
  EXPECT_EQ(lines_of(read_file(saved)).at(0)["messages"].size(), 6u);
  EXPECT_EQ(lines_of(chat("Once upon a time\n", "--json").out).at(0)["content"], answers[0]["content"]);
}

TEST_F(ChatVerb, SharedWeightsAreToldAndModelsAreNamed) {
  const auto copy = dir_ / "copy";
  testing::fs::copy(model_, copy, testing::fs::copy_options::recursive);
  const std::string both = model_.string() + " second=" + copy.string();
  EXPECT_THAT(chat("Hi\n", "--verbose", 2, both).err, HasSubstr("MB of weights are in several models\n"));
  expect_error(chat("/model third\n", "", 2, both), "no model is called \"third\"; there are model, second");
  expect_error(chat("Hi\n", "", 2, model_.string() + " model=" + copy.string()),
               "two models are called \"model\"; name them: NAME=PATH");
}

TEST_F(ChatVerb, ADraftChangesNoAnswer) {
  const auto small = dir_ / "small.gguf";
  ASSERT_EQ(testing::run_crumb("export -q " + model_.string() + " --to gguf-q4_0 -o " + small.string()).exit_code, 0);
  const std::string talk = "Once upon a time\nThe next day\n/model small\nThe end\n";
  const std::string both = model_.string() + " small=" + small.string();
  const auto plain = lines_of(chat(talk, "--json", 40, both).out),
             drafted = lines_of(chat(talk, "--json --draft small", 40, both).out);
  ASSERT_EQ(plain.size(), 3u);
  ASSERT_EQ(drafted.size(), 3u);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(drafted[i]["content"], plain[i]["content"]) << i;
  for (const size_t i : {0, 1}) {
    EXPECT_GT(drafted[i]["draft"]["accepted"].get<int64_t>(), 0);
    EXPECT_FALSE(plain[i].contains("draft"));
  }
  EXPECT_THAT(
      chat("Once upon a time\n", "--verbose --draft " + small.string(), 40).err,
      ::testing::ContainsRegex("of weights are in several models\n.*\ndraft: [0-9]+ of [0-9]+ tokens accepted"));
}

TEST_F(ChatVerb, ThinkingReachesTheTemplate) {
  set_template(
      "{% if enable_thinking is not defined %}{{ raise_exception('unsaid') }}{% endif %}{{ "
      "raise_exception(enable_thinking) }}");
  const std::string where = model_.string() + ": chat template:1: the template refuses: ";
  expect_error(chat("Hi\n"), where + "unsaid");
  expect_error(chat("Hi\n", "--thinking on"), where + "True");
  expect_error(chat("Hi\n", "--thinking off"), where + "False");
  EXPECT_EQ(chat("Hi\n", "--thinking maybe").exit_code, 2);
}

TEST_F(ChatVerb, SaysWhenTheContextIsNearlyFullAndWhenItIs) {
  const auto cats = [](int count) {
    std::string text;
    for (int i = 0; i < count; ++i) text += "the cat sat. ";
    return text + "\n";
  };
  const auto full = chat(cats(300));
  EXPECT_EQ(full.exit_code, 2);
  EXPECT_THAT(full.err, ::testing::MatchesRegex(
                            "crumb: the conversation with this message has [0-9]+ tokens, the model holds 512: begin a "
                            "new one \\(/reset\\), or send a shorter message\n"));
  const auto tight = chat(cats(60), "--json", 400);
  ASSERT_EQ(tight.exit_code, 0) << tight.err;
  const auto answer = lines_of(tight.out).at(0);
  EXPECT_EQ(tight.err, fmt::format("warning: the model's context of 512 tokens leaves {} for the answer (--max-tokens: "
                                   "400); /reset begins a new conversation\n",
                                   512 - answer["prompt_tokens"].get<int64_t>()));
  EXPECT_EQ(chat(cats(60), "--json", 12).err, "");
}

TEST_F(ChatVerb, RefusesBadInputInOneLine) {
  expect_error(chat("/dance\n"), "\"/dance\" is no command; those are /reset, /model NAME, /save FILE, /help");
  testing::write_file(dir_ / "there", "old");
  const auto there = (dir_ / "there").string();
  expect_error(chat("/save " + there + "\n"), there + " exists; give another name, or --force to replace it");
  EXPECT_EQ(read_file(dir_ / "there"), "old");
  EXPECT_EQ(chat("/save " + there + "\n", "--force").exit_code, 0);
  EXPECT_NE(read_file(dir_ / "there"), "old");
  set_template("{% if %}");
  expect_error(chat("Hi\n"), model_.string() + ": chat template:1: expected an expression, found the end of the tag");
  set_template("{{ messages.more.x }}");
  expect_error(chat("Hi\n"), model_.string() + ": chat template:1: 'list object' has no attribute 'more'");
  testing::fs::remove(model_ / "chat_template.jinja");
  expect_error(
      chat("Hi\n"),
      model_.string() +
          ": it has no chat template (chat_template.jinja, chat_template of tokenizer_config.json, or "
          "tokenizer.chat_template of a GGUF), so it is no model to chat with; crumb generate continues a text");
  EXPECT_EQ(chat("", "").exit_code, 2) << "said before anything is asked";
}

TEST_F(ChatVerb, TellsWhatItTookWhenAsked) {
  const auto r = chat("Once upon a time\n", "--verbose");
  EXPECT_THAT(r.err, ::testing::ContainsRegex("loaded in [0-9.]+ s\ncomputed with keys and values in f16\nprompt: "
                                              "[0-9]+ tokens, [0-9]+ of them new, in [0-9.]+ s \\([0-9.]+ "
                                              "tokens/s\\); answer: 12 tokens, [0-9.]+ tokens/s\n"));
  EXPECT_EQ(chat("Once upon a time\n").err, "");
}

TEST_F(ChatVerb, APromptCacheGoesOnWithAConversation) {
  const std::string cache = "--json --system 'A long story' --prompt-cache " + (dir_ / "chat.cache").string();
  const auto first = lines_of(chat("Once upon a time\n", cache).out).at(0);
  const auto again = lines_of(chat("Once upon a time\n", cache).out).at(0);
  EXPECT_EQ(first["known_tokens"], 0);
  EXPECT_EQ(again["known_tokens"].get<int64_t>(), first["prompt_tokens"].get<int64_t>() - 1);
  EXPECT_EQ(again["content"], first["content"]);
}

/// The program with a pipe to write to.
class PipedChat {
 public:
  PipedChat(const testing::fs::path& model, const testing::fs::path& out) {
    int ends[2];
    if (pipe(ends) != 0) std::abort();
    pid_ = fork();
    if (pid_ == 0) {
      dup2(ends[0], STDIN_FILENO);
      close(ends[1]);
      if (freopen(out.c_str(), "w", stdout) == nullptr) _exit(127);
      execl(testing::program().c_str(), "crumb", "chat", model.c_str(), "-q", "--temperature", "0", "--max-tokens",
            "400", nullptr);
      _exit(127);
    }
    close(ends[0]);
    input_ = ends[1];
  }
  ~PipedChat() {
    if (pid_ > 0) kill(pid_, SIGKILL);
    if (pid_ > 0) end();
  }
  PipedChat(const PipedChat&) = delete;
  PipedChat& operator=(const PipedChat&) = delete;

  bool say(const std::string& line) const {
    return write(input_, line.data(), line.size()) == static_cast<ssize_t>(line.size());
  }
  void interrupt() const { kill(pid_, SIGINT); }
  int end() {
    close(input_);
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

 private:
  pid_t pid_ = -1;
  int input_ = -1;
};

TEST_F(ChatVerb, AnInterruptEndsTheAnswerAndNotTheProgram) {
  const auto whole = chat("Once upon a time\n", "", 400).out;
  signal(SIGPIPE, SIG_IGN);
  for (int round = 0; round < 20; ++round) {  // an answer that is complete too early leaves nothing to interrupt
    const auto saved = dir_ / fmt::format("saved-{}.jsonl", round);
    testing::write_file(dir_ / "out", "");
    PipedChat program(model_, dir_ / "out");
    program.say("Once upon a time\n");
    for (int i = 0; i < 5000 && read_file(dir_ / "out").empty(); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    program.interrupt();
    program.say("The next day\n/save " + saved.string() + "\n");
    const int end = program.end();
    if (end == 128 + SIGINT) continue;
    ASSERT_EQ(end, 0);
    const auto messages = lines_of(read_file(saved)).at(0)["messages"];
    ASSERT_EQ(messages.size(), 4u);
    const auto answer = messages[1]["content"].get<std::string>();
    EXPECT_TRUE(whole.starts_with(answer)) << answer;
    EXPECT_LT(answer.size() + 1, whole.size());
    EXPECT_FALSE(messages[3]["content"].get<std::string>().empty());
    return;
  }
  FAIL() << "no answer could be interrupted";
}

}  // namespace
}  // namespace crumb
