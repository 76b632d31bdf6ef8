// The options of verbs that can draft, and what they tell of it.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "cli/numbers.h"
#include "core/common/log.h"
#include "jobs/draft.h"

namespace crumb::cli {

struct DraftArguments {
  std::string model;
  int64_t most = runtime::Draft::kMostProposals;

  jobs::DraftChoice choice() const { return {model, most}; }
};

inline CLI::Option* add_draft(CLI::App& app, DraftArguments& draft, const std::string& help) {
  auto* option = app.add_option("--draft", draft.model, help);
  add_whole(app, "--draft-max", draft.most, "tokens drafted at once at most; fewer where few of them are accepted",
            {.least = 1, .most = 64})
      ->needs(option);
  return option;
}

inline void print_draft(const jobs::DraftReport& report) {
  log_info(
      "draft: {} of {} tokens accepted ({:.0f} %), {:.2f} tokens a pass of the model; {:.1f} tokens/s, {:.1f} without "
      "a draft: {:.2f}x; {:.2f} s went into drafting",
      report.counts.accepted, report.counts.proposed, 100 * report.counts.acceptance(), report.counts.tokens_per_pass(),
      report.tokens_per_second, report.without_draft, report.speed_up(), report.counts.draft_seconds);
}

inline nlohmann::ordered_json as_json(const jobs::DraftReport& report) {
  return {{"proposed", report.counts.proposed},
          {"accepted", report.counts.accepted},
          {"acceptance", report.counts.acceptance()},
          {"passes", report.counts.passes},
          {"tokens_per_pass", report.counts.tokens_per_pass()},
          {"draft_seconds", report.counts.draft_seconds},
          {"tokens_per_second", report.tokens_per_second},
          {"without_draft_tokens_per_second", report.without_draft},
          {"speed_up", report.speed_up()}};
}

}  // namespace crumb::cli
