// Measures on one GPU what the design of CUDA kernels depends on, in two minutes:
//
//   cuda_facts OUTDIR [SECTION ...]        sections: ceilings cublas facts skinny fake_quant; all without arguments
//
// Writes OUTDIR/cuda_facts.json and OUTDIR/cuda_facts.md, one row a number with its prediction beside it. Every section
// is a process of its own with a time box: an error, a hang or a fault that spoils the CUDA context loses no other
// section, and rows count as soon as printed. Times come from CUDA graphs whose nodes rotate over more memory than the
// L2 cache holds: medians over replays, random data.
//
// Built with -DCRUMB_PTXVM the same program executes its kernels' compiled PTX (file CUDA_FACTS_PTX) on the CPU at
// small shapes: every check of a result runs, times mean nothing. bench/cuda_facts.sh builds and runs the real one.
#include <dlfcn.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <limits>
#include <memory>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "bench/cuda_facts_kernels.cuh"

#ifdef CRUMB_PTXVM
#include <ptxvm.hpp>
#endif
#if __has_include(<cublasLt.h>) && __has_include(<cublas_v2.h>) && !defined(CRUMB_PTXVM)
#define CRUMB_CUBLAS 1
#include <cublasLt.h>
#include <cublas_v2.h>
#endif

namespace facts {
namespace {

#ifdef CRUMB_PTXVM
constexpr bool kEmulated = true;
#else
constexpr bool kEmulated = false;
#endif
constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
constexpr double kMiB = 1048576.0;

std::string format(const char* pattern, ...) {
  char text[512];
  va_list args;
  va_start(args, pattern);
  vsnprintf(text, sizeof text, pattern, args);
  va_end(args);
  return text;
}

// ---- rows ------------------------------------------------------------------------------------------------

struct Row {
  std::string section, name;
  double value;
  std::string unit;
  double predicted;  // NaN: none
  std::string note;
};

std::vector<Row> g_rows;  // of the sections before this one, and of this one
std::string g_section, g_rows_path;

/// Prints a row and appends it to the rows file at once: what was measured survives whatever comes next.
void report(const std::string& name, double value, const std::string& unit, double predicted = kNone,
            const std::string& note = "") {
  g_rows.push_back({g_section, name, value, unit, predicted, note});
  std::printf("%-10s %-52s %11.5g %-8s", g_section.c_str(), name.c_str(), value, unit.c_str());
  if (std::isfinite(predicted)) std::printf(" predicted %.4g", predicted);
  std::printf("  %s\n", note.c_str());
  std::fflush(stdout);
  std::ofstream file(g_rows_path, std::ios::app);
  file.precision(9);
  file << g_section << '\t' << name << '\t' << value << '\t' << unit << '\t' << predicted << '\t' << note << '\n';
}

/// A row measured earlier, else `otherwise`.
double measured(const std::string& section, const std::string& name, double otherwise) {
  for (const Row& row : g_rows)
    if (row.section == section && row.name == name && std::isfinite(row.value)) return row.value;
  return otherwise;
}

std::vector<Row> read_rows(const std::string& path) {
  std::vector<Row> rows;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    std::vector<std::string> cells;
    std::stringstream stream(line);
    for (std::string cell; std::getline(stream, cell, '\t');) cells.push_back(cell);
    cells.resize(6);
    rows.push_back({cells[0], cells[1], std::strtod(cells[2].c_str(), nullptr), cells[3],
                    std::strtod(cells[4].c_str(), nullptr), cells[5]});
  }
  return rows;
}

std::string json_text(const std::string& s) {
  std::string out = "\"";
  for (char c : s) {
    if (c == '"' || c == '\\') out += '\\';
    out += static_cast<unsigned char>(c) < 32 ? ' ' : c;
  }
  return out + '"';
}

std::string json_number(double v) { return std::isfinite(v) ? format("%.9g", v) : "null"; }

void write_tables(const std::string& folder, const std::vector<Row>& rows) {
  std::ofstream json(folder + "/cuda_facts.json"), md(folder + "/cuda_facts.md");
  json << "{\"emulated\": " << (kEmulated ? "true" : "false") << ", \"rows\": [\n";
  std::string section;
  for (size_t i = 0; i < rows.size(); ++i) {
    const Row& r = rows[i];
    json << " {\"section\": " << json_text(r.section) << ", \"name\": " << json_text(r.name)
         << ", \"value\": " << json_number(r.value) << ", \"unit\": " << json_text(r.unit)
         << ", \"predicted\": " << json_number(r.predicted) << ", \"note\": " << json_text(r.note)
         << (i + 1 < rows.size() ? "},\n" : "}\n");
    if (r.section != section)
      md << "\n## " << (section = r.section)
         << "\n\n| what | value | unit | predicted | note |\n|---|---|---|---|---|\n";
    md << "| " << r.name << " | " << format("%.5g", r.value) << " | " << r.unit << " | "
       << (std::isfinite(r.predicted) ? format("%.4g", r.predicted) : "") << " | " << r.note << " |\n";
  }
  json << "]}\n";
}

// ---- time ------------------------------------------------------------------------------------------------

using Clock = std::chrono::steady_clock;
Clock::time_point g_deadline;

double seconds_left() { return std::chrono::duration<double>(g_deadline - Clock::now()).count(); }

/// False once the time box is used up; then says so, once.
bool time_left(double needed_seconds = 0.5) {
  if (seconds_left() > needed_seconds) return true;
  static bool said = false;
  if (!said) report("stopped", 1, "", 0, "time box used up; the rest of this section was not measured");
  said = true;
  return false;
}

// ---- device ----------------------------------------------------------------------------------------------

struct Shape {
  dim3 grid, block;
  int shared = 0;    // bytes of dynamic shared memory
  bool pdl = false;  // may start while the kernel before it drains
  int cluster = 1;
};

#ifdef CRUMB_PTXVM

ptxvm::Module& vm() {
  static ptxvm::Module module = ptxvm::Module::load(std::getenv("CUDA_FACTS_PTX"));
  return module;
}
void open_device() {
  vm().opt.slice_seed = std::getenv("CUDA_FACTS_SEED") ? std::atoi(std::getenv("CUDA_FACTS_SEED")) : 0;
  report("device", 1, "", kNone, "compiled PTX executed on the CPU");
}
int sm_count() { return 2; }
void synchronize() {}
void* allocate(size_t bytes) {
  void* p = aligned_alloc(256, (bytes + 255) / 256 * 256);
  std::memset(p, 0xCD, bytes);
  vm().map(p, bytes);
  return p;
}
void release(void* p) {
  vm().unmap(p);
  std::free(p);
}
void copy_to_device(void* to, const void* from, size_t bytes) { std::memcpy(to, from, bytes); }
void copy_to_host(void* to, const void* from, size_t bytes) { std::memcpy(to, from, bytes); }
void copy_on_device(void* to, const void* from, size_t bytes) { std::memcpy(to, from, bytes); }

template <class... P, class... A>
void launch(const char* name, void (*)(P...), const Shape& s, A... args) {
  vm().launch(name, {s.grid.x, s.grid.y, s.grid.z}, {s.block.x, s.block.y, s.block.z}, s.shared,
              static_cast<P>(args)...);
}
template <class Kernel>
int blocks_per_sm(Kernel, const Shape&) {
  return 2;
}

double graph_us(int, const std::function<void(int)>& enqueue, double = 0) {
  enqueue(0);
  enqueue(1);
  return 1.0;
}

#else

void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess)
    throw std::runtime_error(format("%s: %s (%s)", what, cudaGetErrorString(error), cudaGetErrorName(error)));
}
#define CUDA_CHECK(call) check(call, #call)

cudaStream_t g_stream;
int g_sms;

void open_device() {
  int count = 0, driver = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess || count == 0)
    throw std::runtime_error(format("no CUDA device (%s): nothing can be measured here", cudaGetErrorString(error)));
  CUDA_CHECK(cudaSetDevice(0));
  cudaDeviceProp p;
  CUDA_CHECK(cudaGetDeviceProperties(&p, 0));
  CUDA_CHECK(cudaDriverGetVersion(&driver));
  if (p.major != 9)
    throw std::runtime_error(
        format("%s has compute capability %d.%d; this program is built for 9.0", p.name, p.major, p.minor));
  g_sms = p.multiProcessorCount;
  CUDA_CHECK(cudaStreamCreateWithFlags(&g_stream, cudaStreamNonBlocking));
  int sm_khz = 0, memory_khz = 0;
  CUDA_CHECK(cudaDeviceGetAttribute(&sm_khz, cudaDevAttrClockRate, 0));
  CUDA_CHECK(cudaDeviceGetAttribute(&memory_khz, cudaDevAttrMemoryClockRate, 0));
  report("device", g_sms, "SMs", 132,
         format("%s, L2 %.0f MiB, SM %.0f MHz, memory %.0f MHz, driver %d, %.0f GiB", p.name, p.l2CacheSize / kMiB,
                sm_khz / 1e3, memory_khz / 1e3, driver, static_cast<double>(p.totalGlobalMem) / kMiB / 1024));
}
int sm_count() { return g_sms; }
void synchronize() { CUDA_CHECK(cudaStreamSynchronize(g_stream)); }
void* allocate(size_t bytes) {
  void* p;
  CUDA_CHECK(cudaMalloc(&p, bytes));
  return p;
}
void release(void* p) { cudaFree(p); }
void copy_to_device(void* to, const void* from, size_t bytes) {
  CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, g_stream));
  synchronize();
}
void copy_to_host(void* to, const void* from, size_t bytes) {
  CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, g_stream));
  synchronize();
}
void copy_on_device(void* to, const void* from, size_t bytes) {
  CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, g_stream));
}

