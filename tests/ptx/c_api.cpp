// The executor as functions of C, for ptx.py. Those that can fail return null or a number that is not 0;
// crumb_ptx_error() then says why.
#include <cstring>

#include "tests/ptx/executor.h"

namespace {

thread_local std::string failure;

struct Handle {
  explicit Handle(const char* text) : module(text) {}
  crumb::ptx::Module module;
  crumb::ptx::Memory memory;
  crumb::ptx::Options options;
  std::string answer;
};

template <class F>
int guarded(F f) {
  try {
    f();
    return 0;
  } catch (const std::exception& e) {
    failure = e.what();
    return 1;
  }
}

}  // namespace

extern "C" {

const char* crumb_ptx_error() { return failure.c_str(); }

Handle* crumb_ptx_load(const char* text) {
  Handle* out = nullptr;
  guarded([&] { out = new Handle(text); });
  return out;
}
void crumb_ptx_free(Handle* handle) { delete handle; }

void crumb_ptx_options(Handle* handle, uint64_t seed, int shared_races, int global_races, int uninitialised,
                       uint64_t max_steps) {
  handle->options = {seed, shared_races != 0, global_races != 0, uninitialised != 0, max_steps};
}

int crumb_ptx_add(Handle* handle, const void* data, size_t bytes, int writable) {
  return guarded([&] { handle->memory.add(data, bytes, writable != 0); });
}
int crumb_ptx_remove(Handle* handle, const void* data) {
  return guarded([&] { handle->memory.remove(data); });
}

int crumb_ptx_launch(Handle* handle, const char* kernel, const unsigned* grid, const unsigned* block,
                     size_t shared_bytes, size_t count, const void* const* arguments, const size_t* bytes) {
  return guarded([&] {
    std::vector<std::span<const std::byte>> given;
    for (size_t k = 0; k < count; ++k) given.emplace_back(static_cast<const std::byte*>(arguments[k]), bytes[k]);
    handle->module.launch(kernel, {grid[0], grid[1], grid[2]}, {block[0], block[1], block[2]}, shared_bytes,
                          handle->memory, handle->options, std::span<const std::span<const std::byte>>(given));
  });
}

/// Names, a line each.
const char* crumb_ptx_kernels(Handle* handle) {
  handle->answer.clear();
  for (const std::string& name : handle->module.kernels()) handle->answer += name + "\n";
  return handle->answer.c_str();
}
/// "LINE TIMES TEXT", a line each; null if the kernel cannot be read.
const char* crumb_ptx_coverage(Handle* handle, const char* kernel) {
  const int failed = guarded([&] {
    handle->answer.clear();
    for (const auto& [line, text, executed] : handle->module.coverage(kernel))
      handle->answer += std::to_string(line) + " " + std::to_string(executed) + " " + text + "\n";
  });
  return failed != 0 ? nullptr : handle->answer.c_str();
}
/// Where a variable of the module lies.
void* crumb_ptx_variable(Handle* handle, const char* name, size_t* bytes) {
  std::span<std::byte> found;
  if (guarded([&] { found = handle->module.variable(name); }) != 0) return nullptr;
  *bytes = found.size();
  return found.data();
}
uint64_t crumb_ptx_thread_steps(const Handle* handle) { return handle->module.thread_steps(); }
}
