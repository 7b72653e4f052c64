// The steps by which a file is written that must be whole or not there: a temporary file beside it, locked, synced and
// renamed. Errors name the cause and what to do about it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace chorus {

// "PATH: CALL: No such file or directory; make its folder first, ...". What another place or other rights put right is
// invalid_argument, a full disk resource_exhausted.
Error file_error(const char* call, const std::string& path, int error_number);

// Opens `path` for reading and writing, makes it if it is not there, and holds flock()'s exclusive lock on it for as
// long as the descriptor is open: the kernel gives the lock of a dead process back. What the file holds stays.
// `unavailable` at once if another process writes it; the message says which. Where the file system knows no locks
// (some NFS mounts) that is logged and nothing is locked. A symbolic link is not followed.
Result<int> open_locked(const std::string& path);

// Whether `path` still names what `file` has open: not if somebody removed or replaced it.
bool is_still_named(int file, const std::string& path);

Result<void> write_all(int file, std::string_view text, const std::string& path);

// A rename is on disk when its directory is.
Result<void> sync_directory_of(const std::string& path);

// Writes `text` beside `path` under a temporary name, syncs, and renames it to `path`. After an error `path` is as it
// was and the temporary file is gone. `unavailable` while another process writes the same file.
Result<void> replace_file(const std::string& path, std::string_view text);

// invalid_argument if `output`, a regular file, is one of `inputs` under this or another name: writing it would replace
// what is read. Empty names are passed over.
Result<void> refuse_overwriting(const std::string& output, const std::vector<std::string>& inputs);

}  // namespace chorus
