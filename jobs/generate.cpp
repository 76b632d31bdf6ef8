#include "jobs/generate.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "core/common/error.h"
#include "core/common/json.h"
#include "core/common/log.h"
#include "core/common/progress.h"
#include "core/common/quantity.h"
#include "core/jinja/chat_template.h"
#include "core/text/text_file.h"
#include "runtime/generate.h"
#include "runtime/session.h"
#include "runtime/stop_strings.h"

namespace crumb::jobs {
namespace {

using tokenizer::TokenId;

constexpr double kMostDocumentsARound = 65536;  // a budget beyond all memory is begun, too
constexpr double kPromptTemperature = 0.0, kCorpusTemperature = 1.0;

/// What stands before the first token of a document.
TokenId start_token(const RunningModel& model) {
  const auto& special = model.tokenizer->special();
  CRUMB_CHECK(special.bos || special.eos,
              "{}: its tokenizer has neither BOS nor EOS, so there is no token to start a document from",
              model.checkpoint->path().string());
  return special.bos ? *special.bos : *special.eos;
}

/// What ends a text: of a model that chats, what ends an answer, too.
std::vector<TokenId> text_ends(const RunningModel& model) {
  const auto documents = document_ends(model);
  std::set<TokenId> ends(documents.begin(), documents.end());
  if (model.tokenizer->chat_template().empty()) return documents;
  try {
    const jinja::ChatTemplate chat(*model.tokenizer, model.checkpoint->path().string());
    for (const TokenId id : chat.end_tokens()) ends.insert(id);
  } catch (const UserError& error) {
    log_debug("{}", error.what());  // a template that is not understood matters to who chats only
  }
  return {ends.begin(), ends.end()};
}

bool begins_with(const std::vector<TokenId>& text, const std::vector<TokenId>& beginning) {
  return text.size() >= beginning.size() && std::equal(beginning.begin(), beginning.end(), text.begin());
}

/// Documents sampled from the model, in order of their number, until a budget of tokens is met exactly: the last one is
/// cut. Document n is drawn with random stream n.
class CorpusSampler {
 public:
  CorpusSampler(RunningModel& model, const CorpusJob& job)
      : model_(model),
        job_(job),
        budget_(job.tokens),
        next_(job.skip_documents),
        start_(start_token(model)),
        ends_(document_ends(model)),
        progress_("sampling", job.tokens, "tokens") {}

  std::vector<std::vector<TokenId>> run() {
    while (have_ < budget_) add_round();
    progress_.finish(fmt::format("{} documents", format_count(static_cast<int64_t>(documents_.size()))));
    return std::move(documents_);
  }
  int64_t next_document() const { return next_; }

 private:
  /// As many documents as are still missing by the mean length so far. The first round takes all to be as long as the
  /// context: it can only bring too few, so nothing is sampled in vain.
  void add_round() {
    const int64_t left = budget_ - have_, context = model_.decoder->spec().context_length;
    const int64_t seen = next_ - job_.skip_documents;
    const double mean = seen == 0 ? static_cast<double>(context)
                                  : std::max(1.0, static_cast<double>(have_) / static_cast<double>(seen));
    const double missing = std::min(std::ceil(static_cast<double>(left) / mean), kMostDocumentsARound);
    std::vector<runtime::GenerateRequest> requests(static_cast<size_t>(missing));
    for (size_t i = 0; i < requests.size(); ++i)
      requests[i] = {{start_}, std::min(context, left), static_cast<uint64_t>(next_) + i};
    int64_t sampled = have_;
    const auto results =
        runtime::generate(*model_.decoder, requests, sampling_options(job_.sampling, model_, kCorpusTemperature), ends_,
                          job_.batch, [&](int64_t, TokenId) {
                            progress_.update(std::min(budget_, ++sampled));
                            return true;
                          });
    for (const auto& result : results) add(result.tokens);
  }

  void add(std::vector<TokenId> tokens) {
    if (have_ == budget_) return;
    ++next_;
    empty_in_a_row_ = tokens.empty() ? empty_in_a_row_ + 1 : 0;
    if (empty_in_a_row_ >= 1000)
      run_error("{}: the model ends every document at once; nothing to sample", job_.model.string());
    if (tokens.empty()) return;
    tokens.resize(std::min(tokens.size(), static_cast<size_t>(budget_ - have_)));
    have_ += static_cast<int64_t>(tokens.size());
    documents_.push_back(std::move(tokens));
  }

