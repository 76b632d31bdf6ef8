// Modules and launches.
#include "tests/ptx/executor.h"

#include <algorithm>
#include <optional>

#include "tests/ptx/warp.h"

namespace crumb::ptx {

struct Module::Content {
  Source source;
  std::vector<std::vector<std::byte>> storage;
  std::map<std::string, uint64_t> variables;
  std::map<std::string, Kernel> kernels;  // those that were asked for
  std::vector<std::string> names;
  uint64_t thread_steps = 0;

  Kernel& kernel(const std::string& name) {
    if (const auto found = kernels.find(name); found != kernels.end()) return found->second;
    const auto function = source.functions.find(name);
    if (function == source.functions.end() || !function->second.is_kernel) throw Error("the PTX has no kernel " + name);
    return kernels.emplace(name, decode(source, function->second, variables)).first->second;
  }
};

Module::Module(const std::string& text) : content_(std::make_unique<Content>()) {
  Content& c = *content_;
  c.source = parse(text);
  for (const auto& [name, function] : c.source.functions)
    if (function.is_kernel) c.names.push_back(name);
  for (const auto& [name, variable] : c.source.variables) {
    if (variable.space == Space::shared || variable.is_extern) continue;
    auto& bytes = c.storage.emplace_back(variable.bytes + variable.alignment);
    const uint64_t begin = reinterpret_cast<uint64_t>(bytes.data());
    c.variables[name] = (begin + variable.alignment - 1) / variable.alignment * variable.alignment;
  }
  for (const auto& [name, address] : c.variables) {
    const Variable& variable = c.source.variables.at(name);
    std::copy(variable.initial.begin(), variable.initial.end(), reinterpret_cast<std::byte*>(address));
    for (const auto& [at, other] : variable.addresses_in_initial) {
      if (c.variables.count(other) == 0)
        throw Error(name + " begins with the address of " + other + ", which is not there");
      std::memcpy(reinterpret_cast<std::byte*>(address) + at, &c.variables.at(other), sizeof(uint64_t));
    }
  }
}
Module::~Module() = default;
Module::Module(Module&&) noexcept = default;

std::vector<std::string> Module::kernels() const { return content_->names; }

std::vector<size_t> Module::parameters(const std::string& kernel) const {
  std::vector<size_t> out;
  for (const auto& [at, bytes] : content_->kernel(kernel).parameters) out.push_back(bytes);
  return out;
}

std::span<std::byte> Module::variable(const std::string& name) const {
  const auto found = content_->variables.find(name);
  if (found == content_->variables.end()) throw Error("the PTX has no variable " + name);
  return {reinterpret_cast<std::byte*>(found->second), content_->source.variables.at(name).bytes};
}

std::vector<LineCount> Module::coverage(const std::string& kernel) const {
  const Kernel& k = content_->kernel(kernel);
  std::map<int, LineCount> lines;
  for (size_t pc = 0; pc < k.code.size(); ++pc) {
    if (k.code[pc].line == 0) continue;
    LineCount& line = lines[k.code[pc].line];
    line.line = k.code[pc].line;
    line.text = *k.code[pc].text;
    line.executed += k.executed[pc];
  }
  std::vector<LineCount> out;
  for (auto& [number, line] : lines) out.push_back(std::move(line));
  return out;
}

uint64_t Module::thread_steps() const { return content_->thread_steps; }

namespace {

uint32_t special_value(const std::string& name, const Block& block, uint32_t thread) {
  const Dim &n = block.size, &g = block.grid, &b = block.index;
  const uint32_t lane = thread % kLanes, bit = uint32_t{1} << lane;
  const std::pair<const char*, uint32_t> values[] = {
      {"%tid.x", thread % n.x},
      {"%tid.y", thread / n.x % n.y},
      {"%tid.z", thread / n.x / n.y},
      {"%ntid.x", n.x},
      {"%ntid.y", n.y},
      {"%ntid.z", n.z},
      {"%ctaid.x", b.x},
      {"%ctaid.y", b.y},
      {"%ctaid.z", b.z},
      {"%nctaid.x", g.x},
      {"%nctaid.y", g.y},
      {"%nctaid.z", g.z},
      {"%laneid", lane},
      {"%warpid", thread / kLanes},
      {"%nwarpid", static_cast<uint32_t>(block.warps.size())},
      {"%smid", 0},
      {"%nsmid", 1},
      {"%lanemask_eq", bit},
      {"%lanemask_lt", bit - 1},
      {"%lanemask_le", (bit - 1) | bit},
      {"%lanemask_gt", ~((bit - 1) | bit)},
      {"%lanemask_ge", ~(bit - 1)},
      {"%dynamic_smem_size", static_cast<uint32_t>(block.shared.size() - block.kernel->shared_bytes)},
      {"%total_smem_size", static_cast<uint32_t>(block.shared.size())}};
  for (const auto& [one, value] : values)
    if (name == one) return value;
  throw Error("nothing is known of " + name);
}

void start_block(Block& block) {
  const Kernel& kernel = *block.kernel;
  const auto threads = static_cast<uint32_t>(block.size.count());
  block.first_interval = static_cast<uint32_t>(block.intervals.size());
  block.ordered = false;
  for (Barrier& barrier : block.barriers) barrier = Barrier();
  for (Warp& w : block.warps) {
    const uint32_t first = w.id * kLanes, count = std::min<uint32_t>(threads - first, kLanes);
    w.live = w.active = ~0u >> (kLanes - count);
    w.pc = 0;
    w.reconvergence = kNever;
    w.waits = w.done = false;
    w.carry = 0;
    w.pending.clear();
    for (auto& copies : w.copies) copies.clear();
    w.committed.fill(0);
    std::fill(w.defined.begin(), w.defined.end(), 0);
    std::fill(w.local.begin(), w.local.end(), std::byte{0xcd});
    w.seen.assign(block.warps.size(), 0);
    block.begin_interval(w);
    for (const Constant& constant : kernel.constants) {
      w.defined[constant.row] = ~0u;
      if (constant.wide)
        std::fill_n(w.row<uint64_t>(constant.row), kLanes, constant.value);
      else
        std::fill_n(w.row<uint32_t>(constant.row), kLanes, static_cast<uint32_t>(constant.value));
    }
    for (const Special& special : kernel.specials) {
      w.defined[special.row] = ~0u;
      for (uint32_t l = 0; l < kLanes; ++l)
        w.row<uint32_t>(special.row)[l] = special_value(special.name, block, first + l);
    }
  }
}

/// The variables of a module are part of memory while a kernel runs.
class Registered {
 public:
  Registered(Memory& memory, const Source& source, const std::map<std::string, uint64_t>& variables) : memory_(memory) {
    for (const auto& [name, address] : variables) {
      const Variable& variable = source.variables.at(name);
      if (variable.bytes == 0) continue;
      memory.add(reinterpret_cast<const void*>(address), variable.bytes, variable.space != Space::constant);
      added_.push_back(address);
    }
  }
  Registered(const Registered&) = delete;
  Registered& operator=(const Registered&) = delete;
  ~Registered() {
    for (const uint64_t address : added_) memory_.remove(reinterpret_cast<const void*>(address));
  }

