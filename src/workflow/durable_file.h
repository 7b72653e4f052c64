// Files that must be whole or not there, and a journal that survives being cut off.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"

namespace chorus {

// Writes `text` beside `path` under a temporary name, syncs, and renames it to `path`. After an error `path` is as it
// was and the temporary file is gone. `unavailable` while another process writes the same file.
Result<void> replace_file(const std::string& path, std::string_view text);

// Lines that are appended. The first names what the rest belongs to and when that began: lines of another fingerprint
// are dropped when the journal is opened, and so is a last line that was cut off.
class Journal {
 public:
  // Makes the file if it is not there. Locks it: a second open, of any process, fails with `unavailable` while this
  // lives. `now_unix_s` is kept unless there is work to go on with.
  static Result<Journal> open(const std::string& path, const std::string& fingerprint, std::int64_t now_unix_s);
  Journal(Journal&& other) noexcept;
  Journal& operator=(Journal&&) = delete;
  ~Journal();

  const std::vector<std::string>& lines() const { return lines_; }  // found when it was opened, first line left out
  bool was_other() const { return was_other_; }                     // there were lines of another fingerprint
  std::int64_t begun_unix_s() const { return begun_unix_s_; }       // when the work began, maybe in an earlier process
  Result<void> append(std::string_view line);  // written when it returns; synced if the last sync is a second old
  Result<void> sync();                         // all lines are on disk when it returns
  Result<void> remove();                       // the work is done

 private:
  Journal(std::string path, int file) : path_(std::move(path)), file_(file) {}
  Result<void> load(const std::string& fingerprint, std::int64_t now_unix_s);
  bool belongs_to(const std::string& fingerprint);  // what was found; sets begun_unix_s_ if so
  Result<void> write_line(std::string_view line);

  std::string path_;
  int file_ = -1;
  std::size_t size_ = 0;  // bytes of whole lines
  bool was_other_ = false;
  std::int64_t begun_unix_s_ = 0;
  Nanoseconds synced_at_ = 0;
  std::vector<std::string> lines_;
};

}  // namespace chorus
