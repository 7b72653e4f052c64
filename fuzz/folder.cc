#include "targets.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "base/check.h"

namespace chorus::fuzz {

Folder::Folder() {
  std::error_code error;
  const bool has_shm = std::filesystem::is_directory("/dev/shm", error);
  path_ = (has_shm ? std::filesystem::path("/dev/shm") : std::filesystem::temp_directory_path()) / "chorus-fuzz-XXXXXX";
  CHECK(mkdtemp(path_.data()) != nullptr, "cannot make a folder like {}", path_);
}

Folder::~Folder() {
  std::error_code error;
  std::filesystem::remove_all(path_, error);
}

void Folder::write(const char* name, std::string_view bytes) const {
  std::ofstream(path_ + "/" + name, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

}  // namespace chorus::fuzz
