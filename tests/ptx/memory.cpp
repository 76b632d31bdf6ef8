#include <algorithm>

#include "tests/ptx/warp.h"

namespace crumb::ptx {
namespace {

std::string at_byte(uint64_t at) { return " at byte " + std::to_string(at); }

}  // namespace

// --- global memory as buffers ---------------------------------------------------------------------------------------

Memory::Memory() = default;
Memory::~Memory() = default;

Buffer* Memory::last_before(uint64_t address) {
  const auto next = buffers_.upper_bound(address);
  return next == buffers_.begin() ? nullptr : std::prev(next)->second.get();
}

Buffer* Memory::find(uint64_t address, size_t bytes) {
  Buffer* found = last_before(address);
  const uint64_t at = found == nullptr ? 0 : address - reinterpret_cast<uint64_t>(found->data);
  return found != nullptr && at <= found->bytes && bytes <= found->bytes - at ? found : nullptr;
}

void Memory::add(const void* data, size_t bytes, bool writable) {
  const auto begin = reinterpret_cast<uint64_t>(data);
  if (Buffer* outer = find(begin, bytes); outer != nullptr && bytes > 0) {
    ++outer->uses;
    return;
  }
  if (bytes == 0) return;
  const auto next = buffers_.lower_bound(begin);
  if ((next != buffers_.end() && next->first < begin + bytes) || find(begin, 1) != nullptr)
    throw Error("a buffer of " + std::to_string(bytes) + " bytes at " + hex(begin) +
                " overlaps one that is registered already in part");
  auto buffer = std::make_unique<Buffer>();
  buffer->data = static_cast<std::byte*>(const_cast<void*>(data));
  buffer->bytes = bytes;
  buffer->writable = writable;
  buffers_[begin] = std::move(buffer);
}

void Memory::remove(const void* data) {
  const auto address = reinterpret_cast<uint64_t>(data);
  Buffer* found = find(address, 1);
  if (found == nullptr) throw Error("no buffer at " + hex(address) + " to remove");
  if (--found->uses == 0) buffers_.erase(reinterpret_cast<uint64_t>(found->data));
}

void Memory::forget_accesses() {
  for (auto& [begin, buffer] : buffers_)
    for (auto* accesses : {&buffer->writer, &buffer->first_reader, &buffer->last_reader}) accesses->clear();
}

Buffer& Block::buffer(uint64_t address, size_t bytes, int lane, Use use) {
  const uint64_t begin = recent != nullptr ? reinterpret_cast<uint64_t>(recent->data) : 0;
  if (recent == nullptr || address < begin || address - begin + bytes > recent->bytes) {
    Buffer* found = memory->find(address, bytes);
    if (found == nullptr) {
      std::string near;
      constexpr uint64_t kNear = 1 << 20;  // what is further away is hardly meant
      if (const Buffer* before = memory->last_before(address);
          before != nullptr && address - reinterpret_cast<uint64_t>(before->data) < before->bytes + kNear)
        near = ": byte " + std::to_string(address - reinterpret_cast<uint64_t>(before->data)) + " of a buffer of " +
               std::to_string(before->bytes);
      throw Fault{std::to_string(bytes) + " bytes at " + hex(address) + " are out of bounds" + near, lane};
    }
    recent = found;
  }
  if (use == Use::write && !recent->writable) throw Fault{"writes to a buffer that is read-only", lane};
  return *recent;
}

void Block::check_global(Buffer& buffer, const Warp& warp, int lane, size_t at, size_t bytes, Use use,
                         const Instruction& i, const void* value) {
  if (!options->check_global_races) return;
  if (buffer.writer.empty())
    for (auto* accesses : {&buffer.writer, &buffer.first_reader, &buffer.last_reader}) accesses->resize(buffer.bytes);
  if (i.strong) ordered = true;
  const Access now = warp.access(lane, i.strong);
  // Blocks run in turns, so what an earlier one did is in the past; that it is on a GPU too takes an atomic or the
  // like.
  const auto races = [&](Access then) {
    if (then == 0 || (then & now & kStrongAccess) != 0) return false;
    if (then / kIntervalUnit < first_interval) return !ordered;
    return !is_before(then, warp, lane);
  };
  const auto report = [&](const char* what, Access then, size_t byte) {
    const Interval& other = intervals[then / kIntervalUnit];
    const bool same = other.block == number;
    throw Fault{std::string("race in global memory: ") + what +
                    (same ? "" : " of block " + std::to_string(other.block)) + " by warp " +
                    std::to_string(other.warp) + " lane " + std::to_string(then & 31) + at_byte(byte) +
                    " of a buffer of " + std::to_string(buffer.bytes),
                lane};
  };
  Access* writer = buffer.writer.data() + at;
  Access* first = buffer.first_reader.data() + at;
  Access* last = buffer.last_reader.data() + at;
  for (size_t b = 0; b < bytes; ++b) {
    if (i.read_only && writer[b] != 0)
      throw Fault{"a read-only load (.nc) of what this launch wrote" + at_byte(at + b), lane};
    const bool same_value = value != nullptr && writer[b] / kIntervalUnit == warp.interval &&
                            static_cast<const std::byte*>(value)[b] == buffer.data[at + b];
    if (races(writer[b]) && !same_value)
      report(use == Use::read ? "reads a write" : "writes over a write", writer[b], at + b);
  }
  if (use == Use::write) {
    for (size_t b = 0; b < bytes; ++b) {
      if (races(first[b])) report("writes over a read", first[b], at + b);
      if (races(last[b])) report("writes over a read", last[b], at + b);
      writer[b] = now;
    }
  } else {
    for (size_t b = 0; b < bytes; ++b) {
      first[b] = first[b] == 0 ? now : first[b];
      last[b] = now;
    }
  }
}

// --- shared memory --------------------------------------------------------------------------------------------------

void SharedMemory::resize(size_t bytes, size_t warps) {
  warps_ = warps;
  bytes_.assign(bytes, std::byte{0xcd});
  writer_.assign(bytes, 0);
  readers_.assign(bytes * warps, 0);
  in_flight_.assign(bytes, 0);
}

void SharedMemory::check_writer(const Warp& warp, int lane, size_t at, bool strong, const std::byte* value) {
  const Block& block = *warp.block;
  if (in_flight_[at] != 0)
    throw Fault{"touches shared memory" + at_byte(at) + " that a cp.async in flight fills: it was not waited for",
                lane};
  const Access then = writer_[at];
  if (!block.options->check_shared_races || (strong && (then & kStrongAccess) != 0) ||
      block.is_before(then, warp, lane))
    return;
  if (value != nullptr && then / kIntervalUnit == warp.interval && *value == bytes_[at]) return;
  throw Fault{"race in shared memory with a write by warp " +
                  std::to_string(block.intervals[then / kIntervalUnit].warp) + " lane " + std::to_string(then & 31) +
                  at_byte(at) + ": no barrier in between",
              lane};
}

void SharedMemory::check_read(const Warp& warp, int lane, uint64_t at, size_t bytes, bool strong) {
  const Block& block = *warp.block;
  Access passed = kNever;  // most often all bytes have one writer
  for (size_t b = at; b < at + bytes; ++b) {
    if (writer_[b] != passed || in_flight_[b] != 0) {
      check_writer(warp, lane, b, strong, nullptr);
      if (block.options->check_uninitialised && writer_[b] / kIntervalUnit < block.first_interval)
        throw Fault{"reads shared memory" + at_byte(b) + " that the block has not written", lane};
      passed = writer_[b];
    }
    if (!block.options->check_shared_races) continue;
    // That several lanes read it in this interval is told by the bit that a reader needs for nothing else: strong ones
    // are not kept.
    Access& reader = readers_[b * warps_ + warp.id];
    const Access now = warp.access(lane, false);
    const bool several = reader / kIntervalUnit == warp.interval && reader != now;
    reader = strong ? reader : now | (several ? kStrongAccess : 0);
  }
}

void SharedMemory::check_write(const Warp& warp, int lane, uint64_t at, size_t bytes, bool strong, const void* value) {
  const Block& block = *warp.block;
  Access passed = 0;  // of readers
  for (size_t b = at; b < at + bytes; ++b) {
    check_writer(warp, lane, b, strong, value == nullptr ? nullptr : static_cast<const std::byte*>(value) + (b - at));
    writer_[b] = warp.access(lane, strong);
    if (!block.options->check_shared_races) continue;
    for (size_t v = 0; v < warps_; ++v) {
      const Access then = readers_[b * warps_ + v];
      if (then / kIntervalUnit < block.first_interval || then == passed) continue;
      const bool several_now = (then & kStrongAccess) != 0 && then / kIntervalUnit == warp.interval;
      passed = then;
      if (block.is_before(then, warp, lane) && !several_now) continue;
      throw Fault{"race in shared memory with a read by warp " + std::to_string(v) + " lane " +
                      std::to_string(then & 31) + at_byte(b) + ": no barrier in between",
                  lane};
    }
  }
}

void SharedMemory::begin_copy(uint64_t at, size_t bytes) {
  std::fill_n(in_flight_.begin() + static_cast<int64_t>(at), bytes, 1);
}
void SharedMemory::end_copy(const Warp& warp, int lane, uint64_t at, size_t bytes) {
  std::fill_n(in_flight_.begin() + static_cast<int64_t>(at), bytes, 0);
  std::fill_n(writer_.begin() + static_cast<int64_t>(at), bytes, warp.access(lane, false));
}

// --- what a lane accesses -------------------------------------------------------------------------------------------

void Block::begin_interval(Warp& warp) {
  if (intervals.size() >= ~0u / kIntervalUnit)
    throw Error(kernel->name + ": more blocks and barriers in a launch than can be told apart");
  warp.interval = static_cast<uint32_t>(intervals.size());
  intervals.push_back({number, warp.id});
}

std::byte* Block::place(Warp& warp, int lane, Space& space, uint64_t& address, size_t bytes, Use use) {
  if (address % bytes != 0)
    throw Fault{"address " + hex(address) + " is misaligned: no multiple of " + std::to_string(bytes), lane};
  if (space == Space::generic) {
    const uint64_t window = address & (15 * kWindow);
    space = window == kSharedWindow  ? Space::shared
            : window == kLocalWindow ? Space::local
            : window == kParamWindow ? Space::param
                                     : Space::global;
    if (window != 0) address -= window;
  }
  const auto within = [&](size_t size, const char* what) {
    if (address > size || bytes > size - address)
      throw Fault{std::to_string(bytes) + " bytes" + at_byte(address) + " of " + what +
                      " memory are out of bounds: it has " + std::to_string(size),
                  lane};
  };
  switch (space) {
    case Space::shared:
      within(shared.size(), "shared");
      return shared.data() + address;
    case Space::local:
      within(kernel->local_bytes, "local");
      return warp.local.data() + static_cast<size_t>(lane) * kernel->local_bytes + address;
    case Space::param:
      within(parameters.size(), "parameter");
      if (use == Use::write) throw Fault{"writes to a parameter of the kernel", lane};
      return parameters.data() + address;
    default:
      return nullptr;
  }
}

std::byte* Block::read_global(Warp& warp, int lane, uint64_t address, size_t bytes, const Instruction& i) {
  Buffer& from = buffer(address, bytes, lane, Use::read);
  const size_t at = address - reinterpret_cast<uint64_t>(from.data);
  check_global(from, warp, lane, at, bytes, Use::read, i, nullptr);
  return from.data + at;
}

std::byte* Block::read(Warp& warp, int lane, Space space, uint64_t address, size_t bytes, const Instruction& i) {
  std::byte* out = place(warp, lane, space, address, bytes, Use::read);
  if (space == Space::shared) shared.check_read(warp, lane, address, bytes, i.strong);
  return out != nullptr ? out : read_global(warp, lane, address, bytes, i);
}

std::byte* Block::write(Warp& warp, int lane, Space space, uint64_t address, size_t bytes, const Instruction& i,
                        const void* value) {
  std::byte* out = place(warp, lane, space, address, bytes, Use::write);
  if (space == Space::shared) shared.check_write(warp, lane, address, bytes, i.strong, value);
  if (out != nullptr) return out;
  if (space == Space::constant) throw Fault{"writes to constant memory", lane};
  Buffer& to = buffer(address, bytes, lane, Use::write);
  const size_t at = address - reinterpret_cast<uint64_t>(to.data);
  check_global(to, warp, lane, at, bytes, Use::write, i, value);
  return to.data + at;
}

}  // namespace crumb::ptx
