// The parsed template: expressions and statements, immutable after parsing.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "jinja/value.h"

namespace chorus::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<const Expression>;

struct CallArguments {
  std::vector<ExpressionPtr> positional;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
  ExpressionPtr star;         // *expression
  ExpressionPtr double_star;  // **expression
};

struct Expression {
  enum class Type {
    constant,  // constant
    name,      // name
    tuple,
    list,         // children
    dict,         // children: key, value, key, value ...
    attribute,    // children[0].name
    item,         // children[0][children[1]]
    slice,        // children: begin, end, step; nullptr where left out
    call,         // children[0](arguments)
    filter,       // children[0]|name(arguments); children[0] is nullptr in a filter block
    test,         // children[0] is name(arguments)
    conditional,  // children[1] if children[0] else children[2] (may be nullptr)
    logical_and,
    logical_or,
    logical_not,
    negate,
    plus,
    compare,              // children[0] operators[0] children[1] operators[1] ...
    binary,               // children[0] name children[1]
    concat,               // children joined by ~
    namespace_attribute,  // a target of set only: name.attribute_name
  };
  Type type;
  int line = 0;
  int depth = 1;  // of nesting below, itself included
  std::string name;
  std::string attribute_name;
  Value constant;
  std::vector<ExpressionPtr> children;
  std::vector<std::string> operators;
  CallArguments arguments;
};

struct Statement;
using Body = std::vector<std::unique_ptr<const Statement>>;

struct Parameter {
  std::string name;
  ExpressionPtr default_value;
};

// A macro, or the body of a call block.
struct MacroDefinition {
  std::string name;
  std::vector<Parameter> parameters;
  Body body;
  bool uses_caller = false;
  bool uses_kwargs = false;
  bool uses_varargs = false;
};

struct Statement {
  enum class Type {
    data,          // text
    print,         // expressions
    branch,        // if/elif: branches in order; else: body
    loop,          // for targets[0] in expressions[0] if condition: body, else: else_body
    assign,        // targets[0] = expressions[0]
    assign_block,  // targets[0] = body through filter (may be nullptr)
    macro,         // macro
    call,          // expressions[0] (a call) with macro as its caller
    filter_block,  // body through filter
    with,          // targets[i] = expressions[i]: body
    scope,         // body in its own scope: block, generation
    break_loop,
    continue_loop,
  };
  Type type;
  int line = 0;
  std::string text;
  std::vector<ExpressionPtr> targets;
  std::vector<ExpressionPtr> expressions;
  ExpressionPtr condition;
  ExpressionPtr filter;
  std::vector<std::pair<ExpressionPtr, Body>> branches;
  Body body;
  Body else_body;
  bool recursive = false;
  MacroDefinition macro;
};

}  // namespace chorus::jinja
