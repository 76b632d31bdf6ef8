#include "eval/written_answers.h"

#include <algorithm>

#include "core/common/log.h"
#include "core/tokenizer/unicode.h"
#include "runtime/generate.h"

namespace crumb::eval {
namespace {

/// Texts decoded at once: more share the reading of the weights, each has keys and values of its own.
constexpr int64_t kBatch = 16;

/// Up to the first of each, one after the other.
std::string cut_at(std::string text, const std::vector<std::string>& ends) {
  for (const auto& end : ends) {
    if (!end.empty()) text = text.substr(0, text.find(end));
  }
  return text;
}

}  // namespace

std::optional<tokenizer::TokenId> first_token(const tokenizer::Tokenizer& tokenizer) {
  const auto& special = tokenizer.special();
  return special.bos ? special.bos : special.eos;
}

std::vector<tokenizer::TokenId> encode_prompt(const tokenizer::Tokenizer& tokenizer, const std::string& prompt) {
  const auto first = first_token(tokenizer);
  const std::string begin = first ? tokenizer.decode({*first}, true) : "";
  const bool has_begin = !begin.empty() && prompt.starts_with(begin);
  return tokenizer.encode(prompt, !has_begin);
}

std::string chat_prompt(const jinja::ChatTemplate& chat, const std::vector<jinja::ChatMessage>& messages) {
  const jinja::ChatOptions options{.add_generation_prompt = true, .now = jinja::kRepeatableDate};
  try {
    return chat.render(messages, options);
  } catch (const jinja::Refusal&) {
    auto others = messages;
    std::erase_if(others, [](const auto& message) { return message.role == "system"; });
    if (others.size() == messages.size()) throw;
    log_warning_once(
        "the model's chat template refuses a system message: descriptions and --system-instruction are left out");
    return chat.render(others, options);
  }
}

std::vector<Written> write_answers(const Judged& model, const std::vector<std::string>& prompts,
                                   const GenerationOptions& options) {
  runtime::Decoder* decoder = model.scorer->decoder();
  const std::string name = model.facts.path.string();
  CRUMB_CHECK(decoder != nullptr, "{}: it does not run, so it writes no answers", name);
  const int64_t room = model.scorer->context_length() - options.max_gen_toks;
  CRUMB_CHECK(room > 0, "{}: max_gen_toks is {}, which leaves nothing of its context of {} to the prompt", name,
              options.max_gen_toks, model.scorer->context_length());
  const auto& tokenizer = *model.tokenizer;
  const auto& special = tokenizer.special();
  std::vector<std::string> ends = options.until;
  if (special.eos) ends.push_back(tokenizer.decode({*special.eos}, true));

  std::vector<Written> out(prompts.size());
  std::vector<runtime::GenerateRequest> requests(prompts.size());
  for (size_t i = 0; i < prompts.size(); ++i) {
    auto tokens = encode_prompt(tokenizer, prompts[i]);
    if (tokens.empty() && first_token(tokenizer)) tokens = {*first_token(tokenizer)};
    out[i].is_truncated = std::ssize(tokens) > room;
    if (out[i].is_truncated) tokens.erase(tokens.begin(), tokens.end() - room);
    requests[i].prompt = std::move(tokens);
    requests[i].max_tokens = options.max_gen_toks;
  }
  std::vector<std::vector<tokenizer::TokenId>> tokens(prompts.size());
  const auto on_token = [&](int64_t request, tokenizer::TokenId token) {
    const auto i = static_cast<size_t>(request);
    tokens[i].push_back(token);
    const std::string text = tokenizer.decode(tokens[i], true);  // ends may be special tokens
    return std::ranges::none_of(
        ends, [&](const std::string& end) { return !end.empty() && text.find(end) != std::string::npos; });
  };
  const runtime::SamplingOptions greedy{.vocab_size = tokenizer.vocab_size()};
  runtime::generate(*decoder, requests, greedy, special.end, kBatch, on_token);
  for (size_t i = 0; i < out.size(); ++i) {
    std::string storage;  // a text may end within a character
    out[i].text = std::string(tokenizer::valid_utf8(cut_at(tokenizer.decode(tokens[i]), ends), storage));
  }
  return out;
}

}  // namespace crumb::eval
