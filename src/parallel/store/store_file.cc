// The file is a log: 16 bytes that say what it is, then records of
//
//   u32 mark | u32 kind (1 set, 2 delete) | u64 key bytes | u64 value bytes | u64 checksum | key | value
//
// in host order. Writers hold flock(LOCK_EX), readers LOCK_SH, so a record that is not whole while one holds the lock
// was left by a process that died in the middle: readers stop before it, the next writer cuts it off.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <map>
#include <optional>
#include <thread>

#include "net/unique_fd.h"
#include "parallel/store/store.h"
#include "parallel/store/store_check.h"

namespace chorus {
namespace {

constexpr std::string_view file_mark = "chorus store 01\n";
constexpr std::uint32_t record_mark = 0x43485352;
constexpr std::uint64_t file_bytes_max = std::uint64_t{1} << 30;
constexpr int look_again_ms = 5;  // flock has no deadline and a file no wake-up

struct RecordHeader {
  std::uint32_t mark = record_mark;
  std::uint32_t kind = 0;
  std::uint64_t key_bytes = 0;
  std::uint64_t value_bytes = 0;
  std::uint64_t checksum = 0;
};
static_assert(sizeof(RecordHeader) == 32);

enum RecordKind : std::uint32_t { record_set = 1, record_delete = 2 };

// FNV-1a, 64 bits.
std::uint64_t checksum_of(std::uint32_t kind, std::string_view key, std::string_view value) {
  std::uint64_t hash = 0xcbf29ce484222325U ^ kind;
  for (const std::string_view part : {key, value}) {
    for (const char c : part) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
    hash = (hash ^ part.size()) * 0x100000001b3U;
  }
  return hash;
}

class FileStore final : public Store {
 public:
  FileStore(std::string path, UniqueFd fd) : path_(std::move(path)), fd_(std::move(fd)) {}

  Result<void> set(const std::string& key, std::string_view value, int timeout_ms) override {
    CHORUS_TRY_VOID(check_store_value(key, value));
    CHORUS_TRY(const Lock lock, lock_file(LOCK_EX, key, timeout_ms));
    CHORUS_TRY_VOID(read_new_records());
    return append(record_set, key, value);
  }

  Result<std::string> get(const std::string& key, int timeout_ms) override {
    CHORUS_TRY_VOID(wait({&key, 1}, timeout_ms));
    return values_[key];
  }

  Result<std::int64_t> add(const std::string& key, std::int64_t delta, int timeout_ms) override {
    CHORUS_TRY_VOID(check_store_key(key));
    CHORUS_TRY(const Lock lock, lock_file(LOCK_EX, key, timeout_ms));
    CHORUS_TRY_VOID(read_new_records());
    const auto found = values_.find(key);
    CHORUS_TRY(const std::int64_t sum, add_to_counter(key, found == values_.end() ? "" : found->second, delta));
    CHORUS_TRY_VOID(append(record_set, key, std::to_string(sum)));
    return sum;
  }

  Result<std::string> compare_set(const std::string& key, std::string_view expected, std::string_view desired,
                                  int timeout_ms) override {
    CHORUS_TRY_VOID(check_store_value(key, desired));
    CHORUS_TRY(const Lock lock, lock_file(LOCK_EX, key, timeout_ms));
    CHORUS_TRY_VOID(read_new_records());
    const auto found = values_.find(key);
    if (found == values_.end() && !expected.empty()) return std::string(expected);
    if (found != values_.end() && found->second != expected) return found->second;
    CHORUS_TRY_VOID(append(record_set, key, desired));
    return std::string(desired);
  }

  Result<bool> delete_key(const std::string& key, int timeout_ms) override {
    CHORUS_TRY_VOID(check_store_key(key));
    CHORUS_TRY(const Lock lock, lock_file(LOCK_EX, key, timeout_ms));
    CHORUS_TRY_VOID(read_new_records());
    if (!values_.contains(key)) return false;
    CHORUS_TRY_VOID(append(record_delete, key, ""));
    return true;
  }

  Result<bool> check(std::span<const std::string> keys, int timeout_ms) override {
    CHORUS_TRY_VOID(check_store_keys(keys));
    CHORUS_TRY(const Lock lock, lock_file(LOCK_SH, keys.empty() ? "" : keys.front(), timeout_ms));
    CHORUS_TRY_VOID(read_new_records());
    for (const std::string& key : keys) {
      if (!values_.contains(key)) return false;
    }
    return true;
  }

  Result<void> wait(std::span<const std::string> keys, int timeout_ms) override {
    const Nanoseconds deadline = deadline_after(timeout_ms);
    while (true) {
      CHORUS_TRY(const bool there, check(keys, std::max(milliseconds_until(deadline), look_again_ms)));
      if (there) return {};
      const int left_ms = milliseconds_until(deadline);
      if (left_ms == 0) return store_deadline_error(keys, timeout_ms);
      std::this_thread::sleep_for(std::chrono::milliseconds(std::min(left_ms, look_again_ms)));
    }
  }

 private:
  class Lock {
   public:
    explicit Lock(int fd) : fd_(fd) {}
    Lock(Lock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    ~Lock() {
      if (fd_ >= 0) ::flock(fd_, LOCK_UN);
    }

   private:
    int fd_;
  };

  Error system_error(const char* call) const {
    return fail(ErrorCode::internal, "store file {}: {}: {}", path_, call, std::strerror(errno));
  }

