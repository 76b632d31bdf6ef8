// From statements to instructions: the tables of instructions are made of functions of a Decoder.
#pragma once

#include <string>
#include <unordered_map>

#include "tests/ptx/program.h"
#include "tests/ptx/warp.h"

namespace crumb::ptx {

/// One statement that becomes one instruction. What is not as the instruction expects it is an Error that names the
/// line.
class Decoder {
 public:
  Instruction i;

  /// Whether the modifier stands there. Those that nobody asks for are an error in the end, as are operands.
  bool take(const std::string& modifier);
  /// The first of these, as its number; -1 if there is none.
  int take_one_of(std::initializer_list<const char*> modifiers);
  /// One of them must be there.
  int require_one_of(std::initializer_list<const char*> modifiers);
  /// The next modifier that is a type.
  Type take_type();
  /// .rn and the like, .ftz, .sat.
  void take_rounding();
  /// Any of cache hints, scopes and memory orders; the operand that goes with L2::cache_hint, the last.
  void take_memory_modifiers();

  size_t size() const { return statement_->operands.size(); }
  const Operand& operand(size_t k);
  const Statement& statement() const { return *statement_; }

  /// The row of operand k as a source or a destination of the type. Relaxed: a register may be wider than the type.
  uint32_t source(size_t k, Type type) { return source(operand(k), type); }
  uint32_t source(const Operand& operand, Type type, bool relaxed = false);
  uint32_t destination(size_t k, Type type) { return destination(operand(k), type); }
  uint32_t destination(const Operand& operand, Type type, bool relaxed = false);
  /// A row of zeros of the type.
  uint32_t zero(Type type);
  /// Rows op[0], op[1] ... of operands of these types: the first is the destination, the others are sources. There may
  /// be no others.
  void operands(std::initializer_list<Type> types);
  /// Whether the operand, a register, has 64 bits.
  bool is_wide(const Operand& operand) const { return register_bytes(operand) == 8; }
  /// Of the register; 0 if the operand is none.
  size_t register_bytes(const Operand& operand) const;
  uint64_t immediate(size_t k);
  /// [base+offset] into the fields for the address, or those for the source's.
  void address(size_t k, bool is_source = false);

  void set(Handler handler);
  [[noreturn]] void refuse(const std::string& what) const;

 private:
  friend class KernelDecoder;
  class KernelDecoder* owner_ = nullptr;
  const Statement* statement_ = nullptr;
  std::vector<bool> used_, used_operands_;
};

using Table = std::unordered_map<std::string, void (*)(Decoder&)>;
void add_arithmetic(Table& table);
void add_conversions(Table& table);
void add_memory(Table& table);
void add_collectives(Table& table);

// --- lane by lane ---------------------------------------------------------------------------------------------------

/// The handler that applies a function, a lambda without captures, to the lanes of the sources; those that an
/// instruction has not are the sink's.
template <class D, class A, class B = A, class C = A, class F>
Handler lanes(F) {
  return [](Warp& w, const Instruction& i) {
    const auto* a = w.row<Slot<A>>(i.op[1]);
    const auto* b = w.row<Slot<B>>(i.op[2]);
    const auto* c = w.row<Slot<C>>(i.op[3]);
    Slot<D> out[kLanes];
    for (int l = 0; l < kLanes; ++l) {
      if constexpr (std::is_invocable_v<F, A, B, C, const Instruction&>)
        out[l] = to_slot<D>(F{}(from_slot<A>(a[l]), from_slot<B>(b[l]), from_slot<C>(c[l]), i));
      else
        out[l] = to_slot<D>(F{}(from_slot<A>(a[l]), from_slot<B>(b[l]), from_slot<C>(c[l])));
    }
    w.write(i.op[0], out);
  };
}

template <class... T>
struct Types {};
using Integers = Types<uint8_t, uint16_t, uint32_t, uint64_t, int8_t, int16_t, int32_t, int64_t>;
using Unsigned = Types<uint16_t, uint32_t, uint64_t>;  // and bits
using Reals = Types<float, double, Half, Bfloat, Pair<Half>, Pair<Bfloat>>;

template <class T>
constexpr Type kTypeOf = Type::none;
template <>
inline constexpr Type kTypeOf<uint8_t> = Type::u8;
template <>
inline constexpr Type kTypeOf<uint16_t> = Type::u16;
template <>
inline constexpr Type kTypeOf<uint32_t> = Type::u32;
template <>
inline constexpr Type kTypeOf<uint64_t> = Type::u64;
template <>
inline constexpr Type kTypeOf<int8_t> = Type::s8;
template <>
inline constexpr Type kTypeOf<int16_t> = Type::s16;
template <>
inline constexpr Type kTypeOf<int32_t> = Type::s32;
template <>
inline constexpr Type kTypeOf<int64_t> = Type::s64;
template <>
inline constexpr Type kTypeOf<Half> = Type::f16;
template <>
inline constexpr Type kTypeOf<Bfloat> = Type::bf16;
template <>
inline constexpr Type kTypeOf<Pair<Half>> = Type::f16x2;
template <>
inline constexpr Type kTypeOf<Pair<Bfloat>> = Type::bf16x2;
template <>
inline constexpr Type kTypeOf<float> = Type::f32;
template <>
inline constexpr Type kTypeOf<double> = Type::f64;

/// .b32 as .u32 and so on.
inline Type without_bits(Type type) {
  switch (type) {
    case Type::b8:
      return Type::u8;
    case Type::b16:
      return Type::u16;
    case Type::b32:
      return Type::u32;
    case Type::b64:
      return Type::u64;
    default:
      return type;
  }
}
inline bool is_real(Type type) { return type >= Type::f16 && type <= Type::f64; }
inline bool is_signed(Type type) { return type >= Type::s8 && type <= Type::s64; }

/// What `make`, a template of the C++ type, gives for the type; null if it is none of these.
template <class... T, class F>
Handler choose(Type type, Types<T...>, F make) {
  Handler out = nullptr;
  ((type == kTypeOf<T> ? static_cast<void>(out = make.template operator()<T>()) : void()), ...);
  return out;
}

}  // namespace crumb::ptx
