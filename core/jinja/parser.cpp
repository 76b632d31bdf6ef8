#include "core/jinja/parser.h"

#include <algorithm>
#include <initializer_list>

#include "core/common/error.h"
#include "core/jinja/lexer.h"

namespace crumb::jinja {
namespace {

using Kind = Expression::Kind;

class Parser {
 public:
  Parser(std::vector<Token> tokens, const std::string& name) : tokens_(std::move(tokens)), name_(name) {}

  Body run() {
    Body body = parse_body({});
    CRUMB_ASSERT(current().kind == Token::Kind::end);
    return body;
  }

 private:
  /// One level deeper while it lives.
  class Level {
   public:
    explicit Level(Parser& parser) : parser_(parser) {
      if (++parser_.levels_ > kMostSyntaxLevels)
        parser_.fail(fmt::format("blocks or expressions inside each other, deeper than {} levels", kMostSyntaxLevels));
    }
    ~Level() { --parser_.levels_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

   private:
    Parser& parser_;
  };

  const Token& current() const { return tokens_[at_]; }
  const Token& following() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  const Token& next() {
    const Token& token = tokens_[at_];
    if (at_ + 1 < tokens_.size()) ++at_;
    return token;
  }

  [[noreturn]] void fail(const std::string& what) const { user_error("{}:{}: {}", name_, current().line, what); }

  static std::string described(const Token& token) {
    switch (token.kind) {
      case Token::Kind::name:
      case Token::Kind::symbol:
        return "'" + token.value + "'";
      case Token::Kind::string:
        return "a string";
      case Token::Kind::number:
        return "a number";
      case Token::Kind::text:
        return "text";
      case Token::Kind::print_begin:
      case Token::Kind::block_begin:
        return "the beginning of a tag";
      case Token::Kind::print_end:
      case Token::Kind::block_end:
        return "the end of the tag";
      case Token::Kind::end:
        return "the end of the template";
    }
    return "";
  }

  bool is_name(std::string_view name) const { return current().kind == Token::Kind::name && current().value == name; }
  bool is_symbol(std::string_view symbol) const {
    return current().kind == Token::Kind::symbol && current().value == symbol;
  }
  bool skip_name(std::string_view name) { return is_name(name) && (next(), true); }
  bool skip_symbol(std::string_view symbol) { return is_symbol(symbol) && (next(), true); }

  void expect_symbol(std::string_view symbol) {
    if (!skip_symbol(symbol)) fail(fmt::format("expected '{}', found {}", symbol, described(current())));
  }
  void expect_name(std::string_view name) {
    if (!skip_name(name)) fail(fmt::format("expected '{}', found {}", name, described(current())));
  }
  std::string expect_any_name() {
    if (current().kind != Token::Kind::name) fail("expected a name, found " + described(current()));
    return next().value;
  }
  void expect(Token::Kind kind) {
    if (current().kind != kind) fail("expected the end of the tag, found " + described(current()));
    next();
  }

  // ---- statements

  /// Up to a tag that begins with one of `ends`, which becomes the current token.
  Body parse_body(std::initializer_list<const char*> ends) {
    const Level level(*this);
    Body body;
    while (current().kind != Token::Kind::end) {
      const int line = current().line;
      if (current().kind == Token::Kind::text) {
        body.push_back({.kind = Statement::Kind::text, .line = line, .name = next().value});
      } else if (current().kind == Token::Kind::print_begin) {
        next();
        Statement print{.kind = Statement::Kind::print, .line = line};
        print.values.push_back(parse_tuple());
        expect(Token::Kind::print_end);
        body.push_back(std::move(print));
      } else {
        next();  // the beginning of a block
        if (std::any_of(ends.begin(), ends.end(), [this](const char* end) { return is_name(end); })) return body;
        body.push_back(parse_statement());
        expect(Token::Kind::block_end);
      }
    }
    if (ends.size() > 0) fail(fmt::format("the template ends where \"{}\" should follow", *(ends.end() - 1)));
    return body;
  }

  /// The end of a tag, a body, and the name of the tag that ended it.
  std::string parse_block(Body& body, std::initializer_list<const char*> ends) {
    skip_symbol(":");
    expect(Token::Kind::block_end);
    body = parse_body(ends);
    return next().value;
  }

  Statement parse_statement() {
    const int line = current().line;
    const std::string tag = expect_any_name();
    Statement out = parse_tag(tag);
    out.line = line;
    return out;
  }

