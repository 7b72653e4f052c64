"""`chorus env`, `chorus --version` and `chorus bench`: what they print and write."""
import json
import os
import re
import subprocess

import pytest

from chorus_process import CHORUS, STORIES, TINY, chorus

CORES = len(os.sched_getaffinity(0))
SMALL = ["--max-num-seqs", "8", "--max-model-len", "64", "--kv-cache-memory", "16MiB", "--threads", "1"]


def test_version():
    done = chorus("--version")
    assert done.returncode == 0
    assert re.fullmatch(r"chorus \d+\.\d+\.\d+\nnumerics profile: [\w-]+/bfloat16 [\w-]+/float32\n", done.stdout.decode())


def test_env_as_text():
    done = chorus("env")
    assert done.returncode == 0
    names = {line.split("  ")[0] for line in done.stdout.decode().splitlines()}
    assert {"chorus", "cpu", "cpu features", "instruction sets", "cores", "memory", "GPUs", "numerics profile", "library"} <= names


def test_env_as_json():
    done = chorus("env", "--json")
    assert done.returncode == 0
    env = json.loads(done.stdout)
    assert f"chorus {env['version']}\n" in chorus("--version").stdout.decode()
    assert env["cpu"]["instruction_sets"][-1] == "scalar"
    for dtype, profile in env["numerics_profiles"].items():
        assert profile == f"{env['cpu']['instruction_sets'][0]}/{dtype}"
    assert env["cores"]["affinity"] == sorted(os.sched_getaffinity(0)) and 1 <= env["cores"]["usable"] <= CORES
    assert 0 < env["memory"]["available_bytes"] <= env["memory"]["total_bytes"]
    assert env["gpus"]["usable"] == []


def test_env_sees_the_affinity():
    one = min(os.sched_getaffinity(0))
    done = subprocess.run([CHORUS, "env", "--json"], stdout=subprocess.PIPE, check=True, preexec_fn=lambda: os.sched_setaffinity(0, {one}))
    assert json.loads(done.stdout)["cores"] | {"cgroup_limit": None} == {"usable": 1, "affinity": [one], "cgroup_limit": None}
