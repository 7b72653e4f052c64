// fuzz_render SEED COUNT: templates of the grammar target and what they render to, one JSON object a line: "template",
// and "output" or "error". The first line is the variables.
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <nlohmann/json.hpp>
#include <random>
#include <string>

#include "jinja/chat_template.h"
#include "targets.h"

namespace chorus::fuzz {
namespace {

Json render(const std::string& source) {
  Json line = {{"template", source}};
  RenderOptions options;
  options.now_unix_s = template_now_unix_s;
  const auto parsed = Template::parse(source, "t");
  if (!parsed.ok()) {
    line["error"] = parsed.error().message;
    return line;
  }
  const auto text = parsed->render(template_variables(), options);
  line[text.ok() ? "output" : "error"] = text.ok() ? *text : text.error().message;
  return line;
}

int print_templates(std::uint64_t seed, std::uint64_t count) {
  std::cout << template_variables().dump() << '\n';
  std::mt19937_64 random(seed);
  std::string bytes(64, '\0');
  for (std::uint64_t n = 0; n < count; ++n) {
    for (char& byte : bytes) byte = static_cast<char>(random());
    std::cout << render(template_of(bytes)).dump(-1, ' ', false, Json::error_handler_t::replace) << '\n';
  }
  return std::cout.flush() ? 0 : 1;
}

}  // namespace
}  // namespace chorus::fuzz

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: fuzz_render SEED COUNT\n";
    return 2;
  }
  return chorus::fuzz::print_templates(std::strtoull(argv[1], nullptr, 10), std::strtoull(argv[2], nullptr, 10));
}
