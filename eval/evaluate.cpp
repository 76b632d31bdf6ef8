#include "eval/evaluate.h"

#include <algorithm>
#include <cmath>

#include "core/common/hash.h"
#include "core/common/log.h"
#include "core/common/progress.h"
#include "core/text/token_cache.h"
#include "eval/logits_file.h"
#include "kernels/cpu_features.h"
#include "quant/fingerprint.h"

namespace crumb::eval {
namespace {

using text::TextDocuments;
using text::TokenStream;
using text::Window;

/// Windows are scored together up to this many tokens: short ones alone would leave the matrix products small.
constexpr int64_t kBatchTokens = 2048;

void require_window(const TokenStream& stream, int64_t context, const EvalOptions& options) {
  if (stream.size() > context || (stream.size() == context && options.protocol != PerplexityProtocol::windows)) return;
  const std::string which = options.texts.size() == 1 ? options.texts[0].string()
                                                      : fmt::format("the {} texts together", options.texts.size());
  user_error(
      "{}: {} tokens, shorter than one window ({} tokens and one to predict); give more text or a smaller context",
      which, stream.size(), context);
}

void check_logits(const EvalOptions& options) {
  for (const auto& [path, name] :
       {std::pair{options.baseline_logits, "--baseline-logits"}, std::pair{options.save_logits, "--save-logits"}}) {
    CRUMB_CHECK(path.empty() || (options.protocol == PerplexityProtocol::llamacpp && !options.texts.empty()),
                "{}: the file is of the windows of a text by --protocol llama.cpp; give both", name);
  }
  if (options.baseline_logits.empty()) return;
  CRUMB_CHECK(options.baseline.empty(), "--baseline-logits is in place of --baseline; give one of them");
  CRUMB_CHECK(options.save_logits.empty(), "--save-logits: the baseline is such a file already; give --baseline");
  CRUMB_CHECK(options.tasks.tasks.empty(), "--baseline-logits holds no answers to --tasks; give --baseline");
}

/// The windows of the file are those that are judged: its context, and as many of them.
EvalOptions with_windows_of(const LogitsFile& logits, EvalOptions options) {
  const LogitsShape& shape = logits.shape();
  const std::string name = logits.file().path().string();
  CRUMB_CHECK(options.context.value_or(shape.context) == shape.context,
              "--context: {}, but {} is of windows of {} tokens", options.context.value_or(0), name, shape.context);
  CRUMB_CHECK(options.max_windows <= shape.windows, "--max-windows: {}, but {} has {} windows", options.max_windows,
              name, shape.windows);
  options.context = shape.context;
  if (options.max_windows == 0) options.max_windows = shape.windows;
  return options;
}

Judged judged_logits(const LogitsFile& logits) {
  Judged judged;
  judged.facts.path = logits.file().path();
  judged.facts.kind = "log-probabilities of llama-perplexity";
  judged.facts.file_bytes = logits.file().size();
  judged.scorer = std::make_unique<LogitsFileScorer>(logits);
  return judged;
}

void require_windows_of(const LogitsFile& logits, std::span<const tokenizer::TokenId> ids, const EvalOptions& options,
                        int64_t windows) {
  CRUMB_CHECK(windows == options.max_windows, "{}: has {} windows, {} only {} of {} tokens",
              logits.file().path().string(), options.max_windows, options.texts.front().string(), windows,
              logits.shape().context);
  logits.require_ids(ids, options.texts.front().string());
}

void check_options(const EvalOptions& options) {
  CRUMB_CHECK(!options.texts.empty() || !options.tasks.tasks.empty(), "text: no text to judge by was given");
  if (options.protocol != PerplexityProtocol::windows) {
    const auto name = name_of(options.protocol);
    const bool is_rolling = options.protocol == PerplexityProtocol::rolling;
    CRUMB_CHECK(!is_rolling || (options.max_windows == 0 && options.stride.is_auto() && !options.bos),
                "--protocol {}: --stride, --max-windows and --bos have no meaning with it", name);
    CRUMB_CHECK(is_rolling || options.texts.size() == 1, "--protocol {}: takes one text, not {}", name,
                options.texts.size());
    CRUMB_CHECK(is_rolling || (options.separator.empty() && options.stride.is_auto() && !options.bos),
                "--protocol {}: --separator, --stride and --bos have no meaning with it", name);
  }
  CRUMB_CHECK(!options.by_document || options.protocol == PerplexityProtocol::windows ||
                  options.protocol == PerplexityProtocol::rolling,
              "--clusters documents: --protocol {} takes a text as a whole", name_of(options.protocol));
  CRUMB_CHECK(options.damage.depth == DamageDepth::none || (!options.baseline.empty() && !options.texts.empty() &&
                                                            options.protocol != PerplexityProtocol::rolling),
              "--damage needs --baseline and --text, and no --protocol rolling");
  check_logits(options);
  CRUMB_CHECK(options.max_drop.empty() || !options.baseline.empty() || !options.baseline_logits.empty(),
              "max_drop: a drop needs a baseline to compare with");
  CRUMB_CHECK(options.max_drop.empty() || !options.texts.empty(), "max_drop: {} is of texts, and none was given",
              options.max_drop.begin()->first);
}

void check_comparable(const Judged& model, const Judged& other, bool is_baseline) {
  CRUMB_CHECK(model.scorer->vocab_size() == other.scorer->vocab_size(),
              "{} has a vocabulary of {}, {}{} one of {}: their predictions cannot be compared",
              model.facts.path.string(), model.scorer->vocab_size(), is_baseline ? "the baseline " : "",
              other.facts.path.string(), other.scorer->vocab_size());
}

void check_finite(const std::vector<TokenScore>& scores, const Window& window) {
  for (size_t i = 0; i < scores.size(); ++i) {
    if (std::isfinite(scores[i].nll) && std::isfinite(scores[i].baseline_nll) && std::isfinite(scores[i].kl)) continue;
    run_error("the {} computes values that are not finite (token {} of the text); its weights are broken",
              std::isfinite(scores[i].nll) ? "baseline" : "model",
              window.begin + window.first_scored + static_cast<int64_t>(i) + 1);
  }
}

std::string fingerprint_of(const TextDocuments& text) {
  uint64_t h = text.documents.size();
  for (const auto& document : text.documents) h = hash_bytes(h, document);
  return fmt::format("{:016x}", h);
}

std::vector<TextScores> describe_texts(const std::vector<TextDocuments>& texts, const TokenStream& stream,
                                       std::vector<Scores> scores) {
  std::vector<TextScores> out;
  for (size_t i = 0; i < texts.size(); ++i) {
    out.push_back({texts[i].path, static_cast<int64_t>(texts[i].documents.size()),
                   stream.text_begin[i + 1] - stream.text_begin[i], std::move(scores[i]), fingerprint_of(texts[i])});
  }
  return out;
}

/// Enough to see what it is about.
constexpr int64_t kShownTokens = 24;

std::string text_of(const tokenizer::Tokenizer& tokenizer, std::span<const tokenizer::TokenId> ids) {
  std::string out;
  for (const auto id : ids) {
    if (id >= tokenizer.vocab_size()) continue;  // a row of padding
    out += tokenizer.is_special(id) ? tokenizer.piece(id) : tokenizer.token_bytes(id);
  }
  return out;
}

std::vector<WorstContext> worst_contexts(const std::vector<WorstToken>& worst, const TokenStream& stream,
                                         const std::vector<TextDocuments>& texts,
                                         const tokenizer::Tokenizer& tokenizer) {
  std::vector<WorstContext> out;
  for (const auto& [begin, index, score] : worst) {
    const int64_t first = std::max(begin, index - kShownTokens);
    const auto ids = std::span(stream.ids).subspan(static_cast<size_t>(first), static_cast<size_t>(index - first + 1));
    out.push_back({texts[static_cast<size_t>(stream.text_of(index))].path, index, index - begin,
                   text_of(tokenizer, ids.first(ids.size() - 1)), text_of(tokenizer, ids.last(1)),
                   text_of(tokenizer, {&score.top, 1}), text_of(tokenizer, {&score.baseline_top, 1}), score});
  }
  return out;
}

}  // namespace

bool EvalResult::exceeded() const {
  return std::any_of(checks.begin(), checks.end(), [](const DropCheck& c) { return c.exceeded(); }) ||
         (tasks && tasks->exceeded());
}

std::vector<DropCheck> check_drops(const std::map<std::string, double>& max_drop, const Scores& scores, bool by_bound) {
  std::vector<DropCheck> checks;
  for (const auto& [name, limit] : max_drop) {
    const Measure* measure = scores.find(name);
    if (measure == nullptr || !measure->drop) continue;
    CRUMB_CHECK(!by_bound || measure->drop_bound,
                "--judge-by bound: {} has no bound: all that was scored is one window or document; give more text",
                name);
    checks.push_back({name, by_bound ? *measure->drop_bound : *measure->drop, limit, by_bound});
  }
  return checks;
}

WindowSize resolve_window_size(const EvalOptions& options, const std::vector<std::pair<std::string, int64_t>>& declared,
                               const std::string& key) {
  int64_t context = options.context.value_or(usual_context(options.protocol));
  for (const auto& [name, length] : declared) {
    CRUMB_CHECK(options.context.is_auto() || context <= length,
                "{}context: {} is longer than the {} that {} was made for", key, context, length, name);
    context = std::min(context, length);
  }
  const int64_t stride = options.stride.value_or(context);
  CRUMB_CHECK(stride <= context, "{}stride: {} is longer than the context ({}): tokens between windows would not count",
              key, stride, context);
  return {context, stride};
}

namespace {

/// Of the document that holds a token; without documents the end of the stream.
int64_t end_of_document(std::span<const RollingDocument> documents, int64_t token, const TokenStream& stream) {
  const auto next = std::ranges::upper_bound(documents, token, {}, &RollingDocument::begin);
  return next == documents.begin() ? stream.size() : std::prev(next)->end;
}

}  // namespace

namespace {

/// Of all models, their windows and tokens.
nlohmann::json record_of(const std::vector<RequestScores>& scores) {
  auto record = nlohmann::json::array();
  for (const auto& of_model : scores) {
    auto& windows = record.emplace_back(nlohmann::json::array());
    for (const auto& window : of_model) {
      auto& tokens = windows.emplace_back(nlohmann::json::array());
      for (const TokenScore& t : window)
        tokens.push_back({t.nll, t.is_top, t.top, t.baseline_nll, t.kl, t.same_top, t.shared_top5, t.baseline_top});
    }
  }
  return record;
}

std::vector<RequestScores> scores_of(const nlohmann::json& record) {
  std::vector<RequestScores> scores;
  for (const auto& of_model : record) {
    auto& windows = scores.emplace_back();
    for (const auto& window : of_model) {
      auto& tokens = windows.emplace_back();
      for (const auto& t : window)
        tokens.push_back({.nll = t.at(0).get<double>(),
                          .is_top = t.at(1).get<bool>(),
                          .baseline_nll = t.at(3).get<double>(),
                          .kl = t.at(4).get<double>(),
                          .same_top = t.at(5).get<bool>(),
                          .shared_top5 = t.at(6).get<double>(),
                          .top = t.at(2).get<tokenizer::TokenId>(),
                          .baseline_top = t.at(7).get<tokenizer::TokenId>()});
    }
  }
  return scores;
}

/// Those that an earlier run has found for these requests.
std::vector<RequestScores> known_scores(const nlohmann::json& record, const Journal& journal, size_t models,
                                        const std::vector<ScoreRequest>& requests) {
  std::vector<RequestScores> scores;
  try {
    scores = scores_of(record.at("scores"));
  } catch (const nlohmann::json::exception&) {
    journal.refuse_record();
  }
  if (scores.size() != models) journal.refuse_record();
  for (const auto& of_model : scores) {
    if (of_model.size() != requests.size()) journal.refuse_record();
    for (size_t i = 0; i < requests.size(); ++i)
      if (of_model[i].size() != requests[i].continuation.size()) journal.refuse_record();
  }
  return scores;
}

}  // namespace

std::vector<StreamScores> score_stream(std::span<Scorer* const> models, Scorer* baseline, const TokenStream& stream,
                                       const std::vector<Window>& windows, int64_t context,
                                       const ParallelFor& parallel_for, std::span<const int32_t> token_bytes,
                                       std::span<const RollingDocument> documents, bool by_document,
                                       const BootstrapOptions& bootstrap, Journal* journal) {
  const std::span<const int64_t> clusters = by_document ? std::span(stream.document_begin) : std::span<const int64_t>();
  std::vector<ModelSums> sums(
      models.size(), ModelSums(static_cast<size_t>(stream.num_texts()), baseline != nullptr, clusters, bootstrap));
  Progress progress("eval", static_cast<int64_t>(windows.size()) * context, "tokens");
  const std::span ids(stream.ids);
  auto document = documents.begin();  // the one that begins next
  const auto batch = static_cast<size_t>(std::max<int64_t>(1, kBatchTokens / context));
  for (size_t first = 0; first < windows.size(); first += batch) {
    const auto some = std::span(windows).subspan(first, std::min(batch, windows.size() - first));
    std::vector<ScoreRequest> requests;
    for (const Window& window : some) {
      const int64_t length = std::min(context + 1, end_of_document(documents, window.begin, stream) - window.begin);
      const auto tokens = ids.subspan(static_cast<size_t>(window.begin), static_cast<size_t>(length));
      const auto given = static_cast<size_t>(window.first_scored + 1);
      requests.push_back({tokens.first(given), tokens.subspan(given)});
    }
    const auto record = journal != nullptr ? journal->next("window", some.front().begin) : std::nullopt;
    const auto scores = record ? known_scores(*record, *journal, models.size(), requests)
                               : score_requests(models, baseline, requests, parallel_for);
    for (size_t w = 0; w < some.size(); ++w) {
      if (document != documents.end() && document->begin == some[w].begin) {
        for (auto& of_model : sums)
          of_model.begin_document(static_cast<size_t>(stream.text_of(document->begin)), document->bytes,
                                  document->words);
        ++document;
      }
      for (size_t m = 0; m < models.size(); ++m) {
        check_finite(scores[m][w], some[w]);
        sums[m].add(scores[m][w], some[w], stream, token_bytes);
      }
    }
    if (journal != nullptr && !record) journal->append({{"window", some.front().begin}, {"scores", record_of(scores)}});
    progress.add(std::ssize(some) * context);
  }
  progress.finish();
  std::vector<StreamScores> out;
  for (const auto& of_model : sums) out.push_back(of_model.summary());
  return out;
}

namespace {

/// Special tokens stand for no text.
std::vector<int32_t> bytes_of_tokens(const tokenizer::Tokenizer& tokenizer, int64_t vocab) {
  std::vector<int32_t> bytes(static_cast<size_t>(vocab), 0);
  for (int64_t id = 0; id < std::min(vocab, tokenizer.vocab_size()); ++id) {
    const auto token = static_cast<tokenizer::TokenId>(id);
    if (!tokenizer.is_special(token))
      bytes[static_cast<size_t>(id)] = static_cast<int32_t>(tokenizer.token_bytes(token).size());
  }
  return bytes;
}

/// Texts: protocol, texts, pooled and checks of one result a model.
void judge_texts(const EvalOptions& options, const std::vector<TextDocuments>& texts, const std::vector<Judged>& all,
                 const LogitsFile* logits, std::vector<EvalResult>& results, const std::shared_ptr<ThreadPool>& pool,
                 Journal* journal) {
  const ParallelFor parallel_for = pool->as_parallel_for();
  const bool has_baseline = all.size() > results.size();
  for (const auto& judged : all) check_comparable(judged, all.back(), has_baseline);
  Protocol protocol;
  protocol.kind = options.protocol;
  protocol.separator = options.separator;
  if (!options.precision.is_exact()) protocol.compute += ", " + runtime::to_text(options.precision);
  std::vector<std::pair<std::string, int64_t>> declared;
  for (const auto& judged : all) declared.emplace_back(judged.facts.path.string(), judged.scorer->context_length());
  const WindowSize size = resolve_window_size(options, declared);
  protocol.context = size.context;
  protocol.stride = size.stride;
  const bool is_plain = options.protocol == PerplexityProtocol::windows;
  const bool is_rolling = options.protocol == PerplexityProtocol::rolling;
  const auto stream_of = [&](const Judged& judged) {
    if (is_rolling) return rolling_stream(*judged.tokenizer, texts);
    RollingStream stream;
    stream.stream = is_plain ? text::make_token_stream(*judged.tokenizer, texts, options.bos, parallel_for)
                             : protocol_stream(options.protocol, *judged.tokenizer, options.texts.front());
    return stream;
  };
  const Judged& first = all.front();
  RollingStream rolling = stream_of(first);
  TokenStream& stream = rolling.stream;
  for (size_t i = 1; i < all.size(); ++i) {
    if (all[i].tokenizer != nullptr) text::require_equal_streams(stream, stream_of(all[i]).stream, texts);
  }
  if (!is_rolling) require_window(stream, protocol.context, options);
  const bool has_logits = logits != nullptr || !options.save_logits.empty();
  std::vector<tokenizer::TokenId> ids;  // of a file of logits: before windows begin with BOS
  if (has_logits) ids = stream.ids;
  const auto windows =
      is_rolling ? rolling_windows(rolling.documents, protocol.context)
      : is_plain ? text::plan_windows(stream.size(), protocol.context, protocol.stride, options.max_windows)
                 : protocol_windows(options.protocol, *first.tokenizer, protocol.context, options.max_windows, stream);
  const LogitsShape shape{protocol.context, first.scorer->vocab_size(), std::ssize(windows)};
  if (has_logits) ids.resize(static_cast<size_t>(shape.windows * shape.context));
  if (logits != nullptr) require_windows_of(*logits, ids, options, shape.windows);
  std::vector<Scorer*> scorers;
  for (size_t i = 0; i < results.size(); ++i) scorers.push_back(all[i].scorer.get());
  Scorer* baseline = has_baseline ? all.back().scorer.get() : nullptr;
  std::optional<SavingScorer> saver;
  if (!options.save_logits.empty()) {
    Scorer*& saved = has_baseline ? baseline : scorers.front();
    saver.emplace(*saved, options.save_logits, options.overwrite_logits, shape, ids);
    saved = &*saver;
  }
  auto scores =
      score_stream(scorers, baseline, stream, windows, is_plain || is_rolling ? protocol.context : protocol.context - 1,
                   parallel_for, is_rolling ? std::vector<int32_t>() : bytes_of_tokens(*first.tokenizer, shape.vocab),
                   rolling.documents, options.by_document, options.bootstrap, journal);

  if (saver) saver->commit();

  protocol.windows = static_cast<int64_t>(windows.size());
  protocol.windows_in_text = is_rolling ? protocol.windows
                             : is_plain ? text::count_windows(stream.size(), protocol.context, protocol.stride)
                                        : stream.size() / protocol.context;
  protocol.scored_tokens = scores.front().pooled.tokens;
  protocol.text_tokens = stream.size();
  protocol.by_document = options.by_document || is_rolling;
  protocol.bootstrap = options.bootstrap.resamples;
  protocol.seed = options.bootstrap.seed;
  protocol.bos = stream.has_bos;
  protocol.eos = stream.has_eos;
  for (size_t i = 0; i < results.size(); ++i) {
    EvalResult& result = results[i];
    result.protocol = protocol;
    result.texts = describe_texts(texts, stream, std::move(scores[i].texts));
    result.pooled = std::move(scores[i].pooled);
    result.positions = std::move(scores[i].positions);
    result.worst = worst_contexts(scores[i].worst, stream, texts, *first.tokenizer);
    result.checks = check_drops(options.max_drop, result.pooled, options.judge_bound);  // before what takes long
    if (options.damage.depth != DamageDepth::none) {
      const int64_t context = is_plain ? protocol.context : protocol.context - 1;
      DamageText looked_at{stream, {}, context, *first.tokenizer};
      for (const int64_t w : text::spread_evenly(std::ssize(windows), options.damage.windows, text::Spread::ends))
        looked_at.windows.push_back(windows[static_cast<size_t>(w)]);
      const auto model = quant::open_checkpoint(all[i].facts.path, *pool),
                 baseline = quant::open_checkpoint(all.back().facts.path, *pool);
      result.damage = map_damage(options.damage, *model, *baseline, looked_at, pool);
    }
  }
}

void judge_tasks(const EvalOptions& options, const std::vector<Judged>& all, std::vector<EvalResult>& results,
                 const ParallelFor& parallel_for, Journal* journal) {
  std::vector<const Judged*> models;
  for (size_t i = 0; i < results.size(); ++i) models.push_back(&all[i]);
  const Judged* baseline = all.size() > results.size() ? &all.back() : nullptr;
  auto scores = run_tasks(options.tasks, models, baseline, parallel_for, journal);
  for (size_t i = 0; i < results.size(); ++i) results[i].tasks = std::move(scores[i]);
}

}  // namespace

namespace {

/// All that the scores depend on. Not the number of threads: a token's row does not depend on it.
nlohmann::json facts_of(const EvalOptions& options, const std::vector<Path>& models) {
  nlohmann::json facts = options.tasks.tasks.empty() ? nlohmann::json::object() : facts_of(options.tasks);
  const auto add = [&](const std::string& name, const Path& path) {
    if (path.empty()) return;
    facts[name] = {path.string(), quant::weights_fingerprint(path), quant::config_fingerprint(path),
                   fmt::format("{:016x}", text::tokenizer_identity(path))};
    const Path chat = path / "chat_template.jinja";
    if (is_file(chat)) facts[name].push_back(fmt::format("{:016x}", hash_file(0, chat)));
  };
  for (size_t i = 0; i < models.size(); ++i) add(fmt::format("model {}", i + 1), models[i]);
  add("the baseline", options.baseline);
  const auto hash = [](const Path& path) { return fmt::format("{:016x}", hash_file(0, path)); };
  if (!options.baseline_logits.empty()) facts["--baseline-logits"] = hash(options.baseline_logits);
  auto files = nlohmann::json::array();  // in their order: a window is known by its place in all of them
  for (const auto& path : options.texts) files.push_back({path.string(), hash(path)});
  facts["files of text"] = std::move(files);
  facts["precision"] = runtime::to_text(options.precision);
  facts["instruction set"] = kernels::isa_name(kernels::best_isa());
  facts["texts"] = {{"context", options.context.value_or(0)}, {"stride", options.stride.value_or(0)},
                    {"separator", options.separator},         {"bos", options.bos},
                    {"max_windows", options.max_windows},     {"protocol", static_cast<int>(options.protocol)},
                    {"baseline", !options.baseline.empty()}};
  return facts;
}

void report_known(const Journal* journal) {
  if (journal != nullptr && journal->known() > 0)
    log_info("{}: {} records of an earlier run were used", journal->path().string(), journal->known());
}

}  // namespace

std::vector<EvalResult> evaluate_all(const EvalOptions& given, const std::vector<Path>& models) {
  const Stopwatch watch;
  check_options(given);
  CRUMB_ASSERT(!models.empty());
  CRUMB_CHECK(given.save_logits.empty() || !given.baseline.empty() || models.size() == 1,
              "--save-logits: of which of the {} models? Give --baseline, or one model", models.size());
  std::optional<LogitsFile> logits;
  if (!given.baseline_logits.empty()) logits.emplace(given.baseline_logits);
  const EvalOptions options = logits ? with_windows_of(*logits, given) : given;
  std::vector<TextDocuments> texts;
  for (const auto& path : options.texts) texts.push_back(text::read_documents(path, options.separator));
  check_tasks(options.tasks, !options.baseline.empty());
  CRUMB_CHECK(options.resume.empty() || options.save_logits.empty(),
              "--resume: the file of --save-logits is written at once; give one of them");
  std::optional<Journal> kept;
  if (!options.resume.empty()) kept.emplace(options.resume, facts_of(options, models));
  Journal* const journal = kept ? &*kept : nullptr;
  const auto pool = std::make_shared<ThreadPool>(static_cast<int>(options.threads));
  std::vector<Judged> all;  // the models, then the baseline
  for (const auto& path : models) all.push_back(load_judged(path, options.precision, pool));
  if (!options.baseline.empty()) all.push_back(load_judged(options.baseline, {}, pool));
  if (logits) all.push_back(judged_logits(*logits));

  std::vector<EvalResult> results;
  for (size_t i = 0; i < models.size(); ++i) {
    EvalResult& result = results.emplace_back();
    result.model = all[i].facts;
    if (all.size() > models.size()) result.baseline = all.back().facts;
  }
  if (!texts.empty()) judge_texts(options, texts, all, logits ? &*logits : nullptr, results, pool, journal);
  if (!options.tasks.tasks.empty()) judge_tasks(options, all, results, pool->as_parallel_for(), journal);
  report_known(journal);
  for (auto& result : results) result.seconds = watch.seconds();
  return results;
}

EvalResult evaluate(const EvalOptions& options) { return evaluate_all(options, {options.model}).front(); }

}  // namespace crumb::eval
