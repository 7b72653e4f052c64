#include "launch/node_command.h"

#include <filesystem>

namespace chorus {
namespace {

std::string absolute(const std::string& path) {
  std::error_code error;
  const std::filesystem::path whole = std::filesystem::absolute(path, error);
  return error ? path : whole.lexically_normal().string();
}

}  // namespace

std::vector<std::string> node_command(const std::string& program, const EngineConfig& config, int rank, int part) {
  EngineConfig node = config;
  node.headless = true;
  node.data_parallel_backend = "ray";
  node.parallel.data_parallel_size_local = 1;
  node.parallel.data_parallel_start_rank = rank;
  node.parallel.data_parallel_address = config.parallel.head_address();
  node.parallel.node_rank = part;
  for_each_option(node, [](auto& field, const EngineOption& option) {
    if constexpr (std::is_same_v<decltype(field), std::string&>) {
      const bool is_path = option.on_nodes == OnNodes::as_path && !field.empty() && !is_accepted_word(option, field);
      if (is_path) field = absolute(field);
    }
  });
  std::vector<std::string> command = {program, "serve", absolute(config.model)};
  for (std::string& option : options_for_nodes(node)) command.push_back(std::move(option));
  return command;
}

}  // namespace chorus