template <class... P, class... A>
void launch(const char* name, void (*kernel)(P...), const Shape& s, A... args) {
  cudaLaunchConfig_t config = {};
  config.gridDim = s.grid, config.blockDim = s.block, config.dynamicSmemBytes = s.shared, config.stream = g_stream;
  cudaLaunchAttribute attributes[2];
  if (s.pdl) {
    attributes[config.numAttrs].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[config.numAttrs++].val.programmaticStreamSerializationAllowed = 1;
  }
  if (s.cluster > 1) {
    attributes[config.numAttrs].id = cudaLaunchAttributeClusterDimension;
    attributes[config.numAttrs].val.clusterDim.x = s.cluster;
    attributes[config.numAttrs].val.clusterDim.y = attributes[config.numAttrs].val.clusterDim.z = 1;
    ++config.numAttrs;
  }
  config.attrs = attributes;
  if (s.shared > 40000)
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, s.shared), name);
  check(cudaLaunchKernelEx(&config, kernel, static_cast<P>(args)...), name);
}

template <class Kernel>
int blocks_per_sm(Kernel kernel, const Shape& s) {
  if (s.shared > 40000) CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, s.shared));
  int blocks = 0;
  CUDA_CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, s.block.x, s.shared));
  return blocks;
}

struct Event {
  cudaEvent_t id;
  Event() { CUDA_CHECK(cudaEventCreate(&id)); }
  ~Event() { cudaEventDestroy(id); }
};

/// Captures enqueue(0 .. nodes - 1); the capture is ended also when enqueue throws.
cudaGraphExec_t capture(int nodes, const std::function<void(int)>& enqueue) {
  CUDA_CHECK(cudaStreamBeginCapture(g_stream, cudaStreamCaptureModeThreadLocal));
  cudaGraph_t graph = nullptr;
  try {
    for (int i = 0; i < nodes; ++i) enqueue(i);
  } catch (...) {
    cudaStreamEndCapture(g_stream, &graph);
    if (graph) cudaGraphDestroy(graph);
    cudaGetLastError();
    throw;
  }
  CUDA_CHECK(cudaStreamEndCapture(g_stream, &graph));
  cudaGraphExec_t exec;
  const cudaError_t error = cudaGraphInstantiate(&exec, graph, 0);
  cudaGraphDestroy(graph);
  CUDA_CHECK(error);
  return exec;
}

/// Median microseconds of one node of a graph of enqueue(0) .. enqueue(nodes - 1), each after the one before; replays
/// for `budget_ms`.
double graph_us(int nodes, const std::function<void(int)>& enqueue, double budget_ms = 20) {
  enqueue(0);  // once outside the capture: kernels are loaded, errors show at once
  synchronize();
  const cudaGraphExec_t exec = capture(nodes, enqueue);
  std::vector<double> times;
  try {
    Event start, stop;
    const auto began = Clock::now();
    for (int replay = 0; replay < 60; ++replay) {
      CUDA_CHECK(cudaEventRecord(start.id, g_stream));
      CUDA_CHECK(cudaGraphLaunch(exec, g_stream));
      CUDA_CHECK(cudaEventRecord(stop.id, g_stream));
      CUDA_CHECK(cudaEventSynchronize(stop.id));
      float ms = 0;
      CUDA_CHECK(cudaEventElapsedTime(&ms, start.id, stop.id));
      if (replay > 0) times.push_back(1e3 * ms / nodes);  // the first uploads the graph
      if (times.size() >= 3 && std::chrono::duration<double, std::milli>(Clock::now() - began).count() > budget_ms)
        break;
    }
  } catch (...) {
    cudaGraphExecDestroy(exec);
    throw;
  }
  CUDA_CHECK(cudaGraphExecDestroy(exec));
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return times[times.size() / 2];
}

#endif

#define LAUNCH(kernel, ...) launch(#kernel, kernel, __VA_ARGS__)

template <class T>
class Buffer {
 public:
  explicit Buffer(size_t count) : count_(count), data_(static_cast<T*>(allocate(count * sizeof(T)))) {}
  explicit Buffer(const std::vector<T>& from) : Buffer(from.size()) {
    copy_to_device(data_, from.data(), count_ * sizeof(T));
  }
  Buffer(const Buffer&) = delete;
  ~Buffer() { release(data_); }
  T* get() const { return data_; }
  size_t size() const { return count_; }
  std::vector<T> host(size_t count = ~size_t{0}) const {
    std::vector<T> out(std::min(count, count_));
    copy_to_host(out.data(), data_, out.size() * sizeof(T));
    return out;
  }

 private:
  size_t count_;
  T* data_;
};

Shape grid_of(int blocks, int threads, int shared = 0) { return {dim3(blocks), dim3(threads), shared}; }

/// An idle card takes milliseconds to raise its clocks: 50 of them are spent before anything is measured.
void raise_clocks() {
  if (kEmulated) return;
  Buffer<long long> out(2);
  LAUNCH(clock_rate, grid_of(sm_count(), 1), out.get(), 50'000'000ll);
  synchronize();
}

// ---- predictions -----------------------------------------------------------------------------------------

// The floor model of the kernels' design with this card's numbers: a device-to-device copy of 3.0 TB/s, 798 TFLOP/s
// bf16 (seen on an H100).
constexpr double kMemory = 3000, kFlops = 798e3;  // bytes per ns = GB/s; flop per ns / 1e0 -> GFLOP/s
double predicted_us(double fixed_us, double bytes, double share, double flop = 0, double flop_share = 0.85) {
  return fixed_us + std::max(bytes / (share * kMemory * 1e3), flop == 0 ? 0.0 : flop / (flop_share * kFlops * 1e3));
}
double read_ceiling() { return measured("ceilings", "read ceiling", kMemory); }
double copy_ceiling() { return measured("ceilings", "copy ceiling", kMemory); }
double gb_per_s(double bytes, double us) { return bytes / us * 1e-3; }

// ---- rotation --------------------------------------------------------------------------------------------

const size_t kArenaBytes = kEmulated ? size_t{1} << 23 : size_t{2} << 30;

/// Random memory from which buffers of one size are cut in turn, more than 512 MB of them: none is in L2 (50 MB) when
/// its turn comes.
class Arena {
 public:
  Arena() : words_(kArenaBytes / 4) {}
  void random_bits(uint32_t seed) {
    LAUNCH(fill_bits, grid_of(8 * sm_count(), 256), words_.get(), kEmulated ? 4096 : words_.size(), seed);
  }
  void random_bf16(uint32_t seed) {
    LAUNCH(fill_bf16, grid_of(8 * sm_count(), 256), reinterpret_cast<__nv_bfloat16*>(words_.get()),
           kEmulated ? 8192 : 2 * words_.size(), seed);
  }
  static int copies(size_t bytes) {
    const size_t most = kArenaBytes / padded(bytes);
    if (most < 1) throw std::runtime_error(format("%zu bytes do not fit the arena", bytes));
    return static_cast<int>(std::min<size_t>(most, std::max<size_t>(2, (size_t{512} << 20) / padded(bytes))));
  }
  template <class T>
  T* cut(size_t bytes, int i) const {
    return reinterpret_cast<T*>(reinterpret_cast<char*>(words_.get()) + padded(bytes) * (i % copies(bytes)));
  }

 private:
  static size_t padded(size_t bytes) { return (bytes + 4095) / 4096 * 4096; }
  Buffer<uint32_t> words_;
};

/// As many nodes as keep the cost of launching the graph itself below one percent, at least a full turn for small
/// buffers.
int nodes_for(double expected_us) { return std::clamp(static_cast<int>(2000 / expected_us), 4, 400); }

// ---- ceilings --------------------------------------------------------------------------------------------

