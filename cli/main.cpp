// The program `crumb`: one verb a job.
#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <new>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cli/numbers.h"
#include "cli/verbs.h"
#include "core/common/end_signals.h"
#include "core/common/error.h"
#include "core/common/log.h"
#include "core/common/thread_pool.h"

namespace {

constexpr const char* kAbout =
    "crumb: take a language model to two bits, see what was lost, run the result.\n"
    "Models are HF folders (config.json, *.safetensors, tokenizer.json), codes-and-scales folders made by train and "
    "quantize, or GGUF files.";

/// A result that did not reach the file or pipe it was sent to is a failure.
void finish_output() {
  const int error = std::fflush(stdout) != 0 ? errno : std::ferror(stdout) != 0 ? EIO : 0;
  if (error != 0) crumb::run_error("cannot write to standard output: {}", crumb::system_error_text(error));
}

/// As one would type it.
std::string command_line(std::span<char* const> arguments) {
  constexpr std::string_view kPlain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./=,:%+@";
  std::string out = "crumb";
  for (const std::string_view argument : arguments.subspan(1)) {
    out += ' ';
    if (!argument.empty() && argument.find_first_not_of(kPlain) == std::string_view::npos) {
      out += argument;
      continue;
    }
    out += '\'';
    for (const char c : argument) out += c == '\'' ? "'\\''" : std::string(1, c);
    out += '\'';
  }
  return out;
}

int run(int argc, char** argv) {
  using namespace crumb::cli;
  CLI::App program{kAbout, "crumb"};
  program.require_subcommand(1);
  program.failure_message([](const CLI::App*, const CLI::Error& e) {
    return crumb::one_line(e.what()) + "\nRun with --help for more information.\n";
  });
  program.set_version_flag("--version", CRUMB_VERSION);
  Globals globals;
  globals.command = command_line({argv, static_cast<size_t>(argc)});
  program.fallthrough();
  program.add_flag("--json", globals.json, "print the result as JSON");
  program.add_flag("--force", globals.force, "replace an output that exists");
  program.add_flag("-q,--quiet", globals.quiet, "no progress, warnings only");
  add_whole(program, "--threads", globals.threads, "threads to use; 0: one per processor",
            {.most = crumb::kMostThreads});

  std::vector<Verb> verbs;
#ifdef CRUMB_WITH_TORCH
  verbs.push_back(add_train(program, globals));
  verbs.push_back(add_quantize(program, globals));
#endif
  verbs.push_back(add_export(program, globals));
  verbs.push_back(add_eval(program, globals));
  verbs.push_back(add_compare(program, globals));
  verbs.push_back(add_bench(program, globals));
  verbs.push_back(add_chat(program, globals));
  verbs.push_back(add_generate(program, globals));
  verbs.push_back(add_inspect(program, globals));
  verbs.push_back(add_serve(program, globals));
  verbs.push_back(add_tokenize(program, globals));

  try {
    program.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return program.exit(e);  // --help, --version
    program.exit(e);
    return crumb::kExitUser;
  }
  if (globals.quiet) crumb::set_log_level(crumb::LogLevel::warning);
  for (const auto& verb : verbs) {
    if (!verb.app->parsed()) continue;
    const int exit_code = verb.run();
    finish_output();
    return exit_code;
  }
  return crumb::kExitUser;
}

}  // namespace

int main(int argc, char** argv) {
  crumb::install_end_signals();
  try {
    return run(argc, argv);
  } catch (const crumb::Error& e) {
    crumb::print_error(e.messages());
    return e.exit_code();
  } catch (const std::filesystem::filesystem_error& e) {
    crumb::print_error({e.path1().string() + ": " + e.code().message()});
    return crumb::kExitRun;
  } catch (const std::bad_alloc&) {
    crumb::print_error({"there is not enough memory for this (what models take: `crumb inspect`, `crumb bench`)"});
    return crumb::kExitRun;
  } catch (const std::exception& e) {
    // Torch's messages carry a stack trace after the first line.
    const std::string text = e.what();
    crumb::print_error({text.substr(0, text.find('\n'))});
    return crumb::kExitRun;
  }
}
