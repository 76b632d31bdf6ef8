// Instructions that compute lane by lane: integers, bits, floats, comparisons.
#include <algorithm>
#include <array>

#include "tests/ptx/decoder.h"

namespace crumb::ptx {
namespace {

// --- integers -------------------------------------------------------------------------------------------------------

using Words = Types<uint16_t, uint32_t, uint64_t, int16_t, int32_t, int64_t>;
using Words32 = Types<uint32_t, uint64_t, int32_t, int64_t>;

template <class T>
constexpr int kBits = 8 * sizeof(T);
template <class T, class Signed, class Other>
using BySign = std::conditional_t<std::is_signed_v<T>, Signed, Other>;
template <class T>
using Twice = std::conditional_t<
    sizeof(T) == 2, BySign<T, int32_t, uint32_t>,
    std::conditional_t<sizeof(T) == 4, BySign<T, int64_t, uint64_t>, BySign<T, __int128, unsigned __int128>>>;

template <class T>
Twice<T> product(T a, T b) {
  return static_cast<Twice<T>>(a) * static_cast<Twice<T>>(b);
}
template <class T>
T high(Twice<T> x) {
  return static_cast<T>(x >> kBits<T>);
}
/// Sums and differences that wrap around.
template <class T>
T sum(T a, T b) {
  using U = std::make_unsigned_t<T>;
  return static_cast<T>(static_cast<U>(static_cast<U>(a) + static_cast<U>(b)));
}
template <class T>
T difference(T a, T b) {
  using U = std::make_unsigned_t<T>;
  return static_cast<T>(static_cast<U>(static_cast<U>(a) - static_cast<U>(b)));
}
int32_t clamped(int64_t x) { return static_cast<int32_t>(std::clamp<int64_t>(x, INT32_MIN, INT32_MAX)); }
/// By zero: unspecified by the ISA, all ones and the dividend here.
template <class T>
T quotient(T a, T b) {
  if (b == 0) return static_cast<T>(-1);
  return std::is_signed_v<T> && b == static_cast<T>(-1) ? difference<T>(0, a) : static_cast<T>(a / b);
}
template <class T>
T remainder(T a, T b) {
  if (b == 0) return a;
  return std::is_signed_v<T> && b == static_cast<T>(-1) ? T{0} : static_cast<T>(a % b);
}

/// add.cc, addc and the like: the carry, or borrow, of each lane is taken (negated) and kept (mode).
template <class T, bool kSubtract>
void with_carry(Warp& w, const Instruction& i) {
  const auto *a = w.row<T>(i.op[1]), *b = w.row<T>(i.op[2]);
  T out[kLanes];
  uint32_t carries = 0;
  for (int l = 0; l < kLanes; ++l) {
    const unsigned __int128 x = a[l], y = b[l], c = i.negated ? w.carry >> l & 1 : 0,
                            exact = kSubtract ? x - y - c : x + y + c;
    out[l] = static_cast<T>(exact);
    carries |= static_cast<uint32_t>(exact >> kBits<T> & 1) << l;
  }
  w.write(i.op[0], out);
  if (i.mode != 0) w.carry = (w.carry & ~w.mask) | (carries & w.mask);
}

void decode_carry(Decoder& d, bool subtract, bool takes) {
  d.i.negated = takes;
  d.i.mode = d.take("cc") ? 1 : 0;
  const Type type = d.take_type();
  d.operands({type, type, type});
  const bool wide = bytes_of(type) == 8;
  if (subtract)
    d.set(wide ? &with_carry<uint64_t, true> : &with_carry<uint32_t, true>);
  else
    d.set(wide ? &with_carry<uint64_t, false> : &with_carry<uint32_t, false>);
}

void decode_mul(Decoder& d, bool adds) {
  const int part = d.require_one_of({"lo", "hi", "wide"});
  const bool saturates = d.take("sat");
  const Type type = d.take_type();
  const bool wide = part == 2;
  const Type out = !wide               ? type
                   : type == Type::u16 ? Type::u32
                   : type == Type::s16 ? Type::s32
                   : type == Type::u32 ? Type::u64
                                       : Type::s64;
  if (adds) {
    d.operands({out, type, type, out});
  } else {
    d.operands({out, type, type});
    d.i.op[3] = d.zero(out);
  }
  if (wide) {
    d.set(choose(type, Types<uint16_t, uint32_t, int16_t, int32_t>{}, []<class T>() {
      return lanes<Twice<T>, T, T, Twice<T>>([](T a, T b, Twice<T> c) { return sum<Twice<T>>(product(a, b), c); });
    }));
  } else if (saturates) {
    if (part != 1 || type != Type::s32) d.refuse("only mad.hi.sat.s32 saturates");
    d.set(lanes<int32_t, int32_t>(
        [](int32_t a, int32_t b, int32_t c) { return clamped(int64_t{high<int32_t>(product(a, b))} + c); }));
  } else if (part == 1) {
    d.set(choose(type, Words{}, []<class T>() {
      return lanes<T, T>([](T a, T b, T c) { return sum<T>(high<T>(product(a, b)), c); });
    }));
  } else {
    d.set(choose(type, Words{}, []<class T>() {
      return lanes<T, T>([](T a, T b, T c) {
        return sum<T>(
            static_cast<T>(product(static_cast<std::make_unsigned_t<T>>(a), static_cast<std::make_unsigned_t<T>>(b))),
            c);
      });
    }));
  }
}

// --- floats ---------------------------------------------------------------------------------------------------------

float finish(float x, const Instruction& i) {
  if (i.flush) x = flush(x);
  if (i.saturate) x = x > 0 ? std::min(x, 1.0f) : 0.0f;  // NaN becomes 0
  if (i.relu) x = x <= 0 ? 0.0f : x;                     // +0 for every zero
  return x != x ? std::bit_cast<float>(kNan32) : x;
}
double finish(double x, const Instruction& i) { return !i.saturate ? x : x > 0 ? std::min(x, 1.0) : 0.0; }
template <class T>
T finish(Exact x, const Instruction& i) {
  if (i.saturate) x.value = x.value > 0 ? std::min(x.value, 1.0) : 0.0;
  if (i.relu && x.value <= 0) x.value = 0;
  return narrow<T>(x.value, i.rounding);
}

template <class T, class F>
T small(T a, T b, T c, const Instruction& i) {
  return finish<T>(Exact{F{}(Exact{widen(a)}, Exact{widen(b)}, Exact{widen(c)})}, i);
}

/// A function of numbers, computed once and rounded once. It is given floats, doubles or Exact numbers.
template <class T, class F>
Handler real(F) {
  if constexpr (kIsSmall<T>) {
    return lanes<T, T>([](T a, T b, T c, const Instruction& i) { return small<T, F>(a, b, c, i); });
  } else if constexpr (!std::is_floating_point_v<T>) {
    return lanes<T, T>([](T a, T b, T c, const Instruction& i) {
      return T{small<decltype(a.low), F>(a.low, b.low, c.low, i), small<decltype(a.low), F>(a.high, b.high, c.high, i)};
    });
  } else {
    return [](Warp& w, const Instruction& i) {
      T in[3][kLanes], out[kLanes];
      for (size_t k = 0; k < 3; ++k) {
        std::memcpy(in[k], w.row<Slot<T>>(i.op[k + 1]), sizeof in[k]);
        if constexpr (std::is_same_v<T, float>)
          if (i.flush)
            for (float& x : in[k]) x = flush(x);
      }
      {
        const RoundingScope scope(i.rounding);
        keep(in);
        for (int l = 0; l < kLanes; ++l) out[l] = F{}(in[0][l], in[1][l], in[2][l]);
        keep(out);
      }
      for (T& x : out) x = finish(x, i);
      w.write(i.op[0], reinterpret_cast<const Slot<T>*>(out));
    };
  }
}

/// f of a double in place of the unspecified approximation; `types`: those that have it.
template <class F, class... T>
void decode_approximate(Decoder& d, Types<T...> types, F) {
  d.take("approx");
  d.take_rounding();
  const Type type = d.take_type();
  d.operands({type, type});
  d.set(choose(type, types, []<class U>() {
    return real<U>([](auto a, auto, auto) {
      if constexpr (std::is_same_v<decltype(a), Exact>)
        return Exact{F{}(a.value)};
      else
        return static_cast<decltype(a)>(F{}(static_cast<double>(a)));
    });
  }));
}

/// A function of floats or doubles, right to the last bit, for .approx as for a rounding.
template <class F>
void decode_division(Decoder& d, size_t sources, F) {
  if (!d.take("approx")) d.take("full");
  d.take_rounding();
  const Type type = d.take_type();
  if (sources == 1)
    d.operands({type, type});
  else
    d.operands({type, type, type});
  d.set(choose(type, Types<float, double>{},
               []<class U>() { return real<U>([](auto a, auto b, auto) { return F{}(a, b); }); }));
}

template <class T, bool kLargest>
T extremum(T a, T b, const Instruction& i) {
  if constexpr (kIsSmall<T>) {
    const double x = widen(a), y = widen(b);
    if (std::isnan(x) || std::isnan(y))
      return i.nan || (std::isnan(x) && std::isnan(y)) ? T{0x7fff} : std::isnan(x) ? b : a;
    return (x == y ? std::signbit(x) == kLargest : (x < y) == kLargest) ? b : a;
  } else if constexpr (std::is_floating_point_v<T>) {
    const bool ordered = a == a && b == b, second = a == b ? std::signbit(a) == kLargest : (a < b) == kLargest;
    if (!ordered) return finish(i.nan || (a != a && b != b) ? std::numeric_limits<T>::quiet_NaN() : a != a ? b : a, i);
    return finish(second ? b : a, i);
  } else if constexpr (std::is_integral_v<T>) {
    return (a < b) == kLargest ? b : a;
  } else {
    return {extremum<decltype(a.low), kLargest>(a.low, b.low, i),
            extremum<decltype(a.low), kLargest>(a.high, b.high, i)};
  }
}

template <bool kLargest>
void decode_extremum(Decoder& d) {
  d.take_rounding();
  d.i.nan = d.take("NaN");
  const Type type = d.take_type();
  d.operands({type, type, type});
  const auto make = []<class T>() {
    return lanes<T, T>([](T a, T b, T, const Instruction& i) { return extremum<T, kLargest>(a, b, i); });
  };
  d.set(is_real(type) ? choose(type, Reals{}, make) : choose(type, Words{}, make));
}

/// Both signs of both halves are one operation on bits.
template <class F>
void decode_sign(Decoder& d, F) {
  d.take_rounding();
  const Type type = d.take_type();
  d.operands({type, type});
  switch (type) {
    case Type::f32:
      d.set(lanes<float, float>([](float a, float, float, const Instruction& i) {
        return std::bit_cast<float>(F{}(std::bit_cast<uint32_t>(i.flush ? flush(a) : a), uint32_t{0x80000000}));
      }));
      break;
    case Type::f64:
      d.set(lanes<uint64_t, uint64_t>([](uint64_t a, uint64_t, uint64_t) { return F{}(a, uint64_t{1} << 63); }));
      break;
    case Type::f16:
    case Type::bf16:
      d.set(lanes<uint32_t, uint32_t>([](uint32_t a, uint32_t, uint32_t) { return F{}(a, uint32_t{0x8000}); }));
      break;
    case Type::f16x2:
    case Type::bf16x2:
      d.set(lanes<uint32_t, uint32_t>([](uint32_t a, uint32_t, uint32_t) { return F{}(a, uint32_t{0x80008000}); }));
      break;
    case Type::s16:
      d.set(lanes<int16_t, int16_t>([](int16_t a, int16_t, int16_t) { return F{}(a); }));
      break;
    case Type::s32:
      d.set(lanes<int32_t, int32_t>([](int32_t a, int32_t, int32_t) { return F{}(a); }));
      break;
    case Type::s64:
      d.set(lanes<int64_t, int64_t>([](int64_t a, int64_t, int64_t) { return F{}(a); }));
      break;
    default:
      d.set(nullptr);
  }
}
struct Negate {
  template <class T>
  T operator()(T x) const {
    return difference<T>(0, x);
  }
  template <class T>
  T operator()(T x, T signs) const {
    return x ^ signs;
  }
};
struct Absolute {
  template <class T>
  T operator()(T x) const {
    return x < 0 ? difference<T>(0, x) : x;
  }
  template <class T>
  T operator()(T x, T signs) const {
    return x & ~signs;
  }
};

/// add and sub, of integers and floats.
template <bool kSubtract>
void decode_add(Decoder& d) {
  if (const auto& words = d.statement().modifiers; std::find(words.begin(), words.end(), "cc") != words.end())
    return decode_carry(d, kSubtract, false);
  d.take_rounding();
  d.i.relu = d.take("relu");
  const Type type = d.take_type();
  d.operands({type, type, type});
  if (type == Type::s32 && d.i.saturate) {
    d.set(lanes<int32_t, int32_t>(
        [](int32_t a, int32_t b, int32_t) { return clamped(kSubtract ? int64_t{a} - b : int64_t{a} + b); }));
  } else if (is_real(type)) {
    d.set(choose(type, Reals{},
                 []<class T>() { return real<T>([](auto a, auto b, auto) { return kSubtract ? a - b : a + b; }); }));
  } else {
    if (d.i.saturate) d.refuse("only .s32 saturates");
    d.set(choose(type, Words{}, []<class T>() {
      return lanes<T, T>([](T a, T b, T) { return kSubtract ? difference<T>(a, b) : sum<T>(a, b); });
    }));
  }
}

void decode_fused(Decoder& d) {
  d.take_rounding();
  d.i.relu = d.take("relu");
  const Type type = d.take_type();
  d.operands({type, type, type, type});
  d.set(
      choose(type, Reals{}, []<class T>() { return real<T>([](auto a, auto b, auto c) { return fused(a, b, c); }); }));
}

bool has_real_type(const Decoder& d) {
  for (const std::string& word : d.statement().modifiers)
    if (is_real(type_of(word))) return true;
  return false;
}

// --- bits -----------------------------------------------------------------------------------------------------------

template <class T>
T shift_left(T a, uint32_t by) {
  return by >= static_cast<uint32_t>(kBits<T>) ? T{0} : static_cast<T>(static_cast<std::make_unsigned_t<T>>(a) << by);
}
template <class T>
T shift_right(T a, uint32_t by) {
  if (by >= static_cast<uint32_t>(kBits<T>)) return std::is_signed_v<T> && a < 0 ? static_cast<T>(-1) : T{0};
  return static_cast<T>(a >> by);
}

/// Of and, or, xor, not: predicates are 32 lanes in a word.
template <class F>
void decode_logic(Decoder& d, size_t sources, F) {
  const Type type = without_bits(d.take_type());
  if (sources == 1)
    d.operands({type, type});
  else
    d.operands({type, type, type});
  if (type != Type::pred) {
    d.set(choose(type, Unsigned{},
                 []<class T>() { return lanes<T, T>([](T a, T b, T) { return static_cast<T>(F{}(a, b)); }); }));
    return;
  }
  if (d.i.negated) d.refuse("a negated predicate is not expected here");
  d.set([](Warp& w, const Instruction& i) {
    w.write_predicate(i.op[0], F{}(w.predicate(i.op[1]), w.predicate(i.op[2])));
  });
}

uint32_t lop3(uint32_t a, uint32_t b, uint32_t c, uint32_t table) {
  uint32_t out = 0;
  for (uint32_t k = 0; k < 8; ++k)
    out |= ((k & 4) != 0 ? a : ~a) & ((k & 2) != 0 ? b : ~b) & ((k & 1) != 0 ? c : ~c) & (0 - (table >> k & 1));
  return out;
}

uint32_t permuted(uint32_t a, uint32_t b, uint32_t selector) {
  const uint64_t bytes = uint64_t{b} << 32 | a;
  uint32_t out = 0;
  for (uint32_t k = 0; k < 4; ++k) {
    const uint32_t pick = selector >> 4 * k & 15;
    uint32_t byte = static_cast<uint32_t>(bytes >> 8 * (pick & 7)) & 255;
    if ((pick & 8) != 0) byte = (byte & 128) != 0 ? 255 : 0;
    out |= byte << 8 * k;
  }
  return out;
}

/// prmt with a mode: what the selector would be for the low two bits of c.
uint32_t permute_selector(int mode, uint32_t c) {
  static constexpr uint16_t kSelectors[6][4] = {
      {0x3210, 0x4321, 0x5432, 0x6543}, {0x5670, 0x6701, 0x7012, 0x0123},   // f4e, b4e
      {0x0000, 0x1111, 0x2222, 0x3333}, {0x3210, 0x3211, 0x3222, 0x3333},   // rc8, ecl
      {0x0000, 0x1110, 0x2210, 0x3210}, {0x1010, 0x3232, 0x1010, 0x3232}};  // ecr, rc16
  return mode < 0 ? c : kSelectors[mode][c & 3];
}

template <class T>
T extracted(T a, uint32_t b, uint32_t c) {
  const uint32_t at = b & 255, length = c & 255, most = kBits<T> - 1;
  if (length == 0) return 0;
  const bool sign = std::is_signed_v<T> && (a >> std::min(at + length - 1, most) & 1) != 0;
  const auto ones = [](uint32_t n) {
    return n >= static_cast<uint32_t>(kBits<T>) ? ~uint64_t{0} : (uint64_t{1} << n) - 1;
  };
  const uint32_t kept = at > most ? 0 : std::min(length, most + 1 - at);
  const uint64_t field =
      kept == 0 ? 0 : static_cast<uint64_t>(static_cast<std::make_unsigned_t<T>>(a)) >> at & ones(kept);
  return static_cast<T>(sign ? field | ~ones(kept) : field);
}
template <class T>
T inserted(T a, T into, uint32_t at, uint32_t length) {
  at &= 255;
  length &= 255;
  for (uint32_t k = 0; k < length && at + k < static_cast<uint32_t>(kBits<T>); ++k)
    into = static_cast<T>((into & ~(T{1} << (at + k))) |
                          ((k < static_cast<uint32_t>(kBits<T>) ? a >> k & 1 : 0) << (at + k)));
  return into;
}

template <class T>
uint32_t leading_bit(T a, const Instruction& i) {
  using U = std::make_unsigned_t<T>;
  const U x = static_cast<U>(std::is_signed_v<T> && a < 0 ? ~a : a);
  if (x == 0) return ~0u;
  const auto zeros = static_cast<uint32_t>(std::countl_zero(x));
  return i.mode != 0 ? zeros : static_cast<uint32_t>(kBits<T>) - 1 - zeros;
}

template <class T>
T reversed(T a) {
  T out = 0;
  for (int k = 0; k < kBits<T>; ++k) out = static_cast<T>(out | (a >> k & 1) << (kBits<T> - 1 - k));
  return out;
}

/// dp4a and dp2a: the elements of a, bytes or halves, by bytes of b.
template <int kCount>
void decode_dot(Decoder& d) {
  const bool upper = kCount == 2 && d.require_one_of({"lo", "hi"}) == 1;
  const Type a = d.take_type(), b = d.take_type();
  const Type out = is_signed(a) || is_signed(b) ? Type::s32 : Type::u32;
  d.operands({Type::b32, Type::b32, Type::b32, out});
  d.i.mode = (is_signed(a) ? 1 : 0) | (is_signed(b) ? 2 : 0) | (upper ? 4 : 0);
  d.set(lanes<uint32_t, uint32_t>([](uint32_t x, uint32_t y, uint32_t c, const Instruction& i) {
    const auto element = [](uint32_t word, int k, int bits, bool is_signed) {
      const uint32_t top = word << (32 - bits - bits * k);
      return is_signed ? static_cast<int64_t>(static_cast<int32_t>(top) >> (32 - bits))
                       : static_cast<int64_t>(top >> (32 - bits));
    };
    uint64_t total = c;
    for (int k = 0; k < kCount; ++k)
      total += static_cast<uint64_t>(element(x, k, 32 / kCount, (i.mode & 1) != 0) *
                                     element(y, (i.mode & 4) != 0 ? k + 2 : k, 8, (i.mode & 2) != 0));
    return static_cast<uint32_t>(total);
  }));
}

// --- comparisons and choices ----------------------------------------------------------------------------------------

template <class T>
auto compared(T x) {
  if constexpr (kIsSmall<T>)
    return widen(x);
  else
    return x;
}

/// Lanes where it holds, as one word; of pairs, of the high halves too.
struct Outcome {
  uint32_t low = 0, high = 0;
};
template <class T, class F>
Outcome compare(Warp& w, const Instruction& i) {
  const auto *a = w.row<Slot<T>>(i.op[2]), *b = w.row<Slot<T>>(i.op[3]);
  Outcome out;
  for (int l = 0; l < kLanes; ++l) {
    T x = from_slot<T>(a[l]), y = from_slot<T>(b[l]);
    if constexpr (std::is_same_v<T, float>) {
      if (i.flush) x = flush(x), y = flush(y);
    }
    if constexpr (std::is_arithmetic_v<T> || kIsSmall<T>) {
      out.low |= static_cast<uint32_t>(F{}(compared(x), compared(y))) << l;
    } else {
      out.low |= static_cast<uint32_t>(F{}(widen(x.low), widen(y.low))) << l;
      out.high |= static_cast<uint32_t>(F{}(widen(x.high), widen(y.high))) << l;
    }
  }
  return out;
}

uint32_t combined(Warp& w, const Instruction& i, uint32_t x) {
  if (i.combine == Instruction::Combine::none) return x;
  const uint32_t other = i.negated ? ~w.predicate(i.op[4]) : w.predicate(i.op[4]);
  return i.combine == Instruction::Combine::logical_and  ? x & other
         : i.combine == Instruction::Combine::logical_or ? x | other
                                                         : x ^ other;
}

template <class T, class F>
void set_predicates(Warp& w, const Instruction& i) {
  const Outcome found = compare<T, F>(w, i);
  constexpr bool kIsPair = !std::is_arithmetic_v<T> && !kIsSmall<T>;
  const uint32_t first = combined(w, i, found.low), second = combined(w, i, kIsPair ? found.high : ~found.low);
  w.write_predicate(i.op[0], first);
  w.write_predicate(i.op[1], second);
}

template <class T, class F>
void set_register(Warp& w, const Instruction& i) {
  const Outcome found = compare<T, F>(w, i);
  const uint32_t low = combined(w, i, found.low), high = combined(w, i, found.high);
  constexpr bool kIsPair = !std::is_arithmetic_v<T> && !kIsSmall<T>;
  const bool is_int = !is_real(i.type);
  const uint32_t half = is_int                                         ? 0xffff
                        : i.type == Type::f16 || i.type == Type::f16x2 ? 0x3c00
                                                                       : 0x3f80,
                 word = is_int ? ~0u : 0x3f800000;
  uint32_t out[kLanes];
  for (int l = 0; l < kLanes; ++l) {
    const bool x = (low >> l & 1) != 0, y = (high >> l & 1) != 0;
    out[l] = kIsPair ? (x ? half : 0) | (y ? half << 16 : 0) : !x ? 0 : bytes_of(i.type) == 2 ? half : word;
  }
  w.write(i.op[0], out);
}

template <class T, class F>
Handler comparison(bool to_register, F) {
  return to_register ? &set_register<T, F> : &set_predicates<T, F>;
}

template <class T>
Handler choose_comparison(const std::string& name, bool to_register) {
  if (name == "eq") return comparison<T>(to_register, [](auto a, auto b) { return a == b; });
  if (name == "lt" || name == "lo") return comparison<T>(to_register, [](auto a, auto b) { return a < b; });
  if (name == "le" || name == "ls") return comparison<T>(to_register, [](auto a, auto b) { return a <= b; });
  if (name == "gt" || name == "hi") return comparison<T>(to_register, [](auto a, auto b) { return a > b; });
  if (name == "ge" || name == "hs") return comparison<T>(to_register, [](auto a, auto b) { return a >= b; });
  if constexpr (std::is_integral_v<T>) {
    if (name == "ne") return comparison<T>(to_register, [](auto a, auto b) { return a != b; });
  } else {
    if (name == "ne") return comparison<T>(to_register, [](auto a, auto b) { return a < b || a > b; });
    if (name == "equ") return comparison<T>(to_register, [](auto a, auto b) { return !(a < b || a > b); });
    if (name == "neu") return comparison<T>(to_register, [](auto a, auto b) { return !(a == b); });
    if (name == "ltu") return comparison<T>(to_register, [](auto a, auto b) { return !(a >= b); });
    if (name == "leu") return comparison<T>(to_register, [](auto a, auto b) { return !(a > b); });
    if (name == "gtu") return comparison<T>(to_register, [](auto a, auto b) { return !(a <= b); });
    if (name == "geu") return comparison<T>(to_register, [](auto a, auto b) { return !(a < b); });
    if (name == "num") return comparison<T>(to_register, [](auto a, auto b) { return a == a && b == b; });
    if (name == "nan") return comparison<T>(to_register, [](auto a, auto b) { return !(a == a && b == b); });
  }
  return nullptr;
}

/// setp.lt.and.f32 p|q, a, b, c and set.lt.u32.f32 d, a, b, c.
void decode_comparison(Decoder& d, bool to_register) {
  static constexpr std::array kNames = {"eq", "ne",  "lt",  "le",  "gt",  "ge",  "lo",  "ls",  "hi",
                                        "hs", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan"};
  std::string name;
  for (const char* one : kNames)
    if (d.take(one)) name = one;
  const int combine = d.take_one_of({"and", "or", "xor"});
  d.take_rounding();
  if (to_register) d.i.type = d.take_type();
  const Type type = without_bits(d.take_type());
  const Operand& out = d.operand(0);
  if (to_register) {
    d.i.op[0] = d.destination(0, d.i.type);
  } else if (out.kind == Operand::Kind::vector) {
    d.i.op[0] = d.destination(out.parts.at(0), Type::pred);
    d.i.op[1] = d.destination(out.parts.at(1), Type::pred);
  } else {
    d.i.op[0] = d.destination(out, Type::pred);
  }
  d.i.op[2] = d.source(1, type);
  d.i.op[3] = d.source(2, type);
  if (combine >= 0) {
    d.i.combine = static_cast<Instruction::Combine>(combine + 1);
    d.i.op[4] = d.source(3, Type::pred);
    d.i.negated = d.operand(3).negated;
  }
  const auto make = [&]<class T>() { return choose_comparison<T>(name, to_register); };
  d.set(is_real(type) ? choose(type, Reals{}, make) : choose(type, Words{}, make));
}

template <class S>
void select(Warp& w, const Instruction& i) {
  const S *a = w.row<S>(i.op[1]), *b = w.row<S>(i.op[2]);
  const uint32_t first = i.negated ? ~w.predicate(i.op[3]) : w.predicate(i.op[3]);
  S out[kLanes];
  for (int l = 0; l < kLanes; ++l) out[l] = (first >> l & 1) != 0 ? a[l] : b[l];
  w.write(i.op[0], out);
}

}  // namespace

void add_arithmetic(Table& table) {
  table["add"] = &decode_add<false>;
  table["sub"] = &decode_add<true>;
  table["addc"] = [](Decoder& d) { decode_carry(d, false, true); };
  table["subc"] = [](Decoder& d) { decode_carry(d, true, true); };
  table["mul"] = [](Decoder& d) {
    if (!has_real_type(d)) return decode_mul(d, false);
    d.take_rounding();
    d.i.relu = d.take("relu");
    const Type type = d.take_type();
    d.operands({type, type, type});
    d.set(choose(type, Reals{}, []<class T>() { return real<T>([](auto a, auto b, auto) { return a * b; }); }));
  };
  table["mad"] = [](Decoder& d) { has_real_type(d) ? decode_fused(d) : decode_mul(d, true); };
  table["fma"] = &decode_fused;
  table["mul24"] = [](Decoder& d) {
    if (!d.take("lo")) d.refuse("only mul24.lo is known");
    const Type type = d.take_type();
    d.operands({type, type, type});
    d.set(choose(type, Types<uint32_t, int32_t>{}, []<class T>() {
      return lanes<T, T>([](T a, T b, T) {
        const auto low = [](T x) { return static_cast<T>(static_cast<T>(static_cast<uint32_t>(x) << 8) >> 8); };
        return static_cast<T>(product(low(a), low(b)));
      });
    }));
  };
  table["sad"] = [](Decoder& d) {
    const Type type = d.take_type();
    d.operands({type, type, type, type});
    d.set(choose(type, Words{}, []<class T>() {
      return lanes<T, T>([](T a, T b, T c) { return sum<T>(c, a < b ? difference<T>(b, a) : difference<T>(a, b)); });
    }));
  };
  table["div"] = [](Decoder& d) {
    if (has_real_type(d)) return decode_division(d, 2, [](auto a, auto b) { return a / b; });
    const Type type = d.take_type();
    d.operands({type, type, type});
    d.set(choose(type, Words{}, []<class T>() { return lanes<T, T>([](T a, T b, T) { return quotient(a, b); }); }));
  };
  table["rem"] = [](Decoder& d) {
    const Type type = d.take_type();
    d.operands({type, type, type});
    d.set(choose(type, Words{}, []<class T>() { return lanes<T, T>([](T a, T b, T) { return remainder(a, b); }); }));
  };
  table["rcp"] = [](Decoder& d) { decode_division(d, 1, [](auto a, auto) { return 1 / a; }); };
  table["sqrt"] = [](Decoder& d) { decode_division(d, 1, [](auto a, auto) { return std::sqrt(a); }); };
  table["rsqrt"] = [](Decoder& d) {
    decode_approximate(d, Types<float, double>{}, [](double a) { return 1 / std::sqrt(a); });
  };
  table["sin"] = [](Decoder& d) { decode_approximate(d, Types<float>{}, [](double a) { return std::sin(a); }); };
  table["cos"] = [](Decoder& d) { decode_approximate(d, Types<float>{}, [](double a) { return std::cos(a); }); };
  table["lg2"] = [](Decoder& d) { decode_approximate(d, Types<float>{}, [](double a) { return std::log2(a); }); };
  using Halves = Types<float, Half, Bfloat, Pair<Half>, Pair<Bfloat>>;
  table["ex2"] = [](Decoder& d) { decode_approximate(d, Halves{}, [](double a) { return std::exp2(a); }); };
  table["tanh"] = [](Decoder& d) { decode_approximate(d, Halves{}, [](double a) { return std::tanh(a); }); };
  table["min"] = &decode_extremum<false>;
  table["max"] = &decode_extremum<true>;
  table["neg"] = [](Decoder& d) { decode_sign(d, Negate{}); };
  table["abs"] = [](Decoder& d) { decode_sign(d, Absolute{}); };
  table["copysign"] = [](Decoder& d) {
    const Type type = d.take_type();
    d.operands({type, type, type});
    d.set(choose(type, Types<float, double>{},
                 []<class T>() { return lanes<T, T>([](T a, T b, T) { return std::copysign(b, a); }); }));
  };
  table["testp"] = [](Decoder& d) {
    d.i.mode = d.require_one_of({"finite", "infinite", "number", "notanumber", "normal", "subnormal"});
    const Type type = d.take_type();
    d.operands({Type::pred, type});
    d.set(choose(type, Types<float, double>{}, []<class T>() -> Handler {
      return [](Warp& w, const Instruction& i) {
        uint32_t out = 0;
        for (int l = 0; l < kLanes; ++l) {
          const T x = from_slot<T>(w.row<Slot<T>>(i.op[1])[l]);
          const int kind = std::fpclassify(x);
          const bool holds[] = {std::isfinite(x),
                                kind == FP_INFINITE,
                                kind != FP_NAN,
                                kind == FP_NAN,
                                kind == FP_NORMAL || kind == FP_ZERO,
                                kind == FP_SUBNORMAL};
          out |= uint32_t{holds[i.mode]} << l;
        }
        w.write_predicate(i.op[0], out);
      };
    }));
  };

  table["and"] = [](Decoder& d) { decode_logic(d, 2, [](auto a, auto b) { return a & b; }); };
  table["or"] = [](Decoder& d) { decode_logic(d, 2, [](auto a, auto b) { return a | b; }); };
  table["xor"] = [](Decoder& d) { decode_logic(d, 2, [](auto a, auto b) { return a ^ b; }); };
  table["not"] = [](Decoder& d) { decode_logic(d, 1, [](auto a, auto) { return ~a; }); };
  table["cnot"] = [](Decoder& d) {
    const Type type = without_bits(d.take_type());
    d.operands({type, type});
    d.set(choose(type, Unsigned{},
                 []<class T>() { return lanes<T, T>([](T a, T, T) { return static_cast<T>(a == 0); }); }));
  };
  table["shl"] = [](Decoder& d) {
    const Type type = without_bits(d.take_type());
    d.operands({type, type, Type::u32});
    d.set(choose(type, Unsigned{}, []<class T>() {
      return lanes<T, T, uint32_t>([](T a, uint32_t b, uint32_t) { return shift_left(a, b); });
    }));
  };
  table["shr"] = [](Decoder& d) {
    const Type type = without_bits(d.take_type());
    d.operands({type, type, Type::u32});
    d.set(choose(type, Words{}, []<class T>() {
      return lanes<T, T, uint32_t>([](T a, uint32_t b, uint32_t) { return shift_right(a, b); });
    }));
  };
  table["shf"] = [](Decoder& d) {
    const bool left = d.require_one_of({"l", "r"}) == 0;
    d.i.mode = d.require_one_of({"clamp", "wrap"});
    const Type type = d.take_type();
    d.operands({type, type, type, type});
    d.set(left ? lanes<uint32_t, uint32_t>([](uint32_t a, uint32_t b, uint32_t c, const Instruction& i) {
      return static_cast<uint32_t>((uint64_t{b} << 32 | a) << (i.mode == 0 ? std::min(c, 32u) : c & 31) >> 32);
    })
               : lanes<uint32_t, uint32_t>([](uint32_t a, uint32_t b, uint32_t c, const Instruction& i) {
                   return static_cast<uint32_t>((uint64_t{b} << 32 | a) >> (i.mode == 0 ? std::min(c, 32u) : c & 31));
                 }));
  };
  table["prmt"] = [](Decoder& d) {
    d.i.mode = d.take_one_of({"f4e", "b4e", "rc8", "ecl", "ecr", "rc16"});
    const Type type = d.take_type();
    d.operands({type, type, type, type});
    d.set(lanes<uint32_t, uint32_t>([](uint32_t a, uint32_t b, uint32_t c, const Instruction& i) {
      return permuted(a, b, permute_selector(i.mode, c));
    }));
  };
  table["lop3"] = [](Decoder& d) {
    const Type type = d.take_type();
    if (type != Type::b32 || d.size() != 5) d.refuse("only lop3.b32 of three words and a number is known");
    d.i.op[0] = d.destination(0, type);
    for (size_t k = 1; k <= 3; ++k) d.i.op[k] = d.source(k, type);
    d.i.mode = static_cast<int>(d.immediate(4) & 255);
    d.set(lanes<uint32_t, uint32_t>([](uint32_t a, uint32_t b, uint32_t c, const Instruction& i) {
      return lop3(a, b, c, static_cast<uint32_t>(i.mode));
    }));
  };
  table["bfe"] = [](Decoder& d) {
    const Type type = d.take_type();
    d.operands({type, type, Type::u32, Type::u32});
    d.set(choose(type, Words32{}, []<class T>() {
      return lanes<T, T, uint32_t, uint32_t>([](T a, uint32_t b, uint32_t c) { return extracted(a, b, c); });
    }));
  };
  table["bfi"] = [](Decoder& d) {
    const Type type = without_bits(d.take_type());
    d.operands({type, type, type, Type::u32, Type::u32});
    d.set(choose(type, Types<uint32_t, uint64_t>{}, []<class T>() -> Handler {
      return [](Warp& w, const Instruction& i) {
        T out[kLanes];
        for (int l = 0; l < kLanes; ++l)
          out[l] = inserted(w.row<T>(i.op[1])[l], w.row<T>(i.op[2])[l], w.row<uint32_t>(i.op[3])[l],
                            w.row<uint32_t>(i.op[4])[l]);
        w.write(i.op[0], out);
      };
    }));
  };
  table["bfind"] = [](Decoder& d) {
    d.i.mode = d.take("shiftamt") ? 1 : 0;
    const Type type = d.take_type();
    d.operands({Type::u32, type});
    d.set(choose(type, Words32{}, []<class T>() {
      return lanes<uint32_t, T>([](T a, T, T, const Instruction& i) { return leading_bit(a, i); });
    }));
  };
  table["popc"] = [](Decoder& d) {
    const Type type = without_bits(d.take_type());
    d.operands({Type::u32, type});
    d.set(choose(type, Types<uint32_t, uint64_t>{}, []<class T>() {
      return lanes<uint32_t, T>([](T a, T, T) { return static_cast<uint32_t>(std::popcount(a)); });
    }));
  };
  table["clz"] = [](Decoder& d) {
    const Type type = without_bits(d.take_type());
    d.operands({Type::u32, type});
    d.set(choose(type, Types<uint32_t, uint64_t>{}, []<class T>() {
      return lanes<uint32_t, T>([](T a, T, T) { return static_cast<uint32_t>(std::countl_zero(a)); });
    }));
  };
  table["brev"] = [](Decoder& d) {
    const Type type = without_bits(d.take_type());
    d.operands({type, type});
    d.set(choose(type, Types<uint32_t, uint64_t>{},
                 []<class T>() { return lanes<T, T>([](T a, T, T) { return reversed(a); }); }));
  };
  table["dp4a"] = &decode_dot<4>;
  table["dp2a"] = &decode_dot<2>;

  table["setp"] = [](Decoder& d) { decode_comparison(d, false); };
  table["set"] = [](Decoder& d) { decode_comparison(d, true); };
  table["selp"] = [](Decoder& d) {
    const Type type = d.take_type();
    d.operands({type, type, type, Type::pred});
    d.set(bytes_of(type) == 8 ? &select<uint64_t> : &select<uint32_t>);
  };
  table["slct"] = [](Decoder& d) {
    d.i.flush = d.take("ftz");
    const Type type = d.take_type(), by = d.take_type();
    d.operands({type, type, type, by});
    d.i.mode = by == Type::f32 ? 1 : 0;
    const auto make = []<class T>() {
      return lanes<T, T, T, uint32_t>([](T a, T b, uint32_t c, const Instruction& i) {
        const float x = std::bit_cast<float>(c);
        return (i.mode == 0 ? static_cast<int32_t>(c) >= 0 : (i.flush ? flush(x) : x) >= 0) ? a : b;
      });
    };
    d.set(bytes_of(type) == 8 ? make.template operator()<uint64_t>() : make.template operator()<uint32_t>());
  };
}

}  // namespace crumb::ptx