  Statement parse_tag(const std::string& tag) {
    using Tag = Statement::Kind;
    if (tag == "for") return parse_for();
    if (tag == "if") return parse_if();
    if (tag == "set") return parse_set();
    if (tag == "macro") return parse_macro();
    if (tag == "call") return parse_call_block();
    if (tag == "with") return parse_with();
    if (tag == "print") {
      Statement out{.kind = Tag::print};
      do out.values.push_back(parse_expression());
      while (skip_symbol(","));
      return out;
    }
    if (tag == "filter") {
      Statement out{.kind = Tag::filter_block};
      out.values.push_back(parse_filter(make(Kind::captured), true));
      parse_block(out.body, {"endfilter"});
      return out;
    }
    if (tag == "generation") {
      Statement out{.kind = Tag::generation};
      parse_block(out.body, {"endgeneration"});
      return out;
    }
    if (tag == "break" || tag == "continue") {
      if (loops_ == 0) fail(fmt::format("\"{}\" outside of a loop", tag));
      return {.kind = tag == "break" ? Tag::break_loop : Tag::continue_loop};
    }
    --at_;  // the message names the tag's line
    fail(fmt::format("the tag \"{}\" is unknown or not supported", tag));
  }

  Statement parse_for() {
    Statement out{.kind = Statement::Kind::for_loop};
    out.target = parse_target(false, "in");
    expect_name("in");
    out.values.push_back(parse_tuple(false, "recursive"));
    if (skip_name("if")) out.condition = parse_expression();
    out.is_recursive = skip_name("recursive");
    ++loops_;
    const std::string end = parse_block(out.body, {"else", "endfor"});
    --loops_;
    if (end == "else") parse_block(out.otherwise, {"endfor"});
    return out;
  }

  Statement parse_if() {
    Statement out{.kind = Statement::Kind::if_chain};
    while (true) {
      Branch& branch = out.branches.emplace_back();
      branch.condition = parse_tuple(false);
      const std::string end = parse_block(branch.body, {"elif", "else", "endif"});
      if (end == "endif") return out;
      if (end == "elif") continue;
      parse_block(out.branches.emplace_back().body, {"endif"});
      return out;
    }
  }

  Statement parse_set() {
    Statement out{.kind = Statement::Kind::set};
    out.target = parse_target(true);
    if (skip_symbol("=")) {
      out.values.push_back(parse_tuple());
      return out;
    }
    out.kind = Statement::Kind::set_block;
    if (is_symbol("|")) out.values.push_back(parse_filter(make(Kind::captured)));
    parse_block(out.body, {"endset"});
    return out;
  }

  std::vector<Parameter> parse_parameters() {
    std::vector<Parameter> out;
    expect_symbol("(");
    while (!is_symbol(")")) {
      if (!out.empty()) expect_symbol(",");
      Parameter& parameter = out.emplace_back();
      parameter.name = expect_any_name();
      if (skip_symbol("="))
        parameter.fallback = parse_expression();
      else if (out.size() > 1 && out[out.size() - 2].fallback != nullptr)
        fail("a parameter without a default follows one with a default");
    }
    expect_symbol(")");
    return out;
  }

  Statement parse_macro() {
    Statement out{.kind = Statement::Kind::macro};
    out.name = expect_any_name();
    out.parameters = parse_parameters();
    parse_own_body(out.body, "endmacro");
    return out;
  }

  Statement parse_call_block() {
    Statement out{.kind = Statement::Kind::call_block};
    if (is_symbol("(")) out.parameters = parse_parameters();
    out.values.push_back(parse_expression());
    if (out.values[0]->kind != Kind::call) fail("expected a call");
    parse_own_body(out.body, "endcall");
    return out;
  }

  /// Of a macro: loops around it are not its own.
  void parse_own_body(Body& body, const char* end) {
    const int loops = std::exchange(loops_, 0);
    parse_block(body, {end});
    loops_ = loops;
  }

  Statement parse_with() {
    Statement out{.kind = Statement::Kind::with};
    while (current().kind != Token::Kind::block_end) {
      if (!out.targets.empty()) expect_symbol(",");
      out.targets.push_back(parse_target(false));
      expect_symbol("=");
      out.values.push_back(parse_expression());
    }
    parse_block(out.body, {"endwith"});
    return out;
  }

