// A journal that survives being cut off.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"

namespace chorus {

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
  // Of the lines that were found and dropped.
  const std::optional<std::string>& other_fingerprint() const { return other_fingerprint_; }
  std::int64_t begun_unix_s() const { return begun_unix_s_; }  // when the work began, maybe in an earlier process
  // Keeps the first `count` of lines(), before anything is appended. None: the work begins anew, at `now_unix_s`.
  Result<void> keep(std::size_t count, std::int64_t now_unix_s);
  Result<void> append(std::string_view line);  // written when it returns; synced if the last sync is a second old
  Result<void> sync();                         // all lines are on disk when it returns
  Result<void> remove();                       // the work is done

 private:
  Journal(std::string path, int file, std::string fingerprint)
      : path_(std::move(path)), fingerprint_(std::move(fingerprint)), file_(file) {}
  Result<std::string> read_all();
  Result<void> load(std::int64_t now_unix_s);
  bool belongs_here();  // what was found; sets begun_unix_s_ if so, else other_fingerprint_
  Result<void> begin(std::int64_t now_unix_s);
  Result<void> write_line(std::string_view line);

  std::string path_, fingerprint_;
  int file_ = -1;
  std::size_t size_ = 0;  // bytes of whole lines
  std::optional<std::string> other_fingerprint_;
  std::int64_t begun_unix_s_ = 0;
  Nanoseconds synced_at_ = 0;
  std::vector<std::string> lines_;
};

}  // namespace chorus
