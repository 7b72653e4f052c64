"""A launcher's ranks on two nodes: two networks of this machine (networks.py). The bytes of one process, and one end for all.

    CHORUS=build/chorus python3 -m pytest tests/launchers/launched_nodes_test.py      (as root)
"""
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
# pylint: disable=wrong-import-position
from chorus_process import CHORUS, STORIES, gone_within
from launched_ranks import (CLEAN, ENDS_WITHIN_S, MODELS, TORCHRUN, Ranks, endless_prompts, free_port, launched,  # noqa: F401
                            plain_outputs, plain_variables, wait_for_rows, write_prompts)
from networks import FAR, FAR_ADDRESS, NEAR, NEAR_ADDRESS, inside, set_cable, two_networks  # noqa: F401
from nodes import make_key

pytestmark = pytest.mark.usefixtures("networks")


def variables(rank, size, port):
    return plain_variables(rank, size, port, NEAR_ADDRESS)


def srun_variables(rank, size, port):
    """As srun sets them for two nodes with half of the tasks each; the tests' networks have no names."""
    half = size // 2
    return {"SLURM_PROCID": str(rank), "SLURM_STEP_NUM_TASKS": str(size), "SLURM_LOCALID": str(rank % half), "SLURM_JOB_ID": port,
            "SLURM_STEP_ID": "0", "SLURM_NODEID": str(rank // half), "SLURM_STEP_NODELIST": f"{NEAR_ADDRESS},{FAR_ADDRESS}",
            "SLURM_STEP_TASKS_PER_NODE": f"{half}(x2)"}


def halves(size):
    """The first half of the ranks is on the near node."""
    return lambda rank: inside(NEAR if rank < size // 2 else FAR)


def in_turn(rank):
    """So that every replica is on both."""
    return inside(NEAR if rank % 2 == 0 else FAR)


@pytest.fixture(name="key")
def key_file(tmp_path):
    return make_key(tmp_path / "key")


def expect_bytes(ends, output, expected):
    assert [end[0] for end in ends] == [0] * len(ends), ends
    assert output.read_bytes() == expected
    assert all(out == b"" for _, out, _ in ends)
    assert all(err == "" for _, _, err in ends[1:]), ("rank 0 alone speaks", ends)


SHAPES = {"dp2": (["-dp", "2"], 2, False), "tp2-across": (["-tp", "2"], 2, False), "dp2-tp2": (["-dp", "2", "-tp", "2"], 4, False),
          "dp2-tp2-across": (["-dp", "2", "-tp", "2"], 4, True), "pp2-across": (["-pp", "2"], 2, False),
          "dp2-ep": (["-dp", "2", "-ep"], 2, False), "dp2-tp2-ep-across": (["-dp", "2", "-tp", "2", "-ep"], 4, True)}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("model", MODELS)
def test_variables_give_the_bytes_of_one_process(model, shape, key, prompts, expected, tmp_path):
    parallel, size, dealt = SHAPES[shape]
    output = tmp_path / "out.jsonl"
    arguments = [*launched(MODELS[model], *parallel), "--cluster-key-file", key, "--input", prompts, "--output", output]
    with Ranks(lambda rank: arguments, size, variables, prefix_of=in_turn if dealt else halves(size)) as ranks:
        expect_bytes(ranks.finish(), output, expected[model])


def test_srun_variables(key, prompts, expected, tmp_path):
    output = tmp_path / "out.jsonl"
    arguments = [*launched(STORIES, "-dp", "2", "-tp", "2"), "--cluster-key-file", key, "--input", prompts, "--output", output]
    with Ranks(lambda rank: arguments, 4, srun_variables, prefix_of=halves(4)) as ranks:
        expect_bytes(ranks.finish(), output, expected["stories260k"])


def start_torchruns(arguments, ranks_a_node, port):
    return [subprocess.Popen([*inside(network), TORCHRUN, "--nnodes=2", f"--node-rank={node}", f"--nproc-per-node={ranks_a_node}",
                              f"--master-addr={NEAR_ADDRESS}", f"--master-port={port}", "--no-python", CHORUS, *arguments(node)],
                             env=CLEAN, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            for node, network in enumerate((NEAR, FAR))]


@pytest.mark.skipif(not TORCHRUN.exists(), reason=f"{TORCHRUN} is not there: make test-launchers")
@pytest.mark.parametrize("model,parallel,ranks_a_node", [("stories260k", ["--dp-size", "2", "--tp-size", "2"], 2),
                                                         ("stories260k", ["--tp-size", "2"], 1),
                                                         ("qwen3_moe", ["--dp-size", "2", "--enable-ep"], 1)],
                         ids=["dp2-tp2", "tp2-across", "dp2-ep"])
def test_torchrun(model, parallel, ranks_a_node, key, prompts, expected, tmp_path):
    output = tmp_path / "out.jsonl"
    arguments = [*launched(MODELS[model], *parallel), "--cluster-key-file", key, "--input", prompts, "--output", output]
    agents = start_torchruns(lambda node: arguments, ranks_a_node, free_port())
    try:
        ends = [(agent.communicate(timeout=300)[1].decode(), agent.returncode) for agent in agents]
    finally:
        for agent in agents:
            agent.kill()
    assert [status for _, status in ends] == [0, 0], ends
    assert output.read_bytes() == expected[model]


@pytest.mark.skipif(not TORCHRUN.exists(), reason=f"{TORCHRUN} is not there: make test-launchers")
def test_torchrun_with_different_keys(key, prompts, tmp_path):
    """torchrun's store takes them all: they find out from each other, and none waits for the rest."""
    keys = [key, make_key(tmp_path / "other", "o")]
    agents = start_torchruns(lambda node: [*launched(STORIES, "-dp", "2"), "--cluster-key-file", keys[node], "--input", prompts], 1, free_port())
    try:
        errors = [agent.communicate(timeout=300)[1].decode() for agent in agents]
    finally:
        for agent in agents:
            agent.kill()
    for rank, (agent, error) in enumerate(zip(agents, errors)):
        assert agent.returncode != 0
        assert f"rank {1 - rank}: it holds another cluster key: --cluster-key-file must have the same bytes" in error, error


def run_mpirun(tmp_path, options, arguments):
    """Over both networks: what mpirun takes for ssh goes into the far one."""
    shell = tmp_path / "shell"
    shell.write_text(f'#!/bin/sh\nshift\nexec {" ".join(inside(FAR))} sh -c "$*"\n', encoding="utf-8")
    shell.chmod(0o700)
    root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
    return subprocess.run([*inside(NEAR), "mpirun", *root, "--mca", "plm_rsh_agent", shell, "--host", f"{NEAR_ADDRESS}:2,{FAR_ADDRESS}:2",
                           "-np", "4", *options, CHORUS, *arguments], env=CLEAN, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="mpirun is not installed: make test-launchers")
@pytest.mark.parametrize("model,parallel", [("stories260k", ["-dp", "2", "-tp", "2"]), ("qwen3_moe", ["-dp", "2", "-tp", "2", "-ep"])],
                         ids=["dp2-tp2", "dp2-tp2-ep"])
def test_mpirun(model, parallel, key, prompts, expected, tmp_path):
    output = tmp_path / "out.jsonl"
    done = run_mpirun(tmp_path, ["-x", f"MASTER_ADDR={NEAR_ADDRESS}", "-x", f"MASTER_PORT={free_port()}"],
                      [*launched(MODELS[model], *parallel), "--cluster-key-file", key, "--input", prompts, "--output", output])
    assert done.returncode == 0, done.stderr
    assert output.read_bytes() == expected[model]


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="mpirun is not installed: make test-launchers")
def test_mpirun_without_an_address_says_what_to_give(key, prompts, tmp_path):
    done = run_mpirun(tmp_path, [], [*launched(STORIES, "-dp", "2", "-tp", "2"), "--cluster-key-file", key, "--input", prompts])
    assert done.returncode != 0
    assert "mpirun started 4 ranks, 2 of them on this node" in done.stderr, done.stderr
    assert "give mpirun -x MASTER_ADDR=HOST -x MASTER_PORT=PORT" in done.stderr, done.stderr


def test_without_a_key_every_rank_refuses(prompts):
    for ranks_variables in (variables, srun_variables):
        with Ranks(lambda rank: [*launched(STORIES, "-dp", "2"), "--input", prompts], 2, ranks_variables, prefix_of=halves(2)) as ranks:
            ends = ranks.finish(60)
        for status, _, err in ends:
            assert status == 2, err
            assert f"the ranks meet at {NEAR_ADDRESS}" in err and "there is no --cluster-key-file; make one with" in err, err


@pytest.mark.parametrize("stranger", [0, 1])
def test_another_key(stranger, key, prompts, tmp_path):
    """Rank 1 is told at once; rank 0 has nobody else to wait for."""
    keys = [key, key]
    keys[stranger] = make_key(tmp_path / "other", "o")

    def arguments(rank):
        return [*launched(STORIES, "-dp", "2"), "--cluster-key-file", keys[rank], "--input", prompts, "--engine-start-timeout-ms", "2000"]

    with Ranks(arguments, 2, variables, prefix_of=halves(2)) as ranks:
        ends = ranks.finish(60)
    assert [end[0] for end in ends] == [1, 2], ends
    assert "Refused a connection" in ends[0][2] and "ranks 1 of 2 did not join" in ends[0][2], ends[0]
    assert "another cluster key" in ends[1][2], ends[1]


def test_one_without_a_key(key, prompts):
    def arguments(rank):
        keys = ["--cluster-key-file", key] if rank == 0 else []
        return [*launched(STORIES, "-dp", "2"), *keys, "--input", prompts, "--engine-start-timeout-ms", "2000"]

    with Ranks(arguments, 2, variables, prefix_of=halves(2)) as ranks:
        ends = ranks.finish(60)
    assert [end[0] for end in ends] == [1, 2], ends
    assert "there is no --cluster-key-file" in ends[1][2], ends[1]


def test_a_missing_rank_is_named(key, prompts):
    arguments = [*launched(STORIES, "-dp", "3"), "--cluster-key-file", key, "--input", prompts, "--engine-start-timeout-ms", "1500"]
    with Ranks(lambda rank: arguments, 3, variables, ranks=[0, 1], prefix_of=in_turn) as ranks:
        ends = ranks.finish(60)
    assert [end[0] for end in ends] == [1, 1], ends
    assert "ranks 2 of 3 did not join" in ends[0][2], ends[0]


def test_bad_input_of_rank_0_ends_every_rank(key, tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text("{not json\n", encoding="utf-8")
    arguments = [*launched(STORIES, "-dp", "2", "-tp", "2"), "--cluster-key-file", key, "--input", bad]
    with Ranks(lambda rank: arguments, 4, variables, prefix_of=in_turn) as ranks:
        ends = ranks.finish(60)
    assert ends[0][0] == 2, ends[0]
    assert all(status == 1 and "bad.jsonl" in err for status, _, err in ends[1:]), ends


@pytest.mark.parametrize("victim", [0, 2, 3], ids=["front", "far-engine", "far-worker"])
def test_a_killed_rank_ends_every_rank_in_time(victim, key, tmp_path):
    prompts, output = endless_prompts(tmp_path / "many.jsonl"), tmp_path / "out.jsonl"
    arguments = [*launched(STORIES, "-dp", "2", "-tp", "2"), "--cluster-key-file", key, "--input", prompts, "--output", output]
    with Ranks(lambda rank: arguments, 4, variables, prefix_of=halves(4)) as ranks:
        wait_for_rows(output, ranks.processes)
        ranks.processes[victim].send_signal(signal.SIGKILL)
        assert gone_within([process.pid for process in ranks.processes], ENDS_WITHIN_S)
        ends = ranks.finish(10)
    for rank, (status, _, err) in enumerate(ends):
        assert status == (-signal.SIGKILL if rank == victim else 1), (rank, err)
        if rank not in (0, victim):
            assert f"rank {victim}" in err, err
    assert not output.exists()


def test_a_cable_that_is_pulled_ends_every_rank(key, tmp_path):
    """Nobody says a word: the kernel's timers of the ranks' own connections tell within about ten seconds, also where a request was
    on its way to an engine, whose connection has no such timer (it may compute for long without reading)."""
    prompts, output = endless_prompts(tmp_path / "many.jsonl"), tmp_path / "out.jsonl"
    arguments = [*launched(STORIES, "-dp", "2"), "--cluster-key-file", key, "--input", prompts, "--output", output]
    with Ranks(lambda rank: arguments, 2, variables, prefix_of=halves(2)) as ranks:
        wait_for_rows(output, ranks.processes)
        set_cable("down")
        try:
            assert gone_within([process.pid for process in ranks.processes], 25)
        finally:
            set_cable("up")
        ends = ranks.finish(10)
    assert [end[0] for end in ends] == [1, 1], ends


def test_a_stranger_in_the_network_changes_nothing(key, prompts, expected, tmp_path):
    """Where rank 0 listens for the store it gets a nonce and no answer; the job goes on as if it were not there."""
    output = tmp_path / "out.jsonl"
    arguments = [*launched(STORIES, "-dp", "2"), "--cluster-key-file", key, "--input", prompts, "--output", output]
    ports = []

    def noted(rank, size, port):
        ports.append(port)
        return variables(rank, size, port)

    with Ranks(lambda rank: arguments, 2, noted, ranks=[0], prefix_of=in_turn) as first:
        script = ("import socket, time\n"
                  "while True:\n"
                  "    try:\n"
                  f"        s = socket.create_connection(('{NEAR_ADDRESS}', {ports[0]}))\n"
                  "        break\n"
                  "    except ConnectionRefusedError:\n"
                  "        time.sleep(0.05)\n"
                  "s.sendall(b'x' * 4096)\n"
                  "print(len(s.recv(41)))\n")
        stranger = subprocess.run([*inside(FAR), sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
        assert stranger.stdout == "41\n", stranger.stderr
        with Ranks(lambda rank: arguments, 2, lambda rank, size, _: variables(rank, size, ports[0]), ranks=[1], prefix_of=in_turn) as second:
            ends = first.finish() + second.finish()
    expect_bytes(ends, output, expected["stories260k"])
    assert "Refused a connection" in ends[0][2]
