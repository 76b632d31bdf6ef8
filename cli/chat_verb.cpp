// crumb chat: a conversation in the terminal; without a terminal, a message a line.
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "cli/draft_options.h"
#include "cli/line_reader.h"
#include "cli/named_model.h"
#include "cli/print_now.h"
#include "cli/sampling_options.h"
#include "cli/verbs.h"
#include "core/common/error.h"
#include "core/common/json.h"
#include "core/common/log.h"
#include "core/common/quantity.h"
#include "jobs/chat.h"

namespace crumb::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kHelp =
    "/reset       begin a new conversation\n"
    "/model NAME  another of the models given goes on with the conversation\n"
    "/save FILE   write the conversation as a line of JSON {\"messages\": [...]}\n"
    "/help        this\n"
    "A line that ends with \\ goes on in the next one. Ctrl-C stops the answer, Ctrl-D ends.\n";

class Conversation {
 public:
  Conversation(const jobs::ChatJob& job, const Globals& globals, bool is_verbose)
      : chat_(job),
        globals_(globals),
        is_verbose_(is_verbose),
        has_several_(job.models.size() > 1),
        has_terminal_(isatty(STDIN_FILENO) != 0 && isatty(STDOUT_FILENO) != 0 && !globals.json) {
    if (is_verbose_) {
      log_info("loaded in {:.2f} s", chat_.load_seconds());
      for (const auto& line : chat_.held()) log_info("{}", line);
      if (const auto bytes = chat_.shared_bytes())
        log_info("{} of weights are in several models", format_bytes(*bytes));
    }
    if (has_terminal_) print_now(kHelp);
  }

  void run() {
    std::string message;
    while (next_message(message)) {
      if (message.empty()) continue;
      try {
        if (message.starts_with('/'))
          obey(message);
        else
          answer(message);
      } catch (const Error& error) {  // a text too long, no memory for it: the conversation stays
        if (!has_terminal_) throw;
        print_error(error.messages());
      }
    }
    if (has_terminal_) print_now("\n");
    chat_.save_cache();
  }

 private:
  /// Lines up to one that does not end with a backslash. False at the end of the input.
  bool next_message(std::string& message) {
    message.clear();
    for (std::string line; true;) {
      prompt(message.empty() ? "> " : ". ");
      const auto end = reader_.read(line);
      if (end == LineReader::End::input) return !message.empty();
      if (end == LineReader::End::interrupt) {
        if (!has_terminal_) interrupts_.act_as_before();
        interrupts_.flag() = false;
        message.clear();
        print_now("\n");
        continue;
      }
      const bool goes_on = line.ends_with('\\');
      if (goes_on) line.back() = '\n';
      message += line;
      if (!goes_on) return true;
    }
  }

  void prompt(const char* text) {
    if (has_terminal_) print_now(text);
  }

  void obey(const std::string& command) {
    if (command == "/help") return print_now(kHelp);
    if (command == "/reset") return chat_.reset();
    if (command.starts_with("/model ")) {
      chat_.choose(command.substr(7));
      return log_info("{} answers", chat_.chosen());
    }
    if (command.starts_with("/save ")) {
      const std::string path = command.substr(6);
      chat_.save(path, globals_.force);
      return log_info("{}: {} messages", path, chat_.messages().size());
    }
    CRUMB_CHECK(command != "/model" && command != "/save", "{} needs {} behind it", command,
                command == "/model" ? "the name of a model" : "a file");
    user_error("\"{}\" is no command; those are /reset, /model NAME, /save FILE, /help",
               command.substr(0, command.find(' ')));
  }

  void answer(const std::string& message) {
    interrupts_.flag() = false;
    const auto result = chat_.say(
        message,
        [this](const std::string& piece) {
          if (!globals_.json) print_now(piece);
        },
        &interrupts_.flag());
    interrupts_.flag() = false;
    print_now(globals_.json ? dump_json(answer_json(result)) + "\n" : "\n");
    if (!globals_.json && result.end == jobs::ChatAnswer::End::context)
      log_warning("the answer ends where the model's context of {} tokens does", chat_.context_length());
    if (is_verbose_) print_timings(result);
  }

