// Argument binding and the global functions.
#include "jinja/builtins.h"

#include <algorithm>
#include <array>
#include <ctime>

#include "jinja/objects.h"
#include "jinja/operators.h"
#include "jinja/text.h"

namespace chorus::jinja {

Bound::Bound(std::string_view function, const char* parameters, const Arguments& arguments) : arguments_(arguments) {
  if (parameters == nullptr) return;
  std::array<std::string_view, parameters_max> names;
  std::array<bool, parameters_max> required{};
  std::size_t count = 0;
  for (std::string_view rest = parameters; !rest.empty(); ++count) {
    const std::size_t end = std::min(rest.find(' '), rest.size());
    std::string_view name = rest.substr(0, end);
    required[count] = name.starts_with("=");
    if (required[count]) name.remove_prefix(1);
    names[count] = name;
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  if (arguments.positional.size() > count) {
    raise("TypeError", "{}() takes at most {} argument(s) ({} given)", function, count, arguments.positional.size());
  }
  for (std::size_t i = 0; i < arguments.positional.size(); ++i) values_[i] = &arguments.positional[i];
  const auto names_end = names.begin() + static_cast<std::ptrdiff_t>(count);
  for (const Argument& argument : arguments.named) {
    const auto known = std::find(names.begin(), names_end, argument.name);
    if (known == names_end)
      raise("TypeError", "{}() got an unexpected keyword argument {}", function, shown(argument.name));
    const Value*& slot = values_[static_cast<std::size_t>(known - names.begin())];
    if (slot != nullptr) raise("TypeError", "{}() got multiple values for argument '{}'", function, argument.name);
    slot = &argument.value;
  }
  for (std::size_t i = 0; i < count; ++i) {
    if (required[i] && values_[i] == nullptr)
      raise("TypeError", "{}() missing a required argument: '{}'", function, names[i]);
  }
}

bool Bound::flag(std::size_t index, bool otherwise) const {
  return values_[index] != nullptr ? truth(*values_[index]) : otherwise;
}

std::int64_t Bound::integer(std::size_t index, std::int64_t otherwise) const {
  const Value* value = values_[index];
  if (value == nullptr) return otherwise;
  if (value->is_undefined()) value->raise_undefined();
  if (!value->is_integral()) raise("TypeError", "'{}' object cannot be interpreted as an integer", value->type_name());
  return value->index();
}

std::string_view Bound::text(std::size_t index, std::string_view otherwise) const {
  const Value* value = values_[index];
  if (value == nullptr) return otherwise;
  if (value->is_undefined()) value->raise_undefined();
  if (!value->is_string()) raise("TypeError", "expected str, not {}", value->type_name());
  return value->string();
}

namespace {

void charge(Reads reads, const Value& value, Budget& budget) {
  if (!value.is_string()) return;
  if (reads == Reads::characters) budget.read_characters(value.string().size());
  if (reads == Reads::bytes) budget.read_bytes(value.string().size());
}

void charge(Reads reads, const Value& self, const Arguments& arguments, Budget& budget) {
  budget.step(2 + arguments.positional.size() + arguments.named.size());
  charge(reads, self, budget);
  for (const Value& value : arguments.positional) charge(reads, value, budget);
  for (const Argument& argument : arguments.named) charge(reads, argument.value, budget);
}

}  // namespace

Value apply(const Function& function, Interpreter& interpreter, const Value& self, const Arguments& arguments) {
  const Bound bound(function.name, function.parameters, arguments);
  charge(function.reads, self, arguments, interpreter.budget());
  return function.apply(interpreter, self, bound);
}

bool apply(const Test& test, Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  if (arguments.positional.size() != test.argument_count || !arguments.named.empty()) {
    raise("TypeError", "the test '{}' takes {} argument(s)", test.name, test.argument_count);
  }
  charge(test.reads, value, arguments, interpreter.budget());
  return test.apply(interpreter, value, arguments.positional);
}

namespace {

Value make_range(Interpreter& interpreter, const Value&, const Bound& arguments) {
  std::int64_t begin = 0;
  std::int64_t end = arguments.integer(0, 0);
  if (arguments[1] != nullptr) begin = std::exchange(end, arguments.integer(1, 0));
  const std::int64_t step = arguments.integer(2, 1);
  if (step == 0) raise("ValueError", "range() arg 3 must not be zero");
  __int128 count = 0;
  if (step > 0 && begin < end) count = (static_cast<__int128>(end) - begin - 1) / step + 1;
  if (step < 0 && begin > end) count = (static_cast<__int128>(begin) - end - 1) / -static_cast<__int128>(step) + 1;
  constexpr int range_max = 100000;  // jinja2.sandbox.MAX_RANGE
  if (count > range_max) {
    raise("OverflowError", "Range too big. The sandbox blocks ranges larger than MAX_RANGE ({}).", range_max);
  }
  return Value::of(make_object<Range>(interpreter.budget(), begin, step, static_cast<std::size_t>(count)));
}

// dict(...) and namespace(...): a mapping or pairs, then keywords.
Dict collect(Interpreter& interpreter, const Arguments& arguments) {
  Budget& budget = interpreter.budget();
  Dict dict(budget);
  if (arguments.positional.size() > 1)
    raise("TypeError", "dict expected at most 1 argument, got {}", arguments.positional.size());
  for (const Value& source : arguments.positional) {
    if (source.is(Kind::dict)) {
      budget.read_items(source.dict().size());
      dict = source.dict();
      continue;
    }
    for (const Value& entry : iterate(source, budget)) {
      const Items pair = iterate(entry, budget);
      if (pair.size() != 2)
        raise("ValueError", "dictionary update sequence element has length {}; 2 is required", pair.size());
      dict.set(pair[0], pair[1], budget);
    }
  }
  for (const Argument& argument : arguments.named) dict.set(Value::of(argument.name, budget), argument.value, budget);
  return dict;
}

Value make_dict(Interpreter& interpreter, const Value&, const Bound& arguments) {
  return Value::of(collect(interpreter, arguments.raw()));
}

Value make_namespace(Interpreter& interpreter, const Value&, const Bound& arguments) {
  Budget& budget = interpreter.budget();
  auto object = make_object<Namespace>(budget, budget);
  const Dict values = collect(interpreter, arguments.raw());
  for (const auto& [name, value] : values.entries()) {
    if (name.is_string()) object->set(name.string(), value, budget);
  }
  interpreter.own(object);
  return Value::of(object);
}

Value make_cycler(Interpreter& interpreter, const Value&, const Bound& arguments) {
  if (arguments.raw().positional.empty()) raise("RuntimeError", "at least one item has to be provided");
  Items items(arguments.raw().positional, interpreter.budget());
  return Value::of(make_object<Cycler>(interpreter.budget(), std::move(items)));
}

Value make_joiner(Interpreter& interpreter, const Value&, const Bound& arguments) {
  Budget& budget = interpreter.budget();
  return Value::of(make_object<Joiner>(budget, arguments[0] != nullptr ? *arguments[0] : Value::of(", ", budget)));
}

Value raise_exception(Interpreter& interpreter, const Value&, const Bound& arguments) {
  constexpr std::size_t bytes_max = 64 << 10;  // of a message that becomes a row's error
  const ReadText message(*arguments[0], interpreter.budget());
  std::size_t end = std::min(message.view().size(), bytes_max);
  while (end > 0 && end < message.view().size() && (static_cast<unsigned char>(message.view()[end]) & 0xc0) == 0x80) {
    --end;
  }
  throw TemplateError{ErrorCode::invalid_argument, "", std::string(message.view().substr(0, end)), 0};
}

Value strftime_now(Interpreter& interpreter, const Value&, const Bound& arguments) {
  const std::string_view format = arguments.text(0, "");
  const auto seconds = static_cast<std::time_t>(interpreter.now_unix_s());
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  if (format.empty() || format.size() > 1000) return Value::of("", interpreter.budget());
  interpreter.budget().step(4 * format.size());
  std::array<char, 16384> buffer;
  // The trailing blank tells an empty result from a buffer that is too small.
  const std::size_t size = std::strftime(buffer.data(), buffer.size(), (std::string(format) + " ").c_str(), &parts);
  if (size == 0) raise("ValueError", "the date format gives more than {} bytes", buffer.size());
  return Value::of(std::string_view(buffer.data(), size - 1), interpreter.budget());
}

constexpr std::array<Function, 7> globals = {{
    {"range", "=start stop step", make_range},
    {"dict", nullptr, make_dict},
    {"namespace", nullptr, make_namespace},
    {"cycler", nullptr, make_cycler},
    {"joiner", "sep", make_joiner},
    {"raise_exception", "=message", raise_exception},
    {"strftime_now", "=format", strftime_now},
}};

// A function, or a method with its object.
class Callable : public Object {
 public:
  Callable(Value self, const Function* function) : Object(self.depth()), self_(std::move(self)), function_(function) {}
  const char* type_name() const override { return "builtin_function_or_method"; }
  bool is_callable() const override { return true; }
  Value call(Interpreter& interpreter, Arguments arguments) override {
    return apply(*function_, interpreter, self_, arguments);
  }

 private:
  Value self_;
  const Function* function_;
};

}  // namespace

std::optional<Value> find_global(std::string_view name, Budget& budget) {
  for (const Function& function : globals) {
    if (function.name == name) return bind_method(Value(), &function, budget);
  }
  return std::nullopt;
}

Value bind_method(const Value& self, const Function* method, Budget& budget) {
  return Value::of(make_object<Callable>(budget, self, method));
}

const Function* find_filter(std::string_view name) {
  for (const std::span<const Function> table : {string_filters(), sequence_filters(), number_filters()}) {
    for (const Function& filter : table) {
      if (filter.name == name) return &filter;
    }
  }
  return nullptr;
}

Value attribute_path(Interpreter& interpreter, Value value, const Value& path, const Value* otherwise) {
  const auto step = [&](const Value& key) {
    value = interpreter.item(value, key);
    if (value.is_undefined() && otherwise != nullptr) value = *otherwise;
  };
  if (!path.is_string()) {
    if (!path.is_none()) step(path);
    return value;
  }
  std::string_view rest = path.string();
  interpreter.budget().read_characters(rest.size());
  for (;;) {
    const std::size_t end = std::min(rest.find('.'), rest.size());
    const std::string_view part = rest.substr(0, end);
    const bool is_index =
        !part.empty() && part.size() < 10 && part.find_first_not_of("0123456789") == std::string_view::npos;
    step(is_index ? Value::of(std::stoi(std::string(part))) : Value::of(part, interpreter.budget()));
    if (end == rest.size()) return value;
    rest.remove_prefix(end + 1);
  }
}

}  // namespace chorus::jinja
