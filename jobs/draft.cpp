#include "jobs/draft.h"

#include "core/common/error.h"
#include "core/common/file.h"

namespace crumb::jobs {

RunningDraft load_draft(const DraftChoice& choice, const runtime::Precision& precision, const Loading& loading) {
  if (choice.model.empty()) return {};
  const runtime::Precision own{runtime::Activations::automatic, precision.cache_type, precision.device};
  RunningDraft out{load_model(choice.model, own, loading), nullptr};
  out.draft = std::make_unique<runtime::Draft>(*out.model.decoder, choice.most);
  return out;
}

void check_draft(const RunningModel& draft, const RunningModel& model) {
  const std::string path = draft.checkpoint->path().string(), other = model.checkpoint->path().string();
  const auto &mine = *draft.tokenizer, &its = *model.tokenizer;
  CRUMB_CHECK(mine.vocab_size() == its.vocab_size(),
              "--draft: {} has a vocabulary of {} ids, {} one of {}; a draft must have the model's vocabulary", path,
              mine.vocab_size(), other, its.vocab_size());
  if (const auto id = tokenizer::first_difference(mine, its))
    user_error(
        "--draft: id {} is \"{}\" in the vocabulary of {} and \"{}\" in that of {}; a draft must have the "
        "model's vocabulary",
        *id, mine.piece(*id), path, its.piece(*id), other);
  const int64_t holds = draft.decoder->spec().context_length, needed = model.decoder->spec().context_length;
  CRUMB_CHECK(holds >= needed, "--draft: {} holds {} tokens, {} holds {}; a draft must hold as long a text", path,
              holds, other, needed);
}

bool is_same(const RunningModel& draft, const RunningModel& model) {
  return canonical_path(draft.checkpoint->path()) == canonical_path(model.checkpoint->path()) &&
         draft.precision == model.precision;
}

std::optional<DraftReport> report_draft(const runtime::Continuation& result, runtime::Session& session,
                                        const std::atomic<bool>* stop) {
  if (result.speculation.passes == 0) return std::nullopt;
  return DraftReport{result.speculation, rate_of(static_cast<int64_t>(result.tokens.size()) - 1, result.decode_seconds),
                     rate_of(1, session.token_seconds(stop))};
}

}  // namespace crumb::jobs
