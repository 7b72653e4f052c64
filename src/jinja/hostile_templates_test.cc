// Templates are untrusted: whatever one asks for is an error of its row, in bounded time and memory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <time.h>

#include <algorithm>
#include <climits>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "jinja/builtins.h"
#include "jinja/chat_template.h"
#include "testing/slowness.h"

namespace chorus {
namespace {

using testing::HasSubstr;

constexpr double render_s_max = 1;
constexpr long resident_kb_max = 200 << 10;  // more than before the first render

double cpu_s() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

long peak_resident_kb() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss;
}

std::string render(const std::string& source, const Json& variables = Json::object(),
                   const RenderOptions& options = {}) {
  const Result<Template> parsed = Template::parse(source, "t");
  if (!parsed.ok()) return "error: " + parsed.error().message;
  const Result<std::string> text = parsed->render(variables, options);
  return text.ok() ? *text : "error: " + text.error().message;
}

std::string repeated(std::string_view text, std::size_t bytes) {
  std::string out;
  while (out.size() < bytes) out += text;
  return out;
}

// Large values of each kind, of about `bytes` bytes.
Json large_variables(std::size_t bytes) {
  Json variables = Json::object();
  variables["s"] = repeated("a", bytes);
  if (bytes > (8u << 20)) return variables;
  variables["words"] = repeated("ab <1>\n", bytes);
  variables["unicode"] = repeated("\xc3\xa9\xe4\xb8\x96", bytes);
  variables["digits"] = repeated("7", bytes);
  variables["braces"] = repeated("{0}%s\t", bytes);
  Json list = Json::array();
  Json dict = Json::object();
  for (std::size_t i = 0; i < std::min<std::size_t>(bytes / 100, 50000); ++i)
    list.push_back(i % 2 == 0 ? Json("x" + std::to_string(i)) : Json(i));
  auto& fields = dict.get_ref<Json::object_t&>();
  for (std::size_t i = 0; i < std::min<std::size_t>(bytes / 200, 10000); ++i)
    fields.emplace_back("k" + std::to_string(i), Json(i));
  variables["list"] = std::move(list);
  variables["dict"] = std::move(dict);
  return variables;
}

const std::vector<std::string> selves = {"s", "words", "unicode", "digits", "braces", "list", "dict", "7"};
const std::vector<std::string> arguments = {"s", "list", "1", "-9223372036854775807", "4611686018427387905"};

std::size_t parameter_count(const jinja::Function& function) {
  if (function.parameters == nullptr) return 2;
  const std::string_view names = function.parameters;
  return names.empty() ? 0 : static_cast<std::size_t>(std::ranges::count(names, ' ')) + 1;
}

// Every filter, method, test and operator with every large value on every side.
std::vector<std::string> all_expressions() {
  std::vector<std::string> expressions;
  const auto add_calls = [&](const std::string& name, const std::string& before, std::size_t parameters) {
    for (const std::string& self : selves) {
      expressions.push_back("(" + self + ")" + before + name + (before == "." ? "()" : ""));
      for (const std::string& argument : arguments) {
        std::string list;
        for (std::size_t n = 0; n < parameters; ++n) {
          list += (n == 0 ? "" : ", ") + argument;
          expressions.push_back("(" + self + ")" + before + name + "(" + list + ")");
        }
      }
    }
  };
  for (const auto table : {jinja::string_filters(), jinja::sequence_filters(), jinja::number_filters()}) {
    for (const auto& filter : table) {
      // map, select and the like take names.
      const bool by_name =
          filter.name == "map" || filter.name.starts_with("select") || filter.name.starts_with("reject");
      if (!by_name) add_calls(std::string(filter.name), "|", parameter_count(filter));
    }
  }
  for (const std::string by : {"'upper'", "'tojson'", "attribute='x'", "'wordcount'"}) {
    for (const std::string& self : selves) expressions.push_back("(" + self + ")|map(" + by + ")|list");
  }
  for (const auto& method : jinja::string_methods()) add_calls(std::string(method.name), ".", parameter_count(method));
  for (const std::string method : {"items", "keys", "values", "get", "copy", "index", "count"})
    add_calls(method, ".", 1);
  for (const auto& test : jinja::all_tests()) {
    const std::string name(test.name);
    if (name.find_first_of("=<>") == std::string::npos && name != "in") add_calls(name, " is ", test.argument_count);
    for (const std::string& self : selves) {
      for (const std::string filter : {"select", "reject"}) {
        expressions.push_back("(" + self + ")|" + filter + "('" + name + (test.argument_count == 1 ? "', s)" : "')"));
      }
    }
  }
  for (const std::string symbol :
       {"+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", "<=", ">", ">=", "in", "not in", "and", "or"}) {
    for (const std::string& left : selves) {
      for (const std::string& right : arguments) expressions.push_back(left + " " + symbol + " " + right);
      expressions.push_back(left + " " + symbol + " " + left);
    }
  }
  for (const std::string& self : selves) {
    for (const std::string key :
         {"[s]", "[list]", "[dict]", "[0]", "[-1]", "[9223372036854775807]", "[::2]", "[::-1]", "[1:]", "[:-1]",
          "[9:99:9223372036854775807]", ".x", "()", "(s)", "(*list)", "(**dict)"}) {
      expressions.push_back("(" + self + ")" + key);
    }
  }
  for (const std::string function :
       {"range", "dict", "namespace", "cycler", "joiner", "raise_exception", "strftime_now"}) {
    for (const std::string& argument : arguments) {
      expressions.push_back(function + "(" + argument + ")");
      expressions.push_back(function + "(" + argument + ", " + argument + ")");
    }
    expressions.push_back(function + "(*list)");
    expressions.push_back(function + "(**dict)");
  }
  return expressions;
}

struct Measured {
  double s;
  std::string expression;
};

// The variables that an expression names. Kept for the next one: making them takes longer than most expressions.
class Named {
 public:
  explicit Named(const Json& variables) : variables_(variables) {}
  const Json& in(const std::string& expression) {
    std::string names;
    for (const auto& [name, value] : variables_.items()) {
      if (expression.find(name) != std::string::npos) names += name + " ";
    }
    const auto [at, is_new] = known_.try_emplace(names, Json::object());
    for (const auto& [name, value] : variables_.items()) {
      if (is_new && expression.find(name) != std::string::npos) at->second[name] = value;
    }
    return at->second;
  }

