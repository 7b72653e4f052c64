// A whole file mapped read-only.
#pragma once

#include <cstddef>
#include <string>

#include "base/result.h"

namespace chorus {

// Move-only owner of the mapping. See checkpoint.h on files that are cut short while mapped.
class MappedFile {
 public:
  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();
  // Errors: not there, not a regular file, not readable. The kernel is told that all of it will be read.
  static Result<MappedFile> open(const std::string& path);

  const std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }
  // Gives back the pages that lie wholly in [data() + begin, data() + end); they are read again if they are touched
  // again.
  void release(std::size_t begin, std::size_t end) const;

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace chorus
