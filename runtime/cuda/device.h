// A CUDA device: its memory, a stream and graphs, with errors that say what was wanted. Over CUDA's runtime library;
// tests put another one in its place, which executes the kernels on the CPU (tests/ptx/cuda_runtime.cpp).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "kernels/cuda/matmul_plan.h"
#include "kernels/cuda/stream.h"

struct CUgraphExec_st;

namespace crumb::runtime::cuda {

class Device;

/// Memory on a device; gives it back at the end. An empty one holds nothing.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  ~DeviceMemory();
  DeviceMemory(DeviceMemory&& other) noexcept { *this = std::move(other); }
  DeviceMemory& operator=(DeviceMemory&& other) noexcept;

  /// At a multiple of 256 bytes.
  void* data() const { return data_; }
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  int64_t bytes() const { return bytes_; }

 private:
  friend class Device;
  DeviceMemory(void* data, int64_t bytes) : data_(data), bytes_(bytes) {}
  void* data_ = nullptr;
  int64_t bytes_ = 0;
};

/// Memory of the host that a device copies to and from without a detour.
class PinnedMemory {
 public:
  explicit PinnedMemory(int64_t bytes);
  ~PinnedMemory();
  PinnedMemory(const PinnedMemory&) = delete;
  PinnedMemory& operator=(const PinnedMemory&) = delete;
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_ = nullptr;
};

/// Launches that were recorded, to be made again at once.
class Graph {
 public:
  Graph(Graph&& other) noexcept : graph_(std::exchange(other.graph_, nullptr)) {}
  ~Graph();

 private:
  friend class Device;
  explicit Graph(CUgraphExec_st* graph) : graph_(graph) {}
  CUgraphExec_st* graph_;
};

class Device {
 public:
  /// The first device. UserError, one line: there is none, its driver is too old, or the program has no code for it.
  Device();
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const std::string& name() const { return name_; }
  /// What decides which kernels are used.
  const kernels::MatmulDevice& matmul() const { return matmul_; }
  kernels::CudaStream stream() const { return stream_; }

  int64_t total_bytes() const;
  int64_t free_bytes() const;
  /// RunError that says how much `what` needed and how much is free.
  DeviceMemory allocate(int64_t bytes, const std::string& what) const;
  /// RunError likewise, before any of it is taken. `hint`: what would need less, "" for nothing.
  void require_free(int64_t bytes, const std::string& what, const std::string& hint) const;

  // All on the stream, one after the other with the kernels. copy_to_device() has read the host's memory when it
  // returns; send() may read it until wait(); a copy to the host is there after wait().
  void send(void* to, const void* from, int64_t bytes) const;
  void copy_to_device(void* to, const void* from, int64_t bytes) const;
  void copy_to_host(void* to, const void* from, int64_t bytes) const;
  void copy_within(void* to, const void* from, int64_t bytes) const;
  /// Until all that was given to the stream is done. RunError where a kernel failed.
  void wait() const;

  /// What `launches` puts on the stream, recorded and not done.
  Graph record(const std::function<void()>& launches) const;
  void launch(const Graph& graph) const;

 private:
  std::string name_;
  kernels::MatmulDevice matmul_;
  kernels::CudaStream stream_ = nullptr;
};

}  // namespace crumb::runtime::cuda
