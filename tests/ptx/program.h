// PTX as it was read (Source, Function, Statement) and as it is executed (Kernel, Instruction).
#pragma once

#include <array>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/ptx/executor.h"
#include "tests/ptx/numbers.h"

namespace crumb::ptx {

// --- as read --------------------------------------------------------------------------------------------------------

enum class Space : uint8_t { generic, global, constant, shared, local, param };

struct Variable {
  std::string name;
  Space space = Space::generic;
  size_t bytes = 0, alignment = 1;
  bool is_extern = false;                                            // dynamic shared memory
  std::vector<std::byte> initial;                                    // of .global and .const
  std::vector<std::pair<size_t, std::string>> addresses_in_initial;  // generic addresses of others
};

struct Operand {
  enum class Kind : uint8_t { name, integer, real32, real64, vector, address };
  Kind kind = Kind::name;
  bool negated = false;        // !%p
  std::string name;            // register, variable or label; of an address: its base, "" if there is none
  uint64_t bits = 0;           // of an immediate
  int64_t offset = 0;          // of an address or a variable's
  std::vector<Operand> parts;  // of {a, b}, a|b and (a, b)
};

struct Statement {
  int line = 0, scope = 0;
  std::string text, guard, opcode;
  bool guard_negated = false;
  std::vector<std::string> modifiers;
  std::vector<Operand> operands;
};

/// Names within { }: those of registers without their number where a range was declared.
struct Scope {
  int parent = -1;
  std::map<std::string, Type> registers, register_ranges;
  std::map<std::string, Variable> variables;
  std::map<std::string, size_t> labels;  // index of a statement
  std::map<std::string, std::vector<std::string>> branch_targets;
};

struct Function {
  std::string name;
  bool is_kernel = false, has_body = false;
  size_t max_threads = 1024;  // .maxntid or .reqntid
  std::vector<Variable> parameters, results;
  std::vector<Scope> scopes;
  std::vector<Statement> statements;
};

struct Source {
  std::map<std::string, Variable> variables;
  std::map<std::string, Function> functions;
};

Type type_of(const std::string& name);  // none if it is no type
size_t bytes_of(Type type);
Source parse(const std::string& text);

// --- as executed ----------------------------------------------------------------------------------------------------

constexpr int kLanes = 32;
/// Registers lie in rows of 32 lanes of 32 bits; 64-bit registers take two, a predicate the first word of one.
constexpr uint32_t kSinkRow = 0;  // two rows that are written and never read: `_`, operands that an instruction has not

struct Warp;
struct Instruction;
/// Instruction::mode of barriers.
enum : int { kSync, kArrive, kReduce };
using Handler = void (*)(Warp&, const Instruction&);

struct Instruction {
  enum class Kind : uint8_t { plain, branch, leave, barrier };
  enum class Combine : uint8_t { none, logical_and, logical_or, logical_xor };  // of setp with a predicate

  Kind kind = Kind::plain;
  Handler run = nullptr;
  std::array<uint32_t, 20> op{};  // rows; the destination first
  int count = 0;                  // registers of a vector
  uint32_t guard = kSinkRow;
  bool guard_negated = false;
  Type type = Type::none, source_type = Type::none;
  Rounding rounding = Rounding::nearest;
  bool flush = false, saturate = false, relu = false, nan = false;
  bool uniform = false, conditional = false;
  bool wide_source = false;  // the source is a register of 64 bits
  bool negated = false;      // a predicate that is read
  Combine combine = Combine::none;
  int mode = 0;  // what else tells instructions of one handler apart
  // Memory.
  Space space = Space::generic;
  bool strong = false;     // atomic, volatile, relaxed or acquire/release: races with no other such access
  bool read_only = false;  // .nc
  uint32_t address = kSinkRow, source_address = kSinkRow;
  bool address_wide = false, source_address_wide = false;
  int64_t offset = 0, source_offset = 0;
  // Control.
  uint32_t reconvergence = 0;
  std::vector<uint32_t> targets;
  // Rows whose lanes must have been written, and those that are then.
  std::vector<uint32_t> reads, writes;
  int line = 0;
  const std::string* text = nullptr;
};

/// A row that is the same in every block (value) or depends on the thread (special).
struct Constant {
  uint32_t row;
  bool wide;
  uint64_t value;
  bool is_dynamic_shared;
};
struct Special {
  uint32_t row;
  std::string name;
};

struct Kernel {
  std::string name;
  std::vector<std::pair<size_t, size_t>> parameters;  // offset, bytes
  size_t parameter_bytes = 0, shared_bytes = 0, local_bytes = 0, max_threads = 1024;
  uint32_t rows = 2;
  std::vector<Constant> constants;
  std::vector<Special> specials;
  std::vector<Instruction> code;
  std::vector<uint64_t> executed;  // of each instruction
};

/// `variables`: addresses of .global and .const. The functions a kernel calls become part of it.
Kernel decode(const Source& source, const Function& function, const std::map<std::string, uint64_t>& variables);
/// Where lanes that part at a branch meet again: the immediate post-dominator.
void find_reconvergence(std::vector<Instruction>& code);
constexpr uint32_t kNever = ~0u;  // they do not meet

}  // namespace crumb::ptx
