#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <cstring>
#include <unordered_map>

#include "tests/ptx/program.h"

namespace crumb::ptx {
namespace {

struct Token {
  std::string text;
  int line;
  size_t begin, end;  // in the text
};

[[noreturn]] void refuse(int line, const std::string& what) {
  throw Error("PTX line " + std::to_string(line) + ": " + what);
}

/// Words hold dots and "::", as ld.global.L2::128B does. Directives that end with their line are left out.
std::vector<Token> tokens_of(const std::string& text) {
  const auto is_word = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || std::strchr("_$%.", c); };
  std::vector<Token> out;
  int line = 1;
  for (size_t i = 0; i < text.size();) {
    const char c = text[i];
    if (c == '\n') ++line;
    if (std::isspace(static_cast<unsigned char>(c)) || c == '\0') {
      ++i;
    } else if (text.compare(i, 2, "//") == 0) {
      i = std::min(text.find('\n', i), text.size());
    } else if (text.compare(i, 2, "/*") == 0) {
      const size_t end = text.find("*/", i);
      if (end == std::string::npos) refuse(line, "a comment without an end");
      line += static_cast<int>(
          std::count(text.begin() + static_cast<int64_t>(i), text.begin() + static_cast<int64_t>(end), '\n'));
      i = end + 2;
    } else if (c == '"') {
      const size_t end = text.find('"', i + 1);
      if (end == std::string::npos) refuse(line, "a string without an end");
      out.push_back({text.substr(i, end + 1 - i), line, i, end + 1});
      i = end + 1;
    } else if (is_word(c)) {
      const size_t begin = i;
      while (i < text.size() && (is_word(text[i]) || text.compare(i, 2, "::") == 0)) i += text[i] == ':' ? 2 : 1;
      const std::string word = text.substr(begin, i - begin);
      if (word == ".loc" || word == ".file" || word == ".version" || word == ".target" || word == ".address_size")
        i = std::min(text.find('\n', i), text.size());
      else
        out.push_back({word, line, begin, i});
    } else {
      out.push_back({std::string(1, c), line, i, i + 1});
      ++i;
    }
  }
  return out;
}

class Parser {
 public:
  explicit Parser(const std::string& text) : text_(text), tokens_(tokens_of(text)) {
    tokens_.push_back({"", tokens_.empty() ? 1 : tokens_.back().line, text.size(), text.size()});
  }

  Source parse() {
    while (!peek().empty()) {
      if (peek() == ".pragma" || peek() == ".alias") {
        skip_past(";");
      } else if (peek() == ".section") {
        skip_past("}");
      } else if (!read_declaration([&](const Variable& v) { source_.variables[v.name] = v; })) {
        refuse(line(), "\"" + peek() + "\" where a variable or a function was expected");
      }
    }
    return std::move(source_);
  }

 private:
  const std::string& peek(size_t ahead = 0) const { return tokens_[std::min(at_ + ahead, tokens_.size() - 1)].text; }
  int line() const { return tokens_[at_].line; }
  std::string take() {
    if (at_ + 1 >= tokens_.size()) refuse(line(), "the text ends in the middle");
    return tokens_[at_++].text;
  }
  bool take_if(const std::string& word) {
    if (peek() != word) return false;
    ++at_;
    return true;
  }
  void expect(const std::string& word) {
    if (!take_if(word)) refuse(line(), "\"" + peek() + "\" where \"" + word + "\" was expected");
  }
  void skip_past(const std::string& word) {
    while (take() != word) {
    }
  }

  Operand number() {
    Operand out;
    const bool minus = take_if("-");
    std::string word = take();
    char* end = nullptr;
    if (word.rfind("0f", 0) == 0 || word.rfind("0F", 0) == 0) {
      out.kind = Operand::Kind::real32;
      out.bits = std::strtoull(word.c_str() + 2, &end, 16);
      if (minus) out.bits ^= uint64_t{1} << 31;
    } else if (word.rfind("0d", 0) == 0 || word.rfind("0D", 0) == 0 || (word.find('.') != std::string::npos)) {
      out.kind = Operand::Kind::real64;
      out.bits = word[1] == 'd' || word[1] == 'D' ? std::strtoull(word.c_str() + 2, &end, 16)
                                                  : std::bit_cast<uint64_t>(std::strtod(word.c_str(), &end));
      if (minus) out.bits ^= uint64_t{1} << 63;
    } else {
      if (word.back() == 'U') word.pop_back();
      out.kind = Operand::Kind::integer;
      out.bits =
          word.rfind("0b", 0) == 0 ? std::strtoull(word.c_str() + 2, &end, 2) : std::strtoull(word.c_str(), &end, 0);
      if (minus) out.bits = -out.bits;
    }
    if (end == nullptr || *end != '\0') refuse(line(), "\"" + word + "\" is no number");
    return out;
  }
  int64_t integer() { return static_cast<int64_t>(number().bits); }
  bool at_number() const { return peek() == "-" || std::isdigit(static_cast<unsigned char>(peek()[0])); }

