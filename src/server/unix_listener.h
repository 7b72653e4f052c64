// A listening Unix socket as a file: what a server has in the place of an address and a port.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/result.h"
#include "net/unique_fd.h"

namespace chorus {

// Removes the file with it, if it is still the one that it made.
class UnixListener {
 public:
  // For this user alone (0600): who lets others in changes the file's mode or its folder's. A file whose server has
  // gone is replaced. `option`: of the command line, for errors. Errors: a path that is too long, another file there, a
  // server that listens there.
  static Result<UnixListener> open(const std::string& path, const char* option);
  UnixListener(UnixListener&& other) noexcept;
  UnixListener& operator=(UnixListener&&) = delete;
  ~UnixListener();

  // For `count` processes: whoever is free takes the next connection.
  Result<std::vector<UniqueFd>> descriptors(int count) const;

 private:
  UnixListener(UniqueFd socket, std::string path);

  UniqueFd socket_;
  std::string path_;
  dev_t device_ = 0;
  ino_t file_ = 0;
};

}  // namespace chorus
