"""`chorus generate` as ranks that a test starts itself, or a launcher: imported by the tests that say where."""
import json
import os
import pathlib
import socket
import subprocess
import time

import pytest

from chorus_process import CHORUS, STORIES, TINY, is_running

VENV = pathlib.Path(os.environ.get("CHORUS_LAUNCHERS_VENV", pathlib.Path.home() / ".cache/chorus/launchers"))
TORCHRUN = VENV / "bin" / "torchrun"
# The tests themselves may run under a launcher.
CLEAN = {name: value for name, value in os.environ.items()
         if not name.startswith(("OMPI_", "PMIX_", "SLURM_", "TORCHELASTIC_", "MASTER_", "RANK", "WORLD_SIZE", "LOCAL_"))}
MODELS = {"stories260k": STORIES, "qwen3_moe": str(TINY / "qwen3_moe")}
OPTIONS = ["--max-tokens", "24", "--temperature", "0.8", "--seed", "3", "--kv-cache-memory", "16MiB", "--threads", "1"]
ENDS_WITHIN_S = 2


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.fixture(scope="module", name="prompts")
def write_prompts(tmp_path_factory):
    path = tmp_path_factory.mktemp("launched") / "prompts.jsonl"
    rows = [{"id": f"row {i}", "prompt_token_ids": [1, 3 + i % 50, 7 + i], "n": 1 + i % 2} for i in range(21)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module", name="expected")
def plain_outputs(prompts):
    """What one process makes of the prompts, by model."""
    outputs = {}
    for name, model in MODELS.items():
        done = subprocess.run([CHORUS, "generate", model, "--input", prompts, *OPTIONS], capture_output=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr.decode()
        outputs[name] = done.stdout
    return outputs


def launched(model, *parallel):
    return ["generate", model, "--distributed-executor-backend", "external_launcher", *parallel, *OPTIONS]


def plain_variables(rank, size, port, address="127.0.0.1"):
    return {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": address, "MASTER_PORT": port}


def srun_variables(rank, size, port):
    return {"SLURM_PROCID": str(rank), "SLURM_NTASKS": str(size), "SLURM_LOCALID": str(rank), "SLURM_JOB_ID": "5", "SLURM_STEP_ID": "0",
            "SLURM_STEP_NODELIST": "localhost", "SLURM_STEP_TASKS_PER_NODE": str(size), "MASTER_PORT": port}


class Ranks:
    """The processes of one world, which this test starts. `prefix_of`: what goes before a rank's command."""

    def __init__(self, arguments_of, size, variables=plain_variables, ranks=None, prefix_of=lambda rank: []):
        port = free_port()
        self.processes = [
            subprocess.Popen([*prefix_of(rank), CHORUS, *arguments_of(rank)], env=CLEAN | variables(rank, size, port), stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE) for rank in (range(size) if ranks is None else ranks)]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.communicate()

    def finish(self, timeout_s=120):
        """(exit status, stdout, stderr) by rank."""
        outputs = [process.communicate(timeout=timeout_s) for process in self.processes]
        return [(process.returncode, out, err.decode()) for process, (out, err) in zip(self.processes, outputs)]


def endless_prompts(path):
    """Work that is endless beside a test; the first rows are there soon."""
    path.write_text("".join(json.dumps({"prompt_token_ids": [1, 5 + i % 100], "max_tokens": 400 if i > 60 else 2, "ignore_eos": True})
                            + "\n" for i in range(4000)), encoding="utf-8")
    return path


def wait_for_rows(output, processes):
    partial = output.with_name(output.name + ".partial")  # until the run's end
    deadline = time.monotonic() + 60
    while not (partial.exists() and partial.stat().st_size > 0):
        assert time.monotonic() < deadline and all(is_running(process.pid) for process in processes)
        time.sleep(0.01)