 private:
  Memory& memory_;
  std::vector<uint64_t> added_;
};

}  // namespace

constexpr size_t kMaxSharedBytes = 227 * 1024;

void Module::launch(const std::string& name, Dim grid, Dim block_size, size_t shared_bytes, Memory& memory,
                    const Options& options, std::span<const std::span<const std::byte>> arguments) {
  Kernel& kernel = content_->kernel(name);
  const uint64_t threads = block_size.count();
  if (grid.count() == 0 || threads == 0 || threads > kernel.max_threads)
    throw Error(name + ": a launch of " + std::to_string(grid.count()) + " blocks of " + std::to_string(threads) +
                " threads; there may be 1 to " + std::to_string(kernel.max_threads) + " threads");
  if (kernel.shared_bytes + shared_bytes > kMaxSharedBytes)
    throw Error(name + ": " + std::to_string(kernel.shared_bytes + shared_bytes) +
                " bytes of shared memory, more than " + std::to_string(kMaxSharedBytes) + " of an sm_90");
  if (arguments.size() != kernel.parameters.size())
    throw Error(name + " takes " + std::to_string(kernel.parameters.size()) + " arguments, not " +
                std::to_string(arguments.size()));
  Block block;
  block.kernel = &kernel;
  block.memory = &memory;
  block.options = &options;
  block.grid = grid;
  block.size = block_size;
  block.parameters.resize(kernel.parameter_bytes);
  for (size_t k = 0; k < arguments.size(); ++k) {
    const auto [at, bytes] = kernel.parameters[k];
    if (arguments[k].size() != bytes)
      throw Error(name + ": argument " + std::to_string(k) + " has " + std::to_string(arguments[k].size()) +
                  " bytes instead of " + std::to_string(bytes));
    std::copy(arguments[k].begin(), arguments[k].end(), block.parameters.begin() + static_cast<int64_t>(at));
  }
  block.warps.resize((threads + kLanes - 1) / kLanes);
  block.shared.resize(kernel.shared_bytes + shared_bytes, block.warps.size());
  block.intervals.push_back({0, 0});  // number 0 stands for none
  for (size_t k = 0; k < block.warps.size(); ++k) {
    Warp& w = block.warps[k];
    w.block = &block;
    w.id = static_cast<uint32_t>(k);
    w.file.assign(size_t{kernel.rows} * kLanes, 0);
    w.defined.assign(kernel.rows, 0);
    w.local.resize(kernel.local_bytes * kLanes);
  }
  const Registered variables(memory, content_->source, content_->variables);
  memory.forget_accesses();
  uint64_t steps = 0;
  for (; block.number < grid.count(); ++block.number) {
    block.index = {static_cast<unsigned>(block.number % grid.x), static_cast<unsigned>(block.number / grid.x % grid.y),
                   static_cast<unsigned>(block.number / grid.x / grid.y)};
    start_block(block);
    run_block(block, kernel, steps, content_->thread_steps, options.seed * 0x9e3779b97f4a7c15 + block.number);
  }
}

}  // namespace crumb::ptx
