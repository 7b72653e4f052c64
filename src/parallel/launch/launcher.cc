#include "parallel/launch/launcher.h"

#include <algorithm>
#include <cctype>
#include <charconv>

#include "config/engine_config.h"

namespace chorus {
namespace {

class Variables {
 public:
  explicit Variables(const EnvironmentLookup& lookup) : lookup_(lookup) {}

  // A variable that is set to nothing counts as not set.
  std::optional<std::string> find(const std::string& name) const {
    auto value = lookup_(name);
    if (value && value->empty()) value.reset();
    return value;
  }
  bool has(const std::string& name) const { return find(name).has_value(); }

  Result<std::string> text(const std::string& name) const {
    auto value = find(name);
    if (!value) return fail(ErrorCode::invalid_argument, "the environment variable {} is not set", name);
    return std::move(*value);
  }

  Result<int> number(const std::string& name, int least, int most) const {
    CHORUS_TRY(const std::string value, text(name));
    int result = 0;
    const char* end = value.data() + value.size();
    const auto parsed = std::from_chars(value.data(), end, result);
    if (parsed.ec != std::errc() || parsed.ptr != end || result < least || result > most) {
      return fail(ErrorCode::invalid_argument, "{}={} is not a number from {} to {}", name, value, least, most);
    }
    return result;
  }

  Result<int> number_or(const std::string& name, int least, int most, int otherwise) const {
    if (!has(name)) return otherwise;
    return number(name, least, most);
  }

 private:
  const EnvironmentLookup& lookup_;
};

// Part of keys and of a file's name.
std::string identifier(std::string text) {
  for (char& c : text) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '-' && c != '_' && c != '.') c = '_';
  }
  return text.substr(0, 128);
}

struct Names {
  const char *rank, *world_size, *local_rank, *local_world_size;
};

Result<void> read_ranks(const Variables& variables, const Names& names, LauncherEnvironment* environment) {
  CHORUS_TRY(environment->world_size, variables.number(names.world_size, 1, launcher_world_size_max));
  const int size = environment->world_size;
  CHORUS_TRY(environment->rank, variables.number(names.rank, 0, size - 1));
  CHORUS_TRY(environment->local_world_size, variables.number_or(names.local_world_size, 1, size, 0));
  const int local_most = environment->local_world_size > 0 ? environment->local_world_size : size;
  CHORUS_TRY(environment->local_rank, variables.number_or(names.local_rank, 0, local_most - 1, 0));
  return {};
}

Result<void> read_master(const Variables& variables, LauncherEnvironment* environment) {
  CHORUS_TRY(environment->store_host, variables.text("MASTER_ADDR"));
  CHORUS_TRY(environment->store_port, variables.number("MASTER_PORT", 1, 65535));
  return {};
}

