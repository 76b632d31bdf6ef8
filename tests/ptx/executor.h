// Executes PTX, what `nvcc -ptx` makes of a kernel, on the CPU: for tests, without a GPU. It computes what the PTX ISA
// defines and reports what it leaves undefined: see docs/cuda.md for what is checked and what is not modelled.
//
//   ptx::Module module(text);
//   ptx::Memory memory;
//   memory.add(x, bytes);                                             // what the kernel may touch
//   module.launch("kernel", {blocks}, {256}, 0, memory, {}, x, int64_t{n});
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace crumb::ptx {

/// PTX that cannot be read, or a kernel that did what it must not. One message: what, kernel, line, block and thread.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct Dim {
  unsigned x = 1, y = 1, z = 1;
  uint64_t count() const { return uint64_t{x} * y * z; }
};

struct Options {
  /// 0: a warp runs until it waits, the first first. Else warps take turns of random length in random order.
  uint64_t seed = 0;
  bool check_shared_races = true;
  bool check_global_races = true;          // takes 12 bytes for each byte of a buffer that is accessed
  bool check_uninitialised = true;         // registers and shared memory
  uint64_t max_steps = uint64_t{1} << 34;  // instructions of warps in a launch
};

struct Buffer;

/// Global memory: addresses are those of the host. An access that is not within one of the buffers is an error.
class Memory {
 public:
  Memory();
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  /// A range within one that is there already counts as a use of that one; one that overlaps it in part is an error.
  void add(const void* data, size_t bytes, bool writable = true);
  /// Of an address within a buffer: ends one use of it.
  void remove(const void* data);
  /// The buffer that holds all of the range, or null.
  Buffer* find(uint64_t address, size_t bytes);
  /// The buffer that begins last at or before the address, or null.
  Buffer* last_before(uint64_t address);
  /// A launch begins: what earlier ones accessed is in the past.
  void forget_accesses();

 private:
  std::map<uint64_t, std::unique_ptr<Buffer>> buffers_;
};

struct LineCount {
  int line = 0;
  std::string text;
  uint64_t executed = 0;  // times a warp executed it, summed over the launches
};

/// The .global and .const variables of a module live as long as it does. One launch at a time.
class Module {
 public:
  explicit Module(const std::string& text);
  ~Module();
  Module(Module&&) noexcept;

  std::vector<std::string> kernels() const;
  /// Bytes of each parameter.
  std::vector<size_t> parameters(const std::string& kernel) const;
  /// Address of a .global or .const variable.
  std::span<std::byte> variable(const std::string& name) const;
  /// Each line of the kernel, and of the functions it calls, in order.
  std::vector<LineCount> coverage(const std::string& kernel) const;
  /// Instructions of threads executed so far.
  uint64_t thread_steps() const;

  /// `shared_bytes`: of dynamic shared memory. `arguments`: the bytes of each.
  void launch(const std::string& kernel, Dim grid, Dim block, size_t shared_bytes, Memory& memory,
              const Options& options, std::span<const std::span<const std::byte>> arguments);
  template <class... Argument>
  void launch(const std::string& kernel, Dim grid, Dim block, size_t shared_bytes, Memory& memory,
              const Options& options, const Argument&... argument) {
    const std::vector<std::span<const std::byte>> bytes{std::as_bytes(std::span<const Argument, 1>(&argument, 1))...};
    launch(kernel, grid, block, shared_bytes, memory, options, std::span<const std::span<const std::byte>>(bytes));
  }

 private:
  struct Content;
  std::unique_ptr<Content> content_;
};

}  // namespace crumb::ptx
