// Where a command's lines go: a file that appears under its name only when it is whole, or stdout.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace chorus {

class OutputFile {
 public:
  // `path` empty or "-": stdout. Else PATH.partial beside it is written, so that a failure (full disk, kill) leaves
  // what was there before; it is locked, and a second process that would write it is refused (json/file_write.h). A
  // device or pipe is written as it is. Refused too: a path that is one of `inputs`, the files that the command reads.
  static Result<OutputFile> open(const std::string& path, const std::vector<std::string>& inputs = {});
  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&&) = delete;
  ~OutputFile();  // without commit(): removes the partial file

  // The text is with the kernel when it returns: a process that dies later loses none of it.
  Result<void> write(std::string_view text);
  // Syncs and renames.
  Result<void> commit();

 private:
  OutputFile(int file, std::string path, std::string partial)
      : file_(file), path_(std::move(path)), partial_(std::move(partial)) {}

  int file_ = -1;
  std::string path_, partial_;  // `partial_` empty: `path_` itself is written
};

}  // namespace chorus
