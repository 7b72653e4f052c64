// Replays fuzz/corpus: CORPUS/TARGET/* through each target, in one process. What once ended the process ends this one.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "targets.h"

namespace {

struct Target {
  const char* name;
  void (*run)(std::string_view input);
};

constexpr std::array<Target, 25> targets = {{
    {"json", chorus::fuzz::run_json},
    {"safetensors", chorus::fuzz::run_safetensors},
    {"gguf", chorus::fuzz::run_gguf},
    {"config", chorus::fuzz::run_config},
    {"quantized", chorus::fuzz::run_quantized},
    {"tokenizer_load", chorus::fuzz::run_tokenizer_load},
    {"tokenize", chorus::fuzz::run_tokenize},
    {"pattern", chorus::fuzz::run_pattern},
    {"template_text", chorus::fuzz::run_template_text},
    {"template_grammar", chorus::fuzz::run_template_grammar},
    {"chat", chorus::fuzz::run_chat},
    {"prompt_line", chorus::fuzz::run_prompt_line},
    {"workflow", chorus::fuzz::run_workflow},
    {"csv", chorus::fuzz::run_csv},
    {"frames", chorus::fuzz::run_frames},
    {"messages", chorus::fuzz::run_messages},
    {"plan", chorus::fuzz::run_plan},
    {"handshake", chorus::fuzz::run_handshake},
    {"sealed_frame", chorus::fuzz::run_sealed_frame},
    {"store", chorus::fuzz::run_store},
    {"store_file", chorus::fuzz::run_store_file},
    {"rendezvous", chorus::fuzz::run_rendezvous},
    {"http_request", chorus::fuzz::run_http_request},
    {"api_body", chorus::fuzz::run_api_body},
    {"model_output", chorus::fuzz::run_model_output},
}};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    fmt::print(stderr, "usage: {} CORPUS\n", argv[0]);
    return 2;
  }
  std::size_t inputs = 0;
  for (const Target& target : targets) {
    const std::filesystem::path folder = std::filesystem::path(argv[1]) / target.name;
    std::vector<std::filesystem::path> files;
    if (std::filesystem::is_directory(folder)) {
      for (const auto& entry : std::filesystem::directory_iterator(folder)) files.push_back(entry.path());
    }
    if (files.empty()) {
      fmt::print(stderr, "{} has no inputs\n", folder.string());
      return 1;
    }
    std::ranges::sort(files);
    for (const auto& file : files) {
      fmt::print("{}\n", file.string());
      std::fflush(stdout);  // the last line names the input that ended the process
      std::ifstream in(file, std::ios::binary);
      target.run(std::string(std::istreambuf_iterator<char>(in), {}));
      ++inputs;
    }
  }
  fmt::print("{} inputs\n", inputs);
  return 0;
}
