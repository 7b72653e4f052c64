"""`chorus generate` as the ranks of a launcher: the bytes of plain `generate`, and one end for all ranks.

    make test-launchers

Ranks are started with a launcher's variables, and by the launchers themselves where they are there: torchrun in the virtual
environment CHORUS_LAUNCHERS_VENV (default ~/.cache/chorus/launchers), mpirun of Open MPI in PATH.
"""
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from chorus_process import CHORUS, STORIES, gone_within  # noqa: E402
from launched_ranks import (CLEAN, ENDS_WITHIN_S, MODELS, TORCHRUN, Ranks, endless_prompts, free_port, launched, plain_outputs,  # noqa: E402,F401
                            plain_variables, srun_variables, wait_for_rows, write_prompts)

SHAPES = [(["--dp-size", "2", "--tp-size", "2"], 4), (["-dp", "2"], 2), (["-dp", "1", "-tp", "2"], 2), (["-dp", "2", "-pp", "2"], 4), ([], 1)]


@pytest.mark.parametrize("parallel,size", SHAPES, ids=["dp2-tp2", "dp2", "tp2", "dp2-pp2", "one"])
@pytest.mark.parametrize("model", MODELS)
def test_variables_give_the_bytes_of_one_process(model, parallel, size, prompts, expected, tmp_path):
    output = tmp_path / "out.jsonl"
    arguments = [*launched(MODELS[model], *parallel), "--input", prompts, "--output", output]
    with Ranks(lambda rank: arguments, size) as ranks:
        ends = ranks.finish()
    assert [end[0] for end in ends] == [0] * size, ends
    assert output.read_bytes() == expected[model]
    assert all(out == b"" for _, out, _ in ends)
    assert all(err == "" for _, _, err in ends[1:]), "rank 0 alone speaks"


@pytest.mark.parametrize("model", ["qwen3_moe", "stories260k"])
def test_experts_over_all_ranks(model, prompts, expected, tmp_path):
    """Replicas step together through the launcher's world; those of a model without experts have nothing to step together for."""
    output = tmp_path / "out.jsonl"
    arguments = [*launched(MODELS[model], "--dp-size", "2", "--enable-ep"), "--input", prompts, "--output", output]
    with Ranks(lambda rank: arguments, 2) as ranks:
        ends = ranks.finish()
    assert [end[0] for end in ends] == [0, 0], ends
    assert output.read_bytes() == expected[model]


def test_srun_variables(prompts, expected, tmp_path):
    output = tmp_path / "out.jsonl"
    arguments = [*launched(STORIES, "--dp-size", "2", "--tp-size", "2"), "--input", prompts, "--output", output]
    with Ranks(lambda rank: arguments, 4, srun_variables) as ranks:
        ends = ranks.finish()
    assert [end[0] for end in ends] == [0] * 4, ends
    assert output.read_bytes() == expected["stories260k"]


def test_prompt_i_goes_to_rank_i_mod_dp(prompts):
    arguments = [*launched(STORIES, "-dp", "3"), "--input", prompts, "--metrics"]
    with Ranks(lambda rank: arguments, 3) as ranks:
        ends = ranks.finish()
    rows = [json.loads(line) for line in ends[0][1].splitlines()]
    assert [row["dp_rank"] for row in rows] == [i % 3 for i in range(len(rows))]
    assert [row["id"] for row in rows] == [f"row {i}" for i in range(21)]


