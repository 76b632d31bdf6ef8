// The job file of `crumb train`: every section in one struct, and what may change when a run goes on.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "core/arch/tensor_table.h"
#include "core/common/config.h"
#include "core/common/thread_pool.h"
#include "distill/options.h"
#include "eval/evaluate.h"
#include "ptq/rotation.h"
#include "qat/method.h"
#include "train/options.h"

namespace crumb::jobs {

inline constexpr const char* kStartFolder = "start";  // in the output: what method.init has made

/// `model`: an HF folder or GGUF, or {config, init: random, tokenizer} to train from random values.
struct ModelChoice {
  static constexpr const char* kShort = "path";

  std::optional<Path> path, config, tokenizer;
  std::string init = "random";

  template <class V>
  void visit(V& v) {
    v.field("path", path, "the model to start from: HF folder or GGUF");
    v.field("config", config, "from random values instead: folder with config.json, or the file");
    v.field("init", init, "the random values", {.choices = {"random"}});
    v.field("tokenizer", tokenizer, "with config: folder of the tokenizer files, if not that of the configuration");
    v.check("path", path && config ? "a model to start from, and a config to begin without one" : "");
    v.check("tokenizer", path && tokenizer ? "the model brings its own" : "");
    v.check("config", !path && !config ? "must be given" : "");
  }

  bool is_random() const { return config.has_value(); }
  /// Folder with config.json, or a GGUF (random: that folder, or config.json itself).
  Path source() const { return path.value_or(config.value_or(Path())); }
  bool is_gguf() const;
  Path config_folder() const;  // where config.json lies; the file itself of a GGUF
  Path tokenizer_folder() const { return tokenizer.value_or(config_folder()); }
};

/// `method: {name: none}`: nothing is quantized.
struct FloatMethod {
  static constexpr const char* kName = "none";
  template <class V>
  void visit(V& /*v*/) {}
};

/// The section `calibration:` of a training job: what method.init: gptq and blockwise look at.
struct StartCalibration {
  Auto<int64_t> tokens = {};
  WordOr<double, "unlimited"> memory = {};

  template <class V>
  void visit(V& v) {
    v.field("tokens", tokens, "tokens of the first windows of the run; auto: 64k. They are not among schedule.tokens",
            {.min = 2});
    v.field("memory", memory,
            "gigabytes of activations held in memory; what is more lies in files beside the output meanwhile",
            {.min = 0});
  }
};

struct TrainJob {
  ModelChoice model;
  Path output;
  int64_t seed = 0;
  std::variant<qat::QatMethod, FloatMethod> method;
  ptq::RotationOptions rotation;
  StartCalibration calibration;
  train::TrainedParts train;
  train::DataOptions data;
  distill::ObjectiveOptions objective;
  WordOr<Path, "self"> teacher;
  train::OptimizerOptions optimizer;
  train::ScheduleOptions schedule;
  train::ValidateOptions validate;
  train::CheckpointOptions checkpoint;
  WordOr<Path, "none"> init_from;
  std::string device = "auto";
  Auto<int64_t> threads;
  std::string compute = "auto";
  std::vector<std::string> export_targets;
  eval::EvalOptions evaluate;

  template <class V>
  void visit(V& v) {
    v.field("model", model,
            "HF folder or GGUF to start from; {config: DIR_OR_FILE, init: random, tokenizer: DIR}: from random values",
            {.required = true});
    v.field("output", output, "folder of the run", {.required = true});
    v.field("seed", seed, "of the order of the data and of random values", {.min = 0});
    v.section("method", method, "What the linears become: qat trains them on a grid, none in float");
    v.section("rotation", rotation,
              "Before method.init: gptq or blockwise: rotations that do not change what the model computes");
    v.section("calibration", calibration, "What method.init: gptq and blockwise look at");
    v.section("train", train, "What is trained");
    v.section("data", data, "What it is trained on");
    v.section("objective", objective, "What is minimised");
    v.field("teacher", teacher, "the model that the objective compares with; self: the model the run starts from");
    v.section("optimizer", optimizer, "What moves the parameters");
    v.section("schedule", schedule, "How long, in what steps");
    v.section("validate", validate, "Held-out text; the best model by it is kept in OUTPUT/model");
    v.section("checkpoint", checkpoint, "What a stopped run goes on from");
    v.field("init_from", init_from,
            "output folder of a finished run with the same method, whose trained values this run starts from");
    v.field("device", device, "where to compute; auto: cuda where Torch sees one",
            {.choices = {"auto", "cpu", "cuda"}});
    v.field("threads", threads, "threads of the CPU; auto: one per processor", {.min = 1, .max = kMostThreads});
    v.field("compute", compute, "type of the matrix products; auto: bf16 where the hardware has it",
            {.choices = {"auto", "fp32", "bf16"}});
    v.field("export", export_targets, "targets written to OUTPUT/export at the end, such as gguf-q2_k");
    v.section("evaluate", evaluate,
              "Texts that OUTPUT/model and the exports are judged by at the end, against the model it was made from");
  }

  /// Null: nothing is quantized.
  const qat::QatMethod* qat() const { return std::get_if<qat::QatMethod>(&method); }
  bool quantizes() const { return qat() != nullptr; }
  /// The quantized folder that training begins with; nothing: the model is rounded.
  std::optional<Path> start_folder() const;
};

/// Reads the file, applies "key=value" arguments. UserError with every mistake, also those between sections.
TrainJob load_train_job(const Path& file, const std::vector<std::string>& overrides);

/// Settings that differ between the stored job of a run and the same job asked for now, as "key: old, now new". What is
/// `auto` now is taken from the stored one, and a key that it does not have had its default; schedule.tokens,
/// validate.every, checkpoint.every, checkpoint.keep and threads may change.
std::vector<std::string> changes_not_allowed(const ConfigValue& stored, const ConfigValue& now);
/// `now` with the stored value of everything that is auto.
ConfigValue with_stored_autos(const ConfigValue& stored, const ConfigValue& now);

/// Whether a second model is in memory: the one that is taught from or compared with.
bool has_teacher(const TrainJob& job);

/// Formats of the linears that the method quantizes, by hf_name.
std::map<std::string, quant::QuantFormat> planned_formats(const TrainJob& job, const arch::DecoderSpec& spec);

}  // namespace crumb::jobs
