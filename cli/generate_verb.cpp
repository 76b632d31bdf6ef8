// crumb generate: continues a prompt, or samples a whole corpus of documents from the model itself.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "cli/numbers.h"
#include "cli/verbs.h"
#include "core/common/error.h"
#include "core/common/file.h"
#include "core/common/json.h"
#include "core/common/log.h"
#include "core/common/progress.h"
#include "core/common/quantity.h"
#include "core/tokenizer/text_file.h"
#include "runtime/generate.h"

namespace crumb::cli {
namespace {

using Json = nlohmann::ordered_json;
using tokenizer::TokenId;

constexpr double kMostDocumentsARound = 65536;  // a budget beyond all memory is begun, too

struct Arguments {
  std::string model, prompt, corpus, out;
  int64_t max_tokens = 128, top_k = 0, batch = 64, skip_documents = 0;
  std::optional<double> temperature;
  double top_p = 1.0;
  uint64_t seed = 0;
};

// A model ready to generate.
struct Model {
  std::unique_ptr<quant::Checkpoint> checkpoint;
  std::unique_ptr<tokenizer::Tokenizer> tokenizer;
  std::unique_ptr<runtime::Decoder> decoder;
};

Model load(const Arguments& arguments, const Globals& globals) {
  Model model;
  model.checkpoint = quant::open_checkpoint(arguments.model);
  model.tokenizer = model.checkpoint->load_tokenizer();
  quant::check_vocabulary(*model.checkpoint, *model.tokenizer);
  model.decoder =
      runtime::load_decoder(*model.checkpoint, std::make_shared<ThreadPool>(static_cast<int>(globals.threads)));
  return model;
}

// What ends a document: every end token of the tokenizer, and BOS, with which some models separate documents.
std::vector<TokenId> end_tokens(const Model& model) {
  const auto& special = model.tokenizer->special();
  std::set<TokenId> ends(special.end.begin(), special.end.end());
  if (special.eos) ends.insert(*special.eos);
  if (special.bos) ends.insert(*special.bos);
  return {ends.begin(), ends.end()};
}

// What stands before the first token of a document.
TokenId start_token(const Model& model) {
  const auto& special = model.tokenizer->special();
  CRUMB_CHECK(special.bos || special.eos,
              "{}: its tokenizer has neither BOS nor EOS, so there is no token to start a document from",
              model.checkpoint->path().string());
  return special.bos ? *special.bos : *special.eos;
}

runtime::SamplingOptions sampling(const Arguments& a, const Model& model, double default_temperature) {
  return {.temperature = a.temperature.value_or(default_temperature),
          .top_p = a.top_p,
          .top_k = a.top_k,
          .seed = a.seed,
          .vocab_size = model.tokenizer->vocab_size()};
}

void print_now(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

// Why generation ended: an end token, --max-tokens, or the context.
const char* finish_reason(const runtime::GenerateResult& result) {
  return result.stopped ? "stop" : result.context_full ? "context" : "length";
}

int run_prompt(const Arguments& arguments, const Globals& globals) {
  const Model model = load(arguments, globals);
  std::vector<TokenId> prompt = model.tokenizer->encode(tokenizer::checked_text(arguments.prompt, "--prompt"), true);
  if (prompt.empty()) prompt.push_back(start_token(model));
  const int64_t context = model.decoder->spec().context_length;
  CRUMB_CHECK(static_cast<int64_t>(prompt.size()) < context,
              "--prompt: {} tokens, the model holds {}; give a shorter prompt", prompt.size(), context);

  // The prompt goes through the decoder of the stream as well, so that what follows is printed as the middle of a text.
  tokenizer::StreamingDecoder stream(*model.tokenizer);
  std::string text;
  const auto show = [&](const std::string& piece) {
    if (!globals.json) print_now(piece);
  };
  for (const TokenId id : prompt) show(stream.push(id));
  const Stopwatch watch;
  const auto results =
      runtime::generate(*model.decoder, {{prompt, arguments.max_tokens, 0}}, sampling(arguments, model, 0.0),
                        end_tokens(model), 1, [&](int64_t, TokenId token) {
                          const std::string piece = stream.push(token);
                          text += piece;
                          show(piece);
                        });
  const double seconds = watch.seconds();
  const std::string rest = stream.finish();
  text += rest;
  show(rest + "\n");
  const auto& result = results.at(0);
  if (result.context_full)
    log_warning("the model's context of {} tokens is full: {} of the {} tokens asked for were generated", context,
                result.tokens.size(), arguments.max_tokens);
  const double rate = static_cast<double>(result.tokens.size()) / std::max(seconds, 1e-9);
  if (globals.json) {
    print_now(dump_json(Json{{"prompt", arguments.prompt},
                             {"prompt_tokens", prompt},
                             {"text", text},
                             {"tokens", result.tokens},
                             {"stopped", result.stopped},
                             {"finish_reason", finish_reason(result)},
                             {"seed", arguments.seed},
                             {"seconds", seconds},
                             {"tokens_per_second", rate}},
                        2) +
              "\n");
  } else {
    log_info("{} tokens in {} ({:.1f} tokens/s){}", format_count(static_cast<int64_t>(result.tokens.size())),
             format_duration(seconds), rate, result.stopped ? ", ended by the model" : "");
  }
  return kExitOk;
}

// Documents sampled from the model, in order of their number, until a budget of tokens is met exactly: the last one is
// cut. Document n is drawn with random stream n.
class CorpusSampler {
 public:
  CorpusSampler(Model& model, const Arguments& arguments, int64_t budget)
      : model_(model),
        arguments_(arguments),
        budget_(budget),
        next_(arguments.skip_documents),
        start_(start_token(model)),
        ends_(end_tokens(model)),
        progress_("sampling", budget, "tokens") {}

  std::vector<std::vector<TokenId>> run() {
    while (have_ < budget_) add_round();
    progress_.finish(fmt::format("{} documents", format_count(static_cast<int64_t>(documents_.size()))));
    return std::move(documents_);
  }
  int64_t next_document() const { return next_; }

 private:
  // As many documents as are still missing by the mean length so far. The first round takes all to be as long as the
  // context: it can only bring too few, so nothing is sampled in vain.
  void add_round() {
    const int64_t left = budget_ - have_, context = model_.decoder->spec().context_length;
    const int64_t seen = next_ - arguments_.skip_documents;
    const double mean = seen == 0 ? static_cast<double>(context)
                                  : std::max(1.0, static_cast<double>(have_) / static_cast<double>(seen));
    const double missing = std::min(std::ceil(static_cast<double>(left) / mean), kMostDocumentsARound);
    std::vector<runtime::GenerateRequest> requests(static_cast<size_t>(missing));
    for (size_t i = 0; i < requests.size(); ++i)
      requests[i] = {{start_}, std::min(context, left), static_cast<uint64_t>(next_) + i};
    int64_t sampled = have_;
    const auto results =
        runtime::generate(*model_.decoder, requests, sampling(arguments_, model_, 1.0), ends_, arguments_.batch,
                          [&](int64_t, TokenId) { progress_.update(std::min(budget_, ++sampled)); });
    for (const auto& result : results) add(result.tokens);
  }

  void add(std::vector<TokenId> tokens) {
    if (have_ == budget_) return;
    ++next_;
    empty_in_a_row_ = tokens.empty() ? empty_in_a_row_ + 1 : 0;
    if (empty_in_a_row_ >= 1000)
      run_error("{}: the model ends every document at once; nothing to sample", arguments_.model);
    if (tokens.empty()) return;
    tokens.resize(std::min(tokens.size(), static_cast<size_t>(budget_ - have_)));
    have_ += static_cast<int64_t>(tokens.size());
    documents_.push_back(std::move(tokens));
  }

  Model& model_;
  const Arguments& arguments_;
  int64_t budget_, have_ = 0, next_, empty_in_a_row_ = 0;
  TokenId start_;
  std::vector<TokenId> ends_;
  Progress progress_;
  std::vector<std::vector<TokenId>> documents_;
};

int run_corpus(const Arguments& arguments, const Globals& globals) {
  const auto budget = parse_count(arguments.corpus);
  CRUMB_CHECK(budget && *budget > 0, "--corpus: \"{}\" is not a number of tokens, such as 256k", arguments.corpus);
  CRUMB_CHECK(!arguments.out.empty(), "--corpus: --out FILE.jsonl must be given");
  require_apart(arguments.out, {arguments.model});
  require_new_file(arguments.out, globals.force);
  Model model = load(arguments, globals);
  const Stopwatch watch;
  CorpusSampler sampler(model, arguments, *budget);
  const auto documents = sampler.run();
  AtomicFile file(arguments.out, Overwrite{globals.force});
  int64_t ill_formed = 0;
  for (const auto& ids : documents) {
    const std::string text = model.tokenizer->decode(ids);
    ill_formed += tokenizer::count_ill_formed(text);
    file.write(dump_json(Json{{"text", text}}) + "\n");
  }
  if (ill_formed > 0)
    log_warning("{}: {} of the model's bytes are not UTF-8 and are written as U+FFFD", arguments.out,
                format_count(ill_formed));
  const int64_t bytes = file.position();
  file.commit();
  const double seconds = watch.seconds(), rate = static_cast<double>(*budget) / std::max(seconds, 1e-9);
  if (globals.json) {
    print_now(dump_json(Json{{"out", arguments.out},
                             {"documents", documents.size()},
                             {"tokens", *budget},
                             {"bytes", bytes},
                             {"seed", arguments.seed},
                             {"first_document", arguments.skip_documents},
                             {"next_document", sampler.next_document()},
                             {"temperature", arguments.temperature.value_or(1.0)},
                             {"seconds", seconds},
                             {"tokens_per_second", rate}},
                        2) +
              "\n");
  } else {
    print_now(fmt::format("{}: {} documents, {} tokens, {}, sampled in {} ({:.0f} tokens/s) with seed {}\n",
                          arguments.out, format_count(static_cast<int64_t>(documents.size())), format_count(*budget),
                          format_bytes(bytes), format_duration(seconds), rate, arguments.seed));
  }
  return kExitOk;
}

}  // namespace

Verb add_generate(CLI::App& program, const Globals& globals) {
  auto* app = program.add_subcommand("generate", "Continue a prompt, or sample a corpus from the model itself");
  const auto a = std::make_shared<Arguments>();
  app->add_option("MODEL", a->model, "HF folder, codes-and-scales folder or GGUF")->required();
  auto* prompt = app->add_option("--prompt", a->prompt, "text to continue; \"\" starts a document");
  add_whole(*app, "--max-tokens", a->max_tokens, "tokens to add to the prompt at most; default 128", {.least = 1})
      ->needs(prompt);
  add_number(*app, "--temperature", a->temperature,
             "0: the likeliest token; default: 0 with --prompt, 1 with --corpus");
  add_number(*app, "--top-p", a->top_p, "sample from the smallest set of tokens with this probability", {.most = 1});
  add_whole(*app, "--top-k", a->top_k, "sample from the so many likeliest tokens; 0: all");
  add_seed(*app, a->seed, "seed of the samples");
  auto* corpus = app->add_option("--corpus", a->corpus,
                                 "sample documents from nothing until there are so many tokens, such as 256k")
                     ->excludes(prompt);
  app->add_option("-o,--out", a->out, "the corpus: JSON lines {\"text\": ...}")->needs(corpus);
  add_whole(*app, "--skip-documents", a->skip_documents, "leave out the first documents of this seed")->needs(corpus);
  add_whole(*app, "--batch", a->batch, "documents decoded at once", {.least = 1})->needs(corpus);
  return {app, [=, &globals] {
            CRUMB_CHECK(prompt->count() + corpus->count() > 0, "generate: give --prompt TEXT or --corpus TOKENS");
            return corpus->count() > 0 ? run_corpus(*a, globals) : run_prompt(*a, globals);
          }};
}

}  // namespace crumb::cli
