// The options of verbs that generate: how tokens are picked, what ends a text, what linears read.
#pragma once

#include <string>
#include <vector>

#include "cli/numbers.h"
#include "core/common/error.h"
#include "jobs/running_model.h"

namespace crumb::cli {

/// Options that name a file; "" is a mistake, and not the same as none.
inline CLI::Option* add_file(CLI::App& app, const std::string& name, std::string& file, const std::string& help) {
  return app.add_option(name, file, help)->each([name](const std::string& given) {
    CRUMB_CHECK(!given.empty(), "{}: name a file", name);
  });
}

inline constexpr const char* kWeightCacheHelp =
    "file that holds the model's weights in the order kernels read them, for a quicker start: read where it is there "
    "and of this model, else written";

inline void add_sampling(CLI::App& app, jobs::SamplingChoice& sampling, const std::string& temperature_help) {
  add_number(app, "--temperature", sampling.temperature, temperature_help);
  add_whole(app, "--top-k", sampling.top_k, "sample from the so many likeliest tokens; 0: all");
  add_number(app, "--top-p", sampling.top_p, "sample from the smallest set of tokens with this probability",
             {.most = 1});
  add_number(app, "--min-p", sampling.min_p, "sample from tokens at least this share as likely as the likeliest",
             {.most = 1});
  add_number(app, "--repetition-penalty", sampling.repetition_penalty,
             "above 1: tokens of the text so far become less likely", {.least = 0.01, .most = 100});
  add_seed(app, sampling.seed, "seed of the samples");
}

inline CLI::Option* add_stops(CLI::App& app, std::vector<std::string>& stops) {
  return app.add_option("--stop", stops, "a text that ends it and is not shown; may be given again")
      ->allow_extra_args(false);
}

/// For runtime::precision_from_names. As they are: for those who want the text, not its probabilities to the last
/// digit.
struct PrecisionNames {
  std::string activations = "auto", cache_type = "f16", device = "cpu";
  CLI::Option* given_activations = nullptr;
  /// A GPU has one kind of activations, whatever the verb's own default is.
  runtime::Precision precision() const {
    const bool is_default = given_activations == nullptr || given_activations->count() == 0;
    return runtime::precision_from_names(device == "cuda" && is_default ? "auto" : activations, cache_type, device);
  }
};
inline void add_device(CLI::App& app, std::string& device) {
  app.add_option("--device", device, "where models run: cpu, or cuda, the first NVIDIA GPU: bf16 activations")
      ->capture_default_str();
}
inline void add_precision(CLI::App& app, PrecisionNames& names, const std::string& whose = "") {
  names.given_activations =
      app.add_option(
             "--activations", names.activations,
             std::string(
                 "what linears read: float; faster and less exact are bf16 (on processors with AVX-512 BF16) and int8 "
                 "(quantized linears, bf16 of bfloat16 ones beside them); auto: int8 where the model has "
                 "quantized linears and rounds no activations in another way itself") +
                 whose)
          ->capture_default_str();
  app.add_option("--cache-type", names.cache_type,
                 std::string("what keys and values are held in: f32, or f16 or q8, which are a half or a quarter of "
                             "the memory and less exact") +
                     whose)
      ->capture_default_str();
}

}  // namespace crumb::cli
