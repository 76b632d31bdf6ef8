#include "tests/ptx/cuda_runtime.h"

#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <utility>
#include <vector>

namespace crumb::ptx {
namespace {

/// What nvcc puts into a program for each file: a header, then entries, of which one is the PTX as text.
struct FatBinary {
  uint32_t magic;
  uint16_t version, header_bytes;
  uint64_t bytes;  // behind the header
};
struct FatEntry {
  uint16_t kind, version;
  uint32_t header_bytes;
  uint64_t bytes;
};
struct FatWrapper {
  int magic, version;
  const char* data;
  void* unused;
};

/// The PTX of one file, read when a kernel of it is launched.
class File {
 public:
  explicit File(const char* data) : data_(data) {}
  Module& module() {
    if (module_ == nullptr) module_ = std::make_unique<Module>(text());
    return *module_;
  }

 private:
  std::string text() const {
    constexpr uint32_t kMagic = 0xBA55ED50;
    constexpr uint16_t kPtx = 1;
    FatBinary header;
    std::memcpy(&header, data_, sizeof header);
    if (header.magic != kMagic) throw Error("the program's device code is not what this reads");
    const char* const end = data_ + header.header_bytes + header.bytes;
    for (const char* at = data_ + header.header_bytes; at < end;) {
      FatEntry entry;
      std::memcpy(&entry, at, sizeof entry);
      const char* const content = at + entry.header_bytes;
      if (entry.kind == kPtx) return {content, strnlen(content, entry.bytes)};
      at = content + entry.bytes;
    }
    throw Error("the program has machine code only, no PTX");
  }

  const char* data_;
  std::unique_ptr<Module> module_;
};

struct Kernel {
  File* file;
  std::string name;
};

struct Process {
  StandInDevice device;
  Memory memory;
  std::vector<std::unique_ptr<File>> files;
  std::map<const void*, Kernel> kernels;  // by the host's function
  std::map<const void*, size_t> allocated;
  std::vector<std::function<void()>>* recording = nullptr;
  cudaError_t last = cudaSuccess;
  std::string failure;  // of the executor
  struct {
    dim3 grid, block;
    size_t shared;
    cudaStream_t stream;
  } configuration;

  Process() {
    if (const char* seed = std::getenv("CRUMB_PTX_SEED")) device.options.seed = std::strtoull(seed, nullptr, 10);
  }
};
/// Files register themselves before main() begins.
Process& process() {
  static Process* const one = new Process;
  return *one;
}

cudaError_t remember(cudaError_t error) {
  if (error != cudaSuccess) process().last = error;
  return error;
}

void execute(const void* function, dim3 grid, dim3 block, size_t shared,
             const std::vector<std::vector<std::byte>>& arguments) {
  auto& p = process();
  const Kernel& kernel = p.kernels.at(function);
  const std::vector<std::span<const std::byte>> given(arguments.begin(), arguments.end());
  ++p.device.launches;
  kernel.file->module().launch(kernel.name, {grid.x, grid.y, grid.z}, {block.x, block.y, block.z}, shared, p.memory,
                               p.device.options, std::span<const std::span<const std::byte>>(given));
}

/// What an executor finds is a mistake in a kernel: it ends the work that asked for it.
template <class Body>
cudaError_t guarded(const Body& body) {
  try {
    body();
    return cudaSuccess;
  } catch (const std::exception& e) {
    process().failure = e.what();
    std::fprintf(stderr, "%s\n", e.what());
    return remember(cudaErrorLaunchFailure);
  }
}

cudaError_t launch(const void* function, dim3 grid, dim3 block, void** arguments, size_t shared) {
  return guarded([&] {
    auto& p = process();
    const auto found = p.kernels.find(function);
    if (found == p.kernels.end()) throw Error("a kernel that is not in the program");
    std::vector<std::vector<std::byte>> values;
    const auto sizes = found->second.file->module().parameters(found->second.name);
    for (size_t i = 0; i < sizes.size(); ++i) {
      const auto* bytes = static_cast<const std::byte*>(arguments[i]);
      values.emplace_back(bytes, bytes + sizes[i]);
    }
    auto call = [=] { execute(function, grid, block, shared, values); };
    if (p.recording != nullptr)
      p.recording->push_back(std::move(call));
    else
      call();
  });
}

}  // namespace

StandInDevice& stand_in_device() { return process().device; }

}  // namespace crumb::ptx

using crumb::ptx::process;
using crumb::ptx::remember;
using Recorded = std::vector<std::function<void()>>;

extern "C" {

// ---- what nvcc's host code calls ----

void** __cudaRegisterFatBinary(void* wrapper) {
  auto& files = process().files;
  files.push_back(std::make_unique<crumb::ptx::File>(static_cast<const crumb::ptx::FatWrapper*>(wrapper)->data));
  return reinterpret_cast<void**>(files.back().get());
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
char __cudaInitModule(void**) { return 1; }
void __cudaRegisterFunction(void** file, const char* function, char*, const char* name, int, uint3*, uint3*, dim3*,
                            dim3*, int*) {
  process().kernels[function] = {reinterpret_cast<crumb::ptx::File*>(file), name};
}
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, CUstream_st* stream) {
  process().configuration = {grid, block, shared, stream};
  return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  const auto& given = process().configuration;
  *grid = given.grid, *block = given.block, *shared = given.shared;
  *static_cast<cudaStream_t*>(stream) = given.stream;
  return cudaSuccess;
}
cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* function) {
  *kernel = static_cast<cudaKernel_t>(const_cast<void*>(function));
  return cudaSuccess;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments, size_t shared,
                               cudaStream_t) {
  return crumb::ptx::launch(kernel, grid, block, arguments, shared);
}

