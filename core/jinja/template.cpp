#include "core/jinja/template.h"

#include <algorithm>

#include "core/jinja/parser.h"
#include "core/jinja/runtime.h"

namespace crumb::jinja {
namespace {

/// Names and their values; inner ones are looked up first.
struct Scope {
  std::shared_ptr<Scope> parent;
  std::vector<std::pair<std::string, Value>> names{};

  void set(const std::string& name, Value value) {
    for (auto& [known, old] : names) {
      if (known != name) continue;
      old = std::move(value);
      return;
    }
    names.emplace_back(name, std::move(value));
  }
};
using ScopePtr = std::shared_ptr<Scope>;

class Interpreter {
 public:
  Interpreter(std::time_t now, const nlohmann::ordered_json& variables, MissingNames missing)
      : runtime_(now), missing_(missing) {
    const auto functions = std::make_shared<Scope>();
    functions->names = global_functions();
    root_ = std::make_shared<Scope>(Scope{functions});
    for (const auto& [name, value] : variables.items()) root_->set(name, Value::from_json(value));
  }
  /// Macros hold the scopes they were made in, and scopes hold macros.
  ~Interpreter() {
    for (const auto& scope : captured_) {
      scope->names.clear();
      scope->parent.reset();
    }
  }
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  std::string run(const Body& body) {
    std::string out;
    run_body(body, root_, out);
    return out;
  }
  int line() const { return line_; }

 private:
  using Kind = Expression::Kind;
  enum class Flow { on, leave_loop, next_round };

  static ScopePtr inside(const ScopePtr& scope) { return std::make_shared<Scope>(Scope{scope}); }

  // ---- statements

  Flow run_body(const Body& body, const ScopePtr& scope, std::string& out) {
    const RunLevel level(levels_);
    for (const Statement& statement : body) {
      const Flow flow = run_statement(statement, scope, out);
      if (flow != Flow::on) return flow;
    }
    return Flow::on;
  }

  Flow run_statement(const Statement& s, const ScopePtr& scope, std::string& out) {
    using Tag = Statement::Kind;
    line_ = s.line;
    runtime_.work(1);
    switch (s.kind) {
      case Tag::text:
        write(s.name, out);
        return Flow::on;
      case Tag::print:
        for (const auto& value : s.values) write(to_text(known(eval(*value, scope))), out);
        return Flow::on;
      case Tag::if_chain:
        return run_if(s, scope, out);
      case Tag::for_loop:
        run_for(s, runtime_.items_of(known(eval(*s.values[0], scope))), 0, scope, out);
        return Flow::on;
      case Tag::set:
        assign(*s.target, eval(*s.values[0], scope), scope);
        return Flow::on;
      case Tag::break_loop:
        return Flow::leave_loop;
      case Tag::continue_loop:
        return Flow::next_round;
      default:
        run_block(s, scope, out);
        return Flow::on;
    }
  }

  void run_block(const Statement& s, const ScopePtr& scope, std::string& out) {
    using Tag = Statement::Kind;
    std::string text;
    if (s.kind == Tag::set_block) {
      run_body(s.body, inside(scope), text);
      assign(*s.target, filtered(s, std::move(text), scope), scope);
    } else if (s.kind == Tag::filter_block) {
      run_body(s.body, inside(scope), text);
      write(to_text(filtered(s, std::move(text), scope)), out);
    } else if (s.kind == Tag::macro) {
      scope->set(s.name, make_macro(s, scope));
    } else if (s.kind == Tag::call_block) {
      Arguments arguments;
      const Value callee = eval_call(*s.values[0], scope, arguments);
      arguments.named.emplace_back("caller", make_macro(s, scope));
      write(to_text(runtime_.call(callee, arguments)), out);
    } else if (s.kind == Tag::with) {
      const ScopePtr inner = inside(scope);
      for (size_t i = 0; i < s.targets.size(); ++i) assign(*s.targets[i], eval(*s.values[i], scope), inner);
      run_body(s.body, inner, out);
    } else {
      run_body(s.body, inside(scope), out);  // generation
    }
  }