  /// .param .align 8 .b8 name[16] and the like, with what it begins as. Ends before "," ";" or ")".
  Variable variable(Space space) {
    Variable out;
    out.space = space;
    size_t element = 0;
    while (peek()[0] == '.') {
      const std::string word = take();
      if (word == ".align") {
        out.alignment = static_cast<size_t>(integer());
      } else if (word == ".v2" || word == ".v4") {
        element = static_cast<size_t>(word[2] - '0');
      } else if (const Type type = type_of(word.substr(1)); type != Type::none) {
        element = std::max<size_t>(element, 1) * bytes_of(type);
        out.alignment = std::max(out.alignment, element);
      } else if (word == ".ptr") {  // of a parameter: what it points to
        while (peek() == ".global" || peek() == ".shared" || peek() == ".local" || peek() == ".const") take();
        if (take_if(".align")) integer();
      }
    }
    out.name = take();
    size_t count = 1;
    while (take_if("[")) {
      count *= peek() == "]" ? 0 : static_cast<size_t>(integer());
      expect("]");
    }
    out.bytes = element * count;
    if (take_if("=")) read_initial(out, element);
    return out;
  }

  void read_initial(Variable& out, size_t element) {
    out.initial.resize(out.bytes);
    size_t at = 0;
    const auto value = [&] {
      if (at + element > out.bytes) refuse(line(), "more values than " + out.name + " holds");
      if (at_number()) {
        const uint64_t bits = number().bits;
        std::memcpy(out.initial.data() + at, &bits, element);
      } else {
        const bool is_generic = take_if("generic");
        if (is_generic) expect("(");
        out.addresses_in_initial.emplace_back(at, take());
        if (is_generic) expect(")");
      }
      at += element;
    };
    int depth = 0;
    do {
      while (take_if("{")) ++depth;
      value();
      while (depth > 0 && take_if("}")) --depth;
    } while (take_if(","));
  }

  /// A variable or a function; false if there is neither here.
  template <class Add>
  bool read_declaration(Add add) {
    static const std::unordered_map<std::string, Space> kSpaces = {{".global", Space::global},
                                                                   {".const", Space::constant},
                                                                   {".shared", Space::shared},
                                                                   {".local", Space::local},
                                                                   {".param", Space::param}};
    bool is_extern = false;
    while (peek() == ".visible" || peek() == ".extern" || peek() == ".weak" || peek() == ".common")
      is_extern |= take() == ".extern";
    if (peek() == ".entry" || peek() == ".func") {
      read_function(take() == ".entry");
      return true;
    }
    const auto space = kSpaces.find(peek());
    if (space == kSpaces.end()) return false;
    take();
    do {
      Variable read = variable(space->second);
      read.is_extern = is_extern;
      add(read);
    } while (take_if(","));
    expect(";");
    return true;
  }

  std::vector<Variable> parameters() {
    std::vector<Variable> out;
    if (!take_if("(")) return out;
    while (!take_if(")")) {
      if (peek() != ".param" && peek() != ".reg") refuse(line(), "\"" + peek() + "\" where a parameter was expected");
      take();
      out.push_back(variable(Space::param));
      take_if(",");
    }
    return out;
  }

  void read_function(bool is_kernel) {
    Function out;
    out.is_kernel = is_kernel;
    if (!is_kernel) out.results = parameters();
    out.name = take();
    out.parameters = parameters();
    while (peek() != "{" && peek() != ";") {
      const std::string word = take();
      if (word != ".maxntid" && word != ".reqntid") continue;  // what only steers the compiler
      out.max_threads = 1;
      do out.max_threads *= static_cast<size_t>(integer());
      while (take_if(","));
    }
    if (take() == "{") {
      out.has_body = true;
      out.scopes.emplace_back();
      read_body(out, 0);
    }
    Function& place = source_.functions[out.name];
    if (out.has_body || place.name.empty()) place = std::move(out);
  }

  void read_body(Function& out, int scope) {
    while (!take_if("}")) {
      if (take_if("{")) {
        out.scopes.emplace_back().parent = scope;
        read_body(out, static_cast<int>(out.scopes.size()) - 1);
      } else if (peek(1) == ":") {
        const std::string label = take();
        take();
        if (take_if(".branchtargets")) {
          auto& targets = out.scopes[static_cast<size_t>(scope)].branch_targets[label];
          do targets.push_back(take());
          while (take_if(","));
          expect(";");
        } else if (peek() == ".callprototype") {
          skip_past(";");
        } else {
          out.scopes[static_cast<size_t>(scope)].labels[label] = out.statements.size();
        }
      } else if (peek() == ".reg") {
        read_registers(out.scopes[static_cast<size_t>(scope)]);
      } else if (peek() == ".pragma") {
        skip_past(";");
      } else if (!read_declaration(
                     [&](const Variable& v) { out.scopes[static_cast<size_t>(scope)].variables[v.name] = v; })) {
        read_statement(out, scope);
      }
    }
  }

