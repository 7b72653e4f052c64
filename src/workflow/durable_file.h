// Files that must be whole or not there, and a journal that survives being cut off.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace chorus {

// Writes `text` beside `path` under a temporary name, syncs, and renames it to `path`. After an error `path` is as it
// was and the temporary file is gone.
Result<void> replace_file(const std::string& path, std::string_view text);

// Lines that are appended and synced. The first names what the rest belongs to: lines of another fingerprint are
// dropped when the journal is opened, and so is a last line that was cut off.
class Journal {
 public:
  // Makes the file if it is not there. Locks it: a second open, of any process, fails with `unavailable` while this
  // lives.
  static Result<Journal> open(const std::string& path, const std::string& fingerprint);
  Journal(Journal&& other) noexcept;
  Journal& operator=(Journal&&) = delete;
  ~Journal();

  const std::vector<std::string>& lines() const { return lines_; }  // found when it was opened, first line left out
  bool was_other() const { return was_other_; }                     // there were lines of another fingerprint
  Result<void> append(std::span<const std::string> lines);          // on disk when it returns
  Result<void> remove();                                            // the work is done

 private:
  Journal(std::string path, int file) : path_(std::move(path)), file_(file) {}
  Result<void> load(const std::string& first_line);
  Result<void> write_synced(std::string_view text);

  std::string path_;
  int file_ = -1;
  std::size_t size_ = 0;  // bytes of whole lines
  bool was_other_ = false;
  std::vector<std::string> lines_;
};

}  // namespace chorus
