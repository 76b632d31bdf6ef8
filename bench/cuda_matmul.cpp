// Products with packed weights (kernels/cuda/matmul.h) on a GPU: every form is compared with sums in double, and run
// twice for equal bits; then they are timed with cold weights, each kernel that takes the number of tokens beside the
// others, which is what kernels/cuda/matmul_table.inc should follow.
//
//   cuda_matmul [check | time [BITS]]      both without an argument, of all forms; exit code 1 where a result is wrong
//
// Times: 16 products as one graph with dependent launches, over copies of the weights that together are twice the
// cache, the median of 11 runs.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "core/common/error.h"
#include "core/common/rng.h"
#include "kernels/cuda/matmul.h"

namespace crumb::kernels {
namespace {

void require(cudaError_t error) {
  if (error != cudaSuccess) run_error("CUDA: {}", cudaGetErrorString(error));
}

/// An array on the device.
template <class T>
class Device {
 public:
  explicit Device(size_t count) : count_(count) { require(cudaMalloc(&data_, std::max<size_t>(1, count) * sizeof(T))); }
  explicit Device(const std::vector<T>& from) : Device(from.size()) {
    require(cudaMemcpy(data_, from.data(), count_ * sizeof(T), cudaMemcpyHostToDevice));
  }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;
  ~Device() { cudaFree(data_); }
  T* data() const { return static_cast<T*>(data_); }
  std::vector<T> host() const {
    std::vector<T> out(count_);
    require(cudaMemcpy(out.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost));
    return out;
  }

