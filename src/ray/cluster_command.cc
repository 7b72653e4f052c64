#include "ray/cluster_command.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <string_view>
#include <system_error>

#include "cluster_script.h"

namespace chorus::ray_launcher {
namespace {

constexpr std::string_view built_with = CHORUS_RAY_PYTHON;  // empty: as a part of a Python package
constexpr const char* name = "python3";

std::string ray_python() {
  if (!built_with.empty()) return std::string(built_with);
  std::error_code ignored;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", ignored);
  std::vector<std::filesystem::path> places = {program.parent_path()};
  const char* path = std::getenv("PATH");
  std::istringstream list(path == nullptr ? "" : path);
  for (std::string place; std::getline(list, place, ':');) places.emplace_back(place);
  for (const std::filesystem::path& place : places) {
    if (::access((place / name).c_str(), X_OK) == 0) return (place / name).string();
  }
  return (places.front() / name).string();
}

}  // namespace

std::vector<std::string> cluster_command(const std::vector<std::string>& arguments) {
  std::vector<std::string> command = {ray_python(), "-c", cluster_script, ray_version};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return command;
}

}  // namespace chorus::ray_launcher
