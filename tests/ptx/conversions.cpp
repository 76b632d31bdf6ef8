// mov, cvt and cvta.
#include <algorithm>

#include "tests/ptx/decoder.h"

namespace crumb::ptx {
namespace {

using Numbers =
    Types<uint8_t, uint16_t, uint32_t, uint64_t, int8_t, int16_t, int32_t, int64_t, Half, Bfloat, float, double>;

/// Rounds to an integer in the type it is in.
constexpr int kToIntegral = 1;

template <class D, class S>
D to_integer(S x, const Instruction& i) {
  constexpr __int128 kLeast = std::numeric_limits<D>::min(), kMost = std::numeric_limits<D>::max();
  if constexpr (std::is_integral_v<S>) {
    return static_cast<D>(i.saturate ? std::clamp<__int128>(x, kLeast, kMost) : static_cast<__int128>(x));
  } else {
    double value = widen(x);
    if constexpr (std::is_same_v<S, float>)
      if (i.flush) value = flush(x);
    if (std::isnan(value))
      return sizeof(S) == 8 || sizeof(D) == 8 ? static_cast<D>(uint64_t{1} << (8 * sizeof(D) - 1)) : D{0};
    value = round_to_integer(value, i.rounding);
    if (value <= static_cast<double>(kLeast)) return static_cast<D>(kLeast);
    return value >= static_cast<double>(kMost) ? static_cast<D>(kMost) : static_cast<D>(value);
  }
}

/// Compilers convert unsigned numbers by ways that are wrong in other rounding modes than the usual one.
template <class D, class S>
D rounded(S x, Rounding rounding) {
  const bool negative = x < 0;
  const uint64_t size = negative ? 0 - static_cast<uint64_t>(x) : static_cast<uint64_t>(x);
  const int extra = std::max(static_cast<int>(std::bit_width(size)) - std::numeric_limits<D>::digits, 0);
  const uint64_t kept = size >> extra, rest = size - (kept << extra), twice = rest << 1, unit = uint64_t{1} << extra;
  const bool grows = rounding == Rounding::nearest
                         ? twice > unit || (twice == unit && (kept & 1) != 0)
                         : rest != 0 && rounding == (negative ? Rounding::down : Rounding::up);
  const D out = std::ldexp(static_cast<D>(static_cast<int64_t>(kept + (grows ? 1 : 0))), extra);
  return negative ? -out : out;
}

/// Within a RoundingScope where D is float or double.
template <class D, class S>
D to_real(S x, const Instruction& i) {
  if constexpr (std::is_integral_v<S>) {
    if constexpr (kIsSmall<D>)
      return narrow<D>(static_cast<double>(x), i.rounding);
    else
      return rounded<D>(x, i.rounding);
  } else {
    if constexpr (std::is_same_v<S, float>)
      if (i.flush) x = flush(x);
    if constexpr (kIsSmall<D>) {
      double value = i.mode == kToIntegral ? round_to_integer(widen(x), i.rounding) : widen(x);
      if (i.saturate) value = value > 0 ? std::min(value, 1.0) : 0.0;
      if (i.relu && value <= 0) value = 0;
      return narrow<D>(value, i.rounding);
    } else if constexpr (std::is_floating_point_v<S>) {
      return static_cast<D>(x);
    } else {
      return static_cast<D>(widen(x));
    }
  }
}

template <class T>
T finish(T x, const Instruction& i) {
  if constexpr (std::is_same_v<T, float>)
    if (i.flush) x = flush(x);
  if (i.saturate) return x > 0 ? std::min(x, T{1}) : T{0};
  if (i.relu && x <= 0) return 0;
  return std::is_same_v<T, float> && x != x ? std::bit_cast<float>(kNan32) : x;
}

template <class D, class S>
void convert(Warp& w, const Instruction& i) {
  S in[kLanes];
  for (int l = 0; l < kLanes; ++l)
    in[l] =
        from_slot<S>(i.wide_source ? static_cast<Slot<S>>(w.row<uint64_t>(i.op[1])[l]) : w.row<Slot<S>>(i.op[1])[l]);
  if constexpr (std::is_floating_point_v<D>) {
    D out[kLanes];
    {
      const RoundingScope scope(i.mode == kToIntegral ? Rounding::nearest : i.rounding);
      keep(in);
      for (int l = 0; l < kLanes; ++l) out[l] = to_real<D>(in[l], i);
      keep(out);
    }
    if (i.mode == kToIntegral)
      for (D& x : out) x = static_cast<D>(round_to_integer(x, i.rounding));
    if (kIsFloat<S>)
      for (D& x : out) x = finish(x, i);
    w.write(i.op[0], reinterpret_cast<const Slot<D>*>(out));
  } else {
    Slot<D> out[kLanes];
    for (int l = 0; l < kLanes; ++l) {
      if constexpr (kIsSmall<D>)
        out[l] = to_slot<D>(to_real<D>(in[l], i));
      else
        out[l] = to_slot<D>(to_integer<D>(in[l], i));
    }
    // A wider register is filled with the sign, or zeros.
    if (i.count <= static_cast<int>(sizeof(D))) {
      w.write(i.op[0], out);
    } else {
      uint64_t extended[kLanes];
      for (int l = 0; l < kLanes; ++l)
        extended[l] =
            std::is_signed_v<D>
                ? static_cast<uint64_t>(static_cast<int64_t>(static_cast<uint64_t>(out[l]) << (64 - 8 * sizeof(D))) >>
                                        (64 - 8 * sizeof(D)))
                : static_cast<uint64_t>(out[l]);
      if (i.count == 8) return w.write(i.op[0], extended);
      uint32_t words[kLanes];
      for (int l = 0; l < kLanes; ++l) words[l] = static_cast<uint32_t>(extended[l]) & (i.count == 2 ? 0xffff : ~0u);
      w.write(i.op[0], words);
    }
  }
}

/// cvt.rn.bf16x2.f32 d, a, b: a becomes the upper half.
template <class T>
void convert_two(Warp& w, const Instruction& i) {
  const auto *a = w.row<uint32_t>(i.op[1]), *b = w.row<uint32_t>(i.op[2]);
  uint32_t out[kLanes];
  for (int l = 0; l < kLanes; ++l)
    out[l] = to_slot(Pair<T>{to_real<T>(std::bit_cast<float>(b[l]), i), to_real<T>(std::bit_cast<float>(a[l]), i)});
  w.write(i.op[0], out);
}

/// To the 10 bits of a tf32: ties away from zero.
uint32_t to_tf32(uint32_t bits) {
  return (bits & 0x7fffffff) > 0x7f800000    ? kNan32
         : (bits & 0x7f800000) == 0x7f800000 ? bits
                                             : (bits + 0x1000) & ~0x1fffu;
}

/// cvt.pack.sat.u8.s32.b32 d, a, b, c: c's lower half goes up, a and b come below it.
void decode_pack(Decoder& d) {
  if (!d.take("sat")) d.refuse("cvt.pack saturates");
  const Type to = d.take_type(), from = d.take_type();
  if (from != Type::s32) d.refuse("only cvt.pack from .s32 is known");
  const bool bytes = to == Type::u8 || to == Type::s8;
  if (!bytes && to != Type::u16 && to != Type::s16) d.refuse("only cvt.pack to bytes and halves is known");
  if (bytes) d.take_type();
  d.i.op[0] = d.destination(0, Type::b32);
  for (size_t k = 1; k < d.size(); ++k) d.i.op[k] = d.source(k, k == 3 ? Type::b32 : Type::s32);
  d.i.type = to;
  d.set(lanes<uint32_t, int32_t, int32_t, uint32_t>([](int32_t a, int32_t b, uint32_t c, const Instruction& i) {
    const bool narrow = bytes_of(i.type) == 1;
    const int32_t least = is_signed(i.type) ? (narrow ? -128 : -32768) : 0,
                  most = is_signed(i.type) ? (narrow ? 127 : 32767) : (narrow ? 255 : 65535);
    const auto packed = [&](int32_t x) {
      return static_cast<uint32_t>(std::clamp(x, least, most)) & (narrow ? 255 : 65535);
    };
    return narrow ? c << 16 | packed(a) << 8 | packed(b) : packed(a) << 16 | packed(b);
  }));
}

void decode_convert(Decoder& d) {
  if (d.take("pack")) return decode_pack(d);
  const int integral = d.take_one_of({"rni", "rzi", "rmi", "rpi"});
  d.take_rounding();
  if (integral >= 0) d.i.rounding = static_cast<Rounding>(integral);
  d.i.relu = d.take("relu");
  const Type to = without_bits(d.take_type());
  const Type from = without_bits(d.take_type());
  if (to == Type::tf32) {
    if (from != Type::f32 || !d.take("rna")) d.refuse("only cvt.rna.tf32.f32 is known");
    d.i.op[0] = d.destination(0, Type::b32);
    d.i.op[1] = d.source(1, Type::f32);
    d.set(lanes<uint32_t, uint32_t>([](uint32_t a, uint32_t, uint32_t) { return to_tf32(a); }));
    return;
  }
  if (to == Type::f16x2 || to == Type::bf16x2) {
    if (from != Type::f32 || d.size() != 3) d.refuse("only a conversion of two .f32 is known");
    d.i.op[0] = d.destination(0, Type::b32);
    for (size_t k = 1; k <= 2; ++k) d.i.op[k] = d.source(k, Type::f32);
    d.set(to == Type::f16x2 ? &convert_two<Half> : &convert_two<Bfloat>);
    return;
  }
  if (d.size() != 2) d.refuse("the instruction has another number of operands");
  d.i.mode = integral >= 0 && is_real(to) ? kToIntegral : 0;
  if (is_real(from) && !is_real(to) && integral < 0) d.refuse("a rounding to an integer is missing");
  if (to == Type::bf16 && (from == Type::u64 || from == Type::s64)) d.refuse("64-bit integers to .bf16 are not known");
  d.i.op[0] = d.destination(d.operand(0), to, !is_real(to));
  d.i.count = static_cast<int>(d.register_bytes(d.operand(0)));
  d.i.wide_source = d.is_wide(d.operand(1));
  d.i.op[1] = d.source(d.operand(1), from, !is_real(from));
  d.set(choose(to, Numbers{}, [&]<class D>() {
    return choose(from, Numbers{}, []<class S>() -> Handler { return &convert<D, S>; });
  }));
}

// --- mov ------------------------------------------------------------------------------------------------------------

template <class S>
void copy(Warp& w, const Instruction& i) {
  w.write(i.op[0], w.row<S>(i.op[1]));
  // What was not written stays so: compilers copy what they will not use.
  w.defined[i.op[0]] = (w.defined[i.op[0]] & ~w.mask) | (w.defined[i.op[1]] & w.mask);
}

/// mov.b64 d, {a, b} and mov.b64 {a, b}, d. count: how many; mode: bits of each.
template <class Whole>
void pack(Warp& w, const Instruction& i) {
  Whole out[kLanes] = {};
  for (int k = 0; k < i.count; ++k)
    for (int l = 0; l < kLanes; ++l)
      out[l] |=
          static_cast<Whole>(static_cast<Whole>(w.row<uint32_t>(i.op[static_cast<size_t>(k) + 1])[l]) << k * i.mode);
  w.write(i.op[0], out);
}
template <class Whole>
void unpack(Warp& w, const Instruction& i) {
  Whole from[kLanes];
  std::memcpy(from, w.row<Whole>(i.op[0]), sizeof from);
  for (int k = 0; k < i.count; ++k) {
    uint32_t out[kLanes];
    for (int l = 0; l < kLanes; ++l) out[l] = static_cast<uint32_t>(from[l] >> k * i.mode) & (~0u >> (32 - i.mode));
    w.write(i.op[static_cast<size_t>(k) + 1], out);
  }
}

void decode_move(Decoder& d) {
  const Type type = d.take_type();
  if (d.size() != 2) d.refuse("the instruction has another number of operands");
  const bool packs = d.operand(1).kind == Operand::Kind::vector, unpacks = d.operand(0).kind == Operand::Kind::vector;
  const bool wide = bytes_of(type) == 8;
  if (packs || unpacks) {
    const auto& parts = d.operand(packs ? 1 : 0).parts;
    d.i.count = static_cast<int>(parts.size());
    d.i.mode = static_cast<int>(8 * bytes_of(type) / parts.size());
    const Type part = d.i.mode == 32 ? Type::b32 : d.i.mode == 16 ? Type::b16 : Type::b8;
    if (packs == unpacks || d.i.count > 4 || d.i.mode < 8) d.refuse("a vector of this size is not known");
    d.i.op[0] = packs ? d.destination(0, type) : d.source(1, type);
    for (size_t k = 0; k < parts.size(); ++k)
      d.i.op[k + 1] = packs ? d.source(parts[k], part) : d.destination(parts[k], part);
    d.set(packs ? (wide ? &pack<uint64_t> : &pack<uint32_t>) : (wide ? &unpack<uint64_t> : &unpack<uint32_t>));
    return;
  }
  d.operands({type, type});
  if (type == Type::pred) {
    if (d.operand(1).negated) d.refuse("a negated predicate is not expected here");
    d.set([](Warp& w, const Instruction& i) { w.write_predicate(i.op[0], w.predicate(i.op[1])); });
    return;
  }
  d.i.reads.clear();
  d.i.writes.clear();
  d.set(wide ? &copy<uint64_t> : &copy<uint32_t>);
}

/// cvta.shared.u64 d, a makes an address of the space generic; cvta.to.shared.u64 does the reverse.
void decode_address(Decoder& d) {
  const bool to = d.take("to");
  const int space = d.require_one_of({"global", "shared", "local", "const", "param"});

  d.take_memory_modifiers();
  d.take("cta");
  const Type type = d.take_type();
  d.operands({type, type});
  if (type != Type::u64) d.refuse("only addresses of 64 bits are known");
  constexpr uint64_t kWindows[] = {0, kSharedWindow, kLocalWindow, 0, kParamWindow};
  d.i.offset = static_cast<int64_t>(kWindows[space]);
  if (to) {
    d.set([](Warp& w, const Instruction& i) {
      uint64_t out[kLanes];
      std::memcpy(out, w.row<uint64_t>(i.op[1]), sizeof out);
      each_lane(w.mask, [&](int lane) {
        // A null pointer, or one near it, may be converted as long as nobody uses it.
        if (out[lane] < 4096) return;
        if ((out[lane] & 15 * kWindow) != static_cast<uint64_t>(i.offset))
          throw Fault{"the address lies in another space", lane};
        out[lane] -= static_cast<uint64_t>(i.offset);
      });
      w.write(i.op[0], out);
    });
  } else {
    d.set(lanes<uint64_t, uint64_t>(
        [](uint64_t a, uint64_t, uint64_t, const Instruction& i) { return a + static_cast<uint64_t>(i.offset); }));
  }
}

}  // namespace

void add_conversions(Table& table) {
  table["mov"] = &decode_move;
  table["cvt"] = &decode_convert;
  table["cvta"] = &decode_address;
  table["isspacep"] = [](Decoder& d) {
    d.i.mode = d.require_one_of({"global", "shared", "local", "const", "param"});
    d.take_memory_modifiers();
    d.i.op[0] = d.destination(0, Type::pred);
    d.i.op[1] = d.source(1, Type::u64);
    d.set([](Warp& w, const Instruction& i) {
      constexpr uint64_t kWindows[] = {0, kSharedWindow, kLocalWindow, 15 * kWindow, kParamWindow};
      uint32_t out = 0;
      for (int l = 0; l < kLanes; ++l)
        out |= static_cast<uint32_t>((w.row<uint64_t>(i.op[1])[l] & 15 * kWindow) == kWindows[i.mode]) << l;
      w.write_predicate(i.op[0], out);
    });
  };
}

}  // namespace crumb::ptx
