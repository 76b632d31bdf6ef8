#include "tests/ptx/decoder.h"

#include <algorithm>
#include <set>

namespace crumb::ptx {
namespace {

const Table& table() {
  static const Table all = [] {
    Table out;
    add_arithmetic(out);
    add_conversions(out);
    add_memory(out);
    add_collectives(out);
    return out;
  }();
  return all;
}

size_t aligned(size_t at, size_t alignment) { return (at + alignment - 1) / alignment * alignment; }

struct Register {
  uint32_t row;
  Type type;
};

/// Whether an operand of the type may be the register; relaxed: one that is wider.
bool fits(const Register& found, Type type, bool relaxed) {
  if (type == Type::pred || found.type == Type::pred) return found.type == type;
  return relaxed ? bytes_of(found.type) >= bytes_of(type) : bytes_of(found.type) == bytes_of(type);
}

/// What a name that is no register stands for.
struct Symbol {
  uint64_t value = 0;
  Space space = Space::generic;
  bool is_dynamic_shared = false;
};

/// A function where it is called: its registers and its variables are its own.
struct Instance {
  const Function* function = nullptr;
  std::map<std::string, size_t> parameters;  // and results: where in local memory
  std::map<std::pair<int, std::string>, Register> registers;
  std::map<std::pair<int, std::string>, size_t> variables;  // where in local memory
  int depth = 0;
};

struct Fixup {
  size_t instruction, target, statement;
};

}  // namespace

class KernelDecoder {
 public:
  KernelDecoder(const Source& source, const std::map<std::string, uint64_t>& variables, Kernel& kernel)
      : source_(source), variables_(variables), kernel_(kernel) {}

  void run(const Function& function) {
    kernel_.name = function.name;
    kernel_.max_threads = function.max_threads;
    for (const Variable& parameter : function.parameters) {
      kernel_.parameter_bytes = aligned(kernel_.parameter_bytes, parameter.alignment);
      kernel_.parameters.emplace_back(kernel_.parameter_bytes, parameter.bytes);
      kernel_.parameter_bytes += parameter.bytes;
    }
    Instance instance;
    instance.function = &function;
    inline_function(instance);
    Instruction end;
    end.kind = Instruction::Kind::leave;
    end.text = &kEndText;
    kernel_.code.push_back(end);
    // Dynamic shared memory lies behind the static one.
    kernel_.shared_bytes = aligned(kernel_.shared_bytes, dynamic_alignment_);
    for (Constant& constant : kernel_.constants)
      if (constant.is_dynamic_shared) constant.value += kernel_.shared_bytes;
    find_reconvergence(kernel_.code);
    kernel_.executed.assign(kernel_.code.size(), 0);
  }

  [[noreturn]] void refuse(const Statement& s, const std::string& what) const {
    throw Error(kernel_.name + ", PTX line " + std::to_string(s.line) + " (" + s.text + "): " + what);
  }

  /// The scope, of those around the statement, that `holds` it; -1 if none does.
  template <class Holds>
  int find_scope(const Statement& s, Holds holds) const {
    int scope = s.scope;
    while (scope >= 0 && !holds(instance_->function->scopes[static_cast<size_t>(scope)]))
      scope = instance_->function->scopes[static_cast<size_t>(scope)].parent;
    return scope;
  }

  static Type declared_type(const Scope& scope, const std::string& name) {
    if (const auto found = scope.registers.find(name); found != scope.registers.end()) return found->second;
    const size_t digits = name.find_last_not_of("0123456789") + 1;
    if (digits == name.size()) return Type::none;
    const auto range = scope.register_ranges.find(name.substr(0, digits));
    return range != scope.register_ranges.end() ? range->second : Type::none;
  }

  /// Null if it is no register.
  const Register* find_register(const Statement& s, const std::string& name) {
    const int scope = find_scope(s, [&](const Scope& one) { return declared_type(one, name) != Type::none; });
    if (scope < 0) return nullptr;
    const auto [found, is_new] = instance_->registers.try_emplace({scope, name});
    if (is_new) {
      const Type type = declared_type(instance_->function->scopes[static_cast<size_t>(scope)], name);
      found->second = {kernel_.rows, type};
      kernel_.rows += bytes_of(type) == 8 ? 2 : 1;
    }
    return &found->second;
  }

  uint32_t constant_row(uint64_t value, bool wide, bool is_dynamic_shared = false) {
    const auto [found, is_new] = constants_.try_emplace({value, wide, is_dynamic_shared}, kernel_.rows);
    if (is_new) {
      kernel_.constants.push_back({kernel_.rows, wide, value, is_dynamic_shared});
      kernel_.rows += wide ? 2 : 1;
    }
    return found->second;
  }

