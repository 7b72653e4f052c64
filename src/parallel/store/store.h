// A Store is where the processes of a job find each other: a small map from keys to bytes that all of them see. It is
// used while a world is made and then no more; nothing of a step goes through it.
//
// Kinds: in memory (threads of one process), a file (processes that share a directory), and TCP (tcp_store.h), which
// speaks the protocol of torch.distributed's TCPStore.
//
// Every call has a deadline. Errors name the key: deadline_exceeded (with the limit), unavailable (the store is gone),
// invalid_argument (over a bound below), internal (a system call).
//
// Thread rule: the store in memory may be called by many threads; any other belongs to one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

namespace chorus {

// The bounds of torch's server, which holds a client to them by closing the connection.
inline constexpr std::size_t store_key_bytes_max = (std::size_t{8} << 10) - 1;
inline constexpr std::size_t store_value_bytes_max = std::size_t{8} << 20;
inline constexpr std::size_t store_wait_keys_max = std::size_t{128} << 10;

class Store {
 public:
  virtual ~Store() = default;

  virtual Result<void> set(const std::string& key, std::string_view value, int timeout_ms) = 0;
  // Waits until the key is there.
  virtual Result<std::string> get(const std::string& key, int timeout_ms) = 0;
  // Adds to a counter, a decimal number that starts at 0, and returns what it became.
  virtual Result<std::int64_t> add(const std::string& key, std::int64_t delta, int timeout_ms) = 0;
  // Sets the key to `desired` if its value is `expected`, or if it is not there and `expected` is empty. Returns the
  // value after that; for a key that is still not there, `expected`.
  virtual Result<std::string> compare_set(const std::string& key, std::string_view expected, std::string_view desired,
                                          int timeout_ms) = 0;
  // Whether it was there.
  virtual Result<bool> delete_key(const std::string& key, int timeout_ms) = 0;
  // Are all of them there now?
  virtual Result<bool> check(std::span<const std::string> keys, int timeout_ms) = 0;
  // Waits until all of them are there.
  virtual Result<void> wait(std::span<const std::string> keys, int timeout_ms) = 0;

  // The address of this host as the store's host sees it, for others to connect to; empty where there is no network.
  virtual std::string local_address() const { return {}; }
};

std::shared_ptr<Store> make_memory_store();

// The file is made if it is not there and stays afterwards: a new job needs a new file (or a directory that goes with
// the job). Processes of different machines may share it where flock(2) works across them. A participant that is killed
// while it writes leaves the others a whole store. Refuses a file that is something else.
Result<std::unique_ptr<Store>> open_file_store(const std::string& path);

// The keys of `store` that begin with `prefix` and a slash, under what follows. Keeps `store` alive.
std::unique_ptr<Store> make_prefix_store(std::shared_ptr<Store> store, const std::string& prefix);

}  // namespace chorus