Result<LauncherEnvironment> from_torchrun(const Variables& variables) {
  LauncherEnvironment environment;
  environment.launcher = Launcher::torchrun;
  CHORUS_TRY_VOID(read_ranks(variables, {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"}, &environment));
  CHORUS_TRY_VOID(read_master(variables, &environment));
  environment.launchers_store = variables.find("TORCHELASTIC_USE_AGENT_STORE") == "True";
  // The store outlives a restart of the ranks, so what an earlier attempt left in it must not be taken for ours.
  environment.run_id = fmt::format("{}-{}", identifier(variables.find("TORCHELASTIC_RUN_ID").value_or("none")),
                                   identifier(variables.find("TORCHELASTIC_RESTART_COUNT").value_or("0")));
  return environment;
}

Result<LauncherEnvironment> from_open_mpi(const Variables& variables) {
  LauncherEnvironment environment;
  environment.launcher = Launcher::open_mpi;
  CHORUS_TRY_VOID(read_ranks(
      variables,
      {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"},
      &environment));
  auto job = variables.find("PMIX_NAMESPACE");
  if (!job) job = variables.find("OMPI_MCA_ess_base_jobid");
  environment.run_id = identifier(job.value_or("mpi"));
  if (environment.world_size == 1) return environment;
  if (variables.has("MASTER_ADDR")) {
    CHORUS_TRY_VOID(read_master(variables, &environment));
    return environment;
  }
  if (environment.local_world_size != environment.world_size) {
    return fail(
        ErrorCode::invalid_argument,
        "mpirun started {} ranks, {} of them on this node: ranks on several nodes meet at an address of rank 0's "
        "node, so give mpirun -x MASTER_ADDR=HOST -x MASTER_PORT=PORT, and chorus --cluster-key-file FILE",
        environment.world_size, environment.local_world_size);
  }
  for (const char* name : {"PMIX_SERVER_TMPDIR", "OMPI_MCA_orte_jobfam_session_dir"}) {
    const auto directory = variables.find(name);
    if (!directory) continue;
    environment.store_file = fmt::format("{}/chorus-{}.store", *directory, environment.run_id);
    return environment;
  }
  return fail(
      ErrorCode::invalid_argument,
      "mpirun's session directory is not known (PMIX_SERVER_TMPDIR is not set): give mpirun -x MASTER_ADDR=127.0.0.1 "
      "-x MASTER_PORT=PORT");
}

// "4(x2),3" says 4, 4, 3 tasks on nodes 0, 1, 2. 0: not to be read.
int slurm_tasks_on_node(const std::string& counts, int node) {
  const char *at = counts.data(), *end = at + counts.size();
  while (at < end) {
    int tasks = 0, nodes = 1;
    auto parsed = std::from_chars(at, end, tasks);
    if (parsed.ec != std::errc()) return 0;
    at = parsed.ptr;
    if (end - at > 2 && at[0] == '(' && at[1] == 'x') {
      parsed = std::from_chars(at + 2, end, nodes);
      if (parsed.ec != std::errc() || parsed.ptr == end || *parsed.ptr != ')') return 0;
      at = parsed.ptr + 1;
    }
    if (tasks < 0 || nodes < 1) return 0;
    if (node < nodes) return tasks;
    node -= nodes;
    if (at < end && *at++ != ',') return 0;
  }
  return 0;
}

// Where no port was given: one of 20000 to 29999, below the range from which the system chooses.
int slurm_port(int job, int step) {
  return 20'000 + static_cast<int>((std::int64_t{job} * 31 + step) % 10'000);
}

Result<LauncherEnvironment> from_slurm(const Variables& variables) {
  constexpr int number_max = 0x7fffffff;
  LauncherEnvironment environment;
  environment.launcher = Launcher::slurm;
  const char* size_name = variables.has("SLURM_STEP_NUM_TASKS") ? "SLURM_STEP_NUM_TASKS" : "SLURM_NTASKS";
  CHORUS_TRY_VOID(read_ranks(variables, {"SLURM_PROCID", size_name, "SLURM_LOCALID", ""}, &environment));
  CHORUS_TRY(const int job, variables.number("SLURM_JOB_ID", 0, number_max));
  CHORUS_TRY(const int step, variables.number("SLURM_STEP_ID", 0, number_max));
  CHORUS_TRY(const int node, variables.number_or("SLURM_NODEID", 0, launcher_world_size_max, 0));
  environment.run_id = fmt::format("slurm-{}-{}", job, step);
  const int local = slurm_tasks_on_node(variables.find("SLURM_STEP_TASKS_PER_NODE").value_or(""), node);
  if (local > environment.local_rank && local <= environment.world_size) environment.local_world_size = local;
  if (environment.world_size == 1) return environment;
  if (const auto host = variables.find("MASTER_ADDR")) {
    environment.store_host = *host;
  } else {
    CHORUS_TRY(const std::string nodes, variables.text("SLURM_STEP_NODELIST"));
    environment.store_host = first_slurm_host(nodes);
  }
  CHORUS_TRY(environment.store_port, variables.number_or("MASTER_PORT", 1, 65535, slurm_port(job, step)));
  return environment;
}

Result<LauncherEnvironment> from_plain(const Variables& variables) {
  LauncherEnvironment environment;
  environment.launcher = Launcher::plain;
  CHORUS_TRY_VOID(read_ranks(variables, {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"}, &environment));
  environment.run_id = "plain";
  if (environment.world_size == 1) return environment;
  CHORUS_TRY_VOID(read_master(variables, &environment));
  return environment;
}

}  // namespace

bool LauncherEnvironment::may_span_nodes() const {
  return local_world_size != world_size && store_file.empty() && !store_host.empty() && !is_loopback(store_host);
}

const char* name_of(Launcher launcher) {
  switch (launcher) {
    case Launcher::none:
      return "no launcher";
    case Launcher::torchrun:
      return "torchrun";
    case Launcher::open_mpi:
      return "mpirun";
    case Launcher::slurm:
      return "srun";
    case Launcher::plain:
      return "environment variables";
  }
  return "?";
}

std::string first_slurm_host(const std::string& node_list) {
  std::string host;
  bool in_brackets = false, taken = false;
  for (const char c : node_list) {
    if (in_brackets) {
      if (c == ']') {
        in_brackets = false;
      } else if (c == '-' || c == ',') {
        taken = true;  // the rest of the range or list
      } else if (!taken) {
        host += c;
      }
    } else if (c == '[') {
      in_brackets = true;
      taken = false;
    } else if (c == ',') {
      break;
    } else {
      host += c;
    }
  }
  return host;
}

Result<LauncherEnvironment> detect_launcher(const EnvironmentLookup& lookup) {
  const Variables variables(lookup);
  auto detected = [&]() -> Result<LauncherEnvironment> {
    if (variables.has("TORCHELASTIC_RUN_ID")) return from_torchrun(variables);
    if (variables.has("OMPI_COMM_WORLD_RANK")) return from_open_mpi(variables);
    // A batch script has a process id without a step: it is no rank of anything.
    if (variables.has("SLURM_PROCID") && variables.has("SLURM_STEP_ID")) return from_slurm(variables);
    if (variables.has("RANK") || variables.has("WORLD_SIZE")) return from_plain(variables);
    return LauncherEnvironment{};
  }();
  if (!detected.ok()) return with_context(detected.error(), "launcher");
  return detected;
}

}  // namespace chorus