  /// A value that is used as one.
  Value known(Value value) const {
    if (missing_ == MissingNames::are_errors) require_defined(value);
    return value;
  }

  void write(std::string_view text, std::string& out) {
    runtime_.work_on_text(text.size());
    append(out, text);
  }

  /// The text of a block through the filters that were written at its beginning.
  Value filtered(const Statement& s, std::string text, const ScopePtr& scope) {
    Value value = runtime_.made(std::move(text));
    if (s.values.empty()) return value;
    const Value before = std::exchange(captured_text_, std::move(value));
    Value out = eval(*s.values[0], scope);
    captured_text_ = before;
    return out;
  }

  Flow run_if(const Statement& s, const ScopePtr& scope, std::string& out) {
    for (const Branch& branch : s.branches) {
      if (branch.condition == nullptr || known(eval(*branch.condition, scope)).truth())
        return run_body(branch.body, scope, out);
    }
    return Flow::on;
  }

  void run_for(const Statement& s, std::vector<Value> items, int64_t depth0, const ScopePtr& scope, std::string& out) {
    if (s.condition != nullptr) {
      std::vector<Value> kept;
      for (const Value& item : items) {
        const ScopePtr inner = inside(scope);
        assign(*s.target, item, inner);
        if (known(eval(*s.condition, inner)).truth()) kept.push_back(item);
      }
      items = std::move(kept);
    }
    const auto loop = std::make_shared<Loop>();
    for (const Value& item : items) loop->extent.add(item);
    loop->extent.check();
    loop->items = std::make_shared<const std::vector<Value>>(std::move(items));
    loop->depth0 = depth0;
    if (s.is_recursive) loop->recurse = recursion(s, depth0, scope);
    const auto& all = *loop->items;
    for (size_t i = 0; i < all.size(); ++i) {
      loop->index0 = static_cast<int64_t>(i);
      const ScopePtr inner = inside(scope);
      inner->set("loop", Value(loop));
      assign(*s.target, all[i], inner);
      if (run_body(s.body, inner, out) == Flow::leave_loop) break;
    }
    if (all.empty()) run_body(s.otherwise, inside(scope), out);
  }

  /// What calling `loop` does: the same loop over other items, as a text.
  std::shared_ptr<const Function> recursion(const Statement& s, int64_t depth0, const ScopePtr& scope) {
    capture(scope);
    return std::make_shared<const Function>(Function{"loop", [&s, depth0, scope, this](Runtime& r, const Arguments& a) {
                                                       const Parameters p("loop", a, {"iterable"});
                                                       std::string text;
                                                       run_for(s, r.items_of(p.required(0)), depth0 + 1, scope, text);
                                                       return r.made(std::move(text));
                                                     }});
  }

  void assign(const Expression& target, const Value& value, const ScopePtr& scope) {
    if (target.kind == Kind::name) {
      scope->set(target.text, value);
    } else if (target.kind == Kind::attribute) {
      const Value names = lookup(target.parts[0]->text, scope);
      CRUMB_CHECK(names.names() != nullptr, "cannot assign attribute on non-namespace object");
      CRUMB_CHECK(!target.text.starts_with('_'), "a namespace cannot have the name \"{}\"", target.text);
      names.names()->set(target.text, value);
    } else {
      require_defined(value);
      const auto items = runtime_.items_of(value);
      CRUMB_CHECK(items.size() == target.parts.size(), "{} values for {} names", items.size(), target.parts.size());
      for (size_t i = 0; i < items.size(); ++i) assign(*target.parts[i], items[i], scope);
    }
  }

  // ---- macros

  /// Scopes that a function holds live until the end: their steps cost their memory.
  void capture(const ScopePtr& scope) {
    runtime_.work(100);
    captured_.push_back(scope);
  }

  Value make_macro(const Statement& s, const ScopePtr& scope) {
    capture(scope);
    return Value(std::make_shared<const Function>(
        Function{s.name, [&s, scope, this](Runtime&, const Arguments& a) { return call_macro(s, scope, a); }}));
  }

