// A model ready to generate, and what decides its tokens: shared by the jobs that generate.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/common/file.h"
#include "core/tokenizer/tokenizer.h"
#include "quant/checkpoint.h"
#include "runtime/decoder.h"
#include "runtime/held_codes.h"
#include "runtime/precision.h"
#include "runtime/sampling.h"

namespace crumb::jobs {

/// How the next token is picked; runtime/sampling.h has the terms.
struct SamplingChoice {
  std::optional<double> temperature;  // 0: the likeliest token; none: what the job says
  double top_p = 1.0;
  int64_t top_k = 0;
  double min_p = 0.0;
  double repetition_penalty = 1.0;
  uint64_t seed = 0;
};

/// What the models of a job that has several have in common.
struct Loading {
  std::shared_ptr<Executor> executor;
  std::shared_ptr<runtime::WeightPool> pool = nullptr;  // null: nothing is shared
};
/// With threads of its own (0: one per processor) and a pool.
Loading loading_with(int64_t threads);

struct NamedModel {
  std::string name;
  Path path;
};
/// UserError where two have one name.
void require_names_apart(const std::vector<NamedModel>& models);

struct RunningModel {
  std::unique_ptr<quant::Checkpoint> checkpoint;
  std::unique_ptr<tokenizer::Tokenizer> tokenizer;
  std::unique_ptr<runtime::Decoder> decoder;
  runtime::Precision precision;
  double load_seconds = 0;

  /// For people: how its quantized matrices lie in memory, a line a type, and what it computes in.
  std::vector<std::string> held() const;
};

/// UserError: no such model, a tokenizer that does not fit it. `weight_cache`: runtime/weight_cache.h, "" for none.
RunningModel load_model(const Path& path, const runtime::Precision& precision, const Loading& loading,
                        const Path& weight_cache = {});

/// What ends a document: every end token of the tokenizer, and BOS, with which some models separate documents.
std::vector<tokenizer::TokenId> document_ends(const RunningModel& model);

/// What a prompt cache of the model is known by: its weights, its configuration, what it computes in,
/// and the instruction set, which decides the last bits of what is computed.
std::string cache_identity(const RunningModel& model);

/// Before anything is computed: UserError where the prompt cache is not there and cannot be made, or is to be the
/// weight cache as well. "": none.
void check_caches(const Path& prompt_cache, const Path& weight_cache);

runtime::SamplingOptions sampling_options(const SamplingChoice& choice, const RunningModel& model,
                                          double default_temperature);

double rate_of(int64_t tokens, double seconds);

}  // namespace crumb::jobs
