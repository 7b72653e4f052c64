// What a process says when it ends by something that its code cannot return as an error: memory or a thread that the
// system refuses (an exception that nobody catches), and a mapped file that became shorter (SIGBUS).
#pragma once

namespace chorus {

// For main(), before anything else, in every process. From then on such an end is one line on stderr, with what was
// refused or the file's name and what to look at, and exit status 1.
void install_last_words();

}  // namespace chorus