  void read_registers(Scope& scope) {
    take();
    const std::string word = take();
    const Type type = type_of(word.substr(1));
    if (type == Type::none) refuse(line(), word + " is no type of a register");
    do {
      const std::string name = take();
      if (take_if("<")) {
        integer();
        expect(">");
        scope.register_ranges[name] = type;
      } else {
        scope.registers[name] = type;
      }
    } while (take_if(","));
    expect(";");
  }

  void read_statement(Function& out, int scope) {
    Statement statement;
    statement.line = line();
    statement.scope = scope;
    const size_t begin = tokens_[at_].begin;
    if (take_if("@")) {
      statement.guard_negated = take_if("!");
      statement.guard = take();
    }
    const std::string name = take();
    for (size_t from = 0; from <= name.size();) {
      const size_t to = std::min(name.find('.', from), name.size());
      (from == 0 ? statement.opcode : statement.modifiers.emplace_back()) = name.substr(from, to - from);
      from = to + 1;
    }
    while (!take_if(";")) {
      statement.operands.push_back(operand());
      take_if(",");
    }
    for (const char c : text_.substr(begin, tokens_[at_ - 1].end - begin))  // with single spaces
      if (!std::isspace(static_cast<unsigned char>(c)) || statement.text.back() != ' ')
        statement.text += std::isspace(static_cast<unsigned char>(c)) ? ' ' : c;
    out.statements.push_back(std::move(statement));
  }

  std::vector<Operand> list(const std::string& end) {
    std::vector<Operand> out;
    while (!take_if(end)) {
      out.push_back(operand());
      take_if(",");
    }
    return out;
  }

  Operand operand() {
    Operand out = simple_operand();
    if (!take_if("|")) return out;
    Operand pair;
    pair.kind = Operand::Kind::vector;
    pair.parts = {out, simple_operand()};
    return pair;
  }

  Operand simple_operand() {
    Operand out;
    if (take_if("{")) {
      out.kind = Operand::Kind::vector;
      out.parts = list("}");
    } else if (take_if("(")) {
      out.kind = Operand::Kind::vector;
      out.parts = list(")");
    } else if (take_if("[")) {
      out.kind = Operand::Kind::address;
      if (!at_number()) out.name = take();
      read_offset(out);
      expect("]");
    } else if (at_number()) {
      out = number();
    } else {
      out.negated = take_if("!");
      out.name = take();
      read_offset(out);
    }
    return out;
  }

  void read_offset(Operand& out) {
    if (out.name.empty()) out.offset = integer();
    while (peek() == "+" || peek() == "-") {
      const bool minus = take() == "-";
      out.offset += minus ? -integer() : integer();
    }
  }

  const std::string& text_;
  std::vector<Token> tokens_;
  size_t at_ = 0;
  Source source_;
};

}  // namespace

Type type_of(const std::string& name) {
  static const std::unordered_map<std::string, Type> kTypes = {
      {"pred", Type::pred},   {"u8", Type::u8},         {"u16", Type::u16}, {"u32", Type::u32}, {"u64", Type::u64},
      {"s8", Type::s8},       {"s16", Type::s16},       {"s32", Type::s32}, {"s64", Type::s64}, {"b8", Type::b8},
      {"b16", Type::b16},     {"b32", Type::b32},       {"b64", Type::b64}, {"f16", Type::f16}, {"bf16", Type::bf16},
      {"f16x2", Type::f16x2}, {"bf16x2", Type::bf16x2}, {"f32", Type::f32}, {"f64", Type::f64}, {"tf32", Type::tf32},
      {"u4", Type::u4},       {"s4", Type::s4}};
  const auto found = kTypes.find(name);
  return found == kTypes.end() ? Type::none : found->second;
}

size_t bytes_of(Type type) {
  switch (type) {
    case Type::u8:
    case Type::s8:
    case Type::b8:
    case Type::pred:
      return 1;
    case Type::u16:
    case Type::s16:
    case Type::b16:
    case Type::f16:
    case Type::bf16:
      return 2;
    case Type::u64:
    case Type::s64:
    case Type::b64:
    case Type::f64:
      return 8;
    default:
      return 4;
  }
}

Source parse(const std::string& text) { return Parser(text).parse(); }

}  // namespace crumb::ptx