using ReadKernel = void (*)(const uint4*, size_t, uint32_t*);
struct Reader {
  int threads, blocks_per_sm, in_flight;
  const char* name;
  ReadKernel kernel;
  int bytes_per_sm() const { return threads * blocks_per_sm * in_flight * 16; }
};
#define READER(threads, blocks, n) \
  { threads, blocks, n, "read_" #n, read_##n }
const Reader kReaders[] = {READER(128, 1, 1), READER(256, 1, 1),  READER(256, 1, 2),  READER(512, 1, 2),
                           READER(256, 1, 4), READER(512, 1, 4),  READER(256, 1, 8),  READER(512, 1, 8),
                           READER(512, 2, 4), READER(1024, 1, 4), READER(1024, 1, 8), READER(1024, 2, 4)};

void read_with(const Reader& r, const uint4* data, size_t bytes, uint32_t* out, bool pdl = false) {
  Shape shape = grid_of(sm_count() * r.blocks_per_sm, r.threads);
  shape.pdl = pdl;
  launch(r.name, r.kernel, shape, data, bytes / 16, out);
}

void bulk_with(int stages, int blocks_per_sm, const uint4* data, size_t bytes, uint32_t* out, bool pdl = false) {
  Shape shape = grid_of(sm_count() * blocks_per_sm, 256, stages * kBulkChunk);
  shape.pdl = pdl;
  LAUNCH(read_bulk, shape, data, bytes / 16, out, stages);
}

uint32_t xor_of(const std::vector<uint32_t>& words) {
  uint32_t all = 0;
  for (uint32_t w : words) all ^= w;
  return all;
}

/// Runs `read` on a ragged number of uint4 and compares the XOR of all words: true if every word was read exactly once.
bool reads_all(const Arena& arena, Buffer<uint32_t>& out, size_t bytes, int blocks,
               const std::function<void(const uint4*)>& read) {
  std::vector<uint32_t> host(bytes / 4);
  const uint4* data = arena.cut<uint4>(bytes, 0);
  copy_to_host(host.data(), data, bytes);
  read(data);
  synchronize();
  return xor_of(out.host(blocks)) == xor_of(host);
}

void check_readers(const Arena& arena, Buffer<uint32_t>& out) {
  const size_t bytes = kEmulated ? 96 * 1024 + 16 * 5 : 2'000'000;
  int wrong = 0;
  for (const Reader& r : kReaders)
    wrong += !reads_all(arena, out, bytes, sm_count() * r.blocks_per_sm,
                        [&](const uint4* data) { read_with(r, data, bytes, out.get()); });
  report("readers with a wrong sum", wrong, "", 0, "every word read exactly once (XOR)");
}

void check_copy(const Arena& from, const Arena& to) {
  const size_t bytes = kEmulated ? 64 * 1024 + 16 * 3 : 2'000'000;
  std::vector<uint32_t> a(bytes / 4), b(bytes / 4);
  LAUNCH(copy_4, grid_of(2 * sm_count(), 256), from.cut<uint4>(bytes, 0), to.cut<uint4>(bytes, 0), bytes / 16);
  synchronize();
  copy_to_host(a.data(), from.cut<uint4>(bytes, 0), bytes);
  copy_to_host(b.data(), to.cut<uint4>(bytes, 0), bytes);
  report("copy differs", a != b, "", 0);
}

double predicted_rate(double bytes_in_flight) {
  return std::min(kMemory, bytes_in_flight * sm_count() / 800.0);
}  // Little, 0.8 us

/// GB/s over bytes in flight. Returns the best reader.
const Reader& measure_curve(const Arena& arena, Buffer<uint32_t>& out) {
  const size_t bytes = kEmulated ? 1 << 16 : size_t{1} << 30;
  double best_rate = 0;
  const Reader* best = kReaders;
  for (const Reader& r : kReaders) {
    const double us = graph_us(4, [&](int i) { read_with(r, arena.cut<uint4>(bytes, i), bytes, out.get()); });
    const double rate = gb_per_s(bytes, us);
    report(format("read, %d KB in flight/SM (%d thr x%d, %d loads)", r.bytes_per_sm() / 1024, r.threads,
                  r.blocks_per_sm, r.in_flight),
           rate, "GB/s", predicted_rate(r.bytes_per_sm()), "1 GiB, 16-byte loads, evict first");
    if (rate > best_rate) best_rate = rate, best = &r;
  }
  report("read ceiling", best_rate, "GB/s", kMemory, "the best of the curve: what shares below refer to");
  return *best;
}

const size_t kSizesMiB[] = {2, 8, 32, 128, 1024};
size_t size_of(size_t mib) { return kEmulated ? 1 << 15 : mib << 20; }

void say_size(const std::string& what, size_t mib, double us, double predicted, double moved, const std::string& note) {
  report(format("%s %zu MiB", what.c_str(), mib), us, "us", predicted,
         format("%.0f GB/s, %s", gb_per_s(moved, us), note.c_str()));
}

void measure_reads(const Arena& arena, Buffer<uint32_t>& out, const Reader& best) {
  for (size_t mib : kSizesMiB)
    for (bool pdl : {false, true}) {
      if (!time_left()) return;
      const size_t bytes = size_of(mib);
      const double predicted = predicted_us(pdl ? 1.2 : 2.0, bytes, 1);
      double us = 1e30;
      const Reader* chosen = &best;
      for (const Reader* r : {&best, &kReaders[5], &kReaders[8], &kReaders[9], &kReaders[11]}) {
        const double now = graph_us(nodes_for(predicted),
                                    [&](int i) { read_with(*r, arena.cut<uint4>(bytes, i), bytes, out.get(), pdl); });
        if (now < us) us = now, chosen = r;
      }
      say_size(pdl ? "read, PDL" : "read", mib, us, predicted, bytes,
               format("%d KB in flight/SM, %d threads x%d", chosen->bytes_per_sm() / 1024, chosen->threads,
                      chosen->blocks_per_sm));
    }
}

void measure_copies(const Arena& arena, const Arena& other) {
  for (size_t mib : kSizesMiB) {
    if (!time_left()) return;
    const size_t bytes = size_of(mib);
    const double moved = 2.0 * bytes, predicted = predicted_us(2.0, moved, 1);
    double us = 1e30;
    int threads = 0;
    for (int t : {256, 512, 1024}) {
      const Shape shape = grid_of(sm_count() * 2048 / t, t);
      const double now = graph_us(nodes_for(predicted), [&](int i) {
        LAUNCH(copy_4, shape, arena.cut<uint4>(bytes, i), other.cut<uint4>(bytes, i), bytes / 16);
      });
      if (now < us) us = now, threads = t;
    }
    say_size("copy", mib, us, predicted, moved, format("read + written, %d threads, 2048 a SM", threads));
    if (mib < 1024) continue;
    const double memcpy_us =
        graph_us(4, [&](int i) { copy_on_device(other.cut<void>(bytes, i), arena.cut<void>(bytes, i), bytes); });
    say_size("cudaMemcpy", mib, memcpy_us, predicted, moved, "read + written");
    report("copy ceiling", gb_per_s(moved, std::min(us, memcpy_us)), "GB/s", kMemory,
           "read + written, the better of both");
  }
}

/// Last in its section: a copy that never arrives would end it.
void measure_bulk(const Arena& arena, Buffer<uint32_t>& out) {
  if (kEmulated) return;  // bulk copies are not executed on the CPU
  int wrong = 0;
  for (int stages : {1, 2, 8, 12})
    for (int blocks : {1, 2}) {
      const size_t bytes = 244 * kBulkChunk;
      wrong += !reads_all(arena, out, bytes, blocks * sm_count(),
                          [&](const uint4* data) { bulk_with(stages, blocks, data, bytes, out.get()); });
    }
  report("bulk readers with a wrong sum", wrong, "", 0, "every word read exactly once (XOR)");
  double best_rate = 0;
  int best = 1;
  for (int blocks : {1, 2})
    for (int stages : {1, 2, 4, 8, 12, 24}) {
      const int in_flight = blocks * stages * kBulkChunk;
      if (in_flight > 200 * 1024 || !time_left()) continue;
      const size_t bytes = size_t{1} << 30;
      const double us =
          graph_us(4, [&](int i) { bulk_with(stages, blocks, arena.cut<uint4>(bytes, i), bytes, out.get()); });
      const double rate = gb_per_s(bytes, us);
      report(format("bulk, %d KB in flight/SM (%d stages x%d)", in_flight / 1024, stages, blocks), rate, "GB/s",
             predicted_rate(in_flight), "1 GiB, cp.async.bulk of 8 KB");
      if (blocks == 1 && rate > best_rate) best_rate = rate, best = stages;
    }
  for (size_t mib : kSizesMiB)
    for (bool pdl : {false, true}) {
      if (!time_left()) return;
      const size_t bytes = size_of(mib);
      const double predicted = predicted_us(pdl ? 1.2 : 2.0, bytes, 1);
      const double us = graph_us(nodes_for(predicted),
                                 [&](int i) { bulk_with(best, 1, arena.cut<uint4>(bytes, i), bytes, out.get(), pdl); });
      say_size(pdl ? "bulk, PDL" : "bulk", mib, us, predicted, bytes, format("%d stages of 8 KB", best));
    }
}

void measure_l2(const Arena& arena, Buffer<uint32_t>& out) {
  struct Case {
    const char* name;
    size_t total;
    bool shared;
  };
  for (const Case& c :
       {Case{"L2 to SMs, 8 MiB in all", 8u << 20, false}, Case{"L2 to SMs, 24 MiB in all", 24u << 20, false},
        Case{"L2 to SMs, all read the same 64 KiB", 64u << 10, true},
        Case{"L2 to SMs, all read the same 256 KiB", 256u << 10, true}}) {
    const int count = kEmulated ? 100 : static_cast<int>((c.shared ? c.total : c.total / sm_count()) / 16);
    const int repeats = kEmulated ? 2 : static_cast<int>(std::max<size_t>(2, (size_t{8} << 20) / (count * size_t{16})));
    const double us = graph_us(10, [&](int) {
      LAUNCH(read_l2, grid_of(sm_count(), 1024), arena.cut<uint4>(16 * count, 0),
             c.shared ? size_t{0} : static_cast<size_t>(count), count, repeats, out.get());
    });
    const double bytes = 16.0 * count * repeats * sm_count();
    report(c.name, gb_per_s(bytes, us), "GB/s", 5500, format("%.1f bytes/ns/SM", bytes / us * 1e-3 / sm_count()));
  }
}

void measure_launches() {
  auto empty = [&](const std::string& name, const Shape& shape, double predicted) {
    report(name, graph_us(400, [&](int) { shape.pdl ? LAUNCH(empty_node_pdl, shape) : LAUNCH(empty_node, shape); }),
           "us", predicted, "per node of a graph of 400, each after the one before");
  };
  for (int blocks : {1, sm_count()})
    for (int threads : {32, 512}) {
      Shape shape = grid_of(blocks, threads);
      empty(format("empty node, grid %d x %d", blocks, threads), shape, 1.3);
      shape.pdl = true;
      empty(format("empty node, PDL, grid %d x %d", blocks, threads), shape, kNone);
    }
  for (int cluster : {2, 4}) {
    Shape shape = grid_of(sm_count() / cluster * cluster, 512);
    shape.cluster = cluster;
    empty(format("empty node, cluster of %d, grid %u x 512", cluster, shape.grid.x), shape, kNone);
  }
  Shape shape = grid_of(sm_count(), 512, 128 * 1024);
  empty("empty node, 128 KB of shared memory", shape, kNone);
  if (kEmulated) return;
  report("graph of one empty node, event to event", graph_us(1, [&](int) { LAUNCH(empty_node, grid_of(1, 32)); }), "us",
         kNone);
  synchronize();
  const auto began = Clock::now();
  for (int i = 0; i < 2000; ++i) LAUNCH(empty_node, grid_of(1, 32));
  synchronize();
  report("empty kernel launched without a graph",
         std::chrono::duration<double, std::micro>(Clock::now() - began).count() / 2000, "us", kNone,
         "host time of 2000 in one stream");
}

void section_ceilings() {
  Buffer<uint32_t> out(4096);
  measure_launches();
  Arena arena, other;
  arena.random_bits(1);
  other.random_bits(2);
  check_readers(arena, out);
  check_copy(arena, other);
  const Reader& best = measure_curve(arena, out);
  measure_reads(arena, out, best);
  measure_copies(arena, other);
  if (time_left()) measure_l2(arena, out);
  measure_bulk(arena, out);
}

// ---- shapes ----------------------------------------------------------------------------------------------

struct Layer {
  const char* model;
  int rows, cols;  // N, K
};
const Layer kLayers[] = {
    {"HY-1.8B qkv", 3072, 2048},       {"HY-1.8B o", 2048, 2048},      {"HY-1.8B gate+up", 12288, 2048},
    {"HY-1.8B down", 2048, 6144},      {"Llama-8B qkv", 6144, 4096},   {"Llama-8B o", 4096, 4096},
    {"Llama-8B gate+up", 28672, 4096}, {"Llama-8B down", 4096, 14336}, {"70B o", 8192, 8192}};

std::string layer_name(const Layer& l, int tokens) { return format("%dx%d M=%d", l.rows, l.cols, tokens); }

// ---- cuBLASLt --------------------------------------------------------------------------------------------

#ifdef CRUMB_CUBLAS

/// A library opened at run time: the program also runs where cuBLAS is not installed, and where it lies in a Python
/// environment (CUDA_FACTS_CUBLASLT names libcublasLt there, libcublas lies beside it).
class Library {
 public:
  explicit Library(const std::vector<std::string>& paths) {
    for (const std::string& path : paths)
      if (!path.empty() && (library_ = dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL))) return;
    const char* why = dlerror();
    throw std::runtime_error(std::string("cannot load cuBLAS (CUDA_FACTS_CUBLASLT or LD_LIBRARY_PATH name it): ") +
                             (why ? why : ""));
  }
  template <class F>
  F get(const char* name) const {
    F f = reinterpret_cast<F>(dlsym(library_, name));
    if (!f) throw std::runtime_error(std::string("cuBLAS has no ") + name);
    return f;
  }
  static std::string named() {
    const char* path = std::getenv("CUDA_FACTS_CUBLASLT");
    return path ? path : "";
  }
  static std::string beside() {
    std::string path = named();
    const size_t at = path.rfind("libcublasLt");
    return at == std::string::npos ? "" : path.replace(at, 11, "libcublas");
  }

 private:
  void* library_ = nullptr;
};

