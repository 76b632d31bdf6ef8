// What the lanes of a warp, or the warps of a block, do together.
#include <algorithm>
#include <type_traits>

#include "tests/ptx/decoder.h"

namespace crumb::ptx {
namespace {

/// Calls f(those that execute) for each set of lanes that came with the same mask in the row, after a
/// look at who must have come: a lane must be in its mask, and lanes of the mask that have not ended must execute, too,
/// with the same mask.
template <class F>
void each_group(Warp& w, uint32_t row, F f) {
  const uint32_t* masks = w.row<uint32_t>(row);
  for (uint32_t rest = w.mask; rest != 0;) {
    const int first = std::countr_zero(rest);
    const uint32_t members = masks[first], group = members & w.mask;
    if ((members >> first & 1) == 0) throw Fault{"the lane is not in its own mask " + hex(members), first};
    if (const uint32_t absent = members & w.live & ~w.mask; absent != 0)
      throw Fault{
          "lanes " + hex(absent) + " of mask " + hex(members) + " are inactive: they do not execute the instruction",
          first};
    each_lane(group, [&](int lane) {
      if (masks[lane] != members) throw Fault{"lanes of one mask give different masks", lane};
    });
    f(group);
    rest &= ~group;
  }
}

enum : int { kUp, kDown, kButterfly, kIndex };

void shuffle(Warp& w, const Instruction& i) {
  const uint32_t *a = w.row<uint32_t>(i.op[2]), *b = w.row<uint32_t>(i.op[3]), *c = w.row<uint32_t>(i.op[4]);
  uint32_t out[kLanes] = {}, in_range = 0;
  each_group(w, i.op[5], [&](uint32_t group) {
    each_lane(group, [&](int lane) {
      const int clamp = static_cast<int>(c[lane] & 31), segment = static_cast<int>(c[lane] >> 8 & 31),
                by = static_cast<int>(b[lane] & 31);
      const int last = (lane & segment) | (clamp & ~segment), first = lane & segment;
      int from = 0;
      bool valid = false;
      switch (i.mode) {
        case kUp:
          from = lane - by, valid = from >= last;
          break;
        case kDown:
          from = lane + by, valid = from <= last;
          break;
        case kButterfly:
          from = lane ^ by, valid = from <= last;
          break;
        default:
          from = first | (by & ~segment), valid = from <= last;
          break;
      }
      if (!valid) from = lane;
      if ((group >> from & 1) == 0)
        throw Fault{"a shuffle reads lane " + std::to_string(from) + ", which is inactive", lane};
      out[lane] = a[from];
      in_range |= uint32_t{valid} << lane;
    });
  });
  w.write(i.op[0], out);
  w.write_predicate(i.op[1], in_range);
}

void decode_shuffle(Decoder& d) {
  if (!d.take("sync")) d.refuse("shfl without .sync does not exist from sm_70 on");
  d.i.mode = d.require_one_of({"up", "down", "bfly", "idx"});
  d.take_type();
  const Operand& out = d.operand(0);
  const bool pair = out.kind == Operand::Kind::vector;
  d.i.op[0] = d.destination(pair ? out.parts.at(0) : out, Type::b32);
  if (pair) d.i.op[1] = d.destination(out.parts.at(1), Type::pred);
  for (size_t k = 1; k <= 4; ++k) d.i.op[k + 1] = d.source(k, Type::b32);
  d.set(&shuffle);
}

enum : int { kAll, kAny, kUniform, kBallot };

void vote(Warp& w, const Instruction& i) {
  const uint32_t values = i.negated ? ~w.predicate(i.op[1]) : w.predicate(i.op[1]);
  uint32_t holds = 0, ballots[kLanes] = {};
  each_group(w, i.op[2], [&](uint32_t group) {
    const uint32_t set = values & group;
    const bool answer = i.mode == kAll ? set == group : i.mode == kAny ? set != 0 : set == 0 || set == group;
    if (answer) holds |= group;
    each_lane(group, [&](int lane) { ballots[lane] = set; });
  });
  if (i.mode == kBallot)
    w.write(i.op[0], ballots);
  else
    w.write_predicate(i.op[0], holds);
}

void decode_vote(Decoder& d) {
  if (!d.take("sync")) d.refuse("vote without .sync does not exist from sm_70 on");
  d.i.mode = d.require_one_of({"all", "any", "uni", "ballot"});
  d.operands({d.take_type(), Type::pred, Type::b32});
  d.set(&vote);
}

template <class T>
void match(Warp& w, const Instruction& i) {
  const T* values = w.row<T>(i.op[2]);
  uint32_t out[kLanes] = {}, all_equal = 0;
  each_group(w, i.op[3], [&](uint32_t group) {
    each_lane(group, [&](int lane) {
      each_lane(group, [&](int other) { out[lane] |= uint32_t{values[other] == values[lane]} << other; });
      if (out[lane] == group) all_equal |= uint32_t{1} << lane;
      if (i.mode == kAll && out[lane] != group) out[lane] = 0;
    });
  });
  w.write(i.op[0], out);
  w.write_predicate(i.op[1], all_equal);
}

enum : int { kSum, kSmallest, kLargest, kConjunction, kDisjunction, kExclusive };

/// redux.sync: of each group, in every lane of it.
template <class T>
void reduce(Warp& w, const Instruction& i) {
  const T* values = w.row<T>(i.op[1]);
  T out[kLanes] = {};
  each_group(w, i.op[2], [&](uint32_t group) {
    T total = values[std::countr_zero(group)];
    each_lane(group & (group - 1), [&](int lane) {
      const T x = values[lane];
      switch (i.mode) {
        case kSum:
          total = static_cast<T>(static_cast<uint32_t>(total) + static_cast<uint32_t>(x));
          break;
        case kSmallest:
          total = std::min(total, x);
          break;
        case kLargest:
          total = std::max(total, x);
          break;
        case kConjunction:
          total &= x;
          break;
        case kDisjunction:
          total |= x;
          break;
        default:
          total ^= x;
      }
    });
    each_lane(group, [&](int lane) { out[lane] = total; });
  });
  w.write(i.op[0], out);
}

/// bar, barrier and bar.warp.
void decode_barrier(Decoder& d) {
  d.take("cta");
  if (d.take("warp")) {
    d.take("sync");
    d.i.op[0] = d.source(0, Type::b32);
    d.set([](Warp& w, const Instruction& i) {
      each_group(w, i.op[0], [](uint32_t) {});
      w.block->begin_interval(w);
    });
    return;
  }
  d.take("aligned");
  d.i.kind = Instruction::Kind::barrier;
  d.i.mode = d.require_one_of({"sync", "arrive", "red"});

  const bool reduces = d.i.mode == kReduce;
  size_t at = 0;
  if (reduces) {
    const int operation = d.require_one_of({"popc", "and", "or"});
    d.i.combine = static_cast<Instruction::Combine>(operation);
    d.i.type = d.take_type();
    d.i.op[0] = d.destination(at++, d.i.type);
  }
  d.i.op[1] = d.source(at++, Type::u32);
  if (d.size() - (reduces ? 1 : 0) > at) d.i.op[2] = d.source(at++, Type::u32);
  if (reduces) {
    d.i.op[3] = d.source(at, Type::pred);
    d.i.negated = d.operand(at).negated;
  }
}

// --- matrix products ------------------------------------------------------------------------------------------------

template <class T>
struct Element {  // of a register, as the number that is computed with
  static constexpr int kBits = 8 * sizeof(T);
  using Number = std::conditional_t<std::is_integral_v<T>, int32_t, double>;
  static Number of(uint32_t word) {
    if constexpr (std::is_integral_v<T>)
      return from_slot<T>(word);
    else
      return widen(from_slot<T>(word));
  }
};
struct Tf32 {};
template <>
struct Element<Tf32> {  // the low bits are not looked at
  static constexpr int kBits = 32;
  using Number = double;
  static double of(uint32_t word) { return std::bit_cast<float>(word & ~0x1fffu); }
};
template <class T>
struct Nibble {};
template <class T>
struct Element<Nibble<T>> {
  static constexpr int kBits = 4;
  using Number = int32_t;
  static int32_t of(uint32_t word) {
    return std::is_signed_v<T> ? static_cast<int32_t>(word << 28) >> 28 : static_cast<int32_t>(word & 15);
  }
};

/// D [16, 8] = A [16, K] B [K, 8] + C. A register of A or B holds neighbours along K: with e of them, lane l has of
/// register r of A the row l / 4 + 8 (r % 2) and columns e (l % 4) + 4 e (r / 2) and on; of B the column l / 4 and rows
/// likewise; of C and D rows l / 4 and that + 8, columns 2 (l % 4) and the next. Floats are multiplied exactly and
/// summed in double, then rounded once: tensor cores add in an order and with roundings that are not published.
template <class A, class B>
void multiply(Warp& w, const Instruction& i) {
  using Number = typename Element<A>::Number;
  constexpr int kBits = Element<A>::kBits, kEach = 32 / kBits;
  if (w.mask != ~0u) throw Fault{"not all lanes of the warp execute mma"};
  const int registers = i.count;  // of B, each of 4 kEach rows; A has twice as many
  Number a[16][128], b[128][8];
  for (int r = 0; r < 2 * registers; ++r) {
    const uint32_t* words = w.row<uint32_t>(i.op[static_cast<size_t>(4 + r)]);
    for (int l = 0; l < kLanes; ++l)
      for (int e = 0; e < kEach; ++e)
        a[l / 4 + 8 * (r % 2)][kEach * (l % 4 + 4 * (r / 2)) + e] = Element<A>::of(words[l] >> e * (kBits % 32));
  }
  for (int r = 0; r < registers; ++r) {
    const uint32_t* words = w.row<uint32_t>(i.op[static_cast<size_t>(12 + r)]);
    for (int l = 0; l < kLanes; ++l)
      for (int e = 0; e < kEach; ++e)
        b[kEach * (l % 4 + 4 * r) + e][l / 4] = Element<B>::of(words[l] >> e * (kBits % 32));
  }
  Number d[16][8] = {};
  const int depth = 4 * kEach * registers;
  for (int m = 0; m < 16; ++m)
    for (int k = 0; k < depth; ++k)
      for (int n = 0; n < 8; ++n) {
        if constexpr (std::is_integral_v<Number>)
          d[m][n] = static_cast<int32_t>(static_cast<uint32_t>(d[m][n]) + static_cast<uint32_t>(a[m][k] * b[k][n]));
        else
          d[m][n] += a[m][k] * b[k][n];
      }
  uint32_t out[4][kLanes];
  for (int l = 0; l < kLanes; ++l) {
    for (size_t k = 0; k < 4; ++k) {
      const Number x = d[l / 4 + 8 * (k / 2)][2 * (l % 4) + k % 2];
      if constexpr (std::is_integral_v<Number>) {
        const int64_t exact = int64_t{x} + static_cast<int32_t>(w.row<uint32_t>(i.op[16 + k])[l]);
        out[k][l] = static_cast<uint32_t>(i.saturate ? std::clamp<int64_t>(exact, INT32_MIN, INT32_MAX) : exact);
      } else if (i.type == Type::f16) {
        const uint32_t c = w.row<uint32_t>(i.op[16 + k / 2])[l] >> 16 * (k % 2);
        const uint32_t bits = narrow<Half>(x + widen(from_slot<Half>(c)), Rounding::nearest).bits;
        out[k / 2][l] = k % 2 == 0 ? bits : out[k / 2][l] | bits << 16;
      } else {
        const auto rounded = static_cast<float>(x + std::bit_cast<float>(w.row<uint32_t>(i.op[16 + k])[l]));
        out[k][l] = rounded != rounded ? kNan32 : std::bit_cast<uint32_t>(rounded);
      }
    }
  }
  for (size_t k = 0; k < (i.type == Type::f16 ? 2 : 4); ++k) w.write(i.op[k], out[k]);
}

void decode_multiply(Decoder& d) {
  if (!d.take("sync") || !d.take("aligned")) d.refuse("mma without .sync.aligned does not exist");
  static constexpr int kDepths[] = {4, 8, 16, 32, 64};
  const int shape = d.take_one_of({"m16n8k4", "m16n8k8", "m16n8k16", "m16n8k32", "m16n8k64"});
  if (shape < 0 || !d.take("row") || !d.take("col")) d.refuse("only shapes m16n8, .row.col, are known");
  d.i.saturate = d.take("satfinite");
  d.i.type = d.take_type();
  const Type a = d.take_type(), b = d.take_type(), c = d.take_type();
  const auto bits = [](Type type) {
    return type == Type::u4 || type == Type::s4 ? 4 : static_cast<int>(8 * bytes_of(type));
  };
  const bool is_int = d.i.type == Type::s32;
  if (c != d.i.type || bits(a) != bits(b) ||
      (!is_int && (a != b || (d.i.type != Type::f32 && (d.i.type != Type::f16 || a != Type::f16)))))
    d.refuse("the executor does not know mma of these types");
  const int depth = kDepths[shape];
  d.i.count = depth * bits(a) / 128;
  const size_t sums = d.i.type == Type::f16 ? 2 : 4;
  const size_t counts[4] = {sums, static_cast<size_t>(2 * d.i.count), static_cast<size_t>(d.i.count), sums},
               places[4] = {0, 4, 12, 16};
  if (d.i.count != 1 && d.i.count != 2) d.refuse("the executor does not know mma of this shape and type");
  const Type sum = is_int ? Type::s32 : d.i.type == Type::f16 ? Type::b32 : Type::f32;
  for (size_t k = 0; k < 4; ++k) {
    const Operand& given = d.operand(k);
    const std::vector<Operand> parts = given.kind == Operand::Kind::vector ? given.parts : std::vector<Operand>{given};
    if (parts.size() != counts[k])
      d.refuse("an operand has " + std::to_string(parts.size()) + " registers instead of " + std::to_string(counts[k]));
    for (size_t n = 0; n < parts.size(); ++n) {
      const Type type = k == 0 || k == 3 ? sum : Type::b32;
      d.i.op[places[k] + n] = k == 0 ? d.destination(parts[n], type) : d.source(parts[n], type);
    }
  }
  using Signs = Handler[4];
  static constexpr Signs kBytes = {&multiply<uint8_t, uint8_t>, &multiply<int8_t, uint8_t>, &multiply<uint8_t, int8_t>,
                                   &multiply<int8_t, int8_t>};
  static constexpr Signs kNibbles = {
      &multiply<Nibble<uint8_t>, Nibble<uint8_t>>, &multiply<Nibble<int8_t>, Nibble<uint8_t>>,
      &multiply<Nibble<uint8_t>, Nibble<int8_t>>, &multiply<Nibble<int8_t>, Nibble<int8_t>>};
  const auto sign = [](Type type) { return type == Type::s8 || type == Type::s4 ? 1 : 0; };
  const int signs = sign(a) + 2 * sign(b);
  switch (a) {
    case Type::f16:
      d.set(&multiply<Half, Half>);
      break;
    case Type::bf16:
      d.set(&multiply<Bfloat, Bfloat>);
      break;
    case Type::tf32:
      d.set(&multiply<Tf32, Tf32>);
      break;
    case Type::u8:
    case Type::s8:
      d.set(is_int ? kBytes[signs] : nullptr);
      break;
    case Type::u4:
    case Type::s4:
      d.set(is_int ? kNibbles[signs] : nullptr);
      break;
    default:
      d.set(nullptr);
  }
}

}  // namespace

void add_collectives(Table& table) {
  table["shfl"] = &decode_shuffle;
  table["vote"] = &decode_vote;
  table["match"] = [](Decoder& d) {
    d.i.mode = d.require_one_of({"all", "any"});
    if (!d.take("sync")) d.refuse("match needs .sync");
    const Type type = d.take_type();
    const Operand& out = d.operand(0);
    const bool pair = out.kind == Operand::Kind::vector;
    d.i.op[0] = d.destination(pair ? out.parts.at(0) : out, Type::b32);
    if (pair) d.i.op[1] = d.destination(out.parts.at(1), Type::pred);
    d.i.op[2] = d.source(1, type);
    d.i.op[3] = d.source(2, Type::b32);
    d.set(bytes_of(type) == 8 ? &match<uint64_t> : &match<uint32_t>);
  };
  table["redux"] = [](Decoder& d) {
    if (!d.take("sync")) d.refuse("redux needs .sync");
    d.i.mode = d.require_one_of({"add", "min", "max", "and", "or", "xor"});
    const Type type = d.take_type();
    if (bytes_of(type) != 4 || is_real(type)) d.refuse("only 32-bit integers are known");
    d.operands({type, type, type});
    d.set(is_signed(type) ? &reduce<int32_t> : &reduce<uint32_t>);
  };
  table["activemask"] = [](Decoder& d) {
    d.i.op[0] = d.destination(0, d.take_type());
    d.set([](Warp& w, const Instruction& i) {
      uint32_t out[kLanes];
      std::fill_n(out, kLanes, w.mask);
      w.write(i.op[0], out);
    });
  };
  table["elect"] = [](Decoder& d) {
    if (!d.take("sync")) d.refuse("elect needs .sync");
    const Operand& out = d.operand(0);
    if (out.kind != Operand::Kind::vector) d.refuse("a register and a predicate were expected");
    d.i.op[0] = d.destination(out.parts.at(0), Type::b32);
    d.i.op[1] = d.destination(out.parts.at(1), Type::pred);
    d.i.op[2] = d.source(1, Type::b32);
    d.set([](Warp& w, const Instruction& i) {
      uint32_t leaders[kLanes] = {}, elected = 0;
      each_group(w, i.op[2], [&](uint32_t group) {
        elected |= group & (0 - group);
        each_lane(group, [&](int lane) { leaders[lane] = static_cast<uint32_t>(std::countr_zero(group)); });
      });
      w.write(i.op[0], leaders);
      w.write_predicate(i.op[1], elected);
    });
  };
  table["bar"] = &decode_barrier;
  table["barrier"] = &decode_barrier;
  table["mma"] = &decode_multiply;
  const auto stop = [](Decoder& d) {
    d.set([](Warp& w, const Instruction&) { throw Fault{"trap", std::countr_zero(w.mask)}; });
  };
  table["trap"] = stop;
  table["brkpt"] = stop;
}

}  // namespace crumb::ptx