// ---- the device ----

cudaError_t cudaGetDeviceCount(int* count) {
  *count = process().device.count;
  return *count > 0 ? cudaSuccess : remember(cudaErrorNoDevice);
}
cudaError_t cudaSetDevice(int) { return cudaSuccess; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  const auto& device = process().device;
  *properties = {};
  std::snprintf(properties->name, sizeof properties->name, "%s", device.name.c_str());
  properties->major = device.major;
  properties->minor = device.minor;
  properties->multiProcessorCount = device.multiprocessors;
  properties->sharedMemPerBlockOptin = device.shared_bytes;
  return cudaSuccess;
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  *attributes = {};
  return process().device.has_code ? cudaSuccess : remember(cudaErrorNoKernelImageForDevice);
}
cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute attribute, int value) {
  const bool fits = attribute != cudaFuncAttributeMaxDynamicSharedMemorySize ||
                    static_cast<uint64_t>(value) <= process().device.shared_bytes;
  return fits ? cudaSuccess : remember(cudaErrorInvalidValue);
}
cudaError_t cudaGetLastError() { return std::exchange(process().last, cudaSuccess); }
const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorNoDevice:
      return "no CUDA-capable device is detected";
    case cudaErrorNoKernelImageForDevice:
      return "no kernel image is available for execution on the device";
    case cudaErrorLaunchFailure:
      return process().failure.c_str();
    default:
      return "an error of the stand-in for CUDA's runtime";
  }
}

// ---- memory ----

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  const auto& device = process().device;
  *total = device.memory_bytes;
  *free = device.memory_bytes - device.used_bytes;
  return cudaSuccess;
}
cudaError_t cudaMalloc(void** data, size_t bytes) {
  constexpr size_t kAlignment = 256;
  constexpr int kNotWritten = 0xFF;  // NaN
  auto& p = process();
  const size_t taken = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  if (p.device.allocations >= p.device.fails_after || taken > p.device.memory_bytes - p.device.used_bytes)
    return remember(cudaErrorMemoryAllocation);
  *data = nullptr;
  if (bytes == 0) return cudaSuccess;
  *data = std::aligned_alloc(kAlignment, taken);
  std::memset(*data, kNotWritten, taken);
  p.memory.add(*data, bytes);
  p.allocated[*data] = taken;
  p.device.used_bytes += taken;
  ++p.device.allocations;
  return cudaSuccess;
}
cudaError_t cudaFree(void* data) {
  auto& p = process();
  if (data == nullptr) return cudaSuccess;
  const auto found = p.allocated.find(data);
  if (found == p.allocated.end()) return remember(cudaErrorInvalidValue);
  p.device.used_bytes -= found->second;
  p.allocated.erase(found);
  p.memory.remove(data);
  std::free(data);
  return cudaSuccess;
}
cudaError_t cudaMallocHost(void** data, size_t bytes) {
  *data = std::malloc(bytes);
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* data) {
  std::free(data);
  return cudaSuccess;
}
/// Device memory must be within one allocation.
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t) {
  auto& memory = process().memory;
  const auto is_device = [&](const void* data) {
    return bytes == 0 || memory.find(reinterpret_cast<uint64_t>(data), bytes) != nullptr;
  };
  if ((kind != cudaMemcpyHostToDevice && !is_device(from)) || (kind != cudaMemcpyDeviceToHost && !is_device(to)) ||
      process().recording != nullptr)
    return remember(cudaErrorInvalidValue);
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}

// ---- streams and graphs: what is given to a stream is done at once, or recorded ----

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = nullptr;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode) {
  if (process().recording != nullptr) return remember(cudaErrorIllegalState);
  process().recording = new Recorded;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t* graph) {
  *graph = reinterpret_cast<cudaGraph_t>(std::exchange(process().recording, nullptr));
  return *graph != nullptr ? cudaSuccess : remember(cudaErrorIllegalState);
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  *executable = reinterpret_cast<cudaGraphExec_t>(new Recorded(*reinterpret_cast<Recorded*>(graph)));
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete reinterpret_cast<Recorded*>(graph);
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  delete reinterpret_cast<Recorded*>(executable);
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t) {
  ++process().device.graph_launches;
  return crumb::ptx::guarded([&] {
    for (const auto& call : *reinterpret_cast<Recorded*>(executable)) call();
  });
}

// ---- launches ----

cudaError_t cudaLaunchKernel(const void* function, dim3 grid, dim3 block, void** arguments, size_t shared,
                             cudaStream_t) {
  return crumb::ptx::launch(function, grid, block, arguments, shared);
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* function, void** arguments) {
  return crumb::ptx::launch(function, config->gridDim, config->blockDim, arguments, config->dynamicSmemBytes);
}
}