 private:
  const Json& variables_;
  std::map<std::string, Json> known_;
};

// Goal: no expression costs more than its steps pay for. Method: each is evaluated 5,000 times, or until it has used a
// part of the steps that a render has; those that would take longest are then run with all of them.
void check_all(std::size_t bytes, const std::vector<std::string>& expressions) {
  const Json variables = large_variables(bytes);
  Named named(variables);
  for (const std::string& expression : expressions) named.in(expression);
  const long before_kb = peak_resident_kb();
  RenderOptions quick;
  quick.limits.steps_max = 15'000 + bytes / 24;  // the variables alone cost the latter
  std::vector<Measured> measured;
  const auto loop = [](const std::string& expression) {
    return "{% for i in range(5000) %}{% set y = " + expression + " %}{% endfor %}";
  };
  for (const std::string& expression : expressions) {
    const double begin = cpu_s();
    const std::string got = render(loop(expression), named.in(expression), quick);
    measured.push_back({cpu_s() - begin, expression});
  }
  std::ranges::sort(measured, [](const Measured& a, const Measured& b) { return a.s > b.s; });
  measured.resize(std::min<std::size_t>(measured.size(), 12));
  for (const auto& [quick_s, expression] : measured) {
    const double begin = cpu_s();
    const std::string got = render(loop(expression), named.in(expression));
    const double s = cpu_s() - begin;
    EXPECT_LT(s, render_s_max * slowness) << expression << ": " << got.substr(0, 200);
    if (std::getenv("CHORUS_SHOW_COSTS") != nullptr) {
      fmt::print("{:6.3f} s quick, {:6.3f} s: {} -> {}\n", quick_s, s, expression, got.substr(0, 70));
    }
  }
  EXPECT_LT(peak_resident_kb() - before_kb, slowness == 1 ? resident_kb_max : LONG_MAX);
}

// Goal: what fuzzing has found stays mended.
TEST(HostileTemplates, FindingsAreErrorsOrResultsInBoundedTime) {
  const Json variables = {{"s", "abc"}, {"messages", {{{"role", "user"}, {"content", "hi"}}}}};
  std::size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(CHORUS_TEST_DATA "/../../fuzz/corpus/template_text")) {
    std::ifstream file(entry.path(), std::ios::binary);
    const std::string source(std::istreambuf_iterator<char>(file), {});
    const double begin = cpu_s();
    render(source, variables);
    EXPECT_LT(cpu_s() - begin, render_s_max * slowness) << entry.path();
    ++count;
  }
  EXPECT_GT(count, 20u);
}

