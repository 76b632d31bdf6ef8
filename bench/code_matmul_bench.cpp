// Products with matrices of codes, of one token (bytes of codes and scales a second, beside a plain read of as many)
// and of 512 (operations a second, beside the float product), on one thread and every instruction set.
//   cmake --preset no-torch -DCRUMB_BENCH=ON && ninja -C build-no-torch code_matmul_bench
//   build-no-torch/bin/code_matmul_bench --benchmark_repetitions=5 --benchmark_enable_random_interleaving=true
#include <benchmark/benchmark.h>

#include <cstring>
#include <string>
#include <vector>

#include "kernels/code_matmul.h"
#include "kernels/matmul.h"
#include "kernels/read_probe.h"

namespace {

using namespace crumb;
using kernels::Isa;

constexpr int64_t kCols = 2048, kManyRows = 2048;
constexpr int64_t kStreamedBytes = int64_t{128} << 20;  // of codes: more than caches hold

struct Matrix {
  std::vector<uint8_t> codes;
  std::vector<float> scales, minima;
  kernels::CodeMatrix view;

  Matrix(int bits, int64_t rows, int64_t group_cols, bool has_minima) {
    view = {.bits = bits, .rows = rows, .cols = kCols, .group_cols = group_cols, .zero = 1};
    codes.resize(static_cast<size_t>(view.panels() * kernels::code_panel_bytes(kCols, bits)));
    for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(i * 2654435761u >> 24);
    scales.assign(static_cast<size_t>(view.panels() * view.groups() * kernels::kCodePanelRows), 0.01f);
    view.codes = codes.data();
    view.scales = scales.data();
    if (!has_minima) return;
    minima.assign(scales.size(), -0.01f);
    view.minima = minima.data();
  }
  int64_t bytes() const { return static_cast<int64_t>(codes.size() + 4 * (scales.size() + minima.size())); }
};

struct Tokens {
  std::vector<int8_t> codes;
  std::vector<float> floats, scales;
  std::vector<int32_t> sums;
  kernels::Int8Tokens view;

  Tokens(int64_t tokens, int64_t segment_cols) {
    const int64_t stride = kernels::int8_stride(kCols);
    codes.resize(static_cast<size_t>(tokens * stride));
    for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<int8_t>(i * 2654435761u >> 24);
    floats.assign(static_cast<size_t>(tokens * kCols), 0.5f);
    scales.assign(static_cast<size_t>(tokens), 0.01f);
    sums.assign(static_cast<size_t>(tokens * kCols / segment_cols), 7);
    view = {codes.data(), tokens, kCols, stride, scales.data(), kCols, segment_cols, sums.data()};
  }
};

void count(benchmark::State& state, int64_t bytes, int64_t tokens, int64_t rows) {
  state.SetBytesProcessed(state.iterations() * bytes);
  state.counters["GOPS"] = benchmark::Counter(2e-9 * static_cast<double>(state.iterations() * tokens * rows * kCols),
                                              benchmark::Counter::kIsRate);
}

enum class Kind { int8, floats };

void codes(benchmark::State& state, Isa isa, Kind kind, int bits, int64_t group_cols, int64_t tokens,
           bool has_minima = false) {
  const int64_t rows = tokens == 1 ? kStreamedBytes * 8 / bits / kCols : kManyRows;
  const Matrix matrix(bits, rows, group_cols, has_minima);
  const Tokens x(tokens, group_cols);
  std::vector<float> y(static_cast<size_t>(tokens * rows));
  const kernels::CodeProduct product{matrix.view, nullptr, y.data()};
  for (auto _ : state) {
    if (kind == Kind::int8)
      kernels::code_matmul(x.view, {&product, 1}, serial_executor(), isa);
    else
      kernels::code_matmul(x.floats.data(), tokens, {&product, 1}, serial_executor(), isa);
  }
  count(state, matrix.bytes(), tokens, rows);
}

void dense(benchmark::State& state, Isa isa, int64_t tokens) {
  const int64_t rows = tokens == 1 ? kStreamedBytes / 4 / kCols : kManyRows;
  const std::vector<float> w(static_cast<size_t>(kernels::packed_size(rows, kCols)), 0.5f);
  const Tokens x(tokens, kCols);
  std::vector<float> y(static_cast<size_t>(tokens * rows));
  for (auto _ : state) {
    kernels::matmul({x.floats.data(), kCols, tokens, w.data(), nullptr, rows, kCols, y.data(), rows, true},
                    serial_executor(), isa);
  }
  count(state, static_cast<int64_t>(w.size()) * 4, tokens, rows);
}

/// The limit of the machine for one thread.
void read(benchmark::State& state) {
  const kernels::ReadProbe probe(kStreamedBytes);
  for (auto _ : state) benchmark::DoNotOptimize(probe.read(serial_executor()));
  state.SetBytesProcessed(state.iterations() * kStreamedBytes);
}

void add(const std::string& name, void (*function)(benchmark::State&, Isa, int64_t), Isa isa, int64_t tokens) {
  benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) {
    function(state, isa, tokens);
  })->Unit(benchmark::kMillisecond);
}

/// The block types of GGUF that most files have.
void add_block_types(Isa isa, int64_t tokens, const std::string& where) {
  struct BlockType {
    const char* name;
    int bits;
    int64_t group_cols;
    bool has_minima;
  };
  for (const BlockType& type : {BlockType{"q4_k", 4, 32, true}, {"q5_k", 8, 32, true}, {"q6_k", 8, 16, false}}) {
    for (const Kind kind : {Kind::int8, Kind::floats}) {
      const std::string name = std::string(type.name) + (kind == Kind::int8 ? "/int8" : "/float") + where;
      benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) {
        codes(state, isa, kind, type.bits, type.group_cols, tokens, type.has_minima);
      })->Unit(benchmark::kMillisecond);
    }
  }
}

void add_all() {
  benchmark::RegisterBenchmark("read", read)->Unit(benchmark::kMillisecond);
  for (const Isa isa : kernels::available_isas()) {
    if (isa == Isa::reference) continue;
    const std::string of_isa = "/" + std::string(kernels::isa_name(isa));
    for (const int64_t tokens : {1, 8, 512}) {
      const std::string where = of_isa + "/M" + std::to_string(tokens);
      add("float32" + where, dense, isa, tokens);
      add_block_types(isa, tokens, where);
      for (const int bits : {2, 4, 8}) {
        for (const int64_t group_cols : {kCols, int64_t{128}, int64_t{32}}) {
          if (group_cols == 32 && bits != 2) continue;
          const std::string what =
              std::to_string(bits) + "bit/" + (group_cols == kCols ? "row" : "g" + std::to_string(group_cols));
          for (const Kind kind : {Kind::int8, Kind::floats}) {
            if (kind == Kind::floats && group_cols != kCols) continue;
            const std::string name = what + (kind == Kind::int8 ? "/int8" : "/float") + where;
            benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) {
              codes(state, isa, kind, bits, group_cols, tokens);
            })->Unit(benchmark::kMillisecond);
          }
        }
      }
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  add_all();
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