struct Blas : Library {
  cublasLtHandle_t handle = nullptr;
  Blas() : Library({named(), "libcublasLt.so.13", "libcublasLt.so"}) {
    check(get<decltype(&cublasLtCreate)>("cublasLtCreate")(&handle), "cublasLtCreate");
  }
  static void check(cublasStatus_t status, const char* what) {
    if (status != CUBLAS_STATUS_SUCCESS)
      throw std::runtime_error(format("%s: cuBLAS status %d", what, static_cast<int>(status)));
  }
};

/// cublasGemmEx beside cuBLASLt: at one token it may take a matrix-vector kernel that cuBLASLt does not offer.
struct Gemm : Library {
  using Run = cublasStatus_t (*)(cublasHandle_t, cublasOperation_t, cublasOperation_t, int, int, int, const void*,
                                 const void*, cudaDataType, int, const void*, cudaDataType, int, const void*, void*,
                                 cudaDataType, int, cublasComputeType_t, cublasGemmAlgo_t);
  cublasHandle_t handle = nullptr;
  Run multiply;
  Gemm(void* workspace, size_t bytes)
      : Library({beside(), "libcublas.so.13", "libcublas.so"}), multiply(get<Run>("cublasGemmEx")) {
    Blas::check(get<cublasStatus_t (*)(cublasHandle_t*)>("cublasCreate_v2")(&handle), "cublasCreate");
    Blas::check(get<cublasStatus_t (*)(cublasHandle_t, cudaStream_t)>("cublasSetStream_v2")(handle, g_stream),
                "cublasSetStream");
    Blas::check(
        get<cublasStatus_t (*)(cublasHandle_t, void*, size_t)>("cublasSetWorkspace_v2")(handle, workspace, bytes),
        "cublasSetWorkspace");
  }
  void run(int rows, int cols, int tokens, const void* w, const void* x, void* y) const {
    const float one = 1, zero = 0;
    Blas::check(multiply(handle, CUBLAS_OP_T, CUBLAS_OP_N, rows, tokens, cols, &one, w, CUDA_R_16BF, cols, x,
                         CUDA_R_16BF, cols, &zero, y, CUDA_R_16BF, rows, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
                "cublasGemmEx");
  }
};

/// y [M][N] = x [M][K] w [N][K]^T, all row-major: column-major D (N x M) = W^T (K x N) X (K x M).
class Product {
 public:
  Product(const Blas& blas, bool int8, int rows, int cols, int tokens) : blas_(blas), int8_(int8) {
    const cudaDataType_t in = int8 ? CUDA_R_8I : CUDA_R_16BF, out = int8 ? CUDA_R_32I : CUDA_R_16BF;
    auto create = blas_.get<decltype(&cublasLtMatmulDescCreate)>("cublasLtMatmulDescCreate");
    auto set = blas_.get<decltype(&cublasLtMatmulDescSetAttribute)>("cublasLtMatmulDescSetAttribute");
    auto layout = blas_.get<decltype(&cublasLtMatrixLayoutCreate)>("cublasLtMatrixLayoutCreate");
    Blas::check(create(&operation_, int8 ? CUBLAS_COMPUTE_32I : CUBLAS_COMPUTE_32F, int8 ? CUDA_R_32I : CUDA_R_32F),
                "cublasLtMatmulDescCreate");
    const cublasOperation_t transposed = CUBLAS_OP_T;
    Blas::check(set(operation_, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed), "transpose A");
    Blas::check(layout(&w_, in, cols, rows, cols), "layout of w");
    Blas::check(layout(&x_, in, cols, tokens, cols), "layout of x");
    Blas::check(layout(&y_, out, rows, tokens, rows), "layout of y");
  }
  ~Product() {
    blas_.get<decltype(&cublasLtMatmulDescDestroy)>("cublasLtMatmulDescDestroy")(operation_);
    for (cublasLtMatrixLayout_t l : {w_, x_, y_})
      blas_.get<decltype(&cublasLtMatrixLayoutDestroy)>("cublasLtMatrixLayoutDestroy")(l);
  }
  std::vector<cublasLtMatmulHeuristicResult_t> algorithms(size_t workspace, int most) const {
    cublasLtMatmulPreference_t preference;
    Blas::check(blas_.get<decltype(&cublasLtMatmulPreferenceCreate)>("cublasLtMatmulPreferenceCreate")(&preference),
                "preference");
    Blas::check(blas_.get<decltype(&cublasLtMatmulPreferenceSetAttribute)>("cublasLtMatmulPreferenceSetAttribute")(
                    preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace),
                "workspace");
    std::vector<cublasLtMatmulHeuristicResult_t> found(most);
    int count = 0;
    const cublasStatus_t status =
        blas_.get<decltype(&cublasLtMatmulAlgoGetHeuristic)>("cublasLtMatmulAlgoGetHeuristic")(
            blas_.handle, operation_, w_, x_, y_, y_, preference, most, found.data(), &count);
    blas_.get<decltype(&cublasLtMatmulPreferenceDestroy)>("cublasLtMatmulPreferenceDestroy")(preference);
    found.resize(status == CUBLAS_STATUS_SUCCESS ? count : 0);
    return found;
  }
  void run(const cublasLtMatmulAlgo_t& algorithm, const void* w, const void* x, void* y, void* workspace,
           size_t bytes) const {
    const float one_f = 1, zero_f = 0;
    const int one_i = 1, zero_i = 0;
    const void *one = int8_ ? static_cast<const void*>(&one_i) : &one_f,
               *zero = int8_ ? static_cast<const void*>(&zero_i) : &zero_f;
    static const auto matmul = blas_.get<decltype(&cublasLtMatmul)>("cublasLtMatmul");
    Blas::check(
        matmul(blas_.handle, operation_, one, w, w_, x, x_, zero, y, y_, y, y_, &algorithm, workspace, bytes, g_stream),
        "cublasLtMatmul");
  }

