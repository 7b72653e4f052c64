// What a template finds without being given it: filters, tests, methods, global functions. Each is a row of a table
// that one can read; `parameters` are the names by which arguments may be given, in order.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <string_view>

#include "jinja/interpreter.h"
#include "jinja/value.h"

namespace chorus::jinja {

// The arguments of a call, sorted into parameters.
class Bound {
 public:
  // `parameters`: names with a space between; nullptr leaves all in raw(). A parameter "=name" is required.
  Bound(std::string_view function, const char* parameters, const Arguments& arguments);
  const Value* operator[](std::size_t index) const { return values_[index]; }
  bool flag(std::size_t index, bool otherwise) const;
  std::int64_t integer(std::size_t index, std::int64_t otherwise) const;
  std::string_view text(std::size_t index, std::string_view otherwise) const;
  const Arguments& raw() const { return arguments_; }

 private:
  static constexpr std::size_t parameters_max = 4;
  const Arguments& arguments_;
  std::array<const Value*, parameters_max> values_ = {};
};

// How much of the texts that it is given an operation reads, for the budget: a row of the tables that does not say is
// taken for one that looks at every character.
enum class Reads : std::uint8_t { characters, bytes, by_itself };

struct Function {
  std::string_view name;
  const char* parameters;
  Value (*apply)(Interpreter& interpreter, const Value& self, const Bound& arguments);
  Reads reads = Reads::characters;
};
struct Test {
  std::string_view name;
  std::size_t argument_count;
  bool (*apply)(Interpreter& interpreter, const Value& value, const Items& arguments);
  Reads reads = Reads::characters;
};

// Charge what is read, then call.
Value apply(const Function& function, Interpreter& interpreter, const Value& self, const Arguments& arguments);
bool apply(const Test& test, Interpreter& interpreter, const Value& value, const Arguments& arguments);

const Function* find_filter(std::string_view name);
const Test* find_test(std::string_view name);
// The method of a value's type, nullptr if it has none of that name.
const Function* find_method(const Value& self, std::string_view name);
// A method that changes its object: templates may not have it (jinja2's ImmutableSandboxedEnvironment).
bool is_unsafe_method(const Value& self, std::string_view name);
std::optional<Value> find_global(std::string_view name, Budget& budget);

Value bind_method(const Value& self, const Function* method, Budget& budget);

// Parts of these tables; each in its own file.
std::span<const Function> string_filters();
std::span<const Function> sequence_filters();
std::span<const Function> number_filters();
std::span<const Function> string_methods();
std::span<const Test> all_tests();

// "a.b.0": attributes and items in turn, as map(attribute=...) and sort(attribute=...) name them. `otherwise` stands
// for any that is not there.
Value attribute_path(Interpreter& interpreter, Value value, const Value& path, const Value* otherwise = nullptr);

}  // namespace chorus::jinja