  /// 0 if there is none of this name.
  uint32_t special_row(const std::string& name) {
    static const std::set<std::string> kNames = {"%tid.x",
                                                 "%tid.y",
                                                 "%tid.z",
                                                 "%ntid.x",
                                                 "%ntid.y",
                                                 "%ntid.z",
                                                 "%ctaid.x",
                                                 "%ctaid.y",
                                                 "%ctaid.z",
                                                 "%nctaid.x",
                                                 "%nctaid.y",
                                                 "%nctaid.z",
                                                 "%laneid",
                                                 "%warpid",
                                                 "%nwarpid",
                                                 "%smid",
                                                 "%nsmid",
                                                 "%lanemask_eq",
                                                 "%lanemask_le",
                                                 "%lanemask_lt",
                                                 "%lanemask_ge",
                                                 "%lanemask_gt",
                                                 "%dynamic_smem_size",
                                                 "%total_smem_size"};
    if (kNames.count(name) == 0) return 0;
    const auto [found, is_new] = special_rows_.try_emplace(name, kernel_.rows);
    if (is_new) kernel_.specials.push_back({kernel_.rows++, name});
    return found->second;
  }

  Symbol symbol(const Statement& s, const std::string& name) {
    const int scope = find_scope(s, [&](const Scope& one) { return one.variables.count(name) != 0; });
    if (scope >= 0) {
      const Variable& variable = instance_->function->scopes[static_cast<size_t>(scope)].variables.at(name);
      if (variable.space == Space::shared) return shared_symbol(&variable);
      if (variable.space != Space::local && variable.space != Space::param)
        refuse(s, "a variable of its space cannot be in a function: " + name);
      const auto [found, is_new] = instance_->variables.try_emplace({scope, name});
      if (is_new) found->second = local_bytes(variable);
      return {found->second, Space::local, false};
    }
    if (const auto bound = instance_->parameters.find(name); bound != instance_->parameters.end())
      return {bound->second, Space::local, false};
    const auto& parameters = instance_->function->parameters;
    for (size_t k = 0; instance_->depth == 0 && k < parameters.size(); ++k)
      if (parameters[k].name == name) return {kernel_.parameters[k].first, Space::param, false};
    const auto global = source_.variables.find(name);
    if (global == source_.variables.end()) refuse(s, "nothing is called " + name);
    if (global->second.space == Space::shared) return shared_symbol(&global->second);
    const auto found = variables_.find(name);
    if (found == variables_.end()) refuse(s, name + " is declared, not defined");
    return {found->second, global->second.space, false};
  }

  int find_label(const Statement& s, const std::string& name) const {
    const int scope = find_scope(s, [&](const Scope& one) { return one.labels.count(name) != 0; });
    if (scope < 0) refuse(s, "no label is called " + name);
    return static_cast<int>(instance_->function->scopes[static_cast<size_t>(scope)].labels.at(name));
  }

 private:
  Symbol shared_symbol(const Variable* variable) {
    if (variable->is_extern && variable->bytes == 0) {
      dynamic_alignment_ = std::max(dynamic_alignment_, variable->alignment);
      return {0, Space::shared, true};
    }
    const auto [found, is_new] = shared_.try_emplace(variable);
    if (is_new) {
      found->second = aligned(kernel_.shared_bytes, variable->alignment);
      kernel_.shared_bytes = found->second + variable->bytes;
    }
    return {found->second, Space::shared, false};
  }

  size_t local_bytes(const Variable& variable) {
    const size_t at = aligned(kernel_.local_bytes, std::max<size_t>(variable.alignment, 8));
    kernel_.local_bytes = aligned(at + variable.bytes, 16);
    return at;
  }

  void inline_function(Instance& instance) {
    Instance* const outer = instance_;
    const std::vector<Fixup> outer_fixups = std::move(fixups_);
    instance_ = &instance;
    fixups_.clear();
    std::vector<uint32_t> pc_of;
    for (const Statement& s : instance.function->statements) {
      pc_of.push_back(static_cast<uint32_t>(kernel_.code.size()));
      read(s);
    }
    pc_of.push_back(static_cast<uint32_t>(kernel_.code.size()));
    for (const Fixup& fixup : fixups_) kernel_.code[fixup.instruction].targets[fixup.target] = pc_of[fixup.statement];
    instance_ = outer;
    fixups_ = outer_fixups;
  }

