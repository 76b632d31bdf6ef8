// Judges a model file: perplexity, and against a baseline KL divergence and top-1 agreement; its size; and whether a
// limit is exceeded.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core/common/config.h"
#include "core/text/token_stream.h"
#include "core/text/windows.h"
#include "eval/damage.h"
#include "eval/judged.h"
#include "eval/model_sums.h"
#include "eval/perplexity.h"
#include "eval/protocol.h"
#include "eval/tasks.h"
#include "runtime/precision.h"

namespace crumb::eval {

struct EvalOptions {
  Path model;
  Path baseline;         // empty: perplexity alone
  Path baseline_logits;  // in its place what it said, in a file of llama-perplexity (logits_file.h)
  Path save_logits;      // such a file is written of the baseline, or without one of the model
  Overwrite overwrite_logits = Overwrite::no;
  Path resume;          // what is found is kept here, and an evaluation that was ended goes on; empty: it is not
  int64_t threads = 0;  // 0: one per processor
  runtime::Precision precision;  // of the models; the baseline's is exact

  std::vector<Path> texts;
  std::string separator;
  Auto<int64_t> context, stride;
  int64_t max_windows = 0;
  bool bos = false;
  std::map<std::string, double> max_drop;

  PerplexityProtocol protocol = PerplexityProtocol::windows;  // gptq and llamacpp take one text and no separator
  TaskRunOptions tasks;                                       // beside the texts, or without any
  bool by_document = false;    // errors take documents as clusters, not windows; so does rolling, whatever this says
  BootstrapOptions bootstrap;  // intervals of what is measured of texts
  DamageOptions damage;        // of each model against the baseline, on the texts
  bool judge_bound = false;    // max_drop holds for the upper 95 % bound of a drop, not for its estimate

  /// The section `evaluate:` of a job.
  template <class V>
  void visit(V& v) {
    v.field("text", texts, "texts to judge by: plain files, or JSON with {\"text\": ...}; their documents are pooled");
    v.field("separator", separator,
            "what stands between documents of a plain file; empty: a file is one document; EOS follows each document");
    v.field("context", context, "tokens a window; auto: 2048, or what the models declare if less", {.min = 2});
    v.field(
        "stride", stride,
        "tokens from one window to the next; auto: the context; less: only the last `stride` tokens of a window count",
        {.min = 1});
    v.field("max_windows", max_windows, "windows to score, spread evenly over the texts; 0: all", {.min = 0});
    v.field("bos", bos, "put BOS before each document");
    v.field("max_drop", max_drop,
            "largest loss accepted: perplexity (relative increase), kl (nats a token), top1 (share of tokens with "
            "another first choice)",
            {.min = 0, .choices = {"perplexity", "kl", "top1"}});
  }
};

struct Protocol {
  int64_t context = 0, stride = 0;
  int64_t windows = 0, windows_in_text = 0;  // scored, and how many there are
  int64_t scored_tokens = 0, text_tokens = 0;
  std::string separator;
  bool bos = false, eos = false;
  std::string compute = "float32";
  PerplexityProtocol kind = PerplexityProtocol::windows;
  bool by_document = false;  // clusters of errors
  int64_t bootstrap = 0;     // resamples
  uint64_t seed = 0;         // of theirs
};

struct TextScores {
  Path path;
  int64_t documents = 0, text_tokens = 0;
  Scores scores;                 // of the tokens that belong to this text
  std::string fingerprint = {};  // of its documents: 16 hex digits
};

/// A place where model and baseline are far apart, as text.
struct WorstContext {
  Path text;
  int64_t index = 0, position = 0;  // of the token: in all texts, and how many tokens of its window it was told from
  std::string before, token;        // before: the end of what was seen
  std::string choice, baseline_choice;  // the tokens that the two put first
  TokenScore score;
};

/// One limit of max_drop beside what was found.
struct DropCheck {
  std::string measure;
  double drop = 0, limit = 0;
  bool by_bound = false;  // drop is its upper 95 % bound
  bool exceeded() const { return drop > limit; }
};

struct EvalResult {
  ModelFacts model;
  std::optional<ModelFacts> baseline;
  Protocol protocol;
  Scores pooled;
  std::vector<TextScores> texts;  // empty: no text was given, and neither protocol nor pooled says anything
  std::vector<PositionScores> positions = {};  // with a baseline
  std::vector<WorstContext> worst = {};        // with a baseline; the largest KL first
  std::optional<TaskResults> tasks = std::nullopt;
  std::optional<DamageMap> damage = std::nullopt;
  std::vector<DropCheck> checks = {};
  double seconds = 0;
  bool exceeded() const;
};

/// Context and stride of the windows, for models that were made for `declared` tokens by their names; auto is 2048, or
/// what they were made for if less. UserError that begins with `key` where they do not fit.
struct WindowSize {
  int64_t context = 0, stride = 0;
};
WindowSize resolve_window_size(const EvalOptions& options, const std::vector<std::pair<std::string, int64_t>>& declared,
                               const std::string& key = "");

/// Loads, scores, compares. Progress on stderr.
/// UserError: files, logits of other windows, neither text nor task, texts shorter than one window, a baseline with
/// another vocabulary or tokenizer, limits without a baseline. RunError: a model that computes values that are not
/// finite.
EvalResult evaluate(const EvalOptions& options);

/// Judges each of `models` (options.model is not used) by one protocol, one result a model. The baseline is loaded and
/// run once. UserError as above, and without a baseline for models that cut the texts into other tokens.
std::vector<EvalResult> evaluate_all(const EvalOptions& options, const std::vector<Path>& models);

/// The part of evaluate_all() that needs no files, for scorers of any kind; scores for each model. A token counts for
/// the text it belongs to, also when its window began in the one before. `baseline` may be null. With documents windows
/// end where theirs does, errors take documents as clusters, and bytes are those of the documents. `by_document`:
/// errors take the documents of the stream as clusters. `journal`: what it holds is not computed again; may be null.
std::vector<StreamScores> score_stream(std::span<Scorer* const> models, Scorer* baseline,
                                       const text::TokenStream& stream, const std::vector<text::Window>& windows,
                                       int64_t context, const ParallelFor& parallel_for,
                                       std::span<const int32_t> token_bytes = {},
                                       std::span<const RollingDocument> documents = {}, bool by_document = false,
                                       const BootstrapOptions& bootstrap = {}, Journal* journal = nullptr);

/// Each limit of max_drop beside the drop found, or its upper bound; none for measures without one. UserError: no bound
/// is known, because there is one cluster only.
std::vector<DropCheck> check_drops(const std::map<std::string, double>& max_drop, const Scores& scores,
                                   bool by_bound = false);

}  // namespace crumb::eval
