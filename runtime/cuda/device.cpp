#include "runtime/cuda/device.h"

#include <cuda_runtime_api.h>

#include <utility>

#include "core/common/error.h"
#include "core/common/quantity.h"
#include "kernels/cuda/decoder.h"

namespace crumb::runtime::cuda {
namespace {

void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // it is not that of the next launch
  run_error("the GPU: {} failed: {}", what, cudaGetErrorString(error));
}

}  // namespace

DeviceMemory::~DeviceMemory() { cudaFree(data_); }

DeviceMemory& DeviceMemory::operator=(DeviceMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

PinnedMemory::PinnedMemory(int64_t bytes) {
  check(cudaMallocHost(&data_, static_cast<size_t>(bytes)), "pinning memory of the host");
}
PinnedMemory::~PinnedMemory() { cudaFreeHost(data_); }

Graph::~Graph() {
  if (graph_ != nullptr) cudaGraphExecDestroy(graph_);
}

Device::Device() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) cudaGetLastError();
  const char* const why = error == cudaSuccess                   ? "no CUDA-capable device is detected"
                          : error == cudaErrorInsufficientDriver ? "there is no driver, or one older than this program"
                                                                 : cudaGetErrorString(error);
  CRUMB_CHECK(error == cudaSuccess && count > 0, "--device cuda: there is no GPU to use: {}; use --device cpu", why);
  check(cudaSetDevice(0), "choosing the first GPU");
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, 0), "reading its properties");
  name_ = properties.name;
  matmul_ = {.capability = 10 * properties.major + properties.minor,
             .multiprocessors = properties.multiProcessorCount,
             .shared_bytes = properties.sharedMemPerBlockOptin};
  CRUMB_CHECK(kernels::has_code_for_device(),
              "--device cuda: {} has compute capability {}.{}; this program has code for {}; use --device cpu", name_,
              properties.major, properties.minor, kernels::code_architectures());
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream");
}

Device::~Device() { cudaStreamDestroy(stream_); }

int64_t Device::total_bytes() const {
  size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "asking for its memory");
  return static_cast<int64_t>(total);
}

int64_t Device::free_bytes() const {
  size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "asking for its memory");
  return static_cast<int64_t>(free);
}

DeviceMemory Device::allocate(int64_t bytes, const std::string& what) const {
  void* data = nullptr;
  const cudaError_t error = cudaMalloc(&data, static_cast<size_t>(bytes));
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    run_error("no room on {} for {}: {} needed, {} of its {} are free", name_, what, format_bytes(bytes),
              format_bytes(free_bytes()), format_bytes(total_bytes()));
  }
  check(error, "taking memory");
  return {data, bytes};
}

void Device::require_free(int64_t bytes, const std::string& what, const std::string& hint) const {
  const int64_t free = free_bytes();
  if (bytes <= free) return;
  run_error("no room on {} for {}: at least {} needed, {} of its {} are free{}", name_, what, format_bytes(bytes),
            format_bytes(free), format_bytes(total_bytes()), hint);
}

void Device::send(void* to, const void* from, int64_t bytes) const {
  check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, stream_), "copying to it");
}
void Device::copy_to_device(void* to, const void* from, int64_t bytes) const {
  send(to, from, bytes);
  wait();  // a machine whose GPU reads the host's memory need not have done so before
}
void Device::copy_to_host(void* to, const void* from, int64_t bytes) const {
  check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost, stream_), "copying from it");
}
void Device::copy_within(void* to, const void* from, int64_t bytes) const {
  check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToDevice, stream_), "copying within it");
}
void Device::wait() const { check(cudaStreamSynchronize(stream_), "computing"); }

Graph Device::record(const std::function<void()>& launches) const {
  check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "beginning a graph");
  cudaGraph_t graph = nullptr;
  try {
    launches();
  } catch (...) {
    cudaStreamEndCapture(stream_, &graph);
    if (graph != nullptr) cudaGraphDestroy(graph);
    throw;
  }
  check(cudaStreamEndCapture(stream_, &graph), "recording a graph");
  cudaGraphExec_t executable = nullptr;
  const cudaError_t error = cudaGraphInstantiate(&executable, graph, 0);
  cudaGraphDestroy(graph);
  check(error, "making a graph");
  return Graph(executable);
}

void Device::launch(const Graph& graph) const { check(cudaGraphLaunch(graph.graph_, stream_), "launching a graph"); }

}  // namespace crumb::runtime::cuda
