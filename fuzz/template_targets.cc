// Templates as text, and expressions made from the language itself.
#include <array>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "jinja/builtins.h"
#include "jinja/chat_template.h"
#include "targets.h"

namespace chorus::fuzz {

const Json& template_variables() {
  static const Json json = Json::parse(
      R"({"s": "a b <c> 7\n\tx", "u": "é世\uFFFD😀", "n": 7, "m": -9223372036854775808, "x": 9223372036854775807, "r": 0.1,
          "t": true, "z": null, "l": [3, "b", null, [1, 2], {"k": 1}], "d": {"k": "v", "a": {"b": [1, 2]}, "1": 2},
          "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "there"}],
          "add_generation_prompt": true, "bos_token": "<s>"})");
  return json;
}

namespace {

void render(std::string_view source) {
  const auto parsed = Template::parse(source, "fuzz");
  if (!parsed.ok()) return;
  for (const bool strict : {false, true}) {
    RenderOptions options;
    options.strict = strict;
    options.now_unix_s = template_now_unix_s;
    (void)parsed->render(template_variables(), options);
  }
}

// Makes a template from bytes: each byte chooses.
class Generator {
 public:
  explicit Generator(std::string_view bytes) : bytes_(bytes) {}

  std::string template_text() {
    std::string out;
    for (int n = 0; n < 6 && at_ < bytes_.size(); ++n) out += statement(3);
    return out;
  }

 private:
  std::size_t choose(std::size_t count) {
    if (at_ >= bytes_.size()) return 0;
    return static_cast<unsigned char>(bytes_[at_++]) % count;
  }
  template <std::size_t count>
  std::string one_of(const std::array<const char*, count>& words) {
    return words[choose(count)];
  }

  std::string statement(int depth) {
    const std::string body = depth > 0 ? "{{ " + expression(2) + " }}" : "x";
    switch (choose(9)) {
      case 0:
        return "{% set " + name() + " = " + expression(depth) + " %}";
      case 1:
        return "{% for i in " + expression(depth) + " %}" + (depth > 0 ? statement(depth - 1) : body) + "{% endfor %}";
      case 2:
        return "{% if " + expression(depth) + " %}" + body + "{% else %}y{% endif %}";
      case 3:
        return "{% set ns = namespace(v=" + expression(depth) +
               ") %}{% for i in range(9) %}{% set ns.v = [ns.v, ns] %}{% endfor %}" + "{{ ns.v }}";
      case 4:
        return "{% macro f(a, b=" + expression(1) + ") %}" + body + "{{ a }}{% endmacro %}{{ f(" + expression(1) +
               ") }}";
      case 5:
        return "{% filter " + filter() + " %}" + body + "{% endfilter %}";
      case 6:
        return "{% for i in l recursive %}{{ loop.changed(loop, " + expression(1) + ") }}{{ loop(" + expression(1) +
               ") }}{% endfor %}";
      default:
        return body;
    }
  }

  std::string name() {
    return one_of<14>({"s", "u", "n", "m", "x", "r", "t", "z", "l", "d", "messages", "nothing", "loop", "ns"});
  }

  std::string literal() {
    return one_of<16>({"0", "1", "-1", "9223372036854775807", "(-9223372036854775807-1)", "4611686018427387905",
                       "1e308", "-0.0", "0.1", "''", "'a'", "'%s %5.3f %x'", "'{0:>9} {k!r}'", "[]", "{}", "'😀'"});
  }

  std::string filter() {
    static const auto names = [] {
      std::vector<std::string> all;
      for (const auto table : {jinja::string_filters(), jinja::sequence_filters(), jinja::number_filters()}) {
        for (const auto& row : table) all.emplace_back(row.name);
      }
      return all;
    }();
    const std::string chosen = names[choose(names.size())];
    return chosen + arguments(1);
  }

  std::string arguments(int depth) {
    std::string out = "(";
    for (std::size_t n = choose(4); n > 0; --n) out += (out.size() > 1 ? ", " : "") + expression(depth - 1);
    return out + ")";
  }

  std::string expression(int depth) {
    if (depth <= 0) return choose(2) == 0 ? name() : literal();
    static const auto methods = [] {
      std::vector<std::string> all = {"items", "keys", "values", "get", "index", "count", "copy", "x", "k"};
      for (const auto& row : jinja::string_methods()) all.emplace_back(row.name);
      return all;
    }();
    static const auto tests = [] {
      std::vector<std::string> all;
      for (const auto& row : jinja::all_tests()) all.emplace_back(row.name);
      std::erase_if(all, [](const std::string& word) { return word.find_first_of("=<>") != std::string::npos; });
      return all;
    }();
    const std::string left = "(" + expression(depth - 1) + ")";
    switch (choose(11)) {
      case 0:
        return left + "|" + filter();
      case 1:
        return left + "." + methods[choose(methods.size())] + arguments(depth);
      case 2:
        return left + " is " + tests[choose(tests.size())] + (choose(2) == 0 ? "" : " " + literal());
      case 3:
        return left +
               one_of<18>({"+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", "<=", ">", ">=", " in ",
                           " not in ", " and ", " or "}) +
               "(" + expression(depth - 1) + ")";
      case 4:
        return left + "[" + expression(depth - 1) + "]";
      case 5:
        return left + "[" + literal() + ":" + literal() + ":" + literal() + "]";
      case 6:
        return one_of<6>({"range", "dict", "namespace", "cycler", "joiner", "strftime_now"}) + arguments(depth);
      case 7:
        return "[" + left + ", " + expression(depth - 1) + "]";
      case 8:
        return "{" + left + ": " + expression(depth - 1) + "}";
      case 9:
        return left + " if " + expression(depth - 1) + " else " + expression(depth - 1);
      default:
        return "-" + left;
    }
  }

  std::string_view bytes_;
  std::size_t at_ = 0;
};

}  // namespace

void run_template_text(std::string_view input) {
  render(input);
}

std::string template_of(std::string_view bytes) {
  return Generator(bytes).template_text();
}

void run_template_grammar(std::string_view input) {
  render(template_of(input));
}

}  // namespace chorus::fuzz
