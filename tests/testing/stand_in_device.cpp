#include <ATen/EmptyTensor.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <sys/mman.h>
#include <torch/library.h>

#include <map>
#include <mutex>

#include "tests/testing/devices.h"

namespace crumb::testing {
namespace {

// A backend whose code is not in the wheel. (PrivateUse1, meant for this, cannot take a module that is moved there.)
constexpr auto kType = c10::DeviceType::HPU;
const c10::Device kDevice(kType, 0);
const c10::DispatchKeySet kKeys(c10::DispatchKey::HPU);
constexpr size_t kPage = 4096;

/// Pages without access, opened while an operation of the device works on them.
class Memory final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    if (bytes == 0) return {nullptr, kDevice};
    const size_t size = (bytes + kPage - 1) / kPage * kPage;
    void* place = mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    TORCH_CHECK(place != MAP_FAILED, "stand-in device: out of memory");
    const std::lock_guard lock(mutex_);
    blocks_[place] = {size, 0};
    return {place, place, &release, kDevice};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }

  /// Users of a block are counted: threads may work on the same tensor.
  void open(void* place, bool is_open) {
    const std::lock_guard lock(mutex_);
    const auto found = blocks_.find(place);
    if (found == blocks_.end()) return;
    auto& [size, users] = found->second;
    users += is_open ? 1 : -1;
    mprotect(place, size, users > 0 ? PROT_READ | PROT_WRITE : PROT_NONE);
  }

  static Memory& instance() {
    static auto* memory = new Memory;  // outlives every tensor
    return *memory;
  }

 private:
  static void release(void* place) {
    Memory& memory = instance();
    const std::lock_guard lock(memory.mutex_);
    munmap(place, memory.blocks_.at(place).first);
    memory.blocks_.erase(place);
  }

  std::mutex mutex_;
  std::map<void*, std::pair<size_t, int>> blocks_;  // size and users
};

/// The same values as a CPU tensor, while this lives.
class Opened {
 public:
  explicit Opened(const torch::Tensor& tensor) : block_(tensor.storage().mutable_data()) {
    Memory::instance().open(block_, true);
    values = tensor.device().type() != kType ? tensor
                                             : at::from_blob(tensor.data_ptr(), tensor.sizes(), tensor.strides(),
                                                             tensor.options().device(at::kCPU));
  }
  ~Opened() { Memory::instance().open(block_, false); }
  Opened(const Opened&) = delete;
  Opened& operator=(const Opened&) = delete;

  torch::Tensor values;

 private:
  void* block_;
};

at::Tensor empty(at::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                 std::optional<at::Device>, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  return at::detail::empty_generic(size, &Memory::instance(), kKeys, dtype.value_or(at::kFloat), format);
}

at::Tensor empty_strided(at::IntArrayRef size, at::IntArrayRef stride, std::optional<at::ScalarType> dtype,
                         std::optional<at::Layout>, std::optional<at::Device>, std::optional<bool>) {
  return at::detail::empty_strided_generic(size, stride, &Memory::instance(), kKeys, dtype.value_or(at::kFloat));
}

const at::Tensor& resize_storage(const at::Tensor& self, at::IntArrayRef size, std::optional<at::MemoryFormat>) {
  if (self.sizes() == size) return self;
  const at::Tensor fresh = at::empty(size, self.options());
  self.unsafeGetTensorImpl()->set_storage_keep_dtype(fresh.storage());
  self.unsafeGetTensorImpl()->set_sizes_contiguous(size);
  return self;
}

at::Tensor copy_from(const at::Tensor& self, const at::Tensor& to, bool) {
  if (self.numel() == 0) return to;
  const Opened from(self), out(to);
  at::Tensor values = out.values;
  values.copy_(from.values);
  return to;
}

at::Tensor copy_from_and_resize(const at::Tensor& self, const at::Tensor& to) {
  resize_storage(to, self.sizes(), std::nullopt);
  return copy_from(self, to, false);
}

at::Scalar value_of(const at::Tensor& self) { return Opened(self).values.item(); }

/// On the CPU, on copies.
void on_the_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) { at::native::cpu_fallback(op, stack); }

struct Guard final : c10::impl::NoOpDeviceGuardImpl<kType> {
  c10::Device exchangeDevice(c10::Device) const override { return kDevice; }
  c10::Device getDevice() const override { return kDevice; }
  c10::Stream getStream(c10::Device) const noexcept override { return c10::Stream(c10::Stream::DEFAULT, kDevice); }
};

}  // namespace

C10_REGISTER_GUARD_IMPL(HPU, Guard)

TORCH_LIBRARY_IMPL(aten, HPU, m) {
  m.impl("empty.memory_format", empty);
  m.impl("empty_strided", empty_strided);
  m.impl("resize_", resize_storage);
  m.impl("as_strided", at::native::as_strided_tensorimpl);
  m.impl("view", at::native::view);
  m.impl("_reshape_alias", at::native::_reshape_alias);
  m.impl("_copy_from", copy_from);
  m.impl("_copy_from_and_resize", copy_from_and_resize);
  m.impl("_local_scalar_dense", value_of);
}

TORCH_LIBRARY_IMPL(_, HPU, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&on_the_cpu>()); }

torch::Device stand_in_device() { return kDevice; }

}  // namespace crumb::testing
