// Which launcher started this process, which rank it is, and where the ranks meet. Pure functions of environment
// variables, which are handed in; only cli/ reads them.
//
//   torchrun   RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT, TORCHELASTIC_RUN_ID,
//              TORCHELASTIC_USE_AGENT_STORE (True: torchrun itself runs the store)
//   mpirun     Open MPI: OMPI_COMM_WORLD_RANK, _SIZE, _LOCAL_RANK, _LOCAL_SIZE. On one node the ranks meet in a file
//              of the job's session directory; on several they need MASTER_ADDR and MASTER_PORT
//   srun       SLURM_PROCID, SLURM_STEP_NUM_TASKS (or SLURM_NTASKS), SLURM_LOCALID, SLURM_JOB_ID, SLURM_STEP_ID; rank 0
//              has the store, on the first host of SLURM_STEP_NODELIST and at a port made from the job's and step's
//              numbers, unless MASTER_ADDR and MASTER_PORT say otherwise
//   plain      RANK and WORLD_SIZE, MASTER_ADDR and MASTER_PORT if WORLD_SIZE > 1, and LOCAL_WORLD_SIZE or nothing; set
//              by whoever starts the processes
//
// The first that fits is taken, in this order.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "base/result.h"

namespace chorus {

enum class Launcher { none, torchrun, open_mpi, slurm, plain };
const char* name_of(Launcher launcher);  // "torchrun", "mpirun", "srun", ..

inline constexpr int launcher_world_size_max = 4096;

struct LauncherEnvironment {
  Launcher launcher = Launcher::none;
  int rank = 0;
  int world_size = 1;
  int local_rank = 0;
  int local_world_size = 0;  // ranks on this node; 0: not known
  std::string run_id;        // the same in all ranks of the job, another one in the next job; letters, digits, "-_."

  // Where the ranks meet: a TCP store, or a file; neither in a world of one.
  std::string store_host;
  int store_port = 0;
  bool launchers_store = false;  // torchrun runs the TCP store; else rank 0 has to
  std::string store_file;

  bool hosts_store() const { return rank == 0 && !store_host.empty() && !launchers_store; }
  // Whether ranks may be on other nodes than this one, as far as the variables tell.
  bool may_span_nodes() const;
};

// The value of a variable, or nothing.
using EnvironmentLookup = std::function<std::optional<std::string>(const std::string&)>;

// launcher is `none` when no launcher's variables are there. Errors: invalid_argument, which names the variable, its
// value and what it may be, or the variable that is missing.
Result<LauncherEnvironment> detect_launcher(const EnvironmentLookup& lookup);

// The first host of a Slurm node list: "node[03-07,9],login" -> "node03".
std::string first_slurm_host(const std::string& node_list);

}  // namespace chorus