 private:
  void* data_ = nullptr;
  size_t count_;
};

struct Form {
  int bits;
  int64_t group;  // 0: a scale a row
  bool int8;
};
constexpr Form kForms[] = {{2, 0, false}, {2, 128, false}, {4, 0, false},  {4, 128, false}, {4, 32, false},
                           {8, 0, false}, {2, 0, true},    {2, 128, true}, {4, 0, true},    {8, 0, true}};

PackedShape shape_of(const Form& form, int64_t rows, int64_t cols) {
  return {.bits = form.bits,
          .rows = rows,
          .cols = cols,
          .group_cols = form.group == 0 ? cols : form.group,
          .step = form.bits == 2 ? 2 : 1,
          .zero = form.bits == 2 ? 3 : 1 << (form.bits - 1)};
}

const char* name_of(MatmulKernel kernel) { return kernel == MatmulKernel::skinny ? "skinny" : "tile"; }

MatmulDevice this_device(size_t* cache_bytes) {
  cudaDeviceProp facts{};
  require(cudaGetDeviceProperties(&facts, 0));
  std::printf("# %s, %d multiprocessors, compute capability %d.%d\n", facts.name, facts.multiProcessorCount,
              facts.major, facts.minor);
  *cache_bytes = static_cast<size_t>(facts.l2CacheSize);
  return {facts.major * 10 + facts.minor, facts.multiProcessorCount, facts.sharedMemPerBlockOptin};
}

uint64_t index_of(int64_t i) { return static_cast<uint64_t>(i); }

/// Whether all forms give what double gives, for one shape.
bool check_shape(const Form& form, int64_t rows, int64_t cols, int64_t tokens, MatmulKernel kernel,
                 const MatmulDevice& device) {
  const PackedShape shape = shape_of(form, rows, cols);
  const MatmulPlan plan = plan_matmul(shape, tokens, form.int8, device, kernel);
  if (plan.obstacle != nullptr) return true;
  const Rng rng(1, static_cast<uint64_t>(rows * 7 + cols));
  std::vector<uint8_t> codes(index_of(rows * cols));
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(rng.bits(i) & ((1u << form.bits) - 1));
  const int64_t groups = cols / shape.group_cols;
  std::vector<float> scales(index_of(rows * groups));
  for (size_t i = 0; i < scales.size(); ++i)
    scales[i] = static_cast<float>(rng.below(i + (1u << 30), 100) + 1) * 0x1p-10f;
  std::vector<Bf16> x(index_of(tokens * cols));
  for (size_t i = 0; i < x.size(); ++i)
    x[i] = {static_cast<uint16_t>(std::bit_cast<uint32_t>(static_cast<float>(rng.normal(i + (1u << 29)) + 0.3)) >> 16)};

  const Device<uint8_t> device_codes(codes);
  const Device<float> device_scales(scales);
  const Device<Bf16> device_x(x);
  const Device<uint32_t> words(index_of(shape.code_words())), pairs(index_of(shape.scale_words()));
  pack_tiles(shape, device_codes.data(), device_scales.data(), words.data(), pairs.data(), nullptr);
  const int64_t blocks = shape.blocks();
  const Device<int8_t> q(index_of(tokens * blocks * kTileBlockCols));
  const Device<float> token_scales(index_of(tokens)), y(index_of(tokens * rows));
  const Device<int32_t> sums(index_of(tokens)), block_sums(index_of(tokens * blocks));
  const Device<char> workspace(plan.workspace_bytes);
  const PackedTokens int8{q.data(), token_scales.data(), sums.data(), block_sums.data()};
  if (form.int8) round_to_int8(device_x.data(), tokens, cols, cols, int8, nullptr);
  PackedProduct product{.matrix = {shape, words.data(), pairs.data()},
                        .tokens = tokens,
                        .x_stride = cols,
                        .y = y.data(),
                        .workspace = workspace.data()};
  if (form.int8)
    product.int8 = &int8;
  else
    product.x = device_x.data();
  packed_matmul(product, plan, nullptr);
  require(cudaDeviceSynchronize());
  const std::vector<float> first = y.host();
  product.weights_are_ready = true;
  packed_matmul(product, plan, nullptr);
  require(cudaDeviceSynchronize());
  const std::vector<float> second = y.host();

  const std::vector<int8_t> host_q = q.host();
  const std::vector<float> host_scales = token_scales.host();
  constexpr double kMostError = 64 * 0x1p-24;
  double worst = 0;
  bool is_right = true;
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t r = 0; r < rows; ++r) {
      double sum = 0, size = 0;
      for (int64_t k = 0; k < cols; ++k) {
        const int code = codes[index_of(r * cols + k)];
        const double scale = scales[index_of(r * groups + k / shape.group_cols)];
        const double value =
            form.int8 ? static_cast<double>(host_q[index_of(t * blocks * kTileBlockCols + int8_position(k))]) *
                            host_scales[index_of(t)]
                      : static_cast<double>(widened(x[index_of(t * cols + k)]));
        sum += (shape.step * code - shape.zero) * scale * value;
        size += (shape.step * code + shape.zero) * scale * std::abs(value);
      }
      const double error = std::abs(sum - first[index_of(t * rows + r)]) / std::max(size, 1e-30);
      worst = std::max(worst, error);
      is_right = is_right && error <= kMostError;  // NaN is not
    }
  const bool is_same = std::memcmp(first.data(), second.data(), first.size() * 4) == 0;
  if (!is_right || !is_same)
    std::printf("WRONG: %d bits, group %lld, int8 %d, %lld x %lld, %lld tokens, %s: error %.1f * 2^-24 of |terms|%s\n",
                form.bits, static_cast<long long>(form.group), form.int8, static_cast<long long>(rows),
                static_cast<long long>(cols), static_cast<long long>(tokens), name_of(kernel), worst * 0x1p24,
                is_same ? "" : ", and another time other bits");
  return is_right && is_same;
}

bool check_all(const MatmulDevice& device) {
  struct Shape {
    int64_t rows, cols;
  };
  int done = 0, wrong = 0;
  for (const Form& form : kForms)
    for (const Shape& shape : {Shape{48, 576}, Shape{250, 172}, Shape{130, 2048}, Shape{33, 9000}, Shape{64, 14336}})
      for (const int64_t tokens : {1, 8, 11, 16, 17, 33, 64, 70})
        for (const MatmulKernel kernel : {MatmulKernel::skinny, MatmulKernel::tile}) {
          // Groups divide the columns.
          const int64_t cols = form.group == 0 ? shape.cols : (shape.cols + form.group - 1) / form.group * form.group;
          ++done;
          wrong += !check_shape(form, shape.rows, cols, tokens, kernel, device);
        }
  std::printf("# checks: %d, wrong: %d\n", done, wrong);
  return wrong == 0;
}

float median_us(const PackedProduct& product, const MatmulPlan& plan, const std::vector<PackedMatrix>& copies) {
  constexpr int kNodes = 16, kRuns = 11;
  cudaStream_t stream;
  require(cudaStreamCreate(&stream));
  cudaGraph_t graph;
  cudaGraphExec_t ready;
  require(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < kNodes; ++i) {
    PackedProduct one = product;
    one.matrix = copies[static_cast<size_t>(i) % copies.size()];
    packed_matmul(one, plan, stream);
  }
  require(cudaStreamEndCapture(stream, &graph));
  require(cudaGraphInstantiate(&ready, graph, 0));
  cudaEvent_t begin, end;
  require(cudaEventCreate(&begin));
  require(cudaEventCreate(&end));
  std::vector<float> times;
  for (int run = 0; run < kRuns + 2; ++run) {
    require(cudaEventRecord(begin, stream));
    require(cudaGraphLaunch(ready, stream));
    require(cudaEventRecord(end, stream));
    require(cudaEventSynchronize(end));
    float ms = 0;
    require(cudaEventElapsedTime(&ms, begin, end));
    if (run >= 2) times.push_back(ms * 1000 / kNodes);
  }
  require(cudaEventDestroy(begin));
  require(cudaEventDestroy(end));
  require(cudaGraphExecDestroy(ready));
  require(cudaGraphDestroy(graph));
  require(cudaStreamDestroy(stream));
  std::nth_element(times.begin(), times.begin() + kRuns / 2, times.end());
  return times[kRuns / 2];
}

void time_all(const MatmulDevice& device, size_t cache_bytes, int bits) {
  struct Shape {
    int64_t rows, cols;
  };
  constexpr int64_t kMostTokens = 1024;
  std::printf("bits\tgroup\tint8\trows\tcols\ttokens\tkernel\tus\tGB/s\tsplits\n");
  for (const Form& form : kForms) {
    if (bits != 0 && form.bits != bits) continue;
    for (const Shape& at : {Shape{2048, 2048}, Shape{12288, 2048}, Shape{2048, 6144}, Shape{4096, 4096},
                            Shape{28672, 4096}, Shape{4096, 14336}, Shape{8192, 8192}}) {
      const PackedShape shape = shape_of(form, at.rows, at.cols);
      const auto bytes = static_cast<size_t>(shape.code_words() + shape.scale_words()) * 4;
      // Random words are codes as good as any; every scale is 2^-10.
      std::vector<uint32_t> random(index_of(shape.code_words()));
      const Rng rng(2, 1);
      for (size_t i = 0; i < random.size(); ++i) random[i] = static_cast<uint32_t>(rng.bits(i % 65536) + i);
      const std::vector<uint32_t> equal(index_of(shape.scale_words()), 0x3a803a80u);
      std::vector<std::unique_ptr<Device<uint32_t>>> held;
      std::vector<PackedMatrix> copies;
      for (size_t i = 0; i < std::clamp<size_t>(2 * cache_bytes / bytes + 1, 2, 16); ++i) {
        held.push_back(std::make_unique<Device<uint32_t>>(random));
        held.push_back(std::make_unique<Device<uint32_t>>(equal));
        copies.push_back({shape, held[held.size() - 2]->data(), held.back()->data()});
      }
      std::vector<Bf16> x(index_of(kMostTokens * at.cols), Bf16{0x3f80});
      for (size_t i = 0; i < x.size(); ++i) x[i].bits = static_cast<uint16_t>(0x3e00 + (rng.bits(i % 4096) & 0x81ff));
      const Device<Bf16> device_x(x);
      const Device<int8_t> q(index_of(kMostTokens * shape.blocks() * kTileBlockCols));
      const Device<float> token_scales(kMostTokens), y(index_of(kMostTokens * at.rows));
      const Device<int32_t> sums(kMostTokens), block_sums(index_of(kMostTokens * shape.blocks()));
      const PackedTokens int8{q.data(), token_scales.data(), sums.data(), block_sums.data()};
      if (form.int8) round_to_int8(device_x.data(), kMostTokens, at.cols, at.cols, int8, nullptr);
      require(cudaDeviceSynchronize());
      for (const int64_t tokens : {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024})
        for (const MatmulKernel kernel : {MatmulKernel::skinny, MatmulKernel::tile}) {
          const MatmulPlan plan = plan_matmul(shape, tokens, form.int8, device, kernel);
          if (plan.obstacle != nullptr) continue;
          const Device<char> workspace(plan.workspace_bytes);
          PackedProduct product{.matrix = copies[0],
                                .tokens = tokens,
                                .x_stride = at.cols,
                                .y = y.data(),
                                .workspace = workspace.data(),
                                .weights_are_ready = true};
          if (form.int8)
            product.int8 = &int8;
          else
            product.x = device_x.data();
          const float us = median_us(product, plan, copies);
          std::printf("%d\t%lld\t%d\t%lld\t%lld\t%lld\t%s\t%.2f\t%.0f\t%d\n", form.bits,
                      static_cast<long long>(form.group), form.int8, static_cast<long long>(at.rows),
                      static_cast<long long>(at.cols), static_cast<long long>(tokens), name_of(kernel),
                      static_cast<double>(us), static_cast<double>(bytes) / (static_cast<double>(us) * 1e3),
                      plan.splits);
          std::fflush(stdout);
        }
    }
  }
}

}  // namespace
}  // namespace crumb::kernels

int main(int count, char** arguments) {
  const std::string what = count > 1 ? arguments[1] : "";
  const int bits = count > 2 ? std::atoi(arguments[2]) : 0;
  if (count > 3 || (!what.empty() && what != "check" && what != "time")) {
    std::fprintf(stderr, "cuda_matmul [check | time [BITS]]\n");
    return crumb::kExitUser;
  }
  try {
    size_t cache_bytes = 0;
    const auto device = crumb::kernels::this_device(&cache_bytes);
    if (what != "time" && !crumb::kernels::check_all(device)) return crumb::kExitRun;
    if (what != "check") crumb::kernels::time_all(device, cache_bytes, bits);
  } catch (const crumb::Error& error) {
    std::fprintf(stderr, "cuda_matmul: %s\n", error.what());
    return error.exit_code();
  }
  return 0;
}
