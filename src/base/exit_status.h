// How a process ended.
#pragma once

namespace chorus {

struct ExitStatus {
  int code = 0;                // of exit(); 2: wrong usage, configuration or input, which a retry does not mend
  int signal = 0;              // that ended it; 0: none
  bool out_of_memory = false;  // the kernel counted a kill for want of memory while it ran
};

}  // namespace chorus
