// One function a verb: declares its options on the program and, when the verb was given, runs it.
#pragma once

#include <CLI/CLI.hpp>

#include <functional>

namespace crumb::cli {

/// Options every verb has.
struct Globals {
  bool json = false;    // result as JSON on stdout
  bool force = false;   // replace an output that exists
  bool quiet = false;   // no progress, warnings only
  int64_t threads = 0;  // 0: one per processor
  std::string command;  // as typed, for reports
};

/// Adds the subcommand. `run` is called by main after parsing; its result is the exit code.
struct Verb {
  CLI::App* app;
  std::function<int()> run;
};

Verb add_bench(CLI::App& program, const Globals& globals);
Verb add_chat(CLI::App& program, const Globals& globals);
Verb add_compare(CLI::App& program, const Globals& globals);
Verb add_eval(CLI::App& program, const Globals& globals);
Verb add_export(CLI::App& program, const Globals& globals);
Verb add_generate(CLI::App& program, const Globals& globals);
Verb add_inspect(CLI::App& program, const Globals& globals);
Verb add_serve(CLI::App& program, const Globals& globals);
Verb add_tokenize(CLI::App& program, const Globals& globals);
// In builds with LibTorch:
Verb add_quantize(CLI::App& program, const Globals& globals);
Verb add_train(CLI::App& program, const Globals& globals);

}  // namespace crumb::cli