  void read(const Statement& s) {
    Decoder d;
    d.owner_ = this;
    d.statement_ = &s;
    d.used_.assign(s.modifiers.size(), false);
    d.used_operands_.assign(s.operands.size(), false);
    d.i.line = s.line;
    d.i.text = &s.text;
    if (!s.guard.empty()) {
      Operand guard;
      guard.name = s.guard;
      d.i.guard = d.source(guard, Type::pred);
      d.i.reads.clear();  // it is checked apart, for the lanes that are there
      d.i.guard_negated = s.guard_negated;
      d.i.conditional = true;
    }
    if (s.opcode == "bra" || s.opcode == "brx") {
      read_branch(d);
    } else if (s.opcode == "ret" || s.opcode == "exit") {
      if (instance_->depth == 0 || s.opcode == "exit") {
        d.i.kind = Instruction::Kind::leave;
      } else {
        branch_to(d, instance_->function->statements.size());
      }
    } else if (s.opcode == "call") {
      read_call(d);
      return;
    } else {
      const auto found = table().find(s.opcode);
      if (found == table().end()) refuse(s, "an instruction that the executor does not know");
      found->second(d);
    }
    push(d);
  }

  void push(Decoder& d) {
    for (size_t k = 0; k < d.used_.size(); ++k)
      if (!d.used_[k]) refuse(*d.statement_, "the executor does not know ." + d.statement_->modifiers[k] + " here");
    if (d.i.kind != Instruction::Kind::branch &&
        std::count(d.used_operands_.begin(), d.used_operands_.end(), false) > 0)
      refuse(*d.statement_, "the instruction has another number of operands");
    kernel_.code.push_back(std::move(d.i));
  }

  void branch_to(Decoder& d, size_t statement) {
    d.i.kind = Instruction::Kind::branch;
    fixups_.push_back({kernel_.code.size(), d.i.targets.size(), statement});
    d.i.targets.push_back(0);
  }

  void read_branch(Decoder& d) {
    d.i.uniform = d.take("uni");
    if (d.take("idx")) {
      d.i.op[1] = d.source(0, Type::u32);
      const std::string& list = d.operand(1).name;
      const int scope =
          find_scope(*d.statement_, [&](const Scope& one) { return one.branch_targets.count(list) != 0; });
      if (scope < 0) refuse(*d.statement_, "no .branchtargets are called " + list);
      for (const std::string& label : instance_->function->scopes[static_cast<size_t>(scope)].branch_targets.at(list))
        branch_to(d, static_cast<size_t>(find_label(*d.statement_, label)));
    } else {
      branch_to(d, static_cast<size_t>(find_label(*d.statement_, d.operand(0).name)));
    }
  }

  /// call (results), name, (arguments): the function takes the call's place.
  void read_call(Decoder& d) {
    const Statement& s = *d.statement_;
    for (size_t k = 0; k < s.operands.size(); ++k) d.operand(k);
    d.take("uni");
    const bool has_results = !s.operands.empty() && s.operands[0].kind == Operand::Kind::vector;
    const std::string& name = d.operand(has_results ? 1 : 0).name;
    static const std::vector<Operand> kNone;
    const auto& results = has_results ? s.operands[0].parts : kNone;
    const size_t at = has_results ? 2 : 1;
    const auto& arguments = at < s.operands.size() ? s.operands[at].parts : kNone;
    const auto found = source_.functions.find(name);
    if (found == source_.functions.end() || !found->second.has_body) {
      d.i.offset = arguments.empty() ? 0 : static_cast<int64_t>(symbol(s, arguments[0].name).value);
      d.set(name == "__assertfail" ? &call_assertion : &call_unknown);
      push(d);
      return;
    }
    if (instance_->depth > 30) refuse(s, "calls are nested too deeply, or recursive");
    size_t skip = kernel_.code.size();
    const bool conditional = d.i.conditional;
    if (conditional) {  // who does not call goes around it
      d.i.guard_negated = !d.i.guard_negated;
      d.i.kind = Instruction::Kind::branch;
      d.i.targets.push_back(0);
      push(d);
    }
    const Function& function = found->second;
    if (function.parameters.size() != arguments.size() || function.results.size() != results.size())
      refuse(s, name + " takes other arguments");
    Instance callee;
    callee.function = &function;
    callee.depth = instance_->depth + 1;
    for (size_t k = 0; k < arguments.size(); ++k)
      callee.parameters[function.parameters[k].name] = symbol(s, arguments[k].name).value;
    for (size_t k = 0; k < results.size(); ++k)
      callee.parameters[function.results[k].name] = symbol(s, results[k].name).value;
    inline_function(callee);
    if (conditional) kernel_.code[skip].targets[0] = static_cast<uint32_t>(kernel_.code.size());
  }

