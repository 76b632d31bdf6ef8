// crumb eval: what a model file lost against its baseline.
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "cli/numbers.h"
#include "cli/sampling_options.h"
#include "cli/verbs.h"
#include "core/common/config.h"
#include "core/common/error.h"
#include "core/common/json.h"
#include "core/common/log.h"
#include "core/common/quantity.h"
#include "eval/html_report.h"
#include "eval/report.h"

namespace crumb::cli {
namespace {

constexpr int64_t kFewestResamples = 100;

// As typed; read_config checks them with the same rules and messages as the section `evaluate:` of a job.
struct Arguments {
  std::string baseline, baseline_logits, save_logits, separator, context, stride, max_windows, out, bench, tasks_dir,
      items, resume, system_instruction, judge_by = "estimate", protocol = "windows", clusters = "windows",
                                         damage = "none";
  PrecisionNames precision{"float", "f32"};
  std::vector<std::string> models, texts, max_drop, tasks;
  std::optional<int64_t> limit, num_fewshot;
  int64_t bootstrap = 0, damage_windows = eval::DamageOptions().windows;
  uint64_t seed = 0;
  bool bos = false, details = false, chat_template = false, multiturn = false;
};

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  const int lower = c | 0x20;
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

// \n, \t, \r, \\ and \xHH, as in a double-quoted YAML text; every other character stands for itself.
std::string unescape(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const char next = text[i] == '\\' && i + 1 < text.size() ? text[i + 1] : '\0';
    if (next == 'x' && i + 3 < text.size() && hex_digit(text[i + 2]) >= 0 && hex_digit(text[i + 3]) >= 0) {
      out += static_cast<char>(hex_digit(text[i + 2]) * 16 + hex_digit(text[i + 3]));
      i += 3;
      continue;
    }
    const size_t known = std::string_view("ntr\\").find(next);
    if (next == '\0' || known == std::string_view::npos) {
      out += text[i];
      continue;
    }
    out += "\n\t\r\\"[known];
    ++i;
  }
  return out;
}

ConfigValue max_drop_tree(const std::vector<std::string>& limits) {
  ConfigValue tree = ConfigValue::map({});
  for (const auto& limit : limits) {
    const size_t equals = limit.find('=');
    CRUMB_CHECK(equals != std::string::npos,
                "--max-drop: \"{}\": expected MEASURE=LIMIT, such as perplexity=5% or kl=0.05", limit);
    CRUMB_CHECK(tree.find(limit.substr(0, equals)) == nullptr, "--max-drop: {} is given twice",
                limit.substr(0, equals));
    const std::string measure = limit.substr(0, equals), value = limit.substr(equals + 1);
    const bool is_relative = measure == "perplexity" || measure == "top1";
    CRUMB_CHECK(!is_relative || value.ends_with('%') || std::strtod(value.c_str(), nullptr) < 1,
                "--max-drop: {}={} would be {} times the baseline; write {}% for per cent", measure, value, value,
                value);
    tree.entries.emplace_back(measure, ConfigValue::scalar(value));
    tree.entries.back().second.mark.file = "command line";
  }
  return tree;
}

/// Takes the limits that are not of texts out of the tree.
std::map<std::string, double> take_task_limits(ConfigValue& tree) {
  std::map<std::string, double> limits;
  const auto is_of_text = [](const auto& entry) {
    return entry.first == "perplexity" || entry.first == "kl" || entry.first == "top1";
  };
  for (const auto& entry : tree.entries) {
    if (is_of_text(entry)) continue;
    const auto limit = parse_number(entry.second.text);
    CRUMB_CHECK(limit && *limit >= 0, "--max-drop: {}: expected a number that is not negative, got \"{}\"", entry.first,
                entry.second.text);
    CRUMB_CHECK(*limit <= 1, "--max-drop: {}={} is more than everything; write {}% for per cent", entry.first,
                entry.second.text, entry.second.text);
    limits.emplace(entry.first, *limit);
  }
  std::erase_if(tree.entries, [&](const auto& entry) { return !is_of_text(entry); });
  return limits;
}

eval::EvalOptions make_options(const Arguments& arguments, const Globals& globals) {
  ConfigValue tree = ConfigValue::map({});
  const auto add = [&](const char* key, ConfigValue value) {
    value.mark.file = "command line";
    tree.entries.emplace_back(key, std::move(value));
  };
  std::vector<ConfigValue> texts;
  for (const auto& text : arguments.texts) texts.push_back(ConfigValue::scalar(text, true));
  add("text", ConfigValue::list(std::move(texts)));
  add("separator", ConfigValue::scalar(unescape(arguments.separator), true));
  if (!arguments.context.empty()) add("context", ConfigValue::scalar(arguments.context));
  if (!arguments.stride.empty()) add("stride", ConfigValue::scalar(arguments.stride));
  if (!arguments.max_windows.empty()) add("max_windows", ConfigValue::scalar(arguments.max_windows));
  add("bos", ConfigValue::scalar(arguments.bos ? "true" : "false"));
  ConfigValue limits = max_drop_tree(arguments.max_drop);
  eval::TaskRunOptions tasks;
  tasks.tasks = arguments.tasks;
  tasks.folder = arguments.tasks_dir;
  tasks.limit = arguments.limit.value_or(0);
  if (!tasks.tasks.empty()) tasks.max_drop = take_task_limits(limits);
  add("max_drop", std::move(limits));
  auto options = read_config<eval::EvalOptions>(tree);
  tasks.num_fewshot = arguments.num_fewshot;
  tasks.items = arguments.items;
  tasks.overwrite_items = Overwrite{globals.force};
  tasks.prompts = {arguments.chat_template, arguments.multiturn, arguments.system_instruction};
  tasks.judge_bound = options.judge_bound = arguments.judge_by == "bound";
  options.tasks = std::move(tasks);
  options.by_document = arguments.clusters == "documents";
  options.damage = {eval::damage_depth_from_name(arguments.damage), arguments.damage_windows};
  options.bootstrap = {arguments.bootstrap, arguments.seed};
  options.baseline = arguments.baseline;
  options.baseline_logits = arguments.baseline_logits;
  options.save_logits = arguments.save_logits;
  options.overwrite_logits = Overwrite{globals.force};
  options.resume = arguments.resume;
  options.protocol = eval::protocol_from_name(arguments.protocol);
  options.precision = arguments.precision.precision();
  options.threads = globals.threads;
  return options;
}

std::string json_text(const std::vector<eval::EvalResult>& results) {
  return dump_json(eval::to_json(results), 2) + "\n";
}

/// A report by the name of its file.
std::string report_text(const Path& out, const std::vector<eval::EvalResult>& results, const Arguments& arguments,
                        const Globals& globals) {
  if (out.extension() == ".json") return json_text(results);
  if (out.extension() == ".md") return eval::to_markdown(results, arguments.details);
  eval::RunFacts facts{CRUMB_VERSION, globals.command, std::nullopt, arguments.bench};
  if (!arguments.bench.empty()) facts.bench = read_json(arguments.bench);
  return eval::to_html(results, facts);
}

void check_arguments(const Arguments& arguments) {
  const bool has_tasks = !arguments.tasks.empty();
  CRUMB_CHECK(has_tasks || !arguments.texts.empty(), "--text or --tasks must be given: there is nothing to judge by");
  CRUMB_CHECK(!has_tasks || !arguments.tasks_dir.empty(), "--tasks needs --tasks-dir, the folder of their data");
  CRUMB_CHECK(has_tasks || (arguments.items.empty() && !arguments.limit && !arguments.num_fewshot),
              "--items, --limit and --num-fewshot need --tasks");
  CRUMB_CHECK(has_tasks || arguments.tasks_dir.empty(), "--tasks-dir needs --tasks");
  CRUMB_CHECK(has_tasks || (!arguments.chat_template && !arguments.multiturn && arguments.system_instruction.empty()),
              "--apply-chat-template, --fewshot-as-multiturn and --system-instruction need --tasks");
  CRUMB_CHECK(!arguments.texts.empty() ||
                  (arguments.context.empty() && arguments.stride.empty() && arguments.max_windows.empty() &&
                   arguments.separator.empty() && !arguments.bos && arguments.protocol == "windows" &&
                   arguments.clusters == "windows" && arguments.bootstrap == 0),
              "--context, --stride, --max-windows, --separator, --bos, --protocol, --clusters and --bootstrap need "
              "--text");
  CRUMB_CHECK(arguments.bootstrap == 0 || arguments.bootstrap >= kFewestResamples,
              "--bootstrap: {} resamples say nothing of the ends of an interval; at least {}", arguments.bootstrap,
              kFewestResamples);
  CRUMB_CHECK(arguments.bootstrap > 0 || arguments.seed == 0, "--seed is of --bootstrap; give both");
  CRUMB_CHECK(arguments.damage != "none" || arguments.damage_windows == eval::DamageOptions().windows,
              "--damage-windows needs --damage");
  CRUMB_CHECK(arguments.clusters == "windows" || arguments.clusters == "documents",
              "--clusters: unknown \"{}\"; known: windows, documents", arguments.clusters);
  CRUMB_CHECK(!arguments.details ||
                  (!arguments.texts.empty() && !(arguments.baseline.empty() && arguments.baseline_logits.empty())),
              "--details needs --text and --baseline: it tells where the two differ");
  CRUMB_CHECK(arguments.judge_by == "estimate" || arguments.judge_by == "bound",
              "--judge-by: unknown \"{}\"; known: estimate, bound", arguments.judge_by);
  CRUMB_CHECK(arguments.judge_by == "estimate" || !arguments.max_drop.empty(),
              "--judge-by needs --max-drop, which it is about");
}

/// A file that is written, if it is named, beside what is read and the report.
void require_own_file(const std::string& path, const Arguments& arguments, bool may_be_there) {
  if (path.empty()) return;
  require_new_file(path, may_be_there);
  std::vector<Path> others(arguments.models.begin(), arguments.models.end());
  others.insert(others.end(), arguments.texts.begin(), arguments.texts.end());
  for (const auto& other : {arguments.baseline, arguments.baseline_logits, arguments.out}) {
    if (!other.empty()) others.emplace_back(other);
  }
  require_apart(path, others);
}

/// Files that are written, by whatever names.
void require_two_files(const char* option, const Path& path, const char* other_option, const Path& other) {
  const auto place = [](const Path& p) { return std::filesystem::weakly_canonical(std::filesystem::absolute(p)); };
  CRUMB_CHECK(path.empty() || other.empty() || place(path) != place(other), "{} and {}: {}: two files need two names",
              other_option, option, other.string());
}

int run(const Arguments& arguments, const Globals& globals) {
  check_arguments(arguments);
  const auto options = make_options(arguments, globals);
  const Path out = arguments.out;
  CRUMB_CHECK(out.empty() || out.extension() == ".md" || out.extension() == ".json" || out.extension() == ".html",
              "--out: {}: the name must end in .md, .json or .html", out.string());
  CRUMB_CHECK(arguments.bench.empty() || out.extension() == ".html",
              "--bench: speed stands in a page alone; give --out NAME.html");
  if (!arguments.bench.empty()) read_json(arguments.bench);  // before the work
  if (!out.empty()) require_new_file(out, globals.force);
  require_own_file(arguments.items, arguments, globals.force);
  require_own_file(arguments.save_logits, arguments, globals.force);
  require_own_file(arguments.resume, arguments, true);
  require_two_files("--resume", arguments.resume, "--items", arguments.items);
  require_two_files("--save-logits", arguments.save_logits, "--items", arguments.items);
  const auto results = eval::evaluate_all(options, {arguments.models.begin(), arguments.models.end()});
  std::fputs((globals.json ? json_text(results) : eval::to_table(results, arguments.details)).c_str(), stdout);
  if (!out.empty())  // after the numbers are on the screen: a full disk must not lose them
    write_text(out, report_text(out, results, arguments, globals), Overwrite{globals.force});
  std::fflush(stdout);
  int code = kExitOk;
  for (const auto& result : results) {
    if (!result.exceeded()) continue;
    const std::string whose = results.size() > 1 ? result.model.path.string() + ": " : "";
    print_error({whose + eval::exceeded_text(result)});
    code = kExitMaxDrop;
  }
  return code;
}

void add_options(CLI::App* app, const std::shared_ptr<Arguments>& a) {
  app->add_option("MODEL", a->models, "HF folder, codes-and-scales folder or GGUF; several are judged side by side")
      ->required();
  app->add_option("--baseline", a->baseline,
                  "the model it is compared with, usually the one it was made from; default: none");
  app->add_option("--baseline-logits", a->baseline_logits,
                  "in place of --baseline what it said of the text, as --save-logits or llama-perplexity "
                  "--kl-divergence-base wrote it; needs --protocol llama.cpp; default: none");
  app->add_option("--save-logits", a->save_logits,
                  "write what the baseline, or without one the model, says of the text, for --baseline-logits or "
                  "llama-perplexity --kl-divergence; needs --protocol llama.cpp; default: none");
  app->add_option("--text", a->texts, "texts to judge by: plain, or JSON lines {\"text\": ...}");
  app->add_option("--separator", a->separator,
                  "what stands between documents; \\n, \\t and \\xHH are understood; default: a file is one document");
  app->add_option("--protocol", a->protocol,
                  "how the text is cut: windows (documents, EOS behind each), gptq, llama.cpp (as those programs do), "
                  "rolling (each document by itself, as lm-evaluation-harness does); "
                  "default: windows");
  app->add_option(
      "--context", a->context,
      "tokens a window; default: 2048, for llama.cpp 512, or what the models declare if less or for rolling");
  app->add_option("--stride", a->stride, "tokens from one window to the next; default: the context");
  app->add_option("--max-windows", a->max_windows,
                  "score only so many windows, spread evenly over the texts, of gptq and llama.cpp the first; "
                  "default: all");
  add_precision(*app, a->precision, " (of the models, not of the baseline)");
  add_device(*app, a->precision.device);
  app->add_flag("--bos", a->bos, "put BOS before each document");
  app->add_flag("--details", a->details,
                "also show the KL by text and by position in the context, and the worst 20 tokens in their contexts "
                "(--json always has them)");
  app->add_option(
      "--damage", a->damage,
      "also map the damage: outputs (of each linear the error of its weights and outputs, codes and scales), "
      "layers or linears (besides the KL with each alone quantized: a pass each); default: none");
  add_whole(*app, "--damage-windows", a->damage_windows, "windows that --damage looks at", {.least = 1});
  app->add_option("--max-drop", a->max_drop,
                  "exit with 3 when exceeded: perplexity=5%, kl=0.05, top1=20%; of accuracies: tasks=2% (each), "
                  "average=1%, TASK=3%; several: comma or repeat; default: no limit")
      ->delimiter(',');
  app->add_option("--judge-by", a->judge_by,
                  "what --max-drop compares: estimate, or bound, the upper 95 % bound of the drop; default: estimate");
  app->add_option(
      "--clusters", a->clusters,
      "what errors take as independent: windows, or documents (as --protocol rolling always does); default: "
      "windows");
  add_whole(*app, "--bootstrap", a->bootstrap,
            "resamples of the clusters for 95 % intervals, such as 1000; 0: errors by the delta method alone",
            {.most = 1'000'000});
  add_seed(*app, a->seed, "of --bootstrap");
  app->add_option("--tasks", a->tasks, "tasks by their names, or YAML files of your own; comma or repeat")
      ->delimiter(',');
  app->add_option("--tasks-dir", a->tasks_dir, "the folder of the tasks' data; NAME.yaml there is a task, too");
  add_whole(*app, "--limit", a->limit, "only the first items of each task; default: all");
  add_whole(*app, "--num-fewshot", a->num_fewshot, "solved examples before each item; default: what a task says");
  app->add_option("--items", a->items, "write what was found of each item as JSON lines; default: none");
  app->add_flag("--apply-chat-template", a->chat_template,
                "ask the tasks' questions as a user's messages, by each model's own chat template");
  app->add_flag("--fewshot-as-multiturn", a->multiturn,
                "solved examples as turns of the chat, not in the one message; needs --apply-chat-template");
  app->add_option("--system-instruction", a->system_instruction,
                  "a text before each task's description, with a chat template as the system's message; default: none");
  app->add_option("--resume", a->resume,
                  "keep what is found in this file as it is found: the same command goes on there when it was ended; "
                  "default: nothing is kept");
  app->add_option("-o,--out", a->out,
                  "write a report: NAME.md, NAME.json, or NAME.html, a page with charts; default: none");
  app->add_option("--bench", a->bench, "what `crumb bench --out FILE.json` measured, for the page; default: none");
}

}  // namespace

Verb add_eval(CLI::App& program, const Globals& globals) {
  auto* app = program.add_subcommand(
      "eval", "Perplexity of a model; KL divergence and top-1 agreement against a baseline; tasks; size");
  const auto a = std::make_shared<Arguments>();
  add_options(app, a);
  return {app, [a, &globals] { return run(*a, globals); }};
}

Verb add_compare(CLI::App& program, const Globals& globals) {
  auto* app = program.add_subcommand(
      "compare",
      "Several models beside one baseline in one table, and which of them are on the Pareto front: what "
      "eval does of several");
  const auto a = std::make_shared<Arguments>();
  add_options(app, a);
  return {app, [a, &globals] {
            CRUMB_CHECK(a->models.size() > 1, "compare needs two models or more; eval judges one");
            CRUMB_CHECK(!a->baseline.empty() || !a->baseline_logits.empty(),
                        "compare needs --baseline, which all are compared with");
            return run(*a, globals);
          }};
}

}  // namespace crumb::cli