  /// Names, or tuples of them; with_attributes: names of namespaces too.
  ExpressionPtr parse_target(bool with_attributes, std::string_view end = "") {
    const Level level(*this);
    std::vector<ExpressionPtr> parts;
    bool is_tuple = false;
    while (!is_symbol("=") && !is_symbol(")") && current().kind != Token::Kind::block_end &&
           !(is_name(end) && !end.empty())) {
      if (skip_symbol("(")) {
        parts.push_back(parse_target(with_attributes));
        expect_symbol(")");
      } else {
        auto name = make(Kind::name);
        name->text = expect_any_name();
        for (const char* constant : {"true", "false", "none", "True", "False", "None"}) {
          if (name->text == constant) fail(fmt::format("\"{}\" cannot be set", constant));
        }
        if (with_attributes && skip_symbol(".")) {
          auto attribute = make(Kind::attribute, std::move(name));
          attribute->text = expect_any_name();
          name = std::move(attribute);
        }
        parts.push_back(std::move(name));
      }
      if (!skip_symbol(",")) break;
      is_tuple = true;
    }
    if (parts.empty()) fail("expected a name, found " + described(current()));
    if (!is_tuple) return std::move(parts[0]);
    return make_of(Kind::tuple, std::move(parts));
  }

  // ---- expressions

  ExpressionPtr make_of(Kind kind, std::vector<ExpressionPtr> parts) {
    auto out = std::make_unique<Expression>();
    out->kind = kind;
    out->line = current().line;
    out->parts = std::move(parts);
    for (const auto& part : out->parts) grow(*out, part.get());
    return out;
  }
  template <class... Parts>
  ExpressionPtr make(Kind kind, Parts... parts) {
    std::vector<ExpressionPtr> list;
    (list.push_back(std::move(parts)), ...);
    return make_of(kind, std::move(list));
  }
  /// `a + b + c ...` is a deep tree, too, although its parser never recurses.
  void grow(Expression& expression, const Expression* part) {
    if (part == nullptr) return;
    expression.levels = std::max(expression.levels, part->levels + 1);
    if (expression.levels > kMostSyntaxLevels)
      fail(fmt::format("an expression of more than {} steps inside each other", kMostSyntaxLevels));
  }
  ExpressionPtr constant(Value value) {
    auto out = make(Kind::constant);
    out->value = std::move(value);
    return out;
  }

  /// One expression, or several with commas between as a tuple.
  ExpressionPtr parse_tuple(bool with_condition = true, std::string_view end = "", bool in_parentheses = false) {
    std::vector<ExpressionPtr> parts;
    bool is_tuple = false;
    const auto is_end = [&] {
      return current().kind == Token::Kind::print_end || current().kind == Token::Kind::block_end || is_symbol(")") ||
             (!end.empty() && is_name(end));
    };
    while (!is_end()) {
      parts.push_back(parse_expression(with_condition));
      if (!skip_symbol(",")) break;
      is_tuple = true;
    }
    if (!is_tuple && parts.size() == 1) return std::move(parts[0]);
    if (!is_tuple && !in_parentheses) fail("expected an expression, found " + described(current()));
    return make_of(Kind::tuple, std::move(parts));
  }

  ExpressionPtr parse_expression(bool with_condition = true) {
    const Level level(*this);
    auto out = parse_or();
    while (with_condition && skip_name("if")) {
      auto condition = parse_or();
      ExpressionPtr other;
      if (skip_name("else")) other = parse_expression();
      out = make(Kind::conditional, std::move(out), std::move(condition), std::move(other));
    }
    return out;
  }

  ExpressionPtr parse_or() {
    auto left = parse_and();
    while (skip_name("or")) left = make(Kind::disjunction, std::move(left), parse_and());
    return left;
  }

  ExpressionPtr parse_and() {
    auto left = parse_not();
    while (skip_name("and")) left = make(Kind::conjunction, std::move(left), parse_not());
    return left;
  }

  ExpressionPtr parse_not() {
    const Level level(*this);
    if (skip_name("not")) return make(Kind::negation, parse_not());
    return parse_compare();
  }

  std::string compare_operator() {
    for (const char* symbol : {"==", "!=", "<", "<=", ">", ">="}) {
      if (skip_symbol(symbol)) return symbol;
    }
    if (skip_name("in")) return "in";
    if (is_name("not") && following().kind == Token::Kind::name && following().value == "in") {
      next();
      next();
      return "not in";
    }
    return "";
  }

