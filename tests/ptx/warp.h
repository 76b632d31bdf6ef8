// A block while it runs: its warps, its memory, and who accessed what since when.
#pragma once

#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "tests/ptx/program.h"

namespace crumb::ptx {

/// What a kernel must not do; the scheduler adds where it was.
struct Fault {
  std::string what;
  int lane = -1;
};

/// Windows of generic addresses. What lies in none is global memory, at the host's addresses.
constexpr uint64_t kWindow = uint64_t{1} << 60;
constexpr uint64_t kSharedWindow = 1 * kWindow, kLocalWindow = 2 * kWindow, kParamWindow = 3 * kWindow;

// --- who accessed what ----------------------------------------------------------------------------------------------

/// Races are found as vector clocks tell them. A warp's time is cut into intervals by what orders its accesses
/// (barriers, bar.warp.sync); an interval has a number of its own, greater than those of earlier ones. An access is
/// that number, whether it is strong, and the lane.
using Access = uint32_t;
constexpr Access kStrongAccess = 32, kIntervalUnit = 64;

struct Interval {
  uint64_t block;
  uint32_t warp;
};

/// Of every byte, for races between blocks and warps. Of its readers the first and the last are known.
struct Buffer {
  std::byte* data = nullptr;
  size_t bytes = 0;
  bool writable = true;
  int uses = 1;
  std::vector<Access> writer, first_reader, last_reader;
};

struct Block;

/// Of every byte of shared memory who wrote it last, and when each warp read it last.
class SharedMemory {
 public:
  /// Before the first block of a launch.
  void resize(size_t bytes, size_t warps);
  size_t size() const { return bytes_.size(); }
  std::byte* data() { return bytes_.data(); }
  void check_read(const Warp& warp, int lane, uint64_t at, size_t bytes, bool strong);
  /// `value`: what will be written, or null. Lanes of a warp may write the same value at once.
  void check_write(const Warp& warp, int lane, uint64_t at, size_t bytes, bool strong, const void* value);
  void begin_copy(uint64_t at, size_t bytes);
  void end_copy(const Warp& warp, int lane, uint64_t at, size_t bytes);

 private:
  void check_writer(const Warp& warp, int lane, size_t at, bool strong, const std::byte* value);

  std::vector<std::byte> bytes_;
  std::vector<Access> writer_, readers_;  // [byte], [byte, warp]; 0: none
  std::vector<uint8_t> in_flight_;
  size_t warps_ = 0;
};

// --- what runs ------------------------------------------------------------------------------------------------------

/// A cp.async that was not waited for.
struct Copy {
  uint32_t group;
  uint32_t to;
  uint8_t bytes, taken;
  const std::byte* from;
  std::array<std::byte, 16> data;
};

/// Lanes that wait until others are where they will meet them.
struct Pending {
  uint32_t pc, reconvergence, mask;
};

struct Warp {
  Block* block = nullptr;
  uint32_t id = 0;
  uint32_t mask = 0;    // lanes that execute the present instruction
  uint32_t active = 0;  // lanes at pc
  uint32_t live = 0;    // lanes that have not ended
  uint32_t pc = 0, reconvergence = kNever;
  std::vector<Pending> pending;
  bool waits = false, done = false;
  std::vector<uint32_t> file, defined;  // of each row: its lanes, which of them were written
  uint32_t carry = 0;
  std::vector<std::byte> local;  // [lane, bytes]
  std::array<std::vector<Copy>, kLanes> copies;
  std::array<uint32_t, kLanes> committed{};  // groups
  uint32_t interval = 0;
  std::vector<uint32_t> seen;  // of each warp the last interval whose accesses are before the present

  template <class T>
  T* row(uint32_t row) {
    return reinterpret_cast<T*>(file.data() + size_t{row} * kLanes);
  }
  uint32_t& predicate(uint32_t row) { return file[size_t{row} * kLanes]; }
  /// Of the lanes that execute.
  template <class S>
  void write(uint32_t to, const S* values) {
    S* out = row<S>(to);
    if (mask == ~0u) {
      std::memcpy(out, values, kLanes * sizeof(S));
    } else {
      for (int l = 0; l < kLanes; ++l) out[l] = (mask >> l & 1) != 0 ? values[l] : out[l];
    }
  }
  void write_predicate(uint32_t to, uint32_t values) {
    uint32_t& out = predicate(to);
    out = (out & ~mask) | (values & mask);
  }
  Access access(int lane, bool strong) const {
    return interval * kIntervalUnit + (strong ? kStrongAccess : 0) + static_cast<uint32_t>(lane);
  }
};

struct Barrier {
  uint32_t expected = 0, arrived = 0;  // warps; 0 expected: all
  std::vector<Warp*> waiting;
  std::vector<uint32_t> seen;     // what the warps that arrived have seen
  uint32_t threads = 0, set = 0;  // of bar.red: how many, and how many whose predicate is set
};

struct Block {
  const Kernel* kernel = nullptr;
  Memory* memory = nullptr;
  const Options* options = nullptr;
  Dim grid, size, index;
  uint64_t number = 0;
  std::vector<std::byte> parameters;
  SharedMemory shared;
  std::vector<Warp> warps;
  std::array<Barrier, 16> barriers;
  std::vector<Interval> intervals;  // of the launch, by their number
  uint32_t first_interval = 0;      // of this block: what is before was before the block
  bool ordered = false;             // an atomic or the like of this block may have waited for earlier ones
  Buffer* recent = nullptr;

  /// A new interval of the warp, after all that `seen` holds.
  void begin_interval(Warp& warp);
  /// Whether what was accessed then is before what the warp does now, or by the same lane.
  bool is_before(Access access, const Warp& warp, int lane) const {
    const uint32_t interval = access / kIntervalUnit;
    if (interval < first_interval) return true;
    const Interval& then = intervals[interval];
    if (then.warp != warp.id) return interval <= warp.seen[then.warp];
    return interval < warp.interval || (access & 31) == static_cast<uint32_t>(lane);
  }

  /// Host address of what a lane reads or is about to write, after every check. `value`: what it will write, if known.
  std::byte* read(Warp& warp, int lane, Space space, uint64_t address, size_t bytes, const Instruction& i);
  std::byte* write(Warp& warp, int lane, Space space, uint64_t address, size_t bytes, const Instruction& i,
                   const void* value);
  std::byte* read_global(Warp& warp, int lane, uint64_t address, size_t bytes, const Instruction& i);

 private:
  enum class Use { read, write };
  std::byte* place(Warp& warp, int lane, Space& space, uint64_t& address, size_t bytes, Use use);
  Buffer& buffer(uint64_t address, size_t bytes, int lane, Use use);
  void check_global(Buffer& buffer, const Warp& warp, int lane, size_t at, size_t bytes, Use use, const Instruction& i,
                    const void* value);
};

inline std::string hex(uint64_t value) {
  char text[24];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

/// Every lane that executes, in order.
template <class F>
void each_lane(uint32_t mask, F f) {
  for (; mask != 0; mask &= mask - 1) f(std::countr_zero(mask));
}

/// The address of an operand in brackets.
inline uint64_t address_of(Warp& w, int lane, uint32_t row, bool wide, int64_t offset) {
  if (wide) return w.row<uint64_t>(row)[lane] + static_cast<uint64_t>(offset);
  return static_cast<uint32_t>(w.row<uint32_t>(row)[lane] + static_cast<uint32_t>(offset));
}

void run_block(Block& block, Kernel& kernel, uint64_t& steps, uint64_t& thread_steps, uint64_t random);

}  // namespace crumb::ptx
