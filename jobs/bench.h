// How fast models run on this machine, and what of the machine they use. Everything is measured in interleaved rounds:
// what one number is compared with was measured beside it, so a machine that is busy for a while is busy for all.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/common/file.h"
#include "core/common/spread.h"
#include "jobs/running_model.h"
#include "runtime/precision.h"

namespace crumb::jobs {

struct BenchJob {
  std::vector<NamedModel> models;
  std::vector<runtime::Activations> activations = {runtime::Activations::automatic};
  runtime::CacheType cache_type = runtime::CacheType::f16;
  runtime::Device device = runtime::Device::cpu;
  /// Tokens of prompts whose first new token is waited for; none: those of kBenchPrompts that every model holds.
  std::optional<std::vector<int64_t>> prompts;
  /// Tokens that stand before those whose speed is measured; none: those of kBenchContexts, likewise.
  std::optional<std::vector<int64_t>> contexts;
  int64_t new_tokens = 32;
  std::vector<int64_t> threads = {0};  // 0: one per processor
  int64_t rounds = 5;
};
inline constexpr int64_t kBenchPrompts[] = {64, 128, 256, 512, 1024}, kBenchContexts[] = {0, 512};

/// What is measured, by its name in JSON and CSV; bench_report.cpp says how each is shown.
namespace measure {
inline constexpr std::string_view kFirstToken = "first_token_seconds";           // of a prompt
inline constexpr std::string_view kTokenRate = "tokens_per_second";              // behind a context
inline constexpr std::string_view kWeightRate = "weight_bytes_per_second";       // read meanwhile
inline constexpr std::string_view kReadShare = "share_of_read_probe";            // of that, measured beside it
inline constexpr std::string_view kInAttention = "share_of_time_in_attention";   // meanwhile
inline constexpr std::string_view kElsewhere = "share_of_time_elsewhere";        // than in linears and attention
inline constexpr std::string_view kStateBytes = "kv_bytes";                      // held then
inline constexpr std::string_view kWeightsHeld = "weight_bytes_held";            // of the model
inline constexpr std::string_view kWeightsRead = "weight_bytes_read_per_token";  // of the model
inline constexpr std::string_view kResident = "resident_bytes_added";            // by loading and a first pass
inline constexpr std::string_view kLoad = "load_seconds";
}  // namespace measure

struct BenchMeasure {
  std::string_view name;
  std::optional<int64_t> tokens;  // of the prompt or the context, where it depends on one
  std::vector<double> samples;    // one a round, or one
};

/// One model with one kind of activations on so many threads.
struct BenchRow {
  NamedModel model;
  runtime::Activations activations = runtime::Activations::floats;
  int64_t threads = 1;
  std::vector<BenchMeasure> measures = {};

  /// Null: not measured.
  const BenchMeasure* find(std::string_view name, std::optional<int64_t> tokens) const;
  void add(std::string_view name, std::optional<int64_t> tokens, double sample);
};

struct BenchResult {
  std::string processor, isa;
  std::string gpu;  // where models ran on one; then nothing is said of reading and of parts of a pass
  runtime::CacheType cache_type = runtime::CacheType::f32;
  int64_t processors = 0, rounds = 0, new_tokens = 0;
  int64_t peak_resident_bytes = 0;  // of the process, without the buffer of the read probe
  std::vector<int64_t> prompts, contexts;
  struct Probe {
    int64_t threads = 1;
    std::vector<double> bytes_per_second = {};  // beside each context in each round
  };
  std::vector<Probe> probes;
  std::vector<BenchRow> rows;  // by threads, then models, then activations

  /// The row that others with as many threads are compared with: the first of them.
  const BenchRow& reference_of(const BenchRow& row) const;
  /// A median over that of the reference; nothing for the reference itself and where one was not measured.
  std::optional<double> ratio(const BenchRow& row, const BenchMeasure& of) const;
};

/// UserError, before anything is loaded: no models, two of one name, a number below its least, a prompt or context that
/// a model does not hold. Warns of what is left out of kBenchPrompts and kBenchContexts, and of a model without
/// quantized linears that would be measured twice.
BenchResult bench(const BenchJob& job);

}  // namespace crumb::jobs
