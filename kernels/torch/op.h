// What the files of operators share. A device without kernels of its own runs the composite ones, which are made of
// Torch's operators.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <initializer_list>

#include "kernels/bf16.h"

namespace crumb::kernels {

/// The operator `name` ("crumb::rope"), to be called through the dispatcher, which chooses the device's kernel.
template <class Signature>
c10::TypedOperatorHandle<Signature> find_op(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

/// Whether the kernels of kernels/ take the type.
inline bool has_kernel(at::ScalarType type) { return type == at::kFloat || type == at::kBFloat16; }

/// The type of the arithmetic of composite operators: never a half one.
inline at::ScalarType wide(const at::Tensor& x) {
  return c10::isReducedFloatingType(x.scalar_type()) ? at::kFloat : x.scalar_type();
}

/// A kernel gets plain pointers: every operand must be where the first is.
inline void check_same_device(const char* op, const at::Tensor& first, std::initializer_list<at::Tensor> others) {
  for (const at::Tensor& x : others)
    TORCH_CHECK(!x.defined() || x.device() == first.device(), op, ": all tensors must be on one device, got ",
                first.device(), " and ", x.device());
}

/// Elements as the kernels see them: float or Bf16.
template <class T>
const T* data(const at::Tensor& x) {
  return static_cast<const T*>(x.const_data_ptr());
}
template <class T>
T* mutable_data(const at::Tensor& x) {
  return static_cast<T*>(x.mutable_data_ptr());
}

/// Calls body(T{}) with the storage type of `type`.
template <class Body>
void with_type(at::ScalarType type, const Body& body) {
  if (type == at::kFloat)
    body(float{});
  else
    body(Bf16{});
}

}  // namespace crumb::kernels