 private:
  const Blas& blas_;
  bool int8_;
  cublasLtMatmulDesc_t operation_ = nullptr;
  cublasLtMatrixLayout_t w_ = nullptr, x_ = nullptr, y_ = nullptr;
};

struct BlasBench {
  Blas lt;
  Buffer<uint32_t> workspace{size_t{32} << 18}, x{size_t{4096} * 14336 / 2},
      y{size_t{4096} * 28672};  // 32 MiB; the largest x and y
  Arena weights;
  std::unique_ptr<Gemm> gemm;
};

/// The best of up to 8 algorithms of cuBLASLt, and of cublasGemmEx for bf16.
void measure_product(const BlasBench& b, const Layer& l, int tokens, bool int8) {
  const std::string name = (int8 ? "int8 " : "bf16 ") + layer_name(l, tokens);
  const Product product(b.lt, int8, l.rows, l.cols, tokens);
  const size_t scratch = b.workspace.size() * 4, bytes = static_cast<size_t>(l.rows) * l.cols * (int8 ? 1 : 2);
  const double flop = 2.0 * l.rows * l.cols * tokens;
  const double other_bytes = 1.0 * tokens * (l.rows * (int8 ? 4.0 : 2.0) + l.cols * (int8 ? 1.0 : 2.0));
  const double predicted = predicted_us(2.5, bytes + other_bytes, 0.8, int8 ? flop / 2 : flop, 0.95);
  const auto algorithms = product.algorithms(scratch, 8);
  using Enqueue = std::function<void(int)>;
  std::vector<std::pair<std::string, Enqueue>> ways;
  for (size_t a = 0; a < algorithms.size(); ++a)
    ways.push_back({format("Lt %zu", a + 1), [&, a](int i) {
                      product.run(algorithms[a].algo, b.weights.cut<void>(bytes, i), b.x.get(), b.y.get(),
                                  b.workspace.get(), scratch);
                    }});
  if (b.gemm && !int8)
    ways.push_back({"GemmEx", [&](int i) {
                      b.gemm->run(l.rows, l.cols, tokens, b.weights.cut<void>(bytes, i), b.x.get(), b.y.get());
                    }});
  const int nodes = std::clamp(static_cast<int>(1500 / predicted), 3, 150);
  double best = 1e30;
  size_t chosen = 0;
  std::string all;
  for (size_t way = 0; way < ways.size(); ++way) {
    try {
      const double us = graph_us(nodes, ways[way].second, 2);
      all += format(" %.2f", us);
      if (us < best) best = us, chosen = way;
    } catch (const std::exception&) {  // an algorithm that does not run here; a broken context throws again at once
      all += " -";
      cudaGetLastError();
      synchronize();
    }
  }
  if (best > 1e29) return report(name, kNone, "us", predicted, "no algorithm runs this");
  best = std::min(best, graph_us(nodes, ways[chosen].second, 10));
  report(name, best, "us", predicted,
         format("%s; %.0f GB/s of weights, %.0f T%s/s; %s of%s us", l.model, gb_per_s(bytes, best), flop / best * 1e-6,
                int8 ? "OP" : "FLOP", ways[chosen].first.c_str(), all.c_str()));
}

void section_cublas() {
  BlasBench b;
  try {
    b.gemm = std::make_unique<Gemm>(b.workspace.get(), b.workspace.size() * 4);
  } catch (const std::exception& e) {
    report("cublasGemmEx is not measured", 1, "", 0, e.what());
  }
  b.weights.random_bf16(1);
  LAUNCH(fill_bf16, grid_of(8 * sm_count(), 256), reinterpret_cast<__nv_bfloat16*>(b.x.get()), 2 * b.x.size(), 2u);
  for (int tokens : {1, 8, 64, 256, 16, 4096, 4, 128, 1024})  // the most telling first
    for (const Layer& l : kLayers)
      if (time_left()) measure_product(b, l, tokens, false);
  b.weights.random_bits(3);
  LAUNCH(fill_bits, grid_of(8 * sm_count(), 256), b.x.get(), b.x.size(), 4u);
  for (int tokens : {64, 256, 1024, 4096, 128})
    for (const Layer& l : kLayers)
      if (time_left()) measure_product(b, l, tokens, true);
}

#else
void section_cublas() {
  report("cuBLASLt", kNone, "", kNone, kEmulated ? "not on the CPU" : "built without cublasLt.h");
}
#endif

// ---- facts in doubt --------------------------------------------------------------------------------------

uint16_t half_bits(double v) {
  const __half h = __double2half(v);
  uint16_t bits;
  std::memcpy(&bits, &h, sizeof bits);
  return bits;
}

/// HMMA on subnormal operands c 4^f 2^-24 times integers: every sum is exact in fp32, so any difference is a flush or a
/// rounding.
void check_subnormals() {
  std::mt19937 random(5);
  int wrong = 0, trials = kEmulated ? 4 : 64;
  double worst = 0;
  Buffer<uint16_t> a(256), b(128);
  Buffer<float> c(128);
  for (int trial = 0; trial < trials; ++trial) {
    const bool integers = trial % 2 == 0;  // else wide values: the rounding of the sums
    std::vector<uint16_t> ha(256), hb(128);
    std::vector<double> va(256), vb(128);
    for (int i = 0; i < 256; ++i) {
      ha[i] = static_cast<uint16_t>((random() & 3) << (2 * (random() % 5)));
      va[i] = ha[i] * std::ldexp(1.0, -24);
    }
    for (int i = 0; i < 128; ++i) {
      vb[i] = integers ? static_cast<int>(random() % 2047) - 1023
                       : std::ldexp(static_cast<int>(random() % 2047) - 1023, static_cast<int>(random() % 8) - 6);
      hb[i] = half_bits(vb[i]);
    }
    copy_to_device(a.get(), ha.data(), 512);
    copy_to_device(b.get(), hb.data(), 256);
    LAUNCH(mma_once, grid_of(1, 32), a.get(), b.get(), c.get());
    synchronize();
    const std::vector<float> got = c.host();
    for (int row = 0; row < 16; ++row)
      for (int n = 0; n < 8; ++n) {
        double sum = 0, size = 0;
        for (int k = 0; k < 16; ++k)
          sum += va[row * 16 + k] * vb[n * 16 + k], size += std::fabs(va[row * 16 + k] * vb[n * 16 + k]);
        if (integers)
          wrong += got[row * 8 + n] != sum;
        else if (size > 0)
          worst = std::max(worst, std::fabs(got[row * 8 + n] - sum) / size);
      }
  }
  report("HMMA on fp16 subnormals: inexact results", wrong, "", 0, format("of %d, exact in fp32", trials / 2 * 128));
  report("HMMA error of one k16 sum", worst * 16777216, "2^-24", kNone, "share of the sum of |terms|");
}

using RateKernel = void (*)(uint32_t*, long long*, int, uint32_t, uint32_t);
struct Rate {
  const char* name;
  const char* kernel_name;
  RateKernel kernel;
  double per_iteration;  // instructions of a thread (lanes) or of a warp (mma) in one iteration
  bool per_warp;
  uint32_t b, c;
  double predicted;
};
#define RATE(label, kernel, n, per_warp, b, c, predicted) \
  { label, #kernel, kernel, n, per_warp, b, c, predicted }
const Rate kRates[] = {
    RATE("LOP3", rate_lop3, kChains, false, 0x5a5a5a5au, 0x12345678u, 64),
    RATE("SHF", rate_shf, kChains, false, 0x5a5a5a5au, 7u, 64),
    RATE("PRMT", rate_prmt, kChains, false, 0x5a5a5a5au, 0x5140u, 64),
    RATE("HFMA2", rate_hfma2, kChains, false, 0x38003800u, 0x34003400u, 128),
    RATE("LOP3 + HFMA2, both", rate_lop3_hfma2, 2 * kChains, false, 0x38003800u, 0x34003400u, 128),
    RATE("IDP4A", rate_dp4a, kChains, false, 0x5a5a5a5au, 0x12345678u, 64),
    RATE("IMAD", rate_imad, kChains, false, 0x5a5a5a5au, 0x12345678u, 64),
    RATE("FFMA", rate_ffma, kChains, false, 0x3f000000u, 0x3e800000u, 128),
    RATE("mma m16n8k16 bf16", rate_mma_bf16, 4, true, 0x3f803f80u, 0x3fa03e90u, 0.68),
    RATE("mma m16n8k16 f16, normal operands", rate_mma_f16, 4, true, 0x3c003c00u, 0x35103a20u, 0.68),
    RATE("mma m16n8k16 f16, subnormal operands", rate_mma_f16, 4, true, 0x00c000c0u, 0x35103a20u, 0.68),
    RATE("mma m16n8k32 u8xs8", rate_mma_u8s8, 4, true, 0x03020103u, 0x11f3227fu, 0.68),
    RATE("mma f16 with 4 LOP3 each", rate_decode_mix, 4, true, 0x5a5a5a5au, 0x35103a20u, 0.5)};

void measure_rates() {
  const int blocks = sm_count(), iterations = kEmulated ? 4 : 4096;
  Buffer<uint32_t> out(static_cast<size_t>(blocks) * 1024);
  Buffer<long long> clocks(blocks);
  for (const Rate& r : kRates) {
    if (!time_left()) return;
    for (int threads : {1024, 512, 256}) {
      if (threads != 1024 && !r.per_warp) continue;
      const double us = graph_us(2, [&](int) {
        launch(r.kernel_name, r.kernel, grid_of(blocks, threads), out.get(), clocks.get(), iterations, r.b, r.c);
      });
      std::vector<long long> t = clocks.host();
      std::nth_element(t.begin(), t.begin() + t.size() / 2, t.end());
      const double per_clock =
          r.per_iteration * iterations * (r.per_warp ? threads / 32 : threads) / static_cast<double>(t[t.size() / 2]);
      report(format("%s, %d warps", r.name, threads / 32), per_clock, r.per_warp ? "mma/clk/SM" : "lanes/clk/SM",
             r.predicted, format("SM clock %.0f MHz (clocks over launch time)", t[t.size() / 2] / us));
    }
  }
}

void section_facts() {
  check_subnormals();
  measure_rates();
  if (kEmulated) return;
  Buffer<long long> clocks(2);
  LAUNCH(clock_rate, grid_of(1, 1), clocks.get(), 20'000'000ll);
  synchronize();
  const std::vector<long long> t = clocks.host();
  report("SM clock, idle but for one thread", 1e3 * t[0] / t[1], "MHz", kNone);
}

// ---- skinny product --------------------------------------------------------------------------------------

using SkinnyKernel = void (*)(SkinnyArgs);
struct Variant {
  const char* name;
  const char* kernel_name;
  SkinnyKernel kernel;
  Order order;
  bool prescaled, is_exact;
  int warps, tiles, depth;
  bool shared;
  int splits(int cols) const { return cols % (warps * tiles * kTileK) == 0 ? cols / (warps * tiles * kTileK) : 0; }
};
#define CRUMB_VARIANT(name, decode, warps, tiles, depth, shared)                                                     \
  {#name, "skinny_" #name, skinny_##name, decode::kOrder, decode::kPrescaled, std::is_same<decode::Sum, int>::value, \
   warps, tiles,           depth,         shared},
const Variant kVariants[] = {CRUMB_SKINNY_VARIANTS(CRUMB_VARIANT)};
constexpr int kMostSplits = 3;

/// Activations of 8 tokens as the op before the product would leave them: fragments, token scales, and the plain values
/// for the reference.
struct Activations {
  std::vector<float> plain;    // [8][cols] what the product is compared with
  std::vector<uint8_t> bytes;  // fragments, see x_at
  std::vector<Token> tokens;
};

Activations make_activations(Order order, bool prescaled, int cols) {
  Activations out{std::vector<float>(static_cast<size_t>(kTokens) * cols),
                  std::vector<uint8_t>(static_cast<size_t>(kTokens) * cols * (order == Order::k16Bit ? 2 : 1)),
                  {}};
  for (int token = 0; token < kTokens; ++token) {
    float* x = out.plain.data() + static_cast<size_t>(token) * cols;
    double sum = 0, largest = 0;
    for (int k = 0; k < cols; ++k) {  // not centred: the offset 3 sum x must matter
      const float value = uniform(77 + token, k) * (1 + 3 * (k % 97 == 0)) + 0.125f;
      x[k] = order == Order::k8Bit ? std::nearbyint(31 * value) : __bfloat162float(__float2bfloat16_rn(value));
      largest = std::max(largest, std::fabs(static_cast<double>(x[k])));
    }
    int exponent = 0;
    std::frexp(largest, &exponent);
    const int power = order == Order::k8Bit ? 0 : 15 - exponent;  // largest |x| in [2^14, 2^15)
    for (int k = 0; k < cols; ++k) {
      const double scaled = std::ldexp(x[k], power);
      sum += scaled;
      if (order == Order::k8Bit) {
        out.bytes[x_at(order, token, k)] = static_cast<uint8_t>(static_cast<int8_t>(x[k]));
        continue;
      }
      const uint16_t bits = half_bits(std::ldexp(scaled, prescaled ? -2 * and_power(k % kTileK / 16) : 0));
      std::memcpy(&out.bytes[2 * x_at(order, token, k)], &bits, 2);
    }
    out.tokens.push_back({static_cast<float>(std::ldexp(1.0, -power)), static_cast<float>(3 * sum)});
  }
  return out;
}

/// Everything on the device that one layer shape needs for one kind of decoder.
struct Setup {
  Buffer<uint8_t> x;
  Buffer<float> plain;
  Buffer<Token> tokens;
  Setup(const Activations& a) : x(a.bytes), plain(a.plain), tokens(a.tokens) {}
};

struct Workspace {
  Buffer<float> d, y;
  Buffer<double> reference, magnitude;
  Buffer<float> meeting;
  Buffer<int> arrived;
  explicit Workspace(int rows)
      : d(rows),
        y(static_cast<size_t>(kTokens) * rows),
        reference(y.size()),
        magnitude(y.size()),
        meeting(kMostSplits * y.size()),
        arrived(std::vector<int>(rows / kTileRows)) {
    LAUNCH(fill_float, grid_of(64, 256), d.get(), d.size(), 9u, 0.02f, 0.01f);
  }
};

SkinnyArgs arguments(const Layer& l, const Variant& v, const Setup& s, const Workspace& w, const uint4* weights,
                     int tokens) {
  return {weights,         reinterpret_cast<const uint4*>(s.x.get()),
          w.d.get(),       s.tokens.get(),
          w.y.get(),       l.rows,
          tokens,          v.splits(l.cols),
          w.meeting.get(), w.arrived.get()};
}

Shape skinny_shape(const Layer& l, const Variant& v, int blocks_per_sm) {
  const int splits = v.splits(l.cols);
  Shape shape = grid_of(std::min(l.rows / kTileRows, std::max(1, sm_count() * blocks_per_sm / splits)), 32 * v.warps,
                        skinny_shared_bytes(v.order, v.warps, v.tiles, v.depth, v.shared));
  shape.grid.y = splits;
  return shape;
}

/// Largest error of y over the sum of |terms|; infinite if an output was not written. Integers must be exact.
double skinny_error(const Layer& l, const Variant& v, const Setup& s, const Workspace& w, const uint4* weights,
                    int tokens, int blocks) {
  const size_t outputs = static_cast<size_t>(tokens) * l.rows;
  LAUNCH(fill_float, grid_of(64, 256), w.y.get(), w.y.size(), 1u, static_cast<float>(kNone), 0.0f);  // poison
  launch(v.kernel_name, v.kernel, skinny_shape(l, v, blocks), arguments(l, v, s, w, weights, tokens));
  synchronize();
  const std::vector<float> y = w.y.host(outputs);
  const std::vector<double> reference = w.reference.host(outputs), magnitude = w.magnitude.host(outputs);
  double worst = 0;
  for (size_t i = 0; i < outputs; ++i) {
    const double error = v.is_exact ? static_cast<double>(y[i] != static_cast<float>(reference[i]))
                                    : std::fabs(y[i] - reference[i]) / magnitude[i];
    worst = std::isfinite(error) ? std::max(worst, error) : std::numeric_limits<double>::infinity();
  }
  return worst;
}

struct Best {
  double us = 1e30;
  const Variant* variant = nullptr;
  int blocks = 0;  // a multiprocessor
  bool pdl = false;
};

void measure_variant(const Layer& l, const Variant& v, const Setup& s, const Workspace& w, const Arena& arena,
                     int tokens, Best (&best)[2]) {
  const size_t bytes = static_cast<size_t>(l.rows) * l.cols / 4;
  const double useful = bytes + 4.0 * l.rows;
  const int resident = std::min(2, blocks_per_sm(v.kernel, skinny_shape(l, v, 1)));
  for (int blocks = 1; blocks <= resident; ++blocks)
    for (bool pdl : {false, true}) {
      if (!time_left()) return;
      Shape shape = skinny_shape(l, v, blocks);
      shape.pdl = pdl;
      const double predicted = predicted_us(pdl ? 1.2 : 2.0, useful, 0.85);
      const double us = graph_us(
          nodes_for(predicted),
          [&](int i) {
            launch(v.kernel_name, v.kernel, shape, arguments(l, v, s, w, arena.cut<uint4>(bytes, i), tokens));
          },
          6);
      report(layer_name(l, tokens) + format(" %s%s x%d", v.name, pdl ? " PDL" : "", blocks), us, "us", predicted,
             format("%.0f GB/s, %.0f %% of the read ceiling", gb_per_s(useful, us),
                    100 * gb_per_s(useful, us) / read_ceiling()));
      if (us < best[v.is_exact].us) best[v.is_exact] = {us, &v, blocks, pdl};
    }
}

/// Returns the best W2A16 kernel for one token.
Best measure_layer(const Layer& l, const Arena& arena, std::vector<double>& errors) {
  Best for_one_token;
  const uint4* weights = arena.cut<uint4>(static_cast<size_t>(l.rows) * l.cols / 4, 0);
  const Workspace w(l.rows);
  const Setup and_setup(make_activations(Order::k16Bit, true, l.cols)),
      magic_setup(make_activations(Order::k16Bit, false, l.cols)),
      int_setup(make_activations(Order::k8Bit, false, l.cols));
  auto setup_of = [&](const Variant& v) -> const Setup& {
    return v.is_exact ? int_setup : v.prescaled ? and_setup : magic_setup;
  };
  for (Order order : {Order::k16Bit, Order::k8Bit}) {
    const Setup& s = order == Order::k8Bit ? int_setup : magic_setup;
    const int outputs = l.rows * kTokens;
    LAUNCH(skinny_reference, grid_of((outputs + 127) / 128, 128), reinterpret_cast<const uint32_t*>(weights),
           static_cast<int>(order), s.plain.get(), w.d.get(), l.rows, l.cols, kTokens, w.reference.get(),
           w.magnitude.get());
    synchronize();
    for (size_t i = 0; i < std::size(kVariants); ++i) {
      const Variant& v = kVariants[i];
      if (v.order != order || v.splits(l.cols) < 1 || v.splits(l.cols) > kMostSplits) continue;
      for (int tokens : {8, 3, 1})
        for (int blocks : {1, 2})
          errors[i] =
              std::fmax(errors[i], skinny_error(l, v, setup_of(v), w, weights, tokens, blocks));  // NaN: none yet
    }
  }
  for (int tokens : {1, 8}) {
    Best best[2];  // 16-bit activations, 8-bit activations
    for (const Variant& v : kVariants)
      if (v.splits(l.cols) >= 1 && v.splits(l.cols) <= kMostSplits)
        measure_variant(l, v, setup_of(v), w, arena, tokens, best);
    if (tokens == 1) for_one_token = best[0];
    const double useful = l.rows * (l.cols / 4.0 + 4),
                 blas = measured("cublas", "bf16 " + layer_name(l, tokens), kNone);
    const double blas_us = predicted_us(2.5, 2.0 * l.rows * l.cols, 0.8);
    for (int kind = 0; kind < 2; ++kind) {
      const Best& k = best[kind];
      if (!k.variant) continue;
      const std::string what = format("best %s %s", kind ? "W2A8" : "W2A16", layer_name(l, tokens).c_str());
      report(what, k.us, "us", predicted_us(1.2, useful, 0.85),
             format("%s; %s%s x%d; %.0f %% of the read ceiling", l.model, k.variant->name, k.pdl ? " PDL" : "",
                    k.blocks, 100 * gb_per_s(useful, k.us) / read_ceiling()));
      report(what + " over cuBLAS bf16", blas / k.us, "x", blas_us / predicted_us(1.2, useful, 0.85));
    }
  }
  return for_one_token;
}

/// All products of one decode step, `repeats` times the layers [first, first + 4), each with its best kernel: what is
/// left of the single times when weights differ and each kernel waits for the one before.
void measure_stack(const char* model, const Layer* layers, const Best* best, const Arena& arena, int repeats) {
  std::vector<std::unique_ptr<Setup>> setups;
  std::vector<std::unique_ptr<Workspace>> workspaces;
  std::vector<size_t> offsets;
  size_t bytes = 0;
  double alone_us = 0;
  for (int i = 0; i < 4; ++i) {
    if (!best[i].variant)
      return report(format("%s, products of a step", model), kNone, "us", kNone, "not all layers were measured");
    setups.push_back(
        std::make_unique<Setup>(make_activations(Order::k16Bit, best[i].variant->prescaled, layers[i].cols)));
    workspaces.push_back(std::make_unique<Workspace>(layers[i].rows));
    alone_us += repeats * best[i].us;
  }
  for (int r = 0; r < repeats; ++r)
    for (int i = 0; i < 4; ++i)
      offsets.push_back(bytes), bytes += static_cast<size_t>(layers[i].rows) * layers[i].cols / 4;
  const char* weights = arena.cut<char>(bytes, 0);
  for (bool pdl : {false, true}) {
    const double us = graph_us(1, [&](int) {
      for (int n = 0; n < 4 * repeats; ++n) {
        const int i = n % 4;
        Shape shape = skinny_shape(layers[i], *best[i].variant, best[i].blocks);
        shape.pdl = pdl;
        launch(best[i].variant->kernel_name, best[i].variant->kernel, shape,
               arguments(layers[i], *best[i].variant, *setups[i], *workspaces[i],
                         reinterpret_cast<const uint4*>(weights + offsets[n]), 1));
      }
    });
    report(format("%s, products of a step%s", model, pdl ? ", PDL" : ""), us, "us",
           predicted_us(4 * repeats * (pdl ? 1.2 : 2.0), bytes, 0.85),
           format("%d kernels, %.0f MB, %.0f GB/s; the best times alone add up to %.0f us", 4 * repeats, bytes * 1e-6,
                  gb_per_s(bytes, us), alone_us));
  }
}

void section_skinny() {
  static const Layer kSmall[] = {
      {"", 16 * 13, 2048}, {"", 16 * 5, 4096}, {"", 16 * 5, 6144}, {"", 16 * 3, 8192}, {"", 16 * 3, 14336}};
  Arena arena;
  arena.random_bits(11);
  std::vector<double> errors(std::size(kVariants), kNone);
  Best best[std::size(kLayers)];
  auto measure = [&](const Layer& l, Best& of) {
    if (time_left()) of = measure_layer(l, arena, errors);
  };
  if (kEmulated) {
    for (size_t i = 0; i < std::size(kSmall); ++i) measure(kSmall[i], best[i]);
    measure_stack("small", kSmall, best, arena, 2);
  } else {
    for (int i : {2, 6, 8, 5, 1, 7, 3, 0, 4}) measure(kLayers[i], best[i]);
    if (time_left(2)) measure_stack("HY-1.8B", kLayers, best, arena, 32);
    if (time_left(2)) measure_stack("Llama-8B", kLayers + 4, best + 4, arena, 32);
  }
  for (size_t i = 0; i < std::size(kVariants); ++i)
    report(format("error %s", kVariants[i].name), errors[i], "", kVariants[i].is_exact ? 0 : 4.4e-6,
           std::string(kVariants[i].is_exact ? "outputs must be equal" : "of the sum of |terms|, against double") +
               (std::isnan(errors[i])                             ? ", never run"
                : errors[i] <= (kVariants[i].is_exact ? 0 : 1e-5) ? ""
                                                                  : ", WRONG"));
}

// ---- fake quantization -----------------------------------------------------------------------------------

/// The definition, ParetoQ's rint form: r = w / alpha, q = (rint(2 clip(r, +-.99) - .5) + .5) / 2.
float seq_quarter(float w, float alpha) {
  const float clipped = std::clamp(w / alpha, -0.99f, 0.99f);
  return (std::nearbyint(2 * clipped - 0.5f) + 0.5f) / 2;
}

float bf16(float v) { return __bfloat162float(__float2bfloat16_rn(v)); }

struct SeqCheck {
  int wrong_forward = 0, wrong_backward = 0;
  double alpha_error = 0;
};

/// Compares the first rows with the definition in double.
SeqCheck check_seq(int rows, int cols, const std::vector<__nv_bfloat16>& w, const std::vector<__nv_bfloat16>& g,
                   const std::vector<float>& alpha, const std::vector<__nv_bfloat16>& w_q,
                   const std::vector<__nv_bfloat16>& dw, const std::vector<float>& dalpha, double gradient_scale) {
  SeqCheck out;
  for (int row = 0; row < rows; ++row) {
    double sum = 0, size = 0;
    for (int k = 0; k < cols; ++k) {
      const size_t i = static_cast<size_t>(row) * cols + k;
      const float wv = __bfloat162float(w[i]), gv = __bfloat162float(g[i]), q = seq_quarter(wv, alpha[row]);
      const double r = static_cast<double>(wv) / alpha[row];
      const bool inside = std::fabs(r) <= 0.99,
                 on_edge = std::fabs(std::fabs(r) - 0.99) < 1e-6;  // there r in float may fall on either side
      out.wrong_forward += __bfloat162float(w_q[i]) != bf16(q * alpha[row]);
      if (!on_edge) out.wrong_backward += __bfloat162float(dw[i]) != (inside ? gv : 0.0f);
      const double term = (inside ? q - r : q) * gv;
      sum += term;
      size += std::fabs(term) + (on_edge ? 1 : 0);
    }
    out.alpha_error =
        std::max(out.alpha_error, std::fabs(dalpha[row] - gradient_scale * sum) / (gradient_scale * size));
  }
  return out;
}

void measure_seq(const Layer& l, const Arena& w, const Arena& g) {
  const size_t count = static_cast<size_t>(l.rows) * l.cols, bytes = 2 * count;
  const double gradient_scale = 1 / std::sqrt(static_cast<double>(count));
  const int threads = l.cols <= 2048 ? 256 : 512, checked = std::min(l.rows, 16);
  Buffer<float> alpha(l.rows), dalpha(l.rows);
  LAUNCH(fill_float, grid_of(64, 256), alpha.get(), alpha.size(), 3u, 0.6f, 0.3f);
  using Bf16 = __nv_bfloat16;
  auto forward = [&](int i, int t) {
    LAUNCH(seq_forward, grid_of(l.rows, t), w.cut<uint4>(bytes, i), alpha.get(), g.cut<uint4>(bytes, i), l.cols);
  };
  auto backward = [&](int i, int t) {
    LAUNCH(seq_backward, grid_of(l.rows, t), w.cut<uint4>(bytes, i), g.cut<uint4>(bytes, i), alpha.get(), dalpha.get(),
           l.cols, static_cast<float>(gradient_scale));
  };
  auto first_rows = [&](const Arena& from) {
    std::vector<Bf16> rows(static_cast<size_t>(checked) * l.cols);
    copy_to_host(rows.data(), from.cut<Bf16>(bytes, 0), 2 * rows.size());
    return rows;
  };
  synchronize();
  const auto weights = first_rows(w), gradients = first_rows(g);
  backward(0, threads);
  synchronize();
  const auto dw = first_rows(g);
  forward(0, threads);
  synchronize();
  const SeqCheck c =
      check_seq(checked, l.cols, weights, gradients, alpha.host(), first_rows(g), dw, dalpha.host(), gradient_scale);
  const std::string name = format("%dx%d", l.rows, l.cols);
  report(name + " wrong values", c.wrong_forward + c.wrong_backward, "", 0,
         format("forward %d, backward %d of %d rows", c.wrong_forward, c.wrong_backward, checked));
  report(name + " error of dalpha", c.alpha_error, "", 0,
         c.alpha_error <= 1e-5 ? "share of the sum of |terms|" : "share of the sum of |terms|, WRONG");
  auto measure = [&](const char* what, double moved, auto kernel) {
    double us = 1e30;
    int best = 0;
    for (int t : {128, 256, 512}) {
      const double now = graph_us(nodes_for(predicted_us(2, moved, 1)), [&](int i) { kernel(i, t); });
      if (now < us) us = now, best = t;
    }
    report(format("%s %s", name.c_str(), what), us, "us", predicted_us(2.0, moved, 0.85),
           format("%.0f GB/s, %.0f %% of the copy ceiling, %d threads a row", gb_per_s(moved, us),
                  100 * gb_per_s(moved, us) / copy_ceiling(), best));
  };
  measure("forward", 4.0 * count, forward);
  measure("backward", 6.0 * count, backward);
}

void section_fake_quant() {
  Arena w, g;
  const std::vector<Layer> layers =
      kEmulated ? std::vector<Layer>{{"", 24, 2048}, {"", 8, 4104}}
                : std::vector<Layer>{{"", 28672, 4096}, {"", 6144, 2048}, {"", 12288, 2048}, {"", 4096, 14336}};
  for (const Layer& l : layers) {
    if (!time_left()) return;
    w.random_bf16(21);
    g.random_bf16(22);
    measure_seq(l, w, g);
  }
}

// ---- program ---------------------------------------------------------------------------------------------

struct Section {
  const char* name;
  double box_seconds;
  void (*run)();
};
const Section kSections[] = {{"ceilings", 28, section_ceilings},
                             {"cublas", 34, section_cublas},
                             {"facts", 8, section_facts},
                             {"skinny", 32, section_skinny},
                             {"fake_quant", 10, section_fake_quant}};

/// The child: one section from device to the last row. Exit code 3: there is no device to measure.
int run_section(const Section& s) {
  g_section = s.name;
  g_deadline = Clock::now() + std::chrono::milliseconds(static_cast<int>(1000 * s.box_seconds * (kEmulated ? 100 : 1)));
  try {
    open_device();
  } catch (const std::exception& e) {
    std::printf("cuda_facts: %s\n", e.what());
    return 3;
  }
  try {
    raise_clocks();
    s.run();
    synchronize();
  } catch (const std::exception& e) {
    std::string text = e.what();
    std::replace(text.begin(), text.end(), '\n', ' ');
    report("FAILED", 1, "", 0, text);
    return 1;
  }
  return 0;
}

/// Runs a section in a process of its own, so that a hang or a broken CUDA context stays there. Returns its exit code,
/// 128 + signal if killed.
int run_isolated(const Section& s) {
  std::fflush(stdout);
  const pid_t child = fork();
  if (child < 0) throw std::runtime_error(std::string("fork: ") + std::strerror(errno));
  if (child == 0) {
    const int code = run_section(s);
    std::fflush(stdout);
    _exit(code);  // no destructors of a context that may be broken
  }
  const auto end =
      Clock::now() + std::chrono::milliseconds(static_cast<int>(1000 * (s.box_seconds + 4) * (kEmulated ? 100 : 1)));
  int status = 0;
  while (waitpid(child, &status, WNOHANG) == 0) {
    if (Clock::now() > end) {
      kill(child, SIGKILL);
      waitpid(child, &status, 0);
      break;
    }
    usleep(20000);
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int run(const std::string& folder, const std::vector<std::string>& wanted) {
  g_rows_path = folder + "/cuda_facts.tsv";
  if (!std::ofstream(g_rows_path)) {
    std::fprintf(stderr, "cuda_facts: cannot write %s\n", g_rows_path.c_str());
    return 2;
  }
  int failures = 0;
  for (const Section& s : kSections) {
    if (!wanted.empty() && std::find(wanted.begin(), wanted.end(), s.name) == wanted.end()) continue;
    const auto began = Clock::now();
    const int code = run_isolated(s);
    g_rows = read_rows(g_rows_path);
    if (code == 3 && g_rows.empty()) return 1;  // said by the child; no other section would fare better
    g_section = s.name;
    report("seconds", std::chrono::duration<double>(Clock::now() - began).count(), "s", s.box_seconds,
           "time box beside it");
    if (code > 1) report("KILLED", code, "", 0, "exit code of the section's process (137: time box)");
    failures += code != 0;
    write_tables(folder, g_rows);
  }
  for (const Row& r : g_rows)
    if (r.note.find("WRONG") != std::string::npos ||
        (r.value != 0 && r.predicted == 0 && r.unit.empty() && r.name.find("error") == std::string::npos))
      std::printf("cuda_facts: look at %s: %s = %g %s\n", r.section.c_str(), r.name.c_str(), r.value, r.note.c_str());
  std::printf("cuda_facts: %zu rows in %s/cuda_facts.md and .json; %d sections failed\n", g_rows.size(), folder.c_str(),
              failures);
  return failures ? 1 : 0;
}

}  // namespace
}  // namespace facts

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: cuda_facts OUTDIR [ceilings] [cublas] [facts] [skinny] [fake_quant]\n");
    return 2;
  }
  return facts::run(argv[1], std::vector<std::string>(argv + 2, argv + argc));
}
