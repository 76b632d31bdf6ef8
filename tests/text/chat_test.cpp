#include "core/text/chat.h"

#include <gmock/gmock.h>

#include <sstream>

#include "core/common/thread_pool.h"
#include "core/text/token_cache.h"
#include "tests/testing/fake_tokenizer.h"
#include "tests/testing/testing.h"

namespace crumb::text {
namespace {

using nlohmann::ordered_json;
using ::testing::HasSubstr;

/// A tokenizer of bytes with a chat template, in which '#' is special and ends a turn.
class ChatTokenizer : public testing::FakeTokenizer {
 public:
  explicit ChatTokenizer(std::string source) : source_(std::move(source)) { specials.eos = std::nullopt; }
  std::string chat_template() const override { return source_; }
  bool is_special(TokenId id) const override { return id == '#' || id == '<'; }

 private:
  std::string source_;
};

const std::string kPlain =
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}#\n{% endfor %}{% if add_generation_prompt %}<assistant>"
    "{% endif %}";

ordered_json message(const std::string& role, const std::string& content) {
  return {{"role", role}, {"content", content}};
}

/// The text with what is not supervised as dots.
std::string learned(const std::string& source, const std::vector<ordered_json>& messages, ChatFormat format = {}) {
  const ChatTokenizer tokenizer(source);
  format.model = "m";
  const auto document = ChatEncoder(tokenizer, format).encode({ordered_json(messages), "f:1"});
  std::string out;
  for (size_t i = 0; i < document.ids.size(); ++i) {
    const bool is_learned = document.supervised.empty() || document.supervised[i] != 0;
    out += is_learned ? static_cast<char>(document.ids[i]) : '.';
  }
  return out;
}

/// What is not learned.
std::string dots(const std::string& text) { return std::string(text.size(), '.'); }

TEST(ChatEncoder, LearnsTheAssistantsTurnsWithTheTokenThatEndsThem) {
  EXPECT_EQ(learned(kPlain, {message("user", "Hi"), message("assistant", "Ho")}),
            dots("<user>Hi#\n<assistant>") + "Ho#" + dots("\n"));
  EXPECT_EQ(learned(kPlain, {message("user", "a"), message("assistant", "a"), message("user", "a"),
                             message("assistant", "axa")}),
            dots("<user>a#\n<assistant>") + "a#" + dots("\n<user>a#\n<assistant>") + "axa#" + dots("\n"));
}

TEST(ChatEncoder, FindsContentsThatAreEmptyOrLikeTheirNeighbours) {
  for (const std::string content : {"", "x", "y", "xx", "xy", "yx", "z", ">", "\n", "<assistant>", "#", "#\n<user>"}) {
    SCOPED_TRACE(content);
    const std::string whole = learned(
        kPlain, {message("user", content), message("assistant", content), message("user", "x")}, {.roles = {"all"}});
    std::string expected(whole.size(), '.');
    const size_t begin = ("<user>" + content + "#\n<assistant>").size();
    for (size_t i = begin; i < begin + content.size() + 1; ++i) expected[i] = whole[i];
    EXPECT_EQ(learned(kPlain, {message("user", content), message("assistant", content), message("user", "x")}),
              expected);
  }
}

TEST(ChatEncoder, LearnsTheRolesAskedFor) {
  const std::vector<ordered_json> messages = {message("system", "S"), message("user", "U"), message("assistant", "A")};
  EXPECT_EQ(learned(kPlain, messages, {.roles = {"user"}}),
            dots("<system>S#\n<user>") + "U#" + dots("\n<assistant>A#\n"));
  EXPECT_EQ(learned(kPlain, messages, {.roles = {"all"}}), "<system>S#\n<user>U#\n<assistant>A#\n");
  EXPECT_EQ(learned(kPlain, messages, {.roles = {"tool"}}), dots("<system>S#\n<user>U#\n<assistant>A#\n"));
}

TEST(ChatEncoder, TemplatesMayTrimAndLeaveOut) {
  const std::string trims =
      "{% for m in messages %}{% if m.role != 'system' %}<{{ m.role }}>{{ m.content | trim }}#{% endif %}{% endfor %}";
  EXPECT_EQ(learned(trims, {message("system", "S"), message("user", "U"), message("assistant", " A \n")},
                    {.roles = {"system", "assistant"}}),
            dots("<user>U#") + "<assistant>A#");
}

TEST(ChatEncoder, AThoughtBehindThePromptIsLearned) {
  const std::string thinks =
      "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' and loop.last %}({{ m.reasoning_content }})"
      "{% endif %}{{ m.content }}#{% endfor %}{% if add_generation_prompt %}<assistant>{% if enable_thinking is "
      "defined and not enable_thinking %}(){% endif %}{% endif %}";
  const auto answer = [](const std::string& thought) {
    return ordered_json{{"role", "assistant"}, {"content", "A"}, {"reasoning_content", thought}};
  };
  const std::string prompt = dots("<user>U#<assistant>");
  EXPECT_EQ(learned(thinks, {message("user", "U"), answer("T")}), prompt + "(T)A#");
  EXPECT_EQ(learned(thinks, {message("user", "U"), answer("")}, {.enable_thinking = false}), prompt + "..A#");
}

TEST(ChatEncoder, WithoutAnEndOfTurnOrAPromptTheAnswerIsWhatTheTemplateWritesUpToTheContentsEnd) {
  EXPECT_EQ(learned("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}",
                    {message("user", "U"), message("assistant", "A"), message("user", "V")}),
            dots("user: U\n") + "assistant: A" + dots("\nuser: V\n"));
}

TEST(ChatEncoder, AnEndBehindTheWholeConversationIsNoPartOfEarlierTurns) {
  EXPECT_EQ(
      learned("{% for m in messages %}{{ m.role }}: {{ m.content }}{% if not loop.last %} {% endif %}{% endfor %}#",
              {message("user", "U"), message("assistant", "A"), message("user", "V"), message("assistant", "B")}),
      dots("user: U assistant: ") + "A" + dots(" user: V assistant: ") + "B#");
}

TEST(ChatEncoder, BlanksThatATemplateTakesOffHideNoTurn) {
  for (const char* content : {" x", "x\n", " x1", "  "}) {
    const std::string trimmed = content == std::string("  ") ? "" : content == std::string(" x1") ? "x1" : "x";
    EXPECT_EQ(learned("{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}#{% endfor %}",
                      {message("user", "U"), message("assistant", content)}),
              dots("<user>U#") + "<assistant>" + trimmed + "#");
  }
}

TEST(ChatEncoder, WhatIsNoConversationIsNamed) {
  const auto error = [](const std::string& json) {
    return testing::error_of([&] { conversation_of(ordered_json::parse(json), "f:7"); });
  };
  EXPECT_EQ(error("{\"text\": \"a\"}"), "f:7: no \"messages\"; expected {\"messages\": [...]}");
  EXPECT_EQ(error("{\"messages\": []}"), "f:7: messages must be a list of at least one message");
  EXPECT_EQ(error("{\"messages\": [3]}"), "f:7: messages[0]: not a JSON object but 3");
  EXPECT_EQ(error("{\"messages\": [{\"content\": \"a\"}]}"), "f:7: messages[0]: no \"role\" that is a text");
  EXPECT_EQ(error("{\"messages\": [{\"role\": \"user\"}]}"), "f:7: messages[0]: no \"content\"");
  EXPECT_EQ(error("{\"messages\": [{\"role\": \"user\", \"content\": [1]}]}"),
            "f:7: messages[0]: content must be a text, not a list");
  EXPECT_THAT(error("{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}], \"tools\": [1]}"),
              HasSubstr("f:7: \"tools\" are not written"));
}

class ChatFile : public ::testing::Test {
 protected:
  TokenFile open(const std::string& source, const std::string& content,
                 std::optional<ChatFormat> format = ChatFormat{}) {
    testing::write_file(path_, content);
    const ChatTokenizer tokenizer(source);
    if (format) format->model = "m";
    return open_token_file({path_}, "\n", {&tokenizer, 1, format}, dir_.path(), serial_for);
  }
  std::string error(const std::string& source, const std::string& content,
                    std::optional<ChatFormat> format = ChatFormat{}) {
    return testing::error_of([&] { open(source, content, format); });
  }

