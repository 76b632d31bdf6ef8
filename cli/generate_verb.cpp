// crumb generate: continues a prompt, or samples a whole corpus of documents from the model itself.
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "cli/draft_options.h"
#include "cli/print_now.h"
#include "cli/sampling_options.h"
#include "cli/verbs.h"
#include "core/common/error.h"
#include "core/common/json.h"
#include "core/common/log.h"
#include "core/common/progress.h"
#include "core/common/quantity.h"
#include "jobs/generate.h"

namespace crumb::cli {
namespace {

using Json = nlohmann::ordered_json;

struct Arguments {
  std::string model, prompt, prompt_cache, weight_cache, corpus, out;
  DraftArguments draft;
  PrecisionNames precision;
  int64_t max_tokens = 128, batch = 64, skip_documents = 0;
  jobs::SamplingChoice sampling;
  std::vector<std::string> stops;
  bool verbose = false;
};

int run_prompt(const Arguments& arguments, const Globals& globals) {
  const jobs::PromptJob job{.model = arguments.model,
                            .prompt = arguments.prompt,
                            .max_tokens = arguments.max_tokens,
                            .sampling = arguments.sampling,
                            .stops = arguments.stops,
                            .prompt_cache = arguments.prompt_cache,
                            .weight_cache = arguments.weight_cache,
                            .precision = arguments.precision.precision(),
                            .draft = arguments.draft.choice(),
                            .reports_draft = arguments.verbose || globals.json,
                            .threads = globals.threads};
  const auto result = jobs::continue_prompt(job, [&globals](const std::string& piece) {
    if (!globals.json) print_now(piece);
  });
  if (globals.json) {
    print_now(dump_json(Json{{"prompt", arguments.prompt},
                             {"prompt_tokens", result.prompt_tokens},
                             {"text", result.text},
                             {"tokens", result.tokens},
                             {"stopped", result.stopped},
                             {"finish_reason", result.finish_reason()},
                             {"stop_text", result.stop ? Json(*result.stop) : Json()},
                             {"seed", arguments.sampling.seed},
                             {"seconds", result.seconds},
                             {"tokens_per_second", result.tokens_per_second()},
                             {"known_tokens", result.known_tokens},
                             {"load_seconds", result.load_seconds},
                             {"prefill_seconds", result.prefill_seconds},
                             {"decode_seconds", result.decode_seconds},
                             {"draft", result.draft ? as_json(*result.draft) : Json()}},
                        2) +
              "\n");
    return kExitOk;
  }
  print_now("\n");
  if (arguments.verbose) {
    for (const auto& line : result.held) log_info("{}", line);
    const auto size = static_cast<int64_t>(result.prompt_tokens.size());
    log_info(
        "loaded in {:.2f} s; prompt: {} tokens, {} of them new, in {:.3f} s ({:.1f} tokens/s); then {:.1f} tokens/s",
        result.load_seconds, size, size - result.known_tokens, result.prefill_seconds, result.prefill_rate(),
        result.decode_rate());
    if (!arguments.draft.model.empty()) log_info("{} of weights are in both models", format_bytes(result.shared_bytes));
    if (result.draft) print_draft(*result.draft);
  }
  log_info("{} tokens in {} ({:.1f} tokens/s){}", format_count(static_cast<int64_t>(result.tokens.size())),
           format_duration(result.seconds), result.tokens_per_second(), result.stopped ? ", ended by the model" : "");
  return kExitOk;
}

int run_corpus(const Arguments& arguments, const Globals& globals) {
  const auto budget = parse_count(arguments.corpus);
  CRUMB_CHECK(budget && *budget > 0, "--corpus: \"{}\" is not a number of tokens, such as 256k", arguments.corpus);
  CRUMB_CHECK(!arguments.out.empty(), "--corpus: --out FILE.jsonl must be given");
  const auto result = jobs::sample_corpus({.model = arguments.model,
                                           .output = arguments.out,
                                           .tokens = *budget,
                                           .sampling = arguments.sampling,
                                           .skip_documents = arguments.skip_documents,
                                           .batch = arguments.batch,
                                           .precision = arguments.precision.precision(),
                                           .threads = globals.threads,
                                           .force = globals.force});
  if (globals.json) {
    print_now(dump_json(Json{{"out", arguments.out},
                             {"documents", result.documents},
                             {"tokens", *budget},
                             {"bytes", result.bytes},
                             {"seed", arguments.sampling.seed},
                             {"first_document", arguments.skip_documents},
                             {"next_document", result.next_document},
                             {"temperature", result.temperature},
                             {"seconds", result.seconds},
                             {"tokens_per_second", result.tokens_per_second}},
                        2) +
              "\n");
  } else {
    print_now(fmt::format("{}: {} documents, {} tokens, {}, sampled in {} ({:.0f} tokens/s) with seed {}\n",
                          arguments.out, format_count(result.documents), format_count(*budget),
                          format_bytes(result.bytes), format_duration(result.seconds), result.tokens_per_second,
                          arguments.sampling.seed));
  }
  return kExitOk;
}

}  // namespace

Verb add_generate(CLI::App& program, const Globals& globals) {
  auto* app = program.add_subcommand("generate", "Continue a prompt, or sample a corpus from the model itself");
  const auto a = std::make_shared<Arguments>();
  app->add_option("MODEL", a->model, "HF folder, codes-and-scales folder or GGUF")->required();
  auto* prompt = app->add_option("--prompt", a->prompt, "text to continue; \"\" starts a document");
  add_whole(*app, "--max-tokens", a->max_tokens, "tokens to add to the prompt at most", {.least = 1})->needs(prompt);
  add_sampling(*app, a->sampling, "0: the likeliest token; default: 0 with --prompt, 1 with --corpus");
  add_stops(*app, a->stops)->needs(prompt);
  add_file(*app, "--prompt-cache", a->prompt_cache,
           "file that holds what was computed of a prompt: read where it is there, and written")
      ->needs(prompt);
  add_file(*app, "--weight-cache", a->weight_cache, kWeightCacheHelp)->needs(prompt);
  add_draft(*app, a->draft,
            "a faster model with the same vocabulary that drafts tokens for MODEL to verify: the same "
            "text, or samples of the same distribution, sooner")
      ->needs(prompt);
  app->add_flag("--verbose", a->verbose, "print what loading, the prompt and the new tokens took")->needs(prompt);
  auto* corpus = app->add_option("--corpus", a->corpus,
                                 "sample documents from nothing until there are so many tokens, such as 256k")
                     ->excludes(prompt);
  app->add_option("-o,--out", a->out, "the corpus: JSON lines {\"text\": ...}")->needs(corpus);
  add_whole(*app, "--skip-documents", a->skip_documents, "leave out the first documents of this seed")->needs(corpus);
  add_whole(*app, "--batch", a->batch, "documents decoded at once", {.least = 1})->needs(corpus);
  add_precision(*app, a->precision);
  add_device(*app, a->precision.device);
  return {app, [=, &globals] {
            CRUMB_CHECK(prompt->count() + corpus->count() > 0, "generate: give --prompt TEXT or --corpus TOKENS");
            return corpus->count() > 0 ? run_corpus(*a, globals) : run_prompt(*a, globals);
          }};
}

}  // namespace crumb::cli