  ExpressionPtr parse_compare() {
    std::vector<ExpressionPtr> parts;
    parts.push_back(parse_sum());
    std::vector<std::string> operators;
    for (std::string symbol = compare_operator(); !symbol.empty(); symbol = compare_operator()) {
      operators.push_back(symbol);
      parts.push_back(parse_sum());
    }
    if (operators.empty()) return std::move(parts[0]);
    auto out = make_of(Kind::compare, std::move(parts));
    out->operators = std::move(operators);
    return out;
  }

  template <class Operand>
  ExpressionPtr parse_chain(std::initializer_list<const char*> symbols, const Operand& operand) {
    auto left = operand();
    while (true) {
      const auto symbol = std::find_if(symbols.begin(), symbols.end(), [this](const char* s) { return is_symbol(s); });
      if (symbol == symbols.end()) return left;
      next();
      left = make(Kind::binary, std::move(left), operand());
      left->text = *symbol;
    }
  }

  ExpressionPtr parse_sum() {
    return parse_chain({"+", "-"}, [this] { return parse_concat(); });
  }

  ExpressionPtr parse_concat() {
    std::vector<ExpressionPtr> parts;
    do parts.push_back(parse_product());
    while (skip_symbol("~"));
    return parts.size() == 1 ? std::move(parts[0]) : make_of(Kind::concat, std::move(parts));
  }

  ExpressionPtr parse_product() {
    return parse_chain({"*", "/", "//", "%"}, [this] { return parse_power(); });
  }

  ExpressionPtr parse_power() {
    return parse_chain({"**"}, [this] { return parse_unary(true); });
  }

  ExpressionPtr parse_unary(bool with_filters) {
    const Level level(*this);
    ExpressionPtr out;
    if (is_symbol("-") || is_symbol("+")) {
      const std::string sign = next().value;
      out = make(Kind::unary, parse_unary(false));
      out->text = sign;
    } else {
      out = parse_primary();
    }
    out = parse_postfix(std::move(out));
    return with_filters ? parse_filters_and_tests(std::move(out)) : std::move(out);
  }

  ExpressionPtr parse_primary() {
    const Token& token = current();
    if (token.kind == Token::Kind::name) return parse_name();
    if (token.kind == Token::Kind::string) {
      std::string text;
      while (current().kind == Token::Kind::string) text += next().value;
      return constant(Value(std::move(text)));
    }
    if (token.kind == Token::Kind::number) return constant(next().number);
    if (skip_symbol("(")) {
      auto out = parse_tuple(true, "", true);
      expect_symbol(")");
      return out;
    }
    if (skip_symbol("[")) return make_of(Kind::list, parse_items("]"));
    if (skip_symbol("{")) return parse_dict();
    fail("expected an expression, found " + described(token));
  }

  ExpressionPtr parse_name() {
    const std::string name = next().value;
    if (name == "true" || name == "True") return constant(true);
    if (name == "false" || name == "False") return constant(false);
    if (name == "none" || name == "None") return constant({});
    auto out = make(Kind::name);
    out->text = name;
    return out;
  }

  std::vector<ExpressionPtr> parse_items(const char* end) {
    std::vector<ExpressionPtr> items;
    while (!is_symbol(end)) {
      if (!items.empty()) expect_symbol(",");
      if (is_symbol(end)) break;
      items.push_back(parse_expression());
    }
    expect_symbol(end);
    return items;
  }

  ExpressionPtr parse_dict() {
    std::vector<ExpressionPtr> parts;
    while (!is_symbol("}")) {
      if (!parts.empty()) expect_symbol(",");
      if (is_symbol("}")) break;
      parts.push_back(parse_expression());
      expect_symbol(":");
      parts.push_back(parse_expression());
    }
    expect_symbol("}");
    return make_of(Kind::dict, std::move(parts));
  }

  ExpressionPtr parse_postfix(ExpressionPtr out) {
    while (true) {
      if (skip_symbol("."))
        out = parse_attribute(std::move(out));
      else if (skip_symbol("["))
        out = parse_subscript(std::move(out));
      else if (is_symbol("("))
        out = parse_call(make(Kind::call, std::move(out)));
      else
        return out;
    }
  }

  ExpressionPtr parse_attribute(ExpressionPtr of) {
    if (current().kind == Token::Kind::number && current().number.is_whole()) {
      auto place = constant(next().number);
      return make(Kind::item, std::move(of), std::move(place));
    }
    auto out = make(Kind::attribute, std::move(of));
    out->text = expect_any_name();
    return out;
  }

