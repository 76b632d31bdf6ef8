// crumb tokenize: the ids that a model sees, as JSON lines.
#include <cstdio>
#include <iostream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "cli/verbs.h"
#include "core/common/error.h"
#include "core/common/file.h"
#include "core/common/json.h"
#include "core/text/text_file.h"
#include "core/tokenizer/tokenizer.h"

namespace crumb::cli {
namespace {

struct Options {
  std::string model, file;
  std::vector<std::string> text;  // none or one; "" is a text too
  bool pieces = false, no_special = false, lines = false;
};

std::string whole_input(const Options& options) {
  if (!options.text.empty()) return std::string(text::checked_text(options.text[0], "TEXT"));
  if (!options.file.empty()) return std::string(text::checked_text(read_text(options.file), options.file));
  const std::string input{std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
  return std::string(text::checked_text(input, "standard input"));
}

void print_line(const tokenizer::Tokenizer& tokenizer, std::string_view text, const Options& options) {
  const auto ids = tokenizer.encode(text, !options.no_special);
  nlohmann::ordered_json line = {{"ids", ids}};
  if (options.pieces) {
    auto pieces = nlohmann::ordered_json::array();
    for (const auto id : ids) pieces.push_back(tokenizer.piece(id));
    line["pieces"] = std::move(pieces);
  }
  std::puts(dump_json(line).c_str());
}

int run(const Options& options) {
  const auto tokenizer = tokenizer::load_tokenizer(options.model);
  const std::string input = whole_input(options);
  if (!options.lines) {
    print_line(*tokenizer, input, options);
    return kExitOk;
  }
  std::string_view rest = input;
  while (!rest.empty()) {
    const size_t end = rest.find('\n');
    print_line(*tokenizer, rest.substr(0, end), options);
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
  }
  return kExitOk;
}

}  // namespace

Verb add_tokenize(CLI::App& program, const Globals& /*globals: the output is JSON anyway*/) {
  auto options = std::make_shared<Options>();
  CLI::App* app = program.add_subcommand(
      "tokenize",
      "Ids (and pieces) of a text as a model sees them, as JSON lines; a byte order mark before it is no part of it");
  app->add_option("MODEL", options->model, "HF folder, tokenizer.json, GGUF file, or tokenizer.bin of llama2.c")
      ->required();
  auto* text =
      app->add_option("TEXT", options->text, "the text; without it and --file: standard input")->expected(0, 1);
  app->add_option("--file", options->file, "read the text from this file")->excludes(text);
  app->add_flag("--pieces", options->pieces, "print the vocabulary's spelling of each token too");
  app->add_flag("--no-special", options->no_special, "leave out the BOS and EOS that the tokenizer adds to a text");
  app->add_flag("--lines", options->lines, "every line of the input is a text of its own");
  return {app, [options] { return run(*options); }};
}

}  // namespace crumb::cli