TEST(HostileTemplates, ValuesAreBoundedInDepthAndSize) {
  const auto error_of = [](const std::string& source) { return render(source, {{"s", "abc"}}); };
  const std::string nest = "{% set ns = namespace(x=[]) %}{% for i in range(100000) %}";
  EXPECT_THAT(error_of(nest + "{% set ns.x = [ns.x] %}{% endfor %}"), HasSubstr("nested deeper than 500"));
  EXPECT_THAT(error_of(nest + "{% set ns.x = {'a': ns.x} %}{% endfor %}"), HasSubstr("nested deeper than 500"));
  EXPECT_THAT(error_of(nest + "{% set ns.x = (ns.x,) %}{% endfor %}"), HasSubstr("nested deeper than 500"));
  EXPECT_THAT(error_of(nest + "{% set ns.x = cycler(ns.x) %}{% endfor %}"), HasSubstr("nested deeper than 500"));
  EXPECT_THAT(error_of(nest + "{% set ns.x = joiner(ns.x) %}{% endfor %}"), HasSubstr("nested deeper than 500"));
  EXPECT_THAT(error_of(nest + "{% set ns.x = [ns.x]|map('list') %}{% endfor %}"), HasSubstr("nested deeper than 500"));
  // Namespaces may form a chain of any length: the interpreter owns them all.
  EXPECT_EQ(
      error_of("{% set ns = namespace() %}{% for i in range(50000) %}{% set ns.x = namespace(y=ns.x) %}{% endfor %}ok"),
      "ok");
  EXPECT_THAT(error_of("{{ s.ljust(4611686018427387905, '\xf0\x9f\x98\x80') }}"), HasSubstr("limit"));
  EXPECT_THAT(error_of("{{ ([s * 9999999] * 120)|join }}"), HasSubstr("limit"));
  EXPECT_THAT(error_of("{{ [1] * 4611686018427387905 }}"), HasSubstr("limit"));
}

// Goal: what a value takes is given back when it is gone. Method: a loop makes many times the limit in all.
TEST(HostileTemplates, MemoryIsGivenBack) {
  EXPECT_EQ(render("{% for i in range(300) %}{% set x = 'a' * 1000000 %}{% set y = [x] * 10 %}{% endfor %}ok"), "ok");
}

// Goal: numbers at the ends of their range neither overflow nor wrap (UBSan watches this test).
TEST(HostileTemplates, NumbersAtTheirEnds) {
  EXPECT_EQ(render("{{ range(10)[9223372036854775807:] }}"), "range(10, 10)");
  EXPECT_EQ(render("{{ 'abc'.ljust(-9223372036854775807-1) }}"), "abc");
  EXPECT_EQ(render("{{ 'abc'.zfill(-9223372036854775807-1) }}"), "abc");
  EXPECT_EQ(render("{{ 'abc'|truncate(9223372036854775807) }}"), "abc");
  EXPECT_EQ(render("{{ 'abc'[9223372036854775807] }}"), "");
  EXPECT_EQ(render("{{ '%.1048576g' % 0.5 }}"), "0.5");
  EXPECT_EQ(render("{{ ('%.5000f' % 0.5)|length }} {{ ('%.5000e' % 0.5)[-4:] }}"), "5002 e-01");
}

TEST(HostileTemplates, EveryOperationPaysForWhatItReads) {
  check_all(1 << 20, all_expressions());
}

TEST(HostileTemplates, EveryOperationPaysForWhatItReadsNearTheMemoryLimit) {
  std::vector<std::string> expressions = all_expressions();
  std::erase_if(expressions, [](const std::string& one) {
    const bool more = one.find_first_of("0123456789,") != std::string::npos || one.find("list") != std::string::npos;
    return more || !one.starts_with("(s)");
  });
  check_all(30 << 20, expressions);
}

}  // namespace
}  // namespace chorus
