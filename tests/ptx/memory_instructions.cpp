// Loads, stores, atomics, asynchronous copies, matrices from shared memory.
#include <algorithm>

#include "tests/ptx/decoder.h"

namespace crumb::ptx {
namespace {

void take_space(Decoder& d) {
  static const std::pair<const char*, Space> kSpaces[] = {
      {"global", Space::global},      {"shared", Space::shared},    {"local", Space::local},
      {"const", Space::constant},     {"param", Space::param},      {"shared::cta", Space::shared},
      {"param::entry", Space::param}, {"param::func", Space::param}};
  for (const auto& [name, space] : kSpaces)
    if (d.take(name)) d.i.space = space;
}

int take_vector(Decoder& d) { return d.take("v2") ? 2 : d.take("v4") ? 4 : d.take("v8") ? 8 : 1; }

/// Registers op[0], op[1] ... of {a, b} or a; mode is the bytes of a register.
void registers(Decoder& d, size_t k, Type type, bool are_destinations) {
  const Operand& given = d.operand(k);
  const std::vector<Operand> parts = given.kind == Operand::Kind::vector ? given.parts : std::vector<Operand>{given};
  if (static_cast<int>(parts.size()) != d.i.count) d.refuse("the vector has another size than the instruction");
  d.i.mode = static_cast<int>(bytes_of(type));
  for (size_t n = 0; n < parts.size(); ++n) {
    d.i.op[n] = are_destinations ? d.destination(parts[n], type, true) : d.source(parts[n], type, true);
    d.i.mode = std::max(d.i.mode, static_cast<int>(d.register_bytes(parts[n])));
  }
  for (const Operand& part : parts)
    if (const size_t bytes = d.register_bytes(part); bytes != 0 && static_cast<int>(bytes) != d.i.mode)
      d.refuse("registers of a vector have different sizes");
}

void load(Warp& w, const Instruction& i) {
  const size_t bytes = bytes_of(i.type);
  const auto unused = static_cast<int>(64 - 8 * bytes);
  each_lane(w.mask, [&](int lane) {
    const uint64_t address = address_of(w, lane, i.address, i.address_wide, i.offset);
    const std::byte* from = w.block->read(w, lane, i.space, address, bytes * static_cast<size_t>(i.count), i);
    for (size_t k = 0; k < static_cast<size_t>(i.count); ++k) {
      uint64_t value = 0;
      std::memcpy(&value, from + k * bytes, bytes);
      if (is_signed(i.type)) value = static_cast<uint64_t>(static_cast<int64_t>(value << unused) >> unused);
      if (i.mode == 8)
        w.row<uint64_t>(i.op[k])[lane] = value;
      else
        w.row<uint32_t>(i.op[k])[lane] = static_cast<uint32_t>(i.mode == 2   ? value & 0xffff
                                                               : i.mode == 1 ? value & 0xff
                                                                             : value);
    }
  });
}

void store(Warp& w, const Instruction& i) {
  const size_t bytes = bytes_of(i.type), all = bytes * static_cast<size_t>(i.count);
  each_lane(w.mask, [&](int lane) {
    std::byte values[64];
    for (size_t k = 0; k < static_cast<size_t>(i.count); ++k) {
      if (i.mode == 8)
        std::memcpy(values + k * bytes, &w.row<uint64_t>(i.op[k])[lane], bytes);
      else
        std::memcpy(values + k * bytes, &w.row<uint32_t>(i.op[k])[lane], bytes);
    }
    std::memcpy(
        w.block->write(w, lane, i.space, address_of(w, lane, i.address, i.address_wide, i.offset), all, i, values),
        values, all);
  });
}

void decode_access(Decoder& d, bool is_load) {
  take_space(d);
  d.i.read_only = is_load && d.take("nc");
  d.take_memory_modifiers();
  d.i.count = take_vector(d);
  d.i.type = d.take_type();
  d.address(is_load ? 1 : 0);
  registers(d, is_load ? 0 : 1, d.i.type, is_load);
  if (d.i.space == Space::constant) d.i.space = Space::global;  // of the host's addresses as well
  d.set(is_load ? &load : &store);
}

// --- atomics --------------------------------------------------------------------------------------------------------

enum : int { kAdd, kMin, kMax, kAnd, kOr, kXor, kExchange, kCompareAndSwap, kIncrement, kDecrement };

template <class T>
T updated(int operation, T old, T b, T c) {
  if constexpr (std::is_integral_v<T>) {
    using U = std::make_unsigned_t<T>;
    switch (operation) {
      case kAdd:
        return static_cast<T>(static_cast<U>(old) + static_cast<U>(b));
      case kMin:
        return std::min(old, b);
      case kMax:
        return std::max(old, b);
      case kAnd:
        return old & b;
      case kOr:
        return old | b;
      case kXor:
        return old ^ b;
      case kExchange:
        return b;
      case kCompareAndSwap:
        return old == b ? c : old;
      case kIncrement:
        return old >= b ? T{0} : static_cast<T>(old + 1);
      default:
        return old == 0 || old > b ? b : static_cast<T>(old - 1);
    }
  } else if constexpr (std::is_floating_point_v<T>) {
    return old + b;
  } else if constexpr (kIsSmall<T>) {
    return narrow<T>(sum_to_odd(widen(old), widen(b)).value, Rounding::nearest);
  } else {
    return {updated(operation, old.low, b.low, c.low), updated(operation, old.high, b.high, c.high)};
  }
}

template <class T>
void atomic(Warp& w, const Instruction& i) {
  each_lane(w.mask, [&](int lane) {
    const uint64_t address = address_of(w, lane, i.address, i.address_wide, i.offset);
    w.block->read(w, lane, i.space, address, sizeof(T), i);
    std::byte* at = w.block->write(w, lane, i.space, address, sizeof(T), i, nullptr);
    T old;
    std::memcpy(&old, at, sizeof old);
    T b = from_slot<T>(w.row<Slot<T>>(i.op[1])[lane]), c = from_slot<T>(w.row<Slot<T>>(i.op[2])[lane]),
      result = updated(i.mode, old, b, c);
    if constexpr (std::is_same_v<T, float>) {
      // Additions in global memory flush what is subnormal, those in shared memory do not.
      if (i.space == Space::global || (i.space == Space::generic && address < kWindow))
        result = flush(flush(old) + flush(b));
      if (result != result) result = std::bit_cast<float>(kNan32);
    }
    std::memcpy(at, &result, sizeof result);
    w.row<Slot<T>>(i.op[0])[lane] = to_slot(old);
  });
}

void decode_atomic(Decoder& d, bool returns) {
  take_space(d);
  d.take_memory_modifiers();
  d.i.strong = true;
  d.i.mode = d.require_one_of({"add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec"});

  const Type type = without_bits(d.take_type());
  const bool adds_only = is_real(type);
  if (adds_only && d.i.mode != kAdd) d.refuse("floats can only be added");
  const size_t at = returns ? 1 : 0;
  if (returns) d.i.op[0] = d.destination(0, type);
  d.address(at);
  d.i.op[1] = d.source(at + 1, type);
  if (d.i.mode == kCompareAndSwap) d.i.op[2] = d.source(at + 2, type);
  d.set(choose(
      type,
      Types<uint16_t, uint32_t, uint64_t, int32_t, int64_t, float, double, Half, Bfloat, Pair<Half>, Pair<Bfloat>>{},
      []<class T>() -> Handler { return &atomic<T>; }));
}

// --- asynchronous copies --------------------------------------------------------------------------------------------

void begin_copies(Warp& w, const Instruction& i) {
  const auto bytes = static_cast<uint32_t>(i.count);
  each_lane(w.mask, [&](int lane) {
    uint64_t to = address_of(w, lane, i.address, i.address_wide, i.offset);
    const uint64_t from = address_of(w, lane, i.source_address, i.source_address_wide, i.source_offset);
    uint32_t taken = bytes;
    if (i.mode == 1) taken = w.row<uint32_t>(i.op[1])[lane];
    if (i.mode == 2) taken = ((i.negated ? ~w.predicate(i.op[1]) : w.predicate(i.op[1])) >> lane & 1) != 0 ? 0 : bytes;
    if (taken > bytes)
      throw Fault{"cp.async of " + std::to_string(bytes) + " bytes with a source of " + std::to_string(taken), lane};
    if (from % bytes != 0) throw Fault{"the source of a cp.async is misaligned", lane};
    Copy copy{w.committed[static_cast<size_t>(lane)],
              static_cast<uint32_t>(to),
              static_cast<uint8_t>(bytes),
              static_cast<uint8_t>(taken),
              nullptr,
              {}};
    if (taken > 0) {
      copy.from = w.block->read_global(w, lane, from, taken, i);
      std::memcpy(copy.data.data(), copy.from, taken);
    }
    w.block->write(w, lane, Space::shared, to, bytes, i, nullptr);
    w.block->shared.begin_copy(to, bytes);
    w.copies[static_cast<size_t>(lane)].push_back(copy);
  });
}

/// All but the newest groups; of wait_all all, committed or not.
void end_copies(Warp& w, const Instruction& i) {
  each_lane(w.mask, [&](int lane) {
    auto& copies = w.copies[static_cast<size_t>(lane)];
    const int64_t newest = int64_t{w.committed[static_cast<size_t>(lane)]} - i.count;
    const auto is_waited_for = [&](const Copy& copy) { return i.mode == 1 || copy.group < newest; };
    for (const Copy& copy : copies) {
      if (!is_waited_for(copy)) continue;
      if (copy.taken > 0 && std::memcmp(copy.from, copy.data.data(), copy.taken) != 0)
        throw Fault{"the source of a cp.async was written before the copy was waited for", lane};
      std::memcpy(w.block->shared.data() + copy.to, copy.data.data(), copy.bytes);
      w.block->shared.end_copy(w, lane, copy.to, copy.bytes);
    }
    copies.erase(std::remove_if(copies.begin(), copies.end(), is_waited_for), copies.end());
  });
}

void decode_copy(Decoder& d) {
  if (!d.take("async")) d.refuse("only cp.async is known");
  if (d.take("commit_group")) {
    d.set([](Warp& w, const Instruction&) {
      each_lane(w.mask, [&](int lane) { ++w.committed[static_cast<size_t>(lane)]; });
    });
    return;
  }
  d.i.mode = d.take("wait_all") ? 1 : 0;
  if (d.i.mode == 1 || d.take("wait_group")) {
    if (d.i.mode == 0) d.i.count = static_cast<int>(d.immediate(0));
    d.set(&end_copies);
    return;
  }
  const bool bypasses = d.take("cg");
  take_space(d);  // the source's and the destination's are always the same
  take_space(d);
  d.i.space = Space::shared;
  d.take_memory_modifiers();
  d.address(0);
  d.address(1, true);
  d.i.count = static_cast<int>(d.immediate(2));
  if (d.i.count != 16 && (bypasses || (d.i.count != 4 && d.i.count != 8)))
    d.refuse("cp.async copies 16 bytes (.cg), or 4, 8 or 16 (.ca)");
  if (d.size() > 3 && !d.is_wide(d.operand(3))) {  // else it says how to cache
    const bool by_predicate = d.register_bytes(d.operand(3)) == 1;
    d.i.mode = by_predicate ? 2 : 1;
    d.i.op[1] = d.source(3, by_predicate ? Type::pred : Type::u32);
    d.i.negated = d.operand(3).negated;
  }
  d.set(&begin_copies);
}

// --- matrices -------------------------------------------------------------------------------------------------------

/// Lane l gives the address of row l % 8 of matrix l / 8 and gets elements 2 (l % 4) and the next of row l / 4 of each;
/// of the transposed matrix where mode says so.
void load_matrices(Warp& w, const Instruction& i) {
  if (w.mask != ~0u) throw Fault{"not all lanes of the warp execute ldmatrix"};
  uint16_t element[4][8][8];
  for (int lane = 0; lane < 8 * i.count; ++lane) {
    const std::byte* from =
        w.block->read(w, lane, i.space, address_of(w, lane, i.address, i.address_wide, i.offset), 16, i);
    std::memcpy(element[lane / 8][lane % 8], from, 16);
  }
  for (int m = 0; m < i.count; ++m) {
    uint32_t* out = w.row<uint32_t>(i.op[static_cast<size_t>(m)]);
    for (int l = 0; l < kLanes; ++l) {
      const int major = l / 4, minor = 2 * (l % 4);
      out[l] = i.mode == 1 ? element[m][minor][major] | static_cast<uint32_t>(element[m][minor + 1][major]) << 16
                           : element[m][major][minor] | static_cast<uint32_t>(element[m][major][minor + 1]) << 16;
    }
  }
}

void decode_load_matrices(Decoder& d) {
  if (!d.take("sync") || !d.take("aligned") || !d.take("m8n8")) d.refuse("only ldmatrix.sync.aligned.m8n8 is known");
  d.i.count = d.take("x1") ? 1 : d.take("x2") ? 2 : d.take("x4") ? 4 : 0;
  const bool transposes = d.take("trans");
  take_space(d);
  if (d.take_type() != Type::b16 || d.i.count == 0) d.refuse("only matrices of .b16 are known");
  d.address(1);
  registers(d, 0, Type::b32, true);
  d.i.mode = transposes ? 1 : 0;
  d.set(&load_matrices);
}

void do_nothing(Warp&, const Instruction&) {}

/// Has no effect that can be seen here. All modifiers are accepted.
void decode_hint(Decoder& d) {
  for (const std::string& word : d.statement().modifiers) d.take(word);
  for (size_t k = 0; k < d.size(); ++k) d.operand(k);
  d.set(&do_nothing);
}

}  // namespace

void add_memory(Table& table) {
  table["ld"] = [](Decoder& d) { decode_access(d, true); };
  table["ldu"] = table["ld"];
  table["st"] = [](Decoder& d) { decode_access(d, false); };
  table["atom"] = [](Decoder& d) { decode_atomic(d, true); };
  table["red"] = [](Decoder& d) { decode_atomic(d, false); };
  table["cp"] = &decode_copy;
  table["ldmatrix"] = &decode_load_matrices;
  for (const char* name : {"membar", "fence", "prefetch", "prefetchu", "discard", "applypriority", "griddepcontrol",
                           "nanosleep", "pmevent"})
    table[name] = &decode_hint;
  table["createpolicy"] = [](Decoder& d) {  // a policy has no effect
    for (const std::string& word : d.statement().modifiers) d.take(word);
    for (size_t k = 0; k < d.size(); ++k) d.operand(k);
    d.i.op[0] = d.destination(0, Type::b64);
    d.set([](Warp& w, const Instruction& i) {
      const uint64_t none[kLanes] = {};
      w.write(i.op[0], none);
    });
  };
}

}  // namespace crumb::ptx
