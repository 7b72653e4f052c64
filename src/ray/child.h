// Starting another program from a process with several threads, so that it cannot outlive that process.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace chorus::ray_launcher {

struct ChildOptions {
  int output = -1;         // its stdout and stderr; -1: those of this process
  int death_signal = 9;    // what it gets when the calling thread ends: call from one that lives to the end
  bool own_group = false;  // Ctrl-C and signals to this process's group do not reach it
};

// Has no other descriptor of this process, stdin from /dev/null, signals at their defaults. Throws std::runtime_error.
pid_t start_child(const std::vector<std::string>& command, const ChildOptions& options);

// Whether it has ended, and how: as waitpid(2).
bool has_ended(pid_t child, int* status);

}  // namespace chorus::ray_launcher
