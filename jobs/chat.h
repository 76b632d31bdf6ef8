// A conversation with a model, by the model's own chat template, without a terminal.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/common/file.h"
#include "core/jinja/chat_template.h"
#include "jobs/draft.h"
#include "jobs/running_model.h"
#include "runtime/session.h"

namespace crumb::jobs {

struct ChatJob {
  std::vector<NamedModel> models;       // the first one answers until another is chosen
  std::optional<std::string> system;    // none: what the template does without one
  std::optional<bool> enable_thinking;  // for templates that ask
  int64_t max_tokens = 1024;            // of an answer
  SamplingChoice sampling;              // temperature 0.7 unless given
  std::vector<std::string> stops;       // texts that end an answer, beside the model's own ends
  Path prompt_cache;                    // of the first model: read where it is there; save_cache() writes it; "": none
  Path weight_cache;                    // of the first model: runtime/weight_cache.h; "": none
  runtime::Precision precision;
  DraftChoice draft;           // also the name of one of the models; it does not draft for itself at the same precision
  bool reports_draft = false;  // measures what it was worth
  int64_t threads = 0;         // 0: one per processor
};

struct ChatAnswer {
  enum class End { model, stop_text, length, context, interrupted };
  std::string text;
  End end = End::model;
  int64_t prompt_tokens = 0, known_tokens = 0;  // of the conversation so far; of them, computed before
  int64_t tokens = 0;
  double prefill_seconds = 0, decode_seconds = 0;
  std::optional<DraftReport> draft;

  /// "stop", "length", "context" or "interrupted".
  const char* finish_reason() const;
};

class Chat {
 public:
  /// UserError: no such model, one without a chat template or with one that is not supported, a draft that does not fit
  /// one of them.
  explicit Chat(const ChatJob& job);

  /// Another of the models answers from here on. The conversation stays; each model computes what it has not seen of
  /// it. UserError: none of that name.
  void choose(const std::string& name);
  const std::string& chosen() const { return speaker_->name; }

  /// The user's next message; what the model answers is shown as it comes. Both are remembered, an interrupted answer
  /// as far as it came. Warns before an answer for which the context leaves less than max_tokens. UserError, and
  /// nothing is remembered: the template refuses the message, or the conversation does not fit in the context.
  ChatAnswer say(const std::string& text, const std::function<void(const std::string&)>& show,
                 const std::atomic<bool>* stop = nullptr);

  /// Begins anew, with the same system message.
  void reset();
  /// {"messages": [...]}: one line of a file to train on. UserError where `path` exists, unless forced.
  void save(const Path& path, bool force) const;

  /// What was computed of the conversation, to the prompt cache of the job; nothing where it has none.
  void save_cache();

  const std::vector<jinja::ChatMessage>& messages() const { return messages_; }
  int64_t context_length() const { return speaker_->model.decoder->spec().context_length; }
  double load_seconds() const;
  /// Of all models, a line a type.
  std::vector<std::string> held() const;
  /// Of weights that several models have in common; nothing where there is one.
  std::optional<int64_t> shared_bytes() const;

 private:
  struct Speaker {
    Speaker(const NamedModel& named, RunningModel running, runtime::Draft* draft);
    std::string name;
    RunningModel model;
    jinja::ChatTemplate chat_template;
    runtime::Session session;
    std::vector<tokenizer::TokenId> end_tokens;
  };
  std::vector<tokenizer::TokenId> prompt_with(const std::string& text) const;

  ChatJob job_;
  Loading loading_;
  RunningDraft draft_;
  std::vector<std::unique_ptr<Speaker>> speakers_;
  Speaker* speaker_ = nullptr;
  std::vector<jinja::ChatMessage> messages_;
  uint64_t answers_ = 0;
};

}  // namespace crumb::jobs
