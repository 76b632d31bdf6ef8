// Prompts as lm-evaluation-harness 0.4.13 gives them to a model, and what the model writes behind them.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/jinja/chat_template.h"
#include "eval/judged.h"
#include "eval/task.h"

namespace crumb::eval {

/// What stands before a prompt without tokens: BOS, or EOS where there is none.
std::optional<tokenizer::TokenId> first_token(const tokenizer::Tokenizer& tokenizer);
/// Special tokens are put around a prompt that does not begin with first_token() itself.
std::vector<tokenizer::TokenId> encode_prompt(const tokenizer::Tokenizer& tokenizer, const std::string& prompt);

/// A conversation up to where the answer begins; without the system's message where the template refuses it.
std::string chat_prompt(const jinja::ChatTemplate& chat, const std::vector<jinja::ChatMessage>& messages);

struct Written {
  std::string text;           // without what ended it
  bool is_truncated = false;  // the prompt was cut from the left, to leave room for max_gen_toks
};

/// One a prompt, of the likeliest tokens, up to a text of `until` or a token that ends a text. Prompts are computed
/// together; what is written does not depend on that. UserError: max_gen_toks beyond the context, a model that does not
/// run (a file of logits).
std::vector<Written> write_answers(const Judged& model, const std::vector<std::string>& prompts,
                                   const GenerationOptions& options);

}  // namespace crumb::eval
