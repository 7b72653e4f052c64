// A connection is a descriptor: raises this process's limit to as many as the system lets it have.
#pragma once

#include <sys/resource.h>

namespace chorus {

inline void raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  (void)::setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace chorus
