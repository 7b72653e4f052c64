// chorus COMMAND [MODEL] [options]. The same program, under another name, is an engine process of a fleet.
#include "base/last_words.h"
#include "base/standard_descriptors.h"
#include "cli/commands.h"
#include "server/front_end_process.h"
#include "worker/process_main.h"

int main(int argc, char** argv) {
  if (!chorus::open_standard_descriptors()) return 1;  // there is nowhere to say it
  chorus::install_last_words();
  if (chorus::is_engine_process(argc, argv)) return chorus::engine_process_main(chorus::engine_socket_fd);
  if (chorus::is_worker_process(argc, argv)) return chorus::worker_process_main(chorus::engine_socket_fd);
  if (chorus::is_front_end_process(argc, argv)) return chorus::front_end_process_main(chorus::front_end_socket_fd);
  return chorus::run_command_line(
      argc, argv,
      {
          {"generate", "offline generation with N replicas: prompts in, JSON lines out", chorus::declare_generate},
          {"bench", "measures throughput, latency and scaling", nullptr, chorus::bench_commands()},
          {"tokenize", "text on stdin to token ids, and back; renders chats", chorus::declare_tokenize},
          {"env", "what was found: CPU, numerics profile, memory, NUMA, GPUs, libraries", chorus::declare_env},
          {"inspect", "parameters, shapes, dtypes, and each rank's slice at the given parallel sizes",
           chorus::declare_inspect},
          {"serve", "OpenAI's API before N replicas; --headless: a node of replicas alone", chorus::declare_serve},
          {"chat", "a conversation with a running server, or with a model, for which it starts one",
           chorus::declare_chat},
          {"complete", "one text's continuation, by a running server, or by a model, for which it starts one",
           chorus::declare_complete},
          {"ctl", "what an operator asks of a running server: list, add, drain, resume, remove, restart, pause",
           chorus::declare_ctl},
          {"run", "a JSON workflow: load records, generate text for each", chorus::declare_run},
      });
}