  Value call_macro(const Statement& s, const ScopePtr& scope, const Arguments& a) {
    const RunLevel level(levels_);
    const int line = line_;
    const ScopePtr inner = inside(scope);
    const size_t count = s.parameters.size();
    std::vector<std::optional<Value>> given(count);
    for (size_t i = 0; i < std::min(count, a.positional.size()); ++i) given[i] = a.positional[i];
    std::vector<std::pair<Value, Value>> others;
    Value caller = Value::undefined("No caller defined");
    for (const auto& [name, value] : a.named) {
      const auto found = std::find_if(s.parameters.begin(), s.parameters.end(),
                                      [&name = name](const Parameter& p) { return p.name == name; });
      const auto place = static_cast<size_t>(found - s.parameters.begin());
      if (place < count && place >= a.positional.size())
        given[place] = value;
      else if (name == "caller")
        caller = value;
      else
        others.emplace_back(Value(name), value);
    }
    inner->set("caller", caller);
    inner->set("kwargs", Value::dict(std::move(others)));
    std::vector<Value> rest;
    for (size_t i = count; i < a.positional.size(); ++i) rest.push_back(a.positional[i]);
    inner->set("varargs", Value::sequence(Sequence::Kind::tuple, std::move(rest)));
    check_takes(s, *inner);
    for (size_t i = 0; i < count; ++i) {
      const Parameter& parameter = s.parameters[i];
      if (!given[i]) {
        given[i] = parameter.fallback != nullptr
                       ? eval(*parameter.fallback, inner)
                       : Value::undefined(fmt::format("parameter '{}' was not provided", parameter.name));
      }
      inner->set(parameter.name, *given[i]);
    }
    std::string text;
    run_body(s.body, inner, text);
    line_ = line;
    return runtime_.made(std::move(text));
  }

  /// More arguments than parameters are an error, unless the macro looks at `varargs` or `kwargs`.
  void check_takes(const Statement& s, const Scope& scope) {
    for (const auto& [name, value] : scope.names) {
      if (name == "kwargs" && value.truth())
        CRUMB_CHECK(mentions(s.body, "kwargs"), "macro '{}' takes no keyword argument '{}'", s.name,
                    value.dict()->entries[0].first.text());
      if (name == "varargs" && value.truth())
        CRUMB_CHECK(mentions(s.body, "varargs"), "macro '{}' takes not more than {} argument(s)", s.name,
                    s.parameters.size());
      if (name == "caller" && !value.is_undefined() && s.kind == Statement::Kind::macro)
        CRUMB_CHECK(mentions(s.body, "caller"), "macro '{}' takes no keyword argument 'caller'", s.name);
    }
  }

  bool mentions(const ExpressionPtr& e, std::string_view name) {
    if (e == nullptr) return false;
    runtime_.work(1);
    const auto is_in = [&](const ExpressionPtr& part) { return mentions(part, name); };
    return (e->kind == Kind::name && e->text == name) || std::any_of(e->parts.begin(), e->parts.end(), is_in) ||
           is_in(e->spread) || is_in(e->named_spread) ||
           std::any_of(e->named.begin(), e->named.end(), [&](const auto& argument) { return is_in(argument.second); });
  }

  bool mentions(const Body& body, std::string_view name) {
    return std::any_of(body.begin(), body.end(), [&](const Statement& s) {
      const auto is_in = [&](const ExpressionPtr& part) { return mentions(part, name); };
      if (std::any_of(s.values.begin(), s.values.end(), is_in) || is_in(s.condition)) return true;
      if (mentions(s.body, name) || mentions(s.otherwise, name)) return true;
      return std::any_of(s.branches.begin(), s.branches.end(),
                         [&](const Branch& branch) { return is_in(branch.condition) || mentions(branch.body, name); });
    });
  }

  // ---- expressions

