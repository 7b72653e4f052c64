// Python's operators on template values.
#pragma once

#include <string_view>

#include "jinja/value.h"

namespace chorus::jinja {

// + - * / // % **. Raises as Python does; integers have 64 bits.
Value binary(std::string_view symbol, const Value& left, const Value& right, Budget& budget);
Value negate(const Value& value);
Value plus(const Value& value);
// == != < <= > >= in, not in.
bool compare(std::string_view symbol, const Value& left, const Value& right, Budget& budget);

// value[begin:end:step]; nullopt for a type without slices. Each bound is an integer or None.
std::optional<Value> slice(const Value& value, const Value& begin, const Value& end, const Value& step, Budget& budget);

// "..." % value and "...".format(...).
class Interpreter;
// `escape`: the format is markup, so text put into it is escaped.
String format_percent(std::string_view format, const Value& value, bool escape, Budget& budget);
String format_braces(std::string_view format, const Arguments& arguments, Interpreter& interpreter);
// Appends format(value, specification): the part after the colon in braces.
void append_formatted(const Value& value, std::string_view specification, String* out, Budget& budget);

}  // namespace chorus::jinja
