#include "workflow/confined_path.h"

#include <algorithm>
#include <filesystem>

namespace chorus {

namespace fs = std::filesystem;

Result<std::string> confined_path(const std::string& root, const std::string& name, const std::string& what) {
  const fs::path relative(name);
  if (name.empty() || name.find('\0') != std::string::npos) {
    return fail(ErrorCode::invalid_argument, "{}: not the name of a file", what);
  }
  if (relative.is_absolute()) {
    return fail(ErrorCode::invalid_argument, "{}: {} is absolute; give a path inside {}", what, name, root);
  }
  if (std::ranges::find(relative, fs::path("..")) != relative.end()) {
    return fail(ErrorCode::invalid_argument, "{}: {} has \"..\"; give a path inside {}", what, name, root);
  }
  std::error_code error;
  const fs::path real_root = fs::weakly_canonical(root, error);
  if (error) return fail(ErrorCode::invalid_argument, "{}: {}: {}", what, root, error.message());
  const fs::path real = fs::weakly_canonical(real_root / relative, error);
  if (error) return fail(ErrorCode::invalid_argument, "{}: {}: {}", what, name, error.message());
  const auto ends = std::mismatch(real_root.begin(), real_root.end(), real.begin(), real.end());
  if (ends.first != real_root.end()) {
    return fail(ErrorCode::invalid_argument, "{}: {} leads to {}, outside of {}", what, name, real.string(), root);
  }
  return real.string();
}

Result<void> check_file_name(const std::string& name, const std::string& what) {
  constexpr std::size_t bytes_max = 200;  // room for our suffixes within the file system's 255
  const bool plain =
      std::ranges::all_of(name, [](char c) { return c != '/' && static_cast<unsigned char>(c) >= 0x20; });
  if (name.empty() || name.size() > bytes_max || name[0] == '.' || !plain) {
    return fail(ErrorCode::invalid_argument,
                "{}: \"{}\" must be a file name of 1 to {} bytes without '/' or a leading '.'", what, name, bytes_max);
  }
  return {};
}

}  // namespace chorus
