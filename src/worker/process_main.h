// How a process of this executable learns that it is an engine or a worker, and what it then does.
#pragma once

namespace chorus {

// An engine process is this same executable, started again by the fleet with one argument, its name in `ps`:
// argv = {"chorus engine dp=1"}, the socket to the fleet as descriptor 3, stdin from /dev/null, stdout going to stderr.
// main() must ask before anything else, and before it parses options:
//   if (is_engine_process(argc, argv)) return engine_process_main(engine_socket_fd);
//   if (is_worker_process(argc, argv)) return worker_process_main(engine_socket_fd);
// The second is for the other workers of an engine's replica, which it starts the same way: argv = {"chorus worker dp=0
// pp=0 tp=1"}.
inline constexpr int engine_socket_fd = 3;
bool is_engine_process(int argc, char** argv);
bool is_worker_process(int argc, char** argv);

// The main function of an engine process: configuration and weights come over `socket_fd`. Returns the exit status.
// Ends with the fleet's process, and with the thread in it that called launch_fleet() (PR_SET_PDEATHSIG counts
// threads).
int engine_process_main(int socket_fd);

// The main function of a worker process (worker/worker_processes.h), likewise.
int worker_process_main(int socket_fd);

}  // namespace chorus
