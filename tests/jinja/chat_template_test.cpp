// Chat templates of real models: conversations written as transformers writes them.
#include "core/jinja/chat_template.h"

#include <gmock/gmock.h>

#include "core/formats/gguf.h"
#include "tests/jinja/peer.h"
#include "tests/testing/fake_tokenizer.h"

namespace crumb::jinja {
namespace {

using nlohmann::ordered_json;
using testing::TemplateCase;

ordered_json message(const char* role, const std::string& content) { return {{"role", role}, {"content", content}}; }

std::vector<ordered_json> conversations() {
  const std::string hard =
      "Gr\u00fc\u00dfe, \u4f60\u597d \U0001f468\u200d\U0001f469\n  {{ x }} <|im_end|> \"quoted\" \\n ' \t";
  const std::string thought = "<think>\nFirst I think.\n</think>\n\nThen I answer.";
  return {
      {message("user", "Hello")},
      {message("system", "Be brief."), message("user", "Hello")},
      {message("user", hard)},
      {message("user", "")},
      {message("system", ""), message("user", "  padded \n")},
      {message("user", "One"), message("assistant", "Two"), message("user", "Three")},
      {message("system", "S /no_think"), message("user", "One"), message("assistant", "\n\nTwo "),
       message("user", hard), message("assistant", hard), message("user", "Five")},
      {message("user", "Q"), message("assistant", thought), message("user", "R"), message("assistant", thought)},
      {message("user", "Q"), message("assistant", thought), message("user", "<tool_response>x</tool_response>")},
      {message("user", "One"), message("user", "Two")},
      {message("assistant", "I begin"), message("user", "One")},
      {message("system", "Only a system prompt")},
      {message("tool", "42")},
      {message("user", "One"), message("system", "late"), message("assistant", "Two")},
      ordered_json::array(),
      {message("user", "Q"),
       {{"role", "assistant"},
        {"content", ""},
        {"tool_calls",
         {{{"id", "abcdefghi"},
           {"type", "function"},
           {"function", {{"name", "f"}, {"arguments", {{"x", 1}, {"a", "\u00e9"}}}}}}}}},
       {{"role", "tool"}, {"content", "7"}, {"tool_call_id", "abcdefghi"}},
       message("user", "thanks")},
      {message("user", "Q"), {{"role", "assistant"}, {"content", "A"}, {"reasoning_content", "because"}}},
  };
}

const ordered_json kTools = {
    {{"type", "function"},
     {"function",
      {{"name", "weather"},
       {"description", "Tells the weather"},
       {"parameters", {{"type", "object"}, {"properties", {{"city", {{"type", "string"}}}}}}}}}}};

/// Every conversation with and without the beginning of an answer, thinking on, off and unsaid, tools or none.
std::vector<TemplateCase> cases_of(const std::string& source) {
  std::vector<TemplateCase> cases;
  for (const auto& messages : conversations()) {
    for (const bool prompt : {false, true}) {
      for (const int thinking : {-1, 0, 1}) {
        for (const bool tools : {false, true}) {
          ordered_json variables = {
              {"messages", messages}, {"add_generation_prompt", prompt}, {"bos_token", "<s>"}, {"eos_token", "</s>"}};
          variables["tools"] = tools ? kTools : ordered_json();
          if (thinking >= 0) variables["enable_thinking"] = thinking == 1;
          cases.push_back({source, variables});
        }
      }
    }
  }
  return cases;
}

TEST(ChatTemplates, OfTheSharedDataWriteAndRefuseWhatJinjaDoes) {
  CRUMB_NEED_PEERS(python);
  CRUMB_NEED_DATA(folder, "tokenizers/chat-templates");
  int count = 0;
  for (const auto& entry : testing::fs::directory_iterator(folder)) {
    if (entry.path().extension() != ".jinja") continue;
    SCOPED_TRACE(entry.path());
    testing::expect_as_jinja(python, cases_of(testing::read_file(entry.path())));
    ++count;
  }
  EXPECT_GE(count, 7);
}

TEST(ChatTemplates, OfTheModelsWriteWhatJinjaDoes) {
  CRUMB_NEED_PEERS(python);
  CRUMB_NEED_MODEL(folder, "SmolLM2-135M-Instruct");
  CRUMB_NEED_MODEL(gguf, "SmolLM2-135M-Instruct.Q4_1.gguf");
  for (const auto& path : {folder, gguf}) {
    const auto tokenizer = tokenizer::load_tokenizer(path);
    ASSERT_FALSE(tokenizer->chat_template().empty());
    testing::expect_as_jinja(python, cases_of(tokenizer->chat_template()));
  }
}

TEST(ChatTemplates, OfAModelGivesItsSpecialTokensAndTheEndOfATurn) {
  CRUMB_NEED_MODEL(folder, "SmolLM2-135M-Instruct");
  const auto tokenizer = tokenizer::load_tokenizer(folder);
  const ChatTemplate chat(*tokenizer, "SmolLM2");
  const std::vector<ChatMessage> messages = {{"system", "S"}, {"user", "Hi"}};
  EXPECT_EQ(chat.render(messages, {.add_generation_prompt = true}),
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(chat.encode(messages, {}).front(), tokenizer->find_piece("<|im_start|>"));
  EXPECT_THAT(chat.end_tokens(), ::testing::Contains(*tokenizer->find_piece("<|im_end|>")));
}

/// A tokenizer of bytes with a chat template and a special token of one byte.
class ChattyTokenizer : public testing::FakeTokenizer {
 public:
  explicit ChattyTokenizer(std::string source) : source_(std::move(source)) { specials.eos = std::nullopt; }
  std::string chat_template() const override { return source_; }
  bool is_special(tokenizer::TokenId id) const override { return id == '#'; }

 private:
  std::string source_;
};

TEST(ChatTemplates, TheSpecialTokenBehindAnAnswerEndsOne) {
  EXPECT_THAT(ChatTemplate(ChattyTokenizer("{% for m in messages %}{{ m.content }}#\n{% endfor %}"), "m").end_tokens(),
              ::testing::ElementsAre('#'));
  EXPECT_THAT(ChatTemplate(ChattyTokenizer("{% for m in messages %}{{ m.content }}\n{% endfor %}"), "m").end_tokens(),
              ::testing::IsEmpty());
}

TEST(ChatTemplates, AModelWithoutOneSaysSo) {
  const testing::FakeTokenizer tokenizer;
  EXPECT_EQ(testing::error_of([&] { ChatTemplate(tokenizer, "some.gguf"); }),
            "some.gguf: it has no chat template (chat_template.jinja, chat_template of tokenizer_config.json, or "
            "tokenizer.chat_template of a GGUF), so it is no model to chat with; crumb generate continues a text");
}

TEST(ChatTemplates, ABrokenOneNamesTheModelAndTheLine) {
  EXPECT_EQ(testing::error_of([&] { ChatTemplate(ChattyTokenizer("\n{% if %}"), "some.gguf"); }),
            "some.gguf: chat template:2: expected an expression, found the end of the tag");
}

}  // namespace
}  // namespace crumb::jinja
