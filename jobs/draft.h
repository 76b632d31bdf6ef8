// A model that drafts for the model of a job (runtime/speculation.h).
#pragma once

#include <atomic>
#include <memory>
#include <optional>

#include "core/common/file.h"
#include "jobs/running_model.h"
#include "runtime/session.h"

namespace crumb::jobs {

struct DraftChoice {
  Path model;                                     // "": none
  int64_t most = runtime::Draft::kMostProposals;  // tokens drafted at once at most
};

struct RunningDraft {
  RunningModel model;
  std::unique_ptr<runtime::Draft> draft;

  explicit operator bool() const { return draft != nullptr; }
};

/// Nothing where no draft is wanted. What it computes cannot be told from the result but by time, so its activations
/// are int8 wherever it takes them; keys and values are as the job says.
RunningDraft load_draft(const DraftChoice& choice, const runtime::Precision& precision, const Loading& loading);

/// UserError that names both, unless the vocabularies are the same and the draft holds as long a text.
void check_draft(const RunningModel& draft, const RunningModel& model);

/// Whether both are one model with one precision: such a draft says what the model says, and only takes time.
bool is_same(const RunningModel& draft, const RunningModel& model);

/// What a draft was worth.
struct DraftReport {
  runtime::SpeculationCounts counts;
  double tokens_per_second = 0;  // behind the first
  double without_draft = 0;      // what a pass of one token makes of it, measured behind the text

  double speed_up() const { return tokens_per_second / without_draft; }
};
/// Nothing where no token was drafted. Takes a few passes of one token, between which `stop` is asked (null: never).
std::optional<DraftReport> report_draft(const runtime::Continuation& result, runtime::Session& session,
                                        const std::atomic<bool>* stop = nullptr);

}  // namespace crumb::jobs
