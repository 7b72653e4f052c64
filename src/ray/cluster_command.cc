#include "ray/cluster_command.h"

#include <unistd.h>

#include <filesystem>
#include <string_view>
#include <system_error>

#include "cluster_script.h"

namespace chorus::ray_launcher {
namespace {

constexpr std::string_view built_with = CHORUS_RAY_PYTHON;  // empty: as a part of a Python package

std::vector<std::string> interpreter() {
  if (!built_with.empty()) return {std::string(built_with)};
  std::error_code ignored;
  const auto beside = std::filesystem::read_symlink("/proc/self/exe", ignored).replace_filename("python3");
  if (::access(beside.c_str(), X_OK) == 0) return {beside.string()};
  return {"/usr/bin/env", "python3"};
}

}  // namespace

std::vector<std::string> cluster_command(const std::vector<std::string>& arguments) {
  std::vector<std::string> command = interpreter();
  command.insert(command.end(), {"-c", cluster_script, ray_version});
  command.insert(command.end(), arguments.begin(), arguments.end());
  return command;
}

}  // namespace chorus::ray_launcher
