// Descriptors 0, 1 and 2, which a program may be started without.
#pragma once

namespace chorus {

// Opens those that are closed on /dev/null: otherwise the first file opened would become descriptor 2, and the log
// would go into it. Reading such a standard input and writing such a standard output are errors, so that a lost result
// shows; standard error is swallowed. To be called before anything is opened. False if /dev/null cannot be opened.
bool open_standard_descriptors();

}  // namespace chorus
