"""Ranks started by mpirun, by srun's variables and by plain ones find each other: launcher_tool join.

    LAUNCHER_TOOL=build/tests/launchers/launcher_tool python3 -m pytest tests/launchers/join_test.py

mpirun's cases are skipped without Open MPI. Made against Open MPI 4.1.4.
"""
import os
import pathlib
import shutil
import socket
import subprocess

import pytest

TOOL = pathlib.Path(os.environ.get("LAUNCHER_TOOL",
                                   pathlib.Path(__file__).parents[2] / "build/tests/launchers/launcher_tool")).absolute()
pytestmark = pytest.mark.skipif(not TOOL.exists(), reason=f"{TOOL} is not built (ninja launcher_tool)")
SIZE = 4
# The tests themselves may run under a launcher.
CLEAN = {name: value for name, value in os.environ.items()
         if not name.startswith(("OMPI_", "PMIX_", "SLURM_", "TORCHELASTIC_", "MASTER_", "RANK", "WORLD_SIZE", "LOCAL_"))}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.fixture(name="key", scope="module")
def make_key(tmp_path_factory):
    path = tmp_path_factory.mktemp("join") / "cluster-key"
    path.touch(0o600)
    path.write_bytes(os.urandom(32))
    return str(path)


def start_ranks(variables_of):
    return [subprocess.Popen([TOOL, "join"], env=CLEAN | variables_of(rank), stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True) for rank in range(SIZE)]


def expect_world(lines, launcher):
    assert sorted(lines) == [f"{launcher} rank {rank} of {SIZE} sum 10" for rank in range(SIZE)]


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="mpirun is not installed")
@pytest.mark.parametrize("variables", [
    {},
    {"LAUNCHER_TOOL_TCP": "1"},
    {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": None},
    {"MASTER_ADDR": socket.gethostname(), "MASTER_PORT": None, "LAUNCHER_TOOL_TCP": "1"},
], ids=["file", "file-tcp", "store", "store-tcp"])
def test_mpirun(variables, key):
    variables = {"LAUNCHER_TOOL_KEY": key} | variables
    command = ["mpirun", "--oversubscribe", "-np", str(SIZE)] + (["--allow-run-as-root"] if os.geteuid() == 0 else [])
    for name, value in variables.items():
        command += ["-x", f"{name}={value or free_port()}"]
    result = subprocess.run(command + [TOOL, "join"], env=CLEAN, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    expect_world(result.stdout.splitlines(), "mpirun")


@pytest.mark.parametrize("tcp", ["", "without key", "with key"], ids=["shared-memory", "tcp", "tcp-key"])
@pytest.mark.parametrize("launcher", ["environment variables", "srun"])
def test_variables(launcher, tcp, key):
    port = free_port()

    def variables_of(rank):
        if launcher == "srun":
            variables = {"SLURM_PROCID": str(rank), "SLURM_NTASKS": str(SIZE), "SLURM_LOCALID": str(rank),
                         "SLURM_JOB_ID": "5", "SLURM_STEP_ID": "0", "SLURM_STEP_NODELIST": "localhost",
                         "MASTER_PORT": port}
        else:
            variables = {"RANK": str(rank), "WORLD_SIZE": str(SIZE), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        return variables | ({"LAUNCHER_TOOL_TCP": "1"} if tcp else {}) | ({"LAUNCHER_TOOL_KEY": key} if tcp == "with key" else {})

    ranks = start_ranks(variables_of)
    outputs = [rank.communicate(timeout=120) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0] * SIZE, outputs
    expect_world("".join(output for output, _ in outputs).splitlines(), launcher)


def test_a_bad_variable_is_named():
    result = subprocess.run([TOOL, "join"], env=CLEAN | {"RANK": "7", "WORLD_SIZE": "4"}, capture_output=True, text=True,
                            timeout=60)
    assert result.returncode == 1
    assert "RANK=7 is not a number from 0 to 3" in result.stderr
