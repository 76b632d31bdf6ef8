// SEQ fake quantization and scale search beside a plain copy of the same bytes, which is the limit of the machine.
//   cmake --preset release -DCRUMB_BENCH=ON && ninja -C build seq_bench && build/bin/seq_bench
#include <benchmark/benchmark.h>

#include <cstring>
#include <vector>

#include "core/common/rng.h"
#include "core/common/thread_pool.h"
#include "kernels/seq.h"
#include "quant/grid.h"

namespace {

using namespace crumb;

constexpr int64_t kRows = 7168, kCols = 2048;  // 14.7 million weights, 59 MB

struct Data {
  std::vector<float> w = std::vector<float>(kRows * kCols), grad = w, y = w, scale = std::vector<float>(kRows, 0.02f),
                     grad_scale = scale;
  Data() {
    const Rng rng(1);
    for (size_t i = 0; i < w.size(); ++i) w[i] = grad[i] = static_cast<float>(0.02 * rng.normal(i));
  }
};
Data& data() {
  static Data d;
  return d;
}

void count(benchmark::State& state, int64_t bytes_a_weight) {
  state.SetItemsProcessed(state.iterations() * kRows * kCols);
  state.SetBytesProcessed(state.iterations() * kRows * kCols * bytes_a_weight);
}

void copy(benchmark::State& state) {
  ThreadPool pool(static_cast<int>(state.range(0)));
  Data& d = data();
  for (auto _ : state) {
    pool.parallel_for(kRows, 16, [&](int64_t begin, int64_t end) {
      std::memcpy(d.y.data() + begin * kCols, d.w.data() + begin * kCols,
                  static_cast<size_t>((end - begin) * kCols) * sizeof(float));
    });
  }
  count(state, 8);
}

void forward(benchmark::State& state, kernels::Isa isa) {
  ThreadPool pool(static_cast<int>(state.range(0)));
  Data& d = data();
  for (auto _ : state) {
    kernels::seq_forward(d.w.data(), d.scale.data(), kRows, kCols, kCols, d.y.data(), nullptr, pool, isa);
  }
  count(state, 8);
}

void backward(benchmark::State& state, kernels::Isa isa) {
  ThreadPool pool(static_cast<int>(state.range(0)));
  Data& d = data();
  for (auto _ : state) {
    kernels::seq_backward(d.w.data(), d.scale.data(), d.grad.data(), kRows, kCols, kCols,
                          kernels::OutsideGradient::zero, d.y.data(), d.grad_scale.data(), pool, isa);
  }
  count(state, 12);
}

void mse_search(benchmark::State& state) {
  Data& d = data();
  for (auto _ : state) {
    for (int64_t row = 0; row < 256; ++row)
      benchmark::DoNotOptimize(
          quant::Grid::seq->find_scale(d.w.data() + row * kCols, kCols, {}, quant::ScaleInit::mse));
  }
  state.SetItemsProcessed(state.iterations() * 256 * kCols);
}

void int_search(benchmark::State& state) {
  const quant::QuantFormat int4{.grid = quant::Grid::intn, .bits = 4};
  Data& d = data();
  for (auto _ : state) {
    for (int64_t row = 0; row < 64; ++row) {
      benchmark::DoNotOptimize(
          quant::Grid::intn->find_scale(d.w.data() + row * kCols, kCols, int4, quant::ScaleInit::mse));
    }
  }
  state.SetItemsProcessed(state.iterations() * 64 * kCols);
}

BENCHMARK(copy)->Arg(1)->Arg(2)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK_CAPTURE(forward, avx2, kernels::Isa::avx2)->Arg(1)->Arg(2)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK_CAPTURE(forward, portable, kernels::Isa::reference)->Arg(1)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK_CAPTURE(backward, avx2, kernels::Isa::avx2)->Arg(1)->Arg(2)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK_CAPTURE(backward, portable, kernels::Isa::reference)->Arg(1)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(mse_search)->Unit(benchmark::kMillisecond);
BENCHMARK(int_search)->Unit(benchmark::kMillisecond);

}  // namespace

BENCHMARK_MAIN();
