// Encoding speed on one core, word cache warm. tokenizer_bench TEXT MODEL... [--benchmark_... options]
#include <benchmark/benchmark.h>

#include <memory>
#include <string>

#include "core/common/file.h"
#include "core/tokenizer/tokenizer.h"

namespace {

void encode(benchmark::State& state, const crumb::tokenizer::Tokenizer& tokenizer, const std::string& text) {
  size_t ids = tokenizer.encode(text).size();
  for (auto _ : state) benchmark::DoNotOptimize(ids = tokenizer.encode(text).size());
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * text.size()));
  state.counters["bytes/token"] = static_cast<double>(text.size()) / static_cast<double>(ids);
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (argc < 3) {
    std::fprintf(stderr, "usage: %s TEXT MODEL...\n", argv[0]);
    return 2;
  }
  const std::string text = crumb::read_text(argv[1]);
  for (int i = 2; i < argc; ++i) {
    const std::shared_ptr<crumb::tokenizer::Tokenizer> tokenizer =
        crumb::tokenizer::load_tokenizer(crumb::Path(argv[i]));
    benchmark::RegisterBenchmark(argv[i],
                                 [tokenizer, &text](benchmark::State& state) { encode(state, *tokenizer, text); });
  }
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
