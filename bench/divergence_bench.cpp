// Losses of rows of logits with their gradient, by terms and instruction set, one thread.
//   cmake --preset release -DCRUMB_BENCH=ON && ninja -C build divergence_bench && build/bin/divergence_bench
#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "core/common/rng.h"
#include "kernels/divergence.h"

namespace {

using namespace crumb;
using kernels::LogitLossSpec;

constexpr int64_t kRows = 128, kVocab = 32000;

/// The gradient takes the place of the logits, and losses of a gradient cost as much.
void losses(benchmark::State& state, kernels::Isa isa, const LogitLossSpec& spec) {
  const Rng rng(1);
  std::vector<float> student(kRows * kVocab), teacher(student);
  for (size_t i = 0; i < student.size(); ++i) {
    student[i] = static_cast<float>(3 * rng.normal(2 * i));
    teacher[i] = student[i] + static_cast<float>(0.3 * rng.normal(2 * i + 1));
  }
  const std::vector<int64_t> targets(kRows, 5);
  const std::vector<float> weights(kRows, 1.0f);
  std::vector<kernels::LossTerms> terms(kRows);
  for (auto _ : state) {
    kernels::logit_loss(student.data(), teacher.data(), targets.data(), weights.data(), kRows, kVocab, spec,
                        terms.data(), serial_executor(), isa);
  }
  state.SetItemsProcessed(state.iterations() * kRows * kVocab);
}

const bool registered = [] {
  const std::pair<const char*, LogitLossSpec> specs[] = {
      {"cross_entropy", {{.cross_entropy = 1}}}, {"kl", {{.kl = 1}}},   {"kl, temperature 2", {{.kl = 1}, 2.0}},
      {"reverse_kl", {{.reverse_kl = 1}}},       {"jsd", {{.jsd = 1}}}, {"cakld", {{.cakld = 1}}}};
  for (const auto isa : kernels::available_isas()) {
    if (isa == kernels::Isa::reference) continue;
    for (const auto& [name, spec] : specs) {
      const auto label = std::string(name) + "/" + std::string(kernels::isa_name(isa));
      benchmark::RegisterBenchmark(label.c_str(), losses, isa, spec)->Unit(benchmark::kMillisecond);
    }
  }
  return true;
}();

}  // namespace

BENCHMARK_MAIN();
