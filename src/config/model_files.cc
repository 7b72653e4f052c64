#include "config/model_files.h"

#include <algorithm>
#include <filesystem>
#include <vector>

#include "base/digest.h"
#include "gguf/gguf_file.h"

namespace chorus {
namespace {

namespace fs = std::filesystem;

bool may_be_read(const fs::path& path) {
  const fs::path extension = path.extension();
  return extension == ".json" || extension == ".safetensors" || extension == ".jinja" || extension == ".gguf";
}

void list_files(const std::string& directory, const std::string& prefix, std::vector<std::string>* files) {
  std::error_code error;
  std::error_code ignored;  // what cannot be looked at cannot be read either, which the load says
  for (fs::directory_iterator entry(directory, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = prefix + entry->path().filename().string();
    if (entry->is_directory(ignored) && prefix.empty()) list_files(entry->path().string(), name + "/", files);
    if (!may_be_read(name) || !entry->is_regular_file(ignored)) continue;
    files->push_back(fmt::format("{} {} {}", name, entry->file_size(ignored),
                                 entry->last_write_time(ignored).time_since_epoch().count()));
  }
}

}  // namespace

std::string model_files_digest(const std::string& directory) {
  std::vector<std::string> files;
  // Of a GGUF file: the folder's others that are one, which may be parts of it.
  const fs::path parent = fs::path(directory).parent_path();
  list_files(is_gguf(directory) ? (parent.empty() ? "." : parent.string()) : directory, "", &files);
  std::sort(files.begin(), files.end());
  Digest digest;
  for (const std::string& file : files) digest.add(file);
  return digest.text();
}

}  // namespace chorus
