// The tree of a template.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/jinja/value.h"

namespace crumb::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

struct Expression {
  enum class Kind {
    constant,   // value
    name,       // text
    list,       // parts
    tuple,      // parts
    dict,       // parts: key, value, key, value ...
    attribute,  // parts[0].text; as a target: a name of a namespace
    item,       // parts[0][parts[1]]
    slice,      // parts: begin, end, step, each may be null
    call,       // parts[0](parts[1] ..., named, *spread, **named_spread)
    filter,     // parts[0] | text(parts[1] ..., ...)
    test,       // parts[0] is text(parts[1] ..., ...)
    negation,   // not parts[0]
    unary,      // text parts[0], "+" or "-"
    binary,     // parts[0] text parts[1]
    concat,     // parts[0] ~ parts[1] ~ ...
    compare,    // parts[0] operators[0] parts[1] operators[1] parts[2] ...
    conjunction,
    disjunction,
    conditional,  // parts: value, condition, other value or null
    captured,     // the text of the block that a filter is applied to
  };
  Kind kind = Kind::constant;
  int line = 1;
  int levels = 1;  // of the tree below
  std::string text{};
  Value value{};
  std::vector<ExpressionPtr> parts{};
  std::vector<std::pair<std::string, ExpressionPtr>> named{};
  ExpressionPtr spread{}, named_spread{};
  std::vector<std::string> operators{};
};

struct Statement;
using Body = std::vector<Statement>;

struct Parameter {
  std::string name;
  ExpressionPtr fallback;  // null: none
};

struct Branch {
  ExpressionPtr condition;  // null: else
  Body body;
};

struct Statement {
  enum class Kind {
    text,          // name: the text
    print,         // values
    for_loop,      // target in values[0] if condition: body, otherwise
    if_chain,      // branches
    set,           // target = values[0]
    set_block,     // target = body, through values[0] if there is one
    macro,         // name(parameters): body
    call_block,    // values[0] is the call; parameters of caller(); body
    filter_block,  // values[0] applied to the body
    with,          // targets = values in the body
    generation,    // the body, in a scope of its own
    break_loop,
    continue_loop,
  };
  Kind kind = Kind::text;
  int line = 1;
  std::string name{};
  ExpressionPtr target{}, condition{};
  std::vector<ExpressionPtr> values{}, targets{};
  std::vector<Parameter> parameters{};
  std::vector<Branch> branches{};
  Body body{}, otherwise{};
  bool is_recursive = false;
};

}  // namespace crumb::jinja