  RunningModel& model_;
  const CorpusJob& job_;
  int64_t budget_, have_ = 0, next_, empty_in_a_row_ = 0;
  TokenId start_;
  std::vector<TokenId> ends_;
  Progress progress_;
  std::vector<std::vector<TokenId>> documents_;
};

}  // namespace

const char* PromptResult::finish_reason() const { return stopped ? "stop" : context_full ? "context" : "length"; }

double PromptResult::tokens_per_second() const { return rate_of(static_cast<int64_t>(tokens.size()), seconds); }

double PromptResult::prefill_rate() const {
  return rate_of(static_cast<int64_t>(prompt_tokens.size()) - known_tokens, prefill_seconds);
}

double PromptResult::decode_rate() const {
  return rate_of(std::max<int64_t>(0, static_cast<int64_t>(tokens.size()) - 1), decode_seconds);
}

PromptResult continue_prompt(const PromptJob& job, const std::function<void(const std::string&)>& show) {
  runtime::StopStrings stops(job.stops);
  check_caches(job.prompt_cache, job.weight_cache);
  CRUMB_CHECK(job.prompt_cache.empty() || job.precision.device == runtime::Device::cpu,
              "--prompt-cache: what a GPU computes of a prompt is not kept; leave it out with --device cuda");
  const Loading loading = loading_with(job.threads);
  const RunningModel model = load_model(job.model, job.precision, loading, job.weight_cache);
  const RunningDraft draft = load_draft(job.draft, job.precision, loading);
  if (draft) check_draft(draft.model, model);
  const bool is_drafted = draft && !is_same(draft.model, model);
  if (draft && !is_drafted)
    log_warning("--draft: {} drafts for itself, which would only take time; it is left out", job.model.string());
  PromptResult out;
  out.load_seconds = model.load_seconds + draft.model.load_seconds;
  out.shared_bytes = loading.pool->shared_bytes();
  out.held = model.held();
  out.prompt_tokens = model.tokenizer->encode(text::checked_text(job.prompt, "--prompt"), true);
  if (out.prompt_tokens.empty()) out.prompt_tokens.push_back(start_token(model));
  const int64_t context = model.decoder->spec().context_length;
  CRUMB_CHECK(static_cast<int64_t>(out.prompt_tokens.size()) < context,
              "--prompt: {} tokens, which leave no room for a new one in the model's {}; give a shorter prompt",
              out.prompt_tokens.size(), context);
  runtime::Session session(*model.decoder, is_drafted ? draft.draft.get() : nullptr);
  const bool has_cache = !job.prompt_cache.empty();
  const Stopwatch watch;
  if (has_cache && is_there(job.prompt_cache)) session.load(job.prompt_cache, cache_identity(model));

  // The prompt goes through the decoder of the stream as well, so that what follows is printed as the middle of a text.
  tokenizer::StreamingDecoder stream(*model.tokenizer);
  for (const TokenId id : out.prompt_tokens) show(stream.push(id));
  const auto add = [&](const std::string& piece) {
    out.text += piece;
    show(piece);
  };
  const bool is_cached = begins_with(session.seen(), out.prompt_tokens);
  auto result = session.go_on({out.prompt_tokens, job.max_tokens, text_ends(model), 0},
                              sampling_options(job.sampling, model, kPromptTemperature), [&](TokenId token) {
                                add(stops.push(stream.push(token)));
                                return !stops.found();
                              });
  out.seconds = watch.seconds();
  if (!stops.found()) add(stops.push(stream.finish()) + stops.finish());
  if (job.reports_draft) out.draft = report_draft(result, session);
  out.tokens = std::move(result.tokens);
  out.stop = stops.found();
  out.stopped = out.stop || result.end == runtime::Continuation::End::end_token;
  out.context_full = result.end == runtime::Continuation::End::context;
  out.known_tokens = result.known_tokens;
  out.prefill_seconds = result.prefill_seconds;
  out.decode_seconds = result.decode_seconds;
  if (has_cache && !is_cached)
    session.save(job.prompt_cache, cache_identity(model), static_cast<int64_t>(out.prompt_tokens.size()));
  if (out.context_full)
    log_warning("the model's context of {} tokens is full: {} of the {} tokens asked for were generated", context,
                out.tokens.size(), job.max_tokens);
  return out;
}

CorpusResult sample_corpus(const CorpusJob& job) {
  require_apart(job.output, {job.model});
  require_new_file(job.output, job.force);
  RunningModel model = load_model(job.model, job.precision, loading_with(job.threads));
  const Stopwatch watch;
  CorpusSampler sampler(model, job);
  const auto documents = sampler.run();
  AtomicFile file(job.output, Overwrite{job.force});
  int64_t ill_formed = 0;
  for (const auto& ids : documents) {
    const std::string text = model.tokenizer->decode(ids);
    ill_formed += text::count_ill_formed(text);
    file.write(dump_json(nlohmann::ordered_json{{"text", text}}) + "\n");
  }
  if (ill_formed > 0)
    log_warning("{}: {} of the model's bytes are not UTF-8 and are written as U+FFFD", job.output.string(),
                format_count(ill_formed));
  CorpusResult out{.documents = static_cast<int64_t>(documents.size()),
                   .bytes = file.position(),
                   .next_document = sampler.next_document(),
                   .temperature = job.sampling.temperature.value_or(kCorpusTemperature)};
  file.commit();
  out.seconds = watch.seconds();
  out.tokens_per_second = rate_of(job.tokens, out.seconds);
  return out;
}

}  // namespace crumb::jobs
