// Where a command's lines go: a file that appears under its name only when it is whole, or stdout.
#pragma once

#include <cstdint>
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
  // The same, but what PATH.partial holds stays and is written on.
  static Result<OutputFile> open_to_go_on(const std::string& path, const std::vector<std::string>& inputs);
  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&&) = delete;
  ~OutputFile();  // without commit() or leave(): removes the partial file

  // The text is with the kernel when it returns: a process that dies later loses none of it.
  Result<void> write(std::string_view text);
  // Syncs and renames.
  Result<void> commit();

  // PATH.partial; empty: stdout, a device or a pipe. The others are for the file that has one.
  const std::string& partial_path() const { return partial_; }
  int descriptor() const { return file_; }       // for reading what is there
  Result<void> keep_first(std::uint64_t bytes);  // drops the rest; what is written next comes behind them
  Result<void> sync();                           // what was written is on disk when it returns
  void leave(bool leaves) { leaves_ = leaves; }  // without commit(): whether the partial file stays
  bool is_still_there() const;                   // not if somebody removed or replaced the partial file

 private:
  OutputFile(int file, std::string path, std::string partial)
      : file_(file), path_(std::move(path)), partial_(std::move(partial)) {}

  int file_ = -1;
  std::string path_, partial_;  // `partial_` empty: `path_` itself is written
  bool leaves_ = false;
};

}  // namespace chorus
