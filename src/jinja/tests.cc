// `is` tests.
#include <array>

#include "jinja/builtins.h"
#include "jinja/objects.h"
#include "jinja/operators.h"
#include "jinja/text.h"

namespace chorus::jinja {
namespace {

std::int64_t modulo(Interpreter& interpreter, const Value& value, const Value& by) {
  const Value rest = binary("%", value, by, interpreter.budget());
  return rest.is_number() ? static_cast<std::int64_t>(rest.real() == 0 ? 0 : rest.real() == 1 ? 1 : 2) : 2;
}

template <Kind kind>
bool is_kind(Interpreter&, const Value& value, const Items&) {
  return value.is(kind);
}

bool is_bool(const Value& value, bool flag) {
  return value.is(Kind::boolean) && value.boolean() == flag;
}

bool is_same(const Value& a, const Value& b) {
  if (a.kind() != b.kind()) return false;
  if (a.identity() != nullptr && !a.is_string()) return a.identity() == b.identity();
  Budget plain{TemplateLimits()};
  return equal(a, b, plain);
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
    {"defined", 0, [](I&, const V& v, const Items&) { return !v.is_undefined(); }},
    {"undefined", 0, is_kind<Kind::undefined>},
    {"none", 0, is_kind<Kind::none>},
    {"boolean", 0, is_kind<Kind::boolean>},
    {"true", 0, [](I&, const V& v, const Items&) { return is_bool(v, true); }},
    {"false", 0, [](I&, const V& v, const Items&) { return is_bool(v, false); }},
    {"integer", 0, is_kind<Kind::integer>},
    {"float", 0, is_kind<Kind::real>},
    {"number", 0, [](I&, const V& v, const Items&) { return v.is_number(); }},
    {"string", 0, is_kind<Kind::string>},
    {"mapping", 0, is_kind<Kind::dict>},
    {"iterable", 0, [](I&, const V& v, const Items&) { return is_iterable(v); }},
    {"sequence", 0,
     [](I&, const V& v, const Items&) {
       if (v.is(Kind::object)) return v.object()->is_subscriptable();
       return v.is_string() || v.is_sequence() || v.is(Kind::dict) || v.is_undefined();
     }},
    {"callable", 0,
     [](I&, const V& v, const Items&) {
       return v.is_undefined() || (v.is(Kind::object) && v.object()->is_callable());
     }},
    {"odd", 0, [](I& i, const V& v, const Items&) { return modulo(i, v, V::of(2)) == 1; }},
    {"even", 0, [](I& i, const V& v, const Items&) { return modulo(i, v, V::of(2)) == 0; }},
    {"divisibleby", 1, [](I& i, const V& v, const Items& a) { return modulo(i, v, a[0]) == 0; }},
    {"lower", 0, [](I& i, const V& v, const Items&) { return is_class(to_text(v, i.budget()), "lower"); }},
    {"upper", 0, [](I& i, const V& v, const Items&) { return is_class(to_text(v, i.budget()), "upper"); }},
    {"sameas", 1, [](I&, const V& v, const Items& a) { return is_same(v, a[0]); }},
    {"escaped", 0, [](I&, const V& v, const Items&) { return v.is_markup(); }},
    {"filter", 0, [](I&, const V& v, const Items&) { return v.is_string() && find_filter(v.string()) != nullptr; }},
    {"test", 0, [](I&, const V& v, const Items&) { return v.is_string() && find_test(v.string()) != nullptr; }},
    {"in", 1, compares<In>},
    {"==", 1, compares<Equal>},
    {"eq", 1, compares<Equal>},
    {"equalto", 1, compares<Equal>},
    {"!=", 1, compares<NotEqual>},
    {"ne", 1, compares<NotEqual>},
    {">", 1, compares<Greater>},
    {"gt", 1, compares<Greater>},
    {"greaterthan", 1, compares<Greater>},
    {">=", 1, compares<GreaterEqual>},
    {"ge", 1, compares<GreaterEqual>},
    {"<", 1, compares<Less>},
    {"lt", 1, compares<Less>},
    {"lessthan", 1, compares<Less>},
    {"<=", 1, compares<LessEqual>},
    {"le", 1, compares<LessEqual>},
}};

}  // namespace

const Test* find_test(std::string_view name) {
  for (const Test& test : tests) {
    if (test.name == name) return &test;
  }
  return nullptr;
}

}  // namespace chorus::jinja
