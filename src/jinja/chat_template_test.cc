#include "jinja/chat_template.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>
#include <string>
#include <vector>

namespace chorus {
namespace {

const std::string data_dir = CHORUS_TEST_DATA "/chat_templates/";
constexpr std::int64_t golden_now_unix_s = 1768478400;  // 2026-01-15T12:00:00Z, as the golden's generator has it

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

Json read_json(const std::string& name) {
  return Json::parse(read_file(data_dir + name));
}

std::string render(const std::string& source, const Json& variables, const RenderOptions& options) {
  const Result<Template> parsed = Template::parse(source, "t");
  if (!parsed.ok()) return fmt::format("error: {}", parsed.error().message);
  const Result<std::string> text = parsed->render(variables, options);
  return text.ok() ? *text : fmt::format("error: {}", text.error().message);
}

std::string render(const std::string& source, const Json& variables = Json::object()) {
  RenderOptions options;
  options.now_unix_s = golden_now_unix_s;
  return render(source, variables, options);
}

Json variables_of(const Json& conversation, const Json& special, bool add_generation_prompt) {
  Json variables = special;
  variables["messages"] = conversation["messages"];
  variables["tools"] = conversation.value("tools", Json(nullptr));
  variables["documents"] = nullptr;
  variables["add_generation_prompt"] = add_generation_prompt;
  if (conversation.contains("kwargs")) variables.update(conversation["kwargs"]);
  return variables;
}

// Goal: the templates that models ship render as jinja2 renders them, errors included. Method: 49 templates, 11
// conversations with and without a generation prompt, against the golden made by tests/tools/render_chat_templates.py.
TEST(ChatTemplate, EqualsJinja2OnShippedTemplates) {
  const Json golden = read_json("expected.json");
  std::map<std::string, Json> conversations;
  ASSERT_FALSE(golden["conversations"].empty() || golden["results"].empty());
  for (const Json& conversation : golden["conversations"])
    conversations[conversation["name"].get<std::string>()] = conversation;
  int cases = 0;
  for (const auto& [file, results] : golden["results"].items()) {
    const std::string source = read_file(fmt::format("{}templates/{}", data_dir, file));
    for (const Json& expected : results) {
      ++cases;
      const Json& conversation = conversations.at(expected["conversation"].get<std::string>());
      const bool add_generation_prompt = expected["add_generation_prompt"].get<bool>();
      const std::string where = fmt::format("{} {}", file, expected["conversation"].get<std::string>());
      const std::string got = render(source, variables_of(conversation, golden["special"], add_generation_prompt));
      if (expected.contains("output")) {
        EXPECT_EQ(got, expected["output"].get<std::string>()) << where;
      } else {
        EXPECT_TRUE(got.starts_with("error: t:")) << where << ": " << got;
        EXPECT_TRUE(got.ends_with(fmt::format(": {}", expected["error"].get<std::string>()))) << where << ": " << got;
      }
    }
  }
  EXPECT_EQ(cases, 1078);
}

// Goal: the language beyond those templates. Method: small cases with jinja2's answers
// (tests/tools/make_jinja_cases.py).
TEST(ChatTemplate, EqualsJinja2OnSmallCases) {
  const Json golden = read_json("extra_cases.json");
  ASSERT_FALSE(golden["cases"].empty());
  for (const Json& expected : golden["cases"]) {
    const std::string source = expected["template"].get<std::string>();
    const std::string got = render(source, golden["variables"]);
    if (expected.contains("output")) {
      EXPECT_EQ(got, expected["output"].get<std::string>()) << source;
    } else {
      EXPECT_TRUE(got.starts_with("error: t:")) << source << ": " << got;
      EXPECT_NE(got.find(expected["error_type"].get<std::string>()), std::string::npos) << source << ": " << got;
    }
  }
  EXPECT_GT(golden["cases"].size(), 500u);
}

TEST(ChatTemplate, ErrorsNameTemplateAndLine) {
  EXPECT_EQ(render("a\n{{ x.y }}"), "error: t:2: UndefinedError: 'x' is undefined");
  EXPECT_EQ(render("\n\n{{ raise_exception('no tools here') }}"), "error: t:3: no tools here");
  EXPECT_TRUE(render("{% if x %}").starts_with("error: t:1: TemplateSyntaxError"));
  EXPECT_NE(render("{% include 'x' %}").find("'include' is not supported"), std::string::npos);
  EXPECT_NE(render("{% extends 'x' %}").find("'extends' is not supported"), std::string::npos);
  EXPECT_NE(render("\xff").find("UTF-8"), std::string::npos);
}

TEST(ChatTemplate, StrictRefusesWhatIsNotThere) {
  RenderOptions options;
  options.strict = true;
  const Json row = Json::parse(R"({"name": "Ada", "tags": {"a": 1}})");
  EXPECT_EQ(render("Hi {{ name }}", row, options), "Hi Ada");
  EXPECT_EQ(render("{{ nam }}", row, options), "error: t:1: UndefinedError: 'nam' is undefined");
  EXPECT_EQ(render("{{ tags.b }}", row, options), "error: t:1: UndefinedError: 'dict object' has no attribute 'b'");
  EXPECT_NE(render("{% if nam %}x{% endif %}", row, options).find("error"), std::string::npos);
  EXPECT_NE(render("{% for x in nam %}x{% endfor %}", row, options).find("error"), std::string::npos);
  EXPECT_EQ(render("{{ nam is defined }} {{ nam|default('-') }}", row, options), "False -");
}

// Goal: no template takes the process with it. Each of these would run for ever or eat the memory.
TEST(ChatTemplate, FuelEndsHostileTemplates) {
  const std::vector<std::string> hostile = {
      "{{ 'a' * 1000000000 }}",
      "{{ [1] * 1000000000 }}",
      "{{ range(1000000000) }}",
      "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
      "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
      "{% set ns = namespace(x='aaaaaaaaaa') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
      "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
      "{% set ns = namespace(x=[1]) %}{% for i in range(9999) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x|tojson }}",
      "{% for i in range(99999) %}{{ '%1000000d' % i }}{% endfor %}",
      "{{ 'x'.center(1000000000) }}",
      "{{ 'x'|indent(1000000000, true) }}",
      "{{ ('x,' * 9999999).replace('x', 'y' * 9999999) }}",
      "{{ 'aaaa'|tojson(indent=1000000) }}",
      "{{ 9 ** 9 ** 9 ** 9 }}",
      fmt::format("{{{{ {:(>100000} }}}}", ""),
      fmt::format("{{{{ {:[>100000} }}}}", ""),
      fmt::format("{{{{ {:->100000}1 }}}}", ""),
  };
  for (const std::string& source : hostile) {
    const std::string got = render(source);
    EXPECT_TRUE(got.starts_with("error: t:1: ")) << source.substr(0, 80) << ": " << got.substr(0, 80);
  }
  std::string chain = "{{ 1";
  for (int i = 0; i < 100000; ++i) chain += "+1";
  EXPECT_NE(render(chain.append(" }}")).find("levels"), std::string::npos);
  std::string nested;
  for (int i = 0; i < 10000; ++i) nested += "{% if 1 %}";
  EXPECT_NE(render(nested).find("levels"), std::string::npos);
}

// Values may come to refer to each other through a namespace; the address sanitizer's leak check watches this test.
TEST(ChatTemplate, CyclesAreFreed) {
  EXPECT_EQ(
      render("{% set ns = namespace() %}{% set ns.self = [ns] %}{% macro m() %}{{ ns }}{% endmacro %}{% set ns.m = m %}"
             "{% for i in [1, 2] recursive %}{% set ns.loop = loop %}{{ loop.changed(loop) }}{% endfor %}{{ "
             "ns.loop.index }}"),
      "TrueFalse2");
}

// Goal: no input crashes or hangs the engine. Method: seeded mutations of all templates; whatever comes back is fine.
TEST(ChatTemplate, MutatedTemplatesNeitherCrashNorHang) {
  const Json golden = read_json("expected.json");
  std::vector<std::string> sources;
  for (const auto& entry : std::filesystem::directory_iterator(data_dir + "templates"))
    sources.push_back(entry.path().string());
  std::sort(sources.begin(), sources.end());
  for (std::string& source : sources) source = read_file(source);
  const std::vector<std::string> pieces = {
      "{%",          "%}",   "{{",  "}}",   "-",       "|",        "(",       ")",       "[",        "]",
      "'",           "loop", "if ", "for ", ":",       "~",        "0",       "9999999", "messages", "{% endfor %}",
      "{% endif %}", "*",    "\n",  "is",   "|tojson", ".items()", "\xc3\xa9"};
  std::mt19937 random(20260115);
  const auto below = [&random](std::size_t bound) { return static_cast<std::size_t>(random()) % bound; };
  RenderOptions options;
  options.limits.steps_max = 50'000;
  options.limits.memory_bytes_max = 16 << 20;
  int rendered = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string source = sources[below(sources.size())];
    for (std::size_t n = 1 + below(4); n > 0; --n) {
      const std::size_t at = below(source.size());
      switch (below(4)) {
        case 0:
          source.erase(at, 1 + below(8));
          break;
        case 1:
          source.insert(at, pieces[below(pieces.size())]);
          break;
        case 2:
          source[at] = static_cast<char>(below(256));
          break;
        default:
          source.insert(at, source.substr(below(source.size()), below(60)));
          break;
      }
      if (source.empty()) source = " ";
    }
    const Json& conversation = golden["conversations"][below(golden["conversations"].size())];
    rendered += !render(source, variables_of(conversation, golden["special"], true), options).starts_with("error: ");
  }
  EXPECT_GT(rendered, 300);
}

}  // namespace
}  // namespace chorus