  Result<Lock> lock_file(int operation, const std::string& key, int timeout_ms) {
    const Nanoseconds deadline = deadline_after(timeout_ms);
    while (::flock(fd_.get(), operation | LOCK_NB) != 0) {
      if (errno != EWOULDBLOCK && errno != EINTR) return system_error("flock");
      if (milliseconds_until(deadline) == 0) {
        return fail(ErrorCode::deadline_exceeded, "store key {}: the lock of {} was not to be had within {} ms", key,
                    path_, timeout_ms);
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return Lock(fd_.get());
  }

  // With the lock held: takes over what was written since the last call. end_ is then the end of the last whole record.
  Result<void> read_new_records() {
    struct stat status {};
    if (::fstat(fd_.get(), &status) != 0) return system_error("fstat");
    const auto bytes = static_cast<std::uint64_t>(status.st_size);
    if (end_ == 0) {
      CHORUS_TRY(const bool begun, read_file_mark(bytes));
      if (!begun) return {};
    }
    if (bytes < end_ || bytes > file_bytes_max) {
      return fail(ErrorCode::invalid_argument, "store file {} has {} bytes: it was cut off at {} or is over {}", path_,
                  bytes, end_, file_bytes_max);
    }
    while (true) {
      CHORUS_TRY(const bool whole, read_record(bytes));
      if (!whole) return {};
    }
  }

  // False: the file is empty, or its first writer died in the first 16 bytes.
  Result<bool> read_file_mark(std::uint64_t bytes) {
    std::string mark(std::min<std::size_t>(bytes, file_mark.size()), '\0');
    CHORUS_TRY_VOID(read_at(0, mark.data(), mark.size()));
    if (!file_mark.starts_with(mark)) {
      return fail(ErrorCode::invalid_argument, "{} is not a store file of this version: give a path that is free",
                  path_);
    }
    if (mark.size() < file_mark.size()) return false;
    end_ = file_mark.size();
    return true;
  }

  Result<bool> read_record(std::uint64_t bytes) {
    RecordHeader header;
    if (bytes - end_ < sizeof header) return false;
    CHORUS_TRY_VOID(read_at(end_, &header, sizeof header));
    if (header.mark != record_mark || header.key_bytes > store_key_bytes_max ||
        header.value_bytes > store_value_bytes_max) {
      return false;
    }
    if (bytes - end_ - sizeof header < header.key_bytes + header.value_bytes) return false;
    std::string key(header.key_bytes, '\0'), value(header.value_bytes, '\0');
    CHORUS_TRY_VOID(read_at(end_ + sizeof header, key.data(), key.size()));
    CHORUS_TRY_VOID(read_at(end_ + sizeof header + key.size(), value.data(), value.size()));
    if (header.checksum != checksum_of(header.kind, key, value)) return false;
    end_ += sizeof header + key.size() + value.size();
    apply(header.kind, key, value);
    return true;
  }

  void apply(std::uint32_t kind, const std::string& key, std::string_view value) {
    if (kind == record_set) {
      values_[key] = value;
    } else {
      values_.erase(key);
    }
  }

  // With LOCK_EX held and everything read.
  Result<void> append(std::uint32_t kind, const std::string& key, std::string_view value) {
    if (::ftruncate(fd_.get(), static_cast<off_t>(end_)) != 0) return system_error("ftruncate");
    std::string bytes;
    if (end_ == 0) bytes = file_mark;
    RecordHeader header;
    header.kind = kind;
    header.key_bytes = key.size();
    header.value_bytes = value.size();
    header.checksum = checksum_of(kind, key, value);
    bytes.append(reinterpret_cast<const char*>(&header), sizeof header).append(key).append(value);
    if (end_ + bytes.size() > file_bytes_max) {
      return fail(ErrorCode::resource_exhausted, "store key {}: {} is full, its limit is {} bytes", key, path_,
                  file_bytes_max);
    }
    for (std::size_t written = 0; written < bytes.size();) {
      const ssize_t count =
          ::pwrite(fd_.get(), bytes.data() + written, bytes.size() - written, static_cast<off_t>(end_ + written));
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) return system_error("pwrite");
      written += static_cast<std::size_t>(count);
    }
    end_ += bytes.size();
    apply(kind, key, value);
    return {};
  }

  Result<void> read_at(std::uint64_t offset, void* to, std::size_t bytes) const {
    for (std::size_t done = 0; done < bytes;) {
      const ssize_t count =
          ::pread(fd_.get(), static_cast<char*>(to) + done, bytes - done, static_cast<off_t>(offset + done));
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) return system_error("pread");
      done += static_cast<std::size_t>(count);
    }
    return {};
  }

  std::string path_;
  UniqueFd fd_;
  std::uint64_t end_ = 0;  // of the records in values_; 0 before the file's mark was read
  std::map<std::string, std::string> values_;
};

}  // namespace

Result<std::unique_ptr<Store>> open_file_store(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd.valid()) return fail(ErrorCode::invalid_argument, "store file {}: open: {}", path, std::strerror(errno));
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0 || !S_ISREG(status.st_mode)) {
    return fail(ErrorCode::invalid_argument, "store file {} is not a regular file", path);
  }
  auto store = std::make_unique<FileStore>(path, std::move(fd));
  CHORUS_TRY_VOID(store->check({}, 10'000));
  return std::unique_ptr<Store>(std::move(store));
}

}  // namespace chorus