  Value lookup(const std::string& name, const ScopePtr& from) {
    for (const Scope* scope = from.get(); scope != nullptr; scope = scope->parent.get()) {
      runtime_.work(1 + static_cast<int64_t>(scope->names.size() / 8));
      for (const auto& [known, value] : scope->names) {
        if (known == name) return value;
      }
    }
    return Value::undefined(fmt::format("'{}' is undefined", name));
  }

  Value eval(const Expression& e, const ScopePtr& scope) {
    const RunLevel level(levels_);
    line_ = e.line;
    runtime_.work(1);
    switch (e.kind) {
      case Kind::constant:
        return e.value;
      case Kind::captured:
        return captured_text_;
      case Kind::name:
        return lookup(e.text, scope);
      case Kind::attribute:
        return runtime_.attribute(eval(*e.parts[0], scope), e.text);
      case Kind::item:
        return eval_item(e, scope);
      case Kind::call: {
        Arguments arguments;
        const Value callee = eval_call(e, scope, arguments);
        line_ = e.line;
        return runtime_.call(callee, arguments);
      }
      case Kind::filter:
      case Kind::test:
        return eval_filter_or_test(e, scope);
      case Kind::negation:
        return !known(eval(*e.parts[0], scope)).truth();
      case Kind::conjunction:
      case Kind::disjunction: {
        Value left = known(eval(*e.parts[0], scope));
        return left.truth() == (e.kind == Kind::conjunction) ? eval(*e.parts[1], scope) : left;
      }
      default:
        return eval_rest(e, scope);
    }
  }

  Value eval_rest(const Expression& e, const ScopePtr& scope) {
    switch (e.kind) {
      case Kind::unary:
        return eval_unary(e, scope);
      case Kind::binary: {
        const Value left = eval(*e.parts[0], scope), right = eval(*e.parts[1], scope);
        line_ = e.line;
        return runtime_.binary(e.text, left, right);
      }
      case Kind::concat:
        return eval_concat(e, scope);
      case Kind::compare:
        return eval_compare(e, scope);
      case Kind::conditional:
        if (known(eval(*e.parts[1], scope)).truth()) return eval(*e.parts[0], scope);
        if (e.parts[2] != nullptr) return eval(*e.parts[2], scope);
        return Value::undefined("the inline if-expression evaluated to false and no else section was defined.");
      case Kind::list:
        return Value::list(eval_all(e, scope));
      case Kind::tuple:
        return Value::sequence(Sequence::Kind::tuple, eval_all(e, scope));
      case Kind::dict:
        return eval_dict(e, scope);
      default:
        user_error("a slice stands where a value should be");
    }
  }

  std::vector<Value> eval_all(const Expression& e, const ScopePtr& scope) {
    std::vector<Value> out;
    for (const auto& part : e.parts) out.push_back(eval(*part, scope));
    return out;
  }

  Value eval_dict(const Expression& e, const ScopePtr& scope) {
    std::vector<std::pair<Value, Value>> entries;
    for (size_t i = 0; i + 1 < e.parts.size(); i += 2) {
      Value key = eval(*e.parts[i], scope);
      entries.emplace_back(std::move(key), eval(*e.parts[i + 1], scope));
    }
    return Value::dict(std::move(entries));
  }

  Value eval_item(const Expression& e, const ScopePtr& scope) {
    const Value of = eval(*e.parts[0], scope);
    const Expression& place = *e.parts[1];
    if (place.kind != Kind::slice) {
      const Value key = eval(place, scope);
      line_ = e.line;
      return runtime_.item(of, key);
    }
    Value bounds[3];
    for (size_t i = 0; i < 3; ++i) {
      if (place.parts[i] != nullptr) bounds[i] = eval(*place.parts[i], scope);
    }
    line_ = e.line;
    return runtime_.slice(of, bounds[0], bounds[1], bounds[2]);
  }

