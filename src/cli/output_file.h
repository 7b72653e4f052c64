// Where a command's lines go: a file that appears under its name only when it is whole, or stdout.
#pragma once

#include <cstdio>
#include <string>

#include "base/result.h"

namespace chorus {

class OutputFile {
 public:
  // `path` empty: stdout. Else PATH.partial beside it is written, so that a failure (full disk, kill) leaves what was
  // there before.
  static Result<OutputFile> open(const std::string& path);
  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&&) = delete;
  ~OutputFile();  // without commit(): removes the partial file

  Result<void> write(const std::string& text);
  // Flushes, syncs and renames.
  Result<void> commit();

 private:
  OutputFile(std::FILE* file, std::string path, std::string partial)
      : file_(file), path_(std::move(path)), partial_(std::move(partial)) {}
  Error failed(const char* what) const;

  std::FILE* file_;
  std::string path_, partial_;
};

}  // namespace chorus