@pytest.mark.skipif(not TORCHRUN.exists(), reason=f"{TORCHRUN} is not there: make test-launchers")
@pytest.mark.parametrize("model", MODELS)
def test_torchrun(model, prompts, expected, tmp_path):
    output = tmp_path / "out.jsonl"
    done = subprocess.run([TORCHRUN, "--nproc-per-node=4", "--master-port", free_port(), "--no-python", CHORUS,
                           *launched(MODELS[model], "--dp-size", "2", "--tp-size", "2"), "--input", prompts, "--output", output],
                          env=CLEAN, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert output.read_bytes() == expected[model]


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="mpirun is not installed: make test-launchers")
@pytest.mark.parametrize("model", MODELS)
def test_mpirun(model, prompts, expected, tmp_path):
    output = tmp_path / "out.jsonl"
    root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
    done = subprocess.run(["mpirun", *root, "--oversubscribe", "-np", "4", CHORUS,
                           *launched(MODELS[model], "--dp-size", "2", "--tp-size", "2"), "--input", prompts, "--output", output],
                          env=CLEAN, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert output.read_bytes() == expected[model]


def test_without_a_launcher_the_reason_is_said(prompts):
    done = subprocess.run([CHORUS, *launched(STORIES), "--input", prompts], env=CLEAN, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "no launcher started this process" in done.stderr


def test_a_world_that_does_not_fit_is_refused_with_both_numbers(prompts):
    with Ranks(lambda rank: [*launched(STORIES, "-dp", "2", "-tp", "2"), "--input", prompts], 3) as ranks:
        ends = ranks.finish(60)
    for status, _, err in ends:
        assert status == 2, err
        assert "3" in err and "4" in err and len(err.splitlines()) == 1, err


def test_ranks_with_other_options_are_refused_with_both_values(prompts):
    with Ranks(lambda rank: [*launched(STORIES, "-dp", "2", "--max-model-len", str(128 + 64 * rank)), "--input", prompts], 2) as ranks:
        ends = ranks.finish(60)
    for status, _, err in ends:
        assert status == 2, err
        assert "max-model-len: 128 against 192" in err, err


def test_a_missing_rank_is_named_at_the_deadline(prompts):
    arguments = [*launched(STORIES, "-dp", "3"), "--input", prompts, "--engine-start-timeout-ms", "1500"]
    with Ranks(lambda rank: arguments, 3, ranks=[0, 1]) as ranks:
        ends = ranks.finish(60)
    assert [end[0] for end in ends] == [1, 1], ends
    assert "ranks 2 of 3 did not join" in ends[0][2], ends[0][2]


def test_a_taken_master_port_is_named(prompts):
    """Another program listens where rank 0 should; the other rank finds no store there and says so too."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        arguments = [*launched(STORIES, "-dp", "2"), "--input", prompts, "--engine-start-timeout-ms", "3000"]
        with Ranks(lambda rank: arguments, 2, lambda rank, size, _: plain_variables(rank, size, port)) as ranks:
            ends = ranks.finish(60)
    assert [end[0] for end in ends] == [1, 1], ends
    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in ends[0][2], ends[0][2]
    assert "MASTER_PORT" in ends[0][2], ends[0][2]
    assert port in ends[1][2], ends[1][2]


def test_bad_input_of_rank_0_ends_every_rank(tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text("{not json\n", encoding="utf-8")
    with Ranks(lambda rank: [*launched(STORIES, "-dp", "2", "-tp", "2"), "--input", bad], 4) as ranks:
        ends = ranks.finish(60)
    assert ends[0][0] == 2, ends[0]
    assert all(status == 1 and "bad.jsonl" in err for status, _, err in ends[1:]), ends


@pytest.mark.parametrize("victim", [0, 1, 2, 3], ids=["front", "worker", "engine", "other-worker"])
def test_a_killed_rank_ends_every_rank_in_time(victim, tmp_path):
    """Once the first rows are there."""
    prompts, output = endless_prompts(tmp_path / "many.jsonl"), tmp_path / "out.jsonl"
    with Ranks(lambda rank: [*launched(STORIES, "-dp", "2", "-tp", "2"), "--input", prompts, "--output", output], 4) as ranks:
        wait_for_rows(output, ranks.processes)
        ranks.processes[victim].send_signal(signal.SIGKILL)
        assert gone_within([process.pid for process in ranks.processes], ENDS_WITHIN_S)
        ends = ranks.finish(10)
    for rank, (status, _, err) in enumerate(ends):
        assert status == (-signal.SIGKILL if rank == victim else 1), (rank, err)
        if rank not in (0, victim):
            assert f"rank {victim}" in err, err
    assert not output.exists()