  ExpressionPtr parse_subscript(ExpressionPtr of) {
    std::vector<ExpressionPtr> places;
    while (!is_symbol("]")) {
      if (!places.empty()) expect_symbol(",");
      places.push_back(parse_place());
    }
    expect_symbol("]");
    if (places.empty()) fail("expected an expression between [ and ]");
    auto place = places.size() == 1 ? std::move(places[0]) : make_of(Kind::tuple, std::move(places));
    return make(Kind::item, std::move(of), std::move(place));
  }

  ExpressionPtr parse_place() {
    std::vector<ExpressionPtr> parts(3);
    if (!is_symbol(":")) {
      parts[0] = parse_expression();
      if (!is_symbol(":")) return std::move(parts[0]);
    }
    for (size_t i = 1; i < 3 && skip_symbol(":"); ++i) {
      if (!is_symbol(":") && !is_symbol("]") && !is_symbol(",")) parts[i] = parse_expression();
    }
    return make_of(Kind::slice, std::move(parts));
  }

  /// "(" and the arguments of a call, a filter or a test.
  ExpressionPtr parse_call(ExpressionPtr out) {
    expect_symbol("(");
    const auto require = [this](bool condition) {
      if (!condition) fail("a positional argument behind a named one");
    };
    bool is_first = true;
    while (!is_symbol(")")) {
      if (!std::exchange(is_first, false)) expect_symbol(",");
      if (is_symbol(")")) break;
      if (skip_symbol("*")) {
        require(out->spread == nullptr && out->named_spread == nullptr);
        out->spread = parse_expression();
        grow(*out, out->spread.get());
      } else if (skip_symbol("**")) {
        require(out->named_spread == nullptr);
        out->named_spread = parse_expression();
        grow(*out, out->named_spread.get());
      } else if (current().kind == Token::Kind::name && following().kind == Token::Kind::symbol &&
                 following().value == "=") {
        require(out->named_spread == nullptr);
        const std::string name = next().value;
        next();
        out->named.emplace_back(name, parse_expression());
        grow(*out, out->named.back().second.get());
      } else {
        require(out->spread == nullptr && out->named_spread == nullptr && out->named.empty());
        out->parts.push_back(parse_expression());
        grow(*out, out->parts.back().get());
      }
    }
    expect_symbol(")");
    return out;
  }

  std::string dotted_name() {
    std::string name = expect_any_name();
    while (skip_symbol(".")) name += "." + expect_any_name();
    return name;
  }

  /// `is_first`: the name of a filter follows without "|".
  ExpressionPtr parse_filter(ExpressionPtr out, bool is_first = false) {
    while (is_first || skip_symbol("|")) {
      is_first = false;
      out = make(Kind::filter, std::move(out));
      out->text = dotted_name();
      if (is_symbol("(")) out = parse_call(std::move(out));
    }
    return out;
  }

  ExpressionPtr parse_filters_and_tests(ExpressionPtr out) {
    while (true) {
      if (is_symbol("|"))
        out = parse_filter(std::move(out));
      else if (skip_name("is"))
        out = parse_test(std::move(out));
      else if (is_symbol("("))
        out = parse_call(make(Kind::call, std::move(out)));
      else
        return out;
    }
  }

  ExpressionPtr parse_test(ExpressionPtr subject) {
    const bool is_negated = skip_name("not");
    auto out = make(Kind::test, std::move(subject));
    out->text = dotted_name();
    const auto kind = current().kind;
    const bool is_word = kind == Token::Kind::name && !is_name("else") && !is_name("or") && !is_name("and");
    if (is_symbol("(")) {
      out = parse_call(std::move(out));
    } else if (is_word || kind == Token::Kind::string || kind == Token::Kind::number || is_symbol("[") ||
               is_symbol("{")) {
      if (is_name("is")) fail("two tests in a row need parentheses");
      out->parts.push_back(parse_postfix(parse_primary()));
      grow(*out, out->parts.back().get());
    }
    return is_negated ? make(Kind::negation, std::move(out)) : std::move(out);
  }

  std::vector<Token> tokens_;
  const std::string& name_;
  size_t at_ = 0;
  int levels_ = 0, loops_ = 0;
};

}  // namespace

Body parse(std::string_view source, const std::string& name) { return Parser(tokenize(source, name), name).run(); }

}  // namespace crumb::jinja