  /// Arguments of a call, filter or test: parts behind the first, and the rest.
  void eval_arguments(const Expression& e, const ScopePtr& scope, Arguments& out) {
    for (size_t i = 1; i < e.parts.size(); ++i) out.positional.push_back(eval(*e.parts[i], scope));
    for (const auto& [name, value] : e.named) out.named.emplace_back(name, eval(*value, scope));
    if (e.spread != nullptr) {
      for (Value& value : runtime_.items_of(eval(*e.spread, scope))) out.positional.push_back(std::move(value));
    }
    if (e.named_spread != nullptr) {
      const Value names = eval(*e.named_spread, scope);
      CRUMB_CHECK(names.dict() != nullptr, "what follows ** must be a dict, not a {}", names.type_name());
      for (const auto& [name, value] : names.dict()->entries) out.named.emplace_back(text_of(name, "a name"), value);
    }
  }

  Value eval_call(const Expression& e, const ScopePtr& scope, Arguments& arguments) {
    Value callee = eval(*e.parts[0], scope);
    eval_arguments(e, scope, arguments);
    return callee;
  }

  Value eval_filter_or_test(const Expression& e, const ScopePtr& scope) {
    const Value subject = eval(*e.parts[0], scope);
    Arguments arguments;
    eval_arguments(e, scope, arguments);
    line_ = e.line;
    if (e.kind == Kind::filter && e.text != "default" && e.text != "d") known(subject);
    return e.kind == Kind::filter ? runtime_.filter(e.text, subject, arguments)
                                  : Value(runtime_.test(e.text, subject, arguments));
  }

  Value eval_unary(const Expression& e, const ScopePtr& scope) {
    const Value value = eval(*e.parts[0], scope);
    require_defined(value);
    CRUMB_CHECK(value.is_number(), "bad operand type for unary {}: '{}'", e.text, value.type_name());
    if (value.is_float()) return e.text == "-" ? -value.number() : value.number();
    return e.text == "-" ? runtime_.binary("-", Value(0), value) : Value(value.whole());
  }

  Value eval_concat(const Expression& e, const ScopePtr& scope) {
    std::string out;
    for (const auto& part : e.parts) append(out, to_text(known(eval(*part, scope))));
    return runtime_.made(std::move(out));
  }

  Value eval_compare(const Expression& e, const ScopePtr& scope) {
    Value left = known(eval(*e.parts[0], scope));
    for (size_t i = 0; i < e.operators.size(); ++i) {
      Value right = known(eval(*e.parts[i + 1], scope));
      line_ = e.line;
      if (!compare(e.operators[i], left, right)) return false;
      left = std::move(right);
    }
    return true;
  }

  bool compare(const std::string& symbol, const Value& a, const Value& b) {
    if (symbol == "==") return runtime_.equal(a, b);
    if (symbol == "!=") return !runtime_.equal(a, b);
    if (symbol == "in") return runtime_.contains(b, a);
    if (symbol == "not in") return !runtime_.contains(b, a);
    const bool has_nan = (a.is_float() && a.number() != a.number()) || (b.is_float() && b.number() != b.number());
    if (symbol == "<") return runtime_.less(a, b);
    if (symbol == ">") return runtime_.less(b, a);
    return symbol == "<=" ? !runtime_.less(b, a) && !has_nan : !runtime_.less(a, b) && !has_nan;
  }

  Runtime runtime_;
  MissingNames missing_;
  ScopePtr root_;
  std::vector<ScopePtr> captured_;
  Value captured_text_;
  int levels_ = 0;
  int line_ = 1;  // of what runs; parts of an expression set it, so it is set again before the expression itself
};

}  // namespace

Template::Template(std::string_view source, std::string name, MissingNames missing)
    : name_(std::move(name)), body_(std::make_shared<const Body>(parse(source, name_))), missing_(missing) {}

std::string Template::render(const nlohmann::ordered_json& variables, std::time_t now) const {
  Interpreter interpreter(now == 0 ? std::time(nullptr) : now, variables, missing_);
  try {
    return interpreter.run(*body_);
  } catch (const Refusal& refusal) {
    throw Refusal(fmt::format("{}:{}: the template refuses: {}", name_, interpreter.line(), refusal.what()));
  } catch (const UserError& error) {
    throw UserError(fmt::format("{}:{}: {}", name_, interpreter.line(), error.what()));
  }
}

}  // namespace crumb::jinja