  Json answer_json(const jobs::ChatAnswer& result) const {
    Json json = {{"role", "assistant"},
                 {"content", result.text},
                 {"finish_reason", result.finish_reason()},
                 {"prompt_tokens", result.prompt_tokens},
                 {"known_tokens", result.known_tokens},
                 {"tokens", result.tokens},
                 {"prefill_seconds", result.prefill_seconds},
                 {"decode_seconds", result.decode_seconds}};
    if (has_several_) json["model"] = chat_.chosen();
    if (result.draft) json["draft"] = as_json(*result.draft);
    return json;
  }

  static void print_timings(const jobs::ChatAnswer& result) {
    const int64_t added = result.prompt_tokens - result.known_tokens;
    log_info("prompt: {} tokens, {} of them new, in {:.3f} s ({:.1f} tokens/s); answer: {} tokens, {:.1f} tokens/s",
             result.prompt_tokens, added, result.prefill_seconds, jobs::rate_of(added, result.prefill_seconds),
             result.tokens, jobs::rate_of(std::max<int64_t>(0, result.tokens - 1), result.decode_seconds));
    if (result.draft) print_draft(*result.draft);
  }

  jobs::Chat chat_;
  const Globals& globals_;
  bool is_verbose_, has_several_, has_terminal_;
  InterruptFlag interrupts_;
  LineReader reader_;
};

struct Arguments {
  jobs::ChatJob job;
  std::vector<std::string> models;
  std::string prompt_cache, weight_cache;
  DraftArguments draft;
  PrecisionNames precision;
  std::optional<std::string> thinking;
  bool is_verbose = false;
};

int run(Arguments arguments, const Globals& globals) {
  for (const auto& model : arguments.models) arguments.job.models.push_back(named_model(model));
  arguments.job.draft = arguments.draft.choice();
  arguments.job.reports_draft = arguments.is_verbose || globals.json;
  arguments.job.prompt_cache = arguments.prompt_cache;
  arguments.job.weight_cache = arguments.weight_cache;
  arguments.job.precision = arguments.precision.precision();
  arguments.job.threads = globals.threads;
  if (arguments.thinking) arguments.job.enable_thinking = *arguments.thinking == "on";
  Conversation(arguments.job, globals, arguments.is_verbose).run();
  return kExitOk;
}

}  // namespace

Verb add_chat(CLI::App& program, const Globals& globals) {
  auto* app = program.add_subcommand(
      "chat", "Talk with a model by its own chat template; from a pipe, every line is a message");
  const auto a = std::make_shared<Arguments>();
  app->add_option("MODEL", a->models,
                  "HF folder, codes-and-scales folder or GGUF, with a chat template; of several, NAME=PATH or PATH, "
                  "/model NAME chooses, and weights that are the same are held once")
      ->required();
  app->add_option("--system", a->job.system, "system message; default: what the template does without one");
  app->add_option("--thinking", a->thinking, "for models that can think before they answer; default: the template's")
      ->check(CLI::IsMember({"on", "off"}));
  add_whole(*app, "--max-tokens", a->job.max_tokens, "tokens of an answer at most", {.least = 1});
  add_sampling(*app, a->job.sampling, "0: the likeliest token; default: 0.7");
  add_stops(*app, a->job.stops);
  add_file(*app, "--prompt-cache", a->prompt_cache,
           "file that holds what was computed of a conversation: read at the start, written at the end");
  add_file(*app, "--weight-cache", a->weight_cache, kWeightCacheHelp);
  add_draft(*app, a->draft,
            "a faster model with the same vocabulary, or the name of one of the MODELs, that drafts "
            "tokens for the others to verify: the same answers, or samples of the same distribution, "
            "sooner");
  add_precision(*app, a->precision);
  app->add_flag("--verbose", a->is_verbose, "print what loading, the prompts and the answers took");
  return {app, [=, &globals] { return run(*a, globals); }};
}

}  // namespace crumb::cli