  testing::TempDir dir_;
  Path path_ = dir_ / "chat.jsonl";
  const std::string line_ =
      "{\"messages\": [{\"role\": \"user\", \"content\": \"U\"}, {\"role\": \"assistant\", \"content\": \"A\"}]}\n";
};

TEST_F(ChatFile, IsTokenizedWithItsMask) {
  const TokenFile file = open(kPlain, line_ + line_);
  ASSERT_EQ(file.num_documents(), 2);
  const std::string expected = "<user>U#\n<assistant>A#\n";
  ASSERT_EQ(file.document_begin(1), std::ssize(expected));
  for (int64_t i = 0; i < file.num_tokens(); ++i) {
    const int64_t at = i % std::ssize(expected);
    EXPECT_EQ(file.id(i), expected[static_cast<size_t>(at)]);
    EXPECT_EQ(file.is_supervised(i), at == 20 || at == 21) << i;
  }
}

TEST_F(ChatFile, HasAKeyForEachTemplateAndFormat) {
  const auto key = open(kPlain, line_).key();
  EXPECT_EQ(open(kPlain, line_).key(), key);
  EXPECT_NE(open(kPlain + " ", line_).key(), key);
  EXPECT_NE(open(kPlain, line_, ChatFormat{.roles = {"user"}}).key(), key);
  EXPECT_NE(open(kPlain, line_, ChatFormat{.enable_thinking = false}).key(), key);
}

TEST_F(ChatFile, MistakesAreToldWithFileAndLine) {
  const std::string name = path_.string();
  EXPECT_THAT(error(kPlain, line_ + "{\"messages\": [{\"role\": \"user\"\n"), HasSubstr(name + ":2:"));
  EXPECT_EQ(error(kPlain, line_ + "\n{\"text\": \"a\"}\n"),
            name + ":3: no \"messages\"; expected {\"messages\": [...]}");
  EXPECT_EQ(error("{% if messages[0].content != 'U' %}{{ raise_exception('too long') }}{% endif %}{{ messages }}",
                  line_ + "{\"messages\": [{\"role\": \"assistant\", \"content\": \"V\"}]}\n"),
            name + ":2: m: chat template:1: the template refuses: too long");
  EXPECT_THAT(error("", line_), HasSubstr("it has no chat template"));
  EXPECT_THAT(error(kPlain, line_, std::nullopt), HasSubstr(name + ": conversations (\"messages\") are read by"));
}

TEST(ChatEncoder, WritesAndMarksAsTransformersDoes) {
  CRUMB_NEED_PEERS(python);
  CRUMB_NEED_MODEL(folder, "SmolLM2-135M-Instruct");
  const testing::TempDir dir;
  const std::vector<std::vector<ordered_json>> conversations = {
      {message("user", "Hello"), message("assistant", "Hi, how are you?")},
      {message("system", "Be brief."), message("user", "One\n\ntwo"), message("assistant", "  padded \n"),
       message("user", ""), message("assistant", "")},
      {message("user", "assistant"), message("assistant", "assistant\n"), message("user", "x"),
       message("assistant", "Gr\u00fc\u00dfe, \u4f60\u597d 42")},
      {message("assistant", "I begin"), message("user", "and I end")}};
  testing::write_file(dir / "items.json", ordered_json(conversations).dump());
  const auto result =
      testing::run_command(python.string() + " " + (testing::source_dir() / "tests/text/chat_peer.py").string() + " " +
                           folder.string() + " " + (dir / "items.json").string());
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const auto tokenizer = tokenizer::load_tokenizer(folder);
  const ChatEncoder chat(*tokenizer, {.model = "SmolLM2"});
  std::istringstream lines(result.out);
  for (const auto& messages : conversations) {
    std::string line;
    ASSERT_TRUE(std::getline(lines, line));
    const auto theirs = ordered_json::parse(line);
    const auto ours = chat.encode({ordered_json(messages), "f:1"});
    EXPECT_EQ(ours.ids, theirs["ids"].get<std::vector<TokenId>>());
    EXPECT_EQ(ours.supervised, theirs["mask"].get<std::vector<uint8_t>>()) << ordered_json(messages).dump();
  }
}

}  // namespace
}  // namespace crumb::text
