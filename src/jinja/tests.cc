// `is` tests.
#include <array>

#include "jinja/builtins.h"
#include "jinja/objects.h"
#include "jinja/operators.h"
#include "jinja/text.h"

namespace chorus::jinja {
namespace {

// The remainder where it is 0 or 1, any other number else.
int modulo(Interpreter& interpreter, const Value& value, const Value& by) {
  const Value rest = binary("%", value, by, interpreter.budget());
  return !rest.is_number() ? 2 : rest.real() == 0 ? 0 : rest.real() == 1 ? 1 : 2;
}

template <Kind kind>
bool is_kind(Interpreter&, const Value& value, const Items&) {
  return value.is(kind);
}

bool is_bool(const Value& value, bool flag) {
  return value.is(Kind::boolean) && value.boolean() == flag;
}

bool is_same(const Value& a, const Value& b, Budget& budget) {
  if (a.kind() != b.kind()) return false;
  if (a.identity() != nullptr && !a.is_string()) return a.identity() == b.identity();
  return equal(a, b, budget);
}

template <typename Symbol>
bool compares(Interpreter& interpreter, const Value& value, const Items& arguments) {
  return compare(Symbol::text, value, arguments[0], interpreter.budget());
}
struct Equal {
  static constexpr const char* text = "==";
};
struct NotEqual {
  static constexpr const char* text = "!=";
};
struct Less {
  static constexpr const char* text = "<";
};
struct LessEqual {
  static constexpr const char* text = "<=";
};
struct Greater {
  static constexpr const char* text = ">";
};
struct GreaterEqual {
  static constexpr const char* text = ">=";
};
struct In {
  static constexpr const char* text = "in";
};

using I = Interpreter;
using V = Value;

constexpr std::array<Test, 39> tests = {{
    {"defined", 0, [](I&, const V& v, const Items&) { return !v.is_undefined(); }, Reads::by_itself},
    {"undefined", 0, is_kind<Kind::undefined>, Reads::by_itself},
    {"none", 0, is_kind<Kind::none>, Reads::by_itself},
    {"boolean", 0, is_kind<Kind::boolean>, Reads::by_itself},
    {"true", 0, [](I&, const V& v, const Items&) { return is_bool(v, true); }, Reads::by_itself},
    {"false", 0, [](I&, const V& v, const Items&) { return is_bool(v, false); }, Reads::by_itself},
    {"integer", 0, is_kind<Kind::integer>, Reads::by_itself},
    {"float", 0, is_kind<Kind::real>, Reads::by_itself},
    {"number", 0, [](I&, const V& v, const Items&) { return v.is_number(); }, Reads::by_itself},
    {"string", 0, is_kind<Kind::string>, Reads::by_itself},
    {"mapping", 0, is_kind<Kind::dict>, Reads::by_itself},
    {"iterable", 0, [](I&, const V& v, const Items&) { return is_iterable(v); }, Reads::by_itself},
    {"sequence", 0,
     [](I&, const V& v, const Items&) {
       if (v.is(Kind::object)) return v.object()->is_subscriptable();
       return v.is_string() || v.is_sequence() || v.is(Kind::dict) || v.is_undefined();
     },
     Reads::by_itself},
    {"callable", 0,
     [](I&, const V& v, const Items&) { return v.is_undefined() || (v.is(Kind::object) && v.object()->is_callable()); },
     Reads::by_itself},
    {"odd", 0, [](I& i, const V& v, const Items&) { return modulo(i, v, V::of(2)) == 1; }},
    {"even", 0, [](I& i, const V& v, const Items&) { return modulo(i, v, V::of(2)) == 0; }},
    {"divisibleby", 1, [](I& i, const V& v, const Items& a) { return modulo(i, v, a[0]) == 0; }},
    {"lower", 0, [](I& i, const V& v, const Items&) { return is_class(ReadText(v, i.budget()), "lower"); }},
    {"upper", 0, [](I& i, const V& v, const Items&) { return is_class(ReadText(v, i.budget()), "upper"); }},
    {"sameas", 1, [](I& i, const V& v, const Items& a) { return is_same(v, a[0], i.budget()); }, Reads::by_itself},
    {"escaped", 0, [](I&, const V& v, const Items&) { return v.is_markup(); }, Reads::by_itself},
    {"filter", 0, [](I&, const V& v, const Items&) { return v.is_string() && find_filter(v.string()) != nullptr; },
     Reads::by_itself},
    {"test", 0, [](I&, const V& v, const Items&) { return v.is_string() && find_test(v.string()) != nullptr; },
     Reads::by_itself},
    {"in", 1, compares<In>, Reads::by_itself},
    {"==", 1, compares<Equal>, Reads::by_itself},
    {"eq", 1, compares<Equal>, Reads::by_itself},
    {"equalto", 1, compares<Equal>, Reads::by_itself},
    {"!=", 1, compares<NotEqual>, Reads::by_itself},
    {"ne", 1, compares<NotEqual>, Reads::by_itself},
    {">", 1, compares<Greater>, Reads::by_itself},
    {"gt", 1, compares<Greater>, Reads::by_itself},
    {"greaterthan", 1, compares<Greater>, Reads::by_itself},
    {">=", 1, compares<GreaterEqual>, Reads::by_itself},
    {"ge", 1, compares<GreaterEqual>, Reads::by_itself},
    {"<", 1, compares<Less>, Reads::by_itself},
    {"lt", 1, compares<Less>, Reads::by_itself},
    {"lessthan", 1, compares<Less>, Reads::by_itself},
    {"<=", 1, compares<LessEqual>, Reads::by_itself},
    {"le", 1, compares<LessEqual>, Reads::by_itself},
}};

}  // namespace

std::span<const Test> all_tests() {
  return tests;
}

const Test* find_test(std::string_view name) {
  for (const Test& test : tests) {
    if (test.name == name) return &test;
  }
  return nullptr;
}

}  // namespace chorus::jinja