  static void call_unknown(Warp&, const Instruction&) { throw Fault{"calls a function that the PTX does not hold"}; }
  static void call_assertion(Warp& w, const Instruction& i) {
    const int lane = std::countr_zero(w.mask);
    uint64_t message = 0;
    std::memcpy(&message, w.local.data() + static_cast<size_t>(lane) * w.block->kernel->local_bytes + i.offset,
                sizeof message);
    std::string text;
    while (text.size() < 200 && w.block->memory->find(message + text.size(), 1) != nullptr &&
           *reinterpret_cast<const char*>(message + text.size()) != '\0')
      text += *reinterpret_cast<const char*>(message + text.size());
    throw Fault{"assertion failed: " + text, lane};
  }

  inline static const std::string kEndText = "end of the kernel";
  const Source& source_;
  const std::map<std::string, uint64_t>& variables_;
  Kernel& kernel_;
  Instance* instance_ = nullptr;
  std::vector<Fixup> fixups_;
  std::map<std::tuple<uint64_t, bool, bool>, uint32_t> constants_;
  std::map<std::string, uint32_t> special_rows_;
  std::map<const Variable*, size_t> shared_;
  size_t dynamic_alignment_ = 16;
};

// --- one statement --------------------------------------------------------------------------------------------------

void Decoder::refuse(const std::string& what) const { owner_->refuse(*statement_, what); }

bool Decoder::take(const std::string& modifier) {
  for (size_t k = 0; k < used_.size(); ++k)
    if (!used_[k] && statement_->modifiers[k] == modifier) return used_[k] = true;
  return false;
}

int Decoder::require_one_of(std::initializer_list<const char*> modifiers) {
  const int found = take_one_of(modifiers);
  if (found < 0) refuse("a modifier is missing, such as ." + std::string(*modifiers.begin()));
  return found;
}

int Decoder::take_one_of(std::initializer_list<const char*> modifiers) {
  int number = 0;
  for (const char* modifier : modifiers) {
    if (take(modifier)) return number;
    ++number;
  }
  return -1;
}

Type Decoder::take_type() {
  for (size_t k = 0; k < used_.size(); ++k) {
    const Type type = used_[k] ? Type::none : type_of(statement_->modifiers[k]);
    if (type == Type::none) continue;
    used_[k] = true;
    return type;
  }
  refuse("a type is missing");
}

void Decoder::take_rounding() {
  const int found = take_one_of({"rn", "rz", "rm", "rp"});
  i.rounding = found < 0 ? Rounding::nearest : static_cast<Rounding>(found);
  i.flush = take("ftz");
  i.saturate = take("sat");
}

void Decoder::take_memory_modifiers() {
  static const std::set<std::string> kScopes = {"weak", "cta", "cluster", "gpu", "sys", "ca",   "cg",
                                                "cs",   "lu",  "cv",      "wb",  "wt",  "noftz"};
  i.strong |= take_one_of({"volatile", "relaxed", "acquire", "release", "acq_rel"}) >= 0;
  for (size_t k = 0; k < used_.size(); ++k) {
    const std::string& word = statement_->modifiers[k];
    if (kScopes.count(word) != 0 || word.rfind("L1::", 0) == 0 || word.rfind("L2::", 0) == 0 || word == "unified")
      used_[k] = true;
    if (word == "L2::cache_hint") operand(size() - 1);
  }
}

const Operand& Decoder::operand(size_t k) {
  if (k >= size()) refuse("an operand is missing");
  used_operands_[k] = true;
  return statement_->operands[k];
}

size_t Decoder::register_bytes(const Operand& operand) const {
  const Register* found =
      operand.kind == Operand::Kind::name ? owner_->find_register(*statement_, operand.name) : nullptr;
  return found == nullptr ? 0 : bytes_of(found->type);
}

uint32_t Decoder::source(const Operand& operand, Type type, bool relaxed) {
  const bool wide = bytes_of(type) == 8;
  const bool is_half = type == Type::f16 || type == Type::bf16;
  if (operand.negated && type != Type::pred) refuse("only predicates can be negated");
  switch (operand.kind) {
    case Operand::Kind::integer:
      if (type == Type::pred) return owner_->constant_row(operand.bits != 0 ? ~uint32_t{0} : 0, false);
      if ((is_real(type) && !is_half && type != Type::f16x2 && type != Type::bf16x2)) break;
      return owner_->constant_row(wide ? operand.bits : operand.bits & ((uint64_t{1} << 8 * bytes_of(type)) - 1), wide);
    case Operand::Kind::real32:
      if (bytes_of(type) == 4 && !is_signed(type)) return owner_->constant_row(operand.bits, false);
      break;
    case Operand::Kind::real64:
      if (type == Type::f64 || type == Type::b64) return owner_->constant_row(operand.bits, true);
      if (type == Type::f32)
        return owner_->constant_row(std::bit_cast<uint32_t>(static_cast<float>(std::bit_cast<double>(operand.bits))),
                                    false);
      break;
    case Operand::Kind::name: {
      if (const Register* found = owner_->find_register(*statement_, operand.name)) {
        if (!fits(*found, type, relaxed))
          refuse("the register " + operand.name + " has another size than the instruction");
        i.reads.push_back(found->row);
        return found->row;
      }
      if (operand.name == "WARP_SZ") return owner_->constant_row(kLanes, wide);
      if (operand.name[0] == '%') {
        const uint32_t row = owner_->special_row(operand.name);
        if (row == 0 || wide) refuse("the executor does not know " + operand.name + " here");
        return row;
      }
      const Symbol symbol = owner_->symbol(*statement_, operand.name);
      if (!wide && symbol.value + static_cast<uint64_t>(operand.offset) > 0xffffffff)
        refuse("the address of " + operand.name + " needs 64 bits");
      return owner_->constant_row(symbol.value + static_cast<uint64_t>(operand.offset), wide, symbol.is_dynamic_shared);
    }
    default:
      break;
  }
  refuse("an operand does not suit the instruction's type");
}

uint32_t Decoder::destination(const Operand& operand, Type type, bool relaxed) {
  if (operand.kind == Operand::Kind::name && operand.name == "_") return kSinkRow;
  const Register* found =
      operand.kind == Operand::Kind::name ? owner_->find_register(*statement_, operand.name) : nullptr;
  if (found == nullptr) refuse("a register was expected as the destination");
  if (!fits(*found, type, relaxed)) refuse("the register " + operand.name + " has another size than the instruction");
  i.writes.push_back(found->row);
  return found->row;
}

uint32_t Decoder::zero(Type type) { return owner_->constant_row(0, bytes_of(type) == 8); }

void Decoder::operands(std::initializer_list<Type> types) {
  if (size() != types.size()) refuse("the instruction has another number of operands");
  size_t k = 0;
  for (const Type type : types) {
    i.op[k] = k == 0 ? destination(k, type) : source(k, type);
    if (k > 0 && type == Type::pred && operand(k).negated) i.negated = true;
    ++k;
  }
}

uint64_t Decoder::immediate(size_t k) {
  if (operand(k).kind != Operand::Kind::integer) refuse("an operand must be a number");
  return operand(k).bits;
}

void Decoder::address(size_t k, bool is_source) {
  const Operand& given = operand(k);
  if (given.kind != Operand::Kind::address) refuse("an address in brackets was expected");
  uint32_t row = 0;
  bool wide = true;
  int64_t offset = given.offset;
  if (given.name.empty()) {
    row = owner_->constant_row(0, true);
  } else if (const Register* found = owner_->find_register(*statement_, given.name)) {
    if (found->type == Type::pred || bytes_of(found->type) < 4)
      refuse("the register " + given.name + " cannot hold an address");
    wide = bytes_of(found->type) == 8;
    row = found->row;
    i.reads.push_back(row);
  } else {
    const Symbol symbol = owner_->symbol(*statement_, given.name);
    if (i.space == Space::param && symbol.space == Space::local) i.space = Space::local;
    row = owner_->constant_row(symbol.value, true, symbol.is_dynamic_shared);
  }
  (is_source ? i.source_address : i.address) = row;
  (is_source ? i.source_address_wide : i.address_wide) = wide;
  (is_source ? i.source_offset : i.offset) = offset;
}

void Decoder::set(Handler handler) {
  if (handler == nullptr) refuse("the executor does not know the instruction with this type");
  i.run = handler;
}

Kernel decode(const Source& source, const Function& function, const std::map<std::string, uint64_t>& variables) {
  Kernel kernel;
  KernelDecoder(source, variables, kernel).run(function);
  return kernel;
}

}  // namespace crumb::ptx
