"""Ranks on Ray give the bytes of ranks without it; what dies is started again by Ray; what cannot be is said.

    CHORUS_LAUNCHERS_VENV=... python -m pytest tests/launchers/ray_test.py      (make ray builds what it needs)
"""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
# pylint: disable=wrong-import-position
from chorus_process import CHORUS, STORIES, TINY, chorus, gone_within
from launched_ranks import wait_for_rows
from nodes import engine_of
from ray_nodes import (LIMITS, RayNode, descendants, few_rows, launcher_of, many_rows, needs_ray, parent_of, rank_processes, runs, start_on_ray,
                       start_work, work)

OTHER_MODEL = TINY / "qwen2"

pytestmark = needs_ray


@pytest.fixture(scope="module")
def cluster():
    node = RayNode("127.0.0.2", 4)
    yield node
    node.close()


@pytest.mark.parametrize("model, sizes", [
    (STORIES, ["-dp", 1]),
    (STORIES, ["-dp", 2]),
    (STORIES, ["-dp", 4]),
    (STORIES, ["-dp", 2, "-tp", 2]),
    (OTHER_MODEL, ["-dp", 2]),
    (TINY / "mixtral", ["-dp", 2, "-ep"]),
], ids=str)
def test_same_bytes(tmp_path, cluster, runs, model, sizes):
    rows = few_rows(tmp_path / "rows.jsonl", 600)  # Ray's word may come after the rank itself: the run is to be longer
    expected = chorus("generate", model, "--input", rows, *LIMITS)
    assert expected.returncode == 0, expected.stderr.decode()
    output = tmp_path / "out.jsonl"
    head = start_on_ray(["generate", model, "--data-parallel-backend", "ray", *sizes, "--input", rows, "--output", output, *LIMITS], cluster.cluster)
    runs.append(head)
    assert head.finish() == 0, head.log
    assert output.read_bytes() == expected.stdout
    assert f"Starting {sizes[1]} data parallel workers" in head.log
    for rank in range(sizes[1]):
        assert f"Ray has placed worker rank {rank} on node 127.0.0.2" in head.log
        assert f"Worker rank {rank} is ready" in head.log


def test_a_cluster_of_its_own(tmp_path, runs):
    """Nothing of it is left."""
    rows = few_rows(tmp_path / "rows.jsonl")
    output = tmp_path / "out.jsonl"
    head = start_on_ray(["generate", STORIES, "--distributed-executor-backend", "ray", "-tp", "2", "--input", rows, "--output", output, *LIMITS])
    runs.append(head)
    head.wait_for("Worker rank 0 is ready", within_s=120)
    launcher = launcher_of(head)
    mine = descendants(launcher)
    assert len(mine) > 4  # ray start, its store, a raylet, workers
    assert head.finish() == 0, head.log
    assert output.read_bytes() == chorus("generate", STORIES, "--input", rows, *LIMITS).stdout
    assert gone_within([launcher, *mine], 5)
    assert not [path for path in pathlib.Path("/tmp").glob("chorus-ray-*") if path.stat().st_uid == os.getuid()
                and path.stat().st_mtime > time.time() - 100]


def test_a_cluster_behind_a_token(tmp_path, runs, monkeypatch, request):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "t" * 40)
    node = RayNode("127.0.0.3", 2)
    request.addfinalizer(node.close)
    rows = few_rows(tmp_path / "rows.jsonl")
    output = tmp_path / "out.jsonl"
    head = start_on_ray(["generate", STORIES, "-dpb", "ray", "-dp", 2, "--input", rows, "--output", output, *LIMITS], node.cluster)
    runs.append(head)
    assert head.finish() == 0, head.log
    assert output.read_bytes() == chorus("generate", STORIES, "--input", rows, *LIMITS).stdout
    monkeypatch.delenv("RAY_AUTH_MODE")
    refused(1, "InvalidAuthToken", address=node.cluster)


def test_interrupted_while_a_cluster_of_its_own_starts(runs):
    head = start_on_ray(["generate", STORIES, "-dpb", "ray", "--prompt", "x", *LIMITS])
    runs.append(head)
    head.wait_for("Starting a Ray cluster")
    launcher = launcher_of(head)
    while len(descendants(launcher)) < 2:
        assert head.process.poll() is None
    mine = descendants(launcher)
    os.kill(head.process.pid, signal.SIGINT)
    assert head.finish(60) == 130, head.log
    assert gone_within([launcher, *mine], 15)


def test_killed_actor(tmp_path, cluster, runs, work):
    head = start_work(runs, work, tmp_path, cluster, ["-dp", 2])
    head.wait_for("Worker rank 1 is ready")
    head.wait_for("Worker rank 0 is ready")
    nodes = rank_processes(head)
    os.kill(parent_of(nodes[1]), signal.SIGKILL)
    assert gone_within([nodes[1]], 5)
    head.wait_for("Ray has lost worker rank 1 and starts it again")
    assert rank_processes(head)[0] == nodes[0]
    assert head.finish() == 0, head.log
    assert (tmp_path / "out.jsonl").read_bytes() == work[1]
    assert "lost worker rank 0" not in head.log


def test_an_actor_is_started_again(tmp_path, cluster, runs, work):
    """Its rank works again: nobody else could, with one rank."""
    head = start_work(runs, work, tmp_path, cluster, ["-dp", 1])
    head.wait_for("Worker rank 0 is ready")
    nodes = rank_processes(head)
    os.kill(parent_of(nodes[0]), signal.SIGKILL)
    assert head.finish() == 0, head.log
    assert len(re.findall("Ray has placed worker rank 0", head.log)) == 2
    assert (tmp_path / "out.jsonl").read_bytes() == work[1]


def test_an_actor_that_dies_again_and_again_is_given_up(tmp_path, cluster, runs):
    """Each death counts once."""
    rows = many_rows(tmp_path / "rows.jsonl", 20000)  # more than it gets to
    head = start_work(runs, (rows, None), tmp_path, cluster, ["-dp", 1])
    for deaths in range(6):
        head.wait_for("(?s)" + ".*".join(["Worker rank 0 is ready"] * (deaths + 1)))
        os.kill(parent_of(rank_processes(head)[0]), signal.SIGKILL)
    head.wait_for("Worker rank 0 is given up on Ray: given up after 5 restarts")
    assert head.finish() == 1, head.log
    assert len(re.findall("Ray has placed worker rank 0", head.log)) == len(re.findall("Ray has lost worker rank 0", head.log)) == 6


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_an_ended_node_is_started_again(tmp_path, cluster, runs, work, how):
    """The actor's child, by whoever ends processes on a machine that goes down."""
    head = start_work(runs, work, tmp_path, cluster, ["-dp", 1])
    head.wait_for("Worker rank 0 is ready")
    os.kill(rank_processes(head)[0], how)
    assert head.finish() == 0, head.log
    assert len(re.findall("Ray has placed worker rank 0", head.log)) == 2
    assert (tmp_path / "out.jsonl").read_bytes() == work[1]


def test_killed_engine(tmp_path, cluster, runs, work):
    head = start_work(runs, work, tmp_path, cluster, ["-dp", 2])
    head.wait_for("Worker rank 1 is ready")
    head.wait_for("Worker rank 0 is ready")
    nodes = rank_processes(head)
    wait_for_rows(tmp_path / "out.jsonl", [head.process])  # by then both have requests
    node = type("Node", (), {"process": type("Process", (), {"pid": nodes[1]})})
    os.kill(engine_of(node, 1), signal.SIGKILL)
    assert head.finish() == 0, head.log
    assert (tmp_path / "out.jsonl").read_bytes() == work[1]
    assert re.search("Worker rank 1 .* requests go to the others", head.log)
    assert "Ray has lost" not in head.log  # its node has done it


def test_killed_head_leaves_nothing(tmp_path, cluster, runs, work):
    head = start_work(runs, work, tmp_path, cluster, ["-dp", 4])
    head.wait_for("Worker rank 3 is ready")
    nodes = rank_processes(head)
    launcher = launcher_of(head)
    head.kill()
    assert gone_within([launcher, *nodes.values()], 25)
    # All four places are free again.
    done = start_work(runs, (few_rows(tmp_path / "few.jsonl"), None), tmp_path, cluster, ["-dp", 4])
    assert done.finish() == 0, done.log


def test_killed_chorus_ray_is_an_error(tmp_path, cluster, runs, work):
    head = start_work(runs, work, tmp_path, cluster, ["-dp", 2])
    head.wait_for("Worker rank 1 is ready")
    head.wait_for("Worker rank 0 is ready")
    launcher = launcher_of(head)
    os.kill(launcher, signal.SIGKILL)
    assert head.finish() in (0, 1)
    assert "Ray is gone: chorus-ray was killed by SIGKILL" in head.log


@pytest.mark.parametrize("strategy", ["strict", "fill"])
def test_killed_raylet(tmp_path, runs, strategy):
    """Its rank goes to another node, and the other rank does not notice."""
    nodes = [RayNode("127.0.0.5", 1)]
    try:
        nodes += [RayNode("127.0.0.6", 1, nodes[0]), RayNode("127.0.0.7", 1, nodes[0])]
        rows = many_rows(tmp_path / "rows.jsonl", 20000)  # more than it gets to
        head = start_on_ray(["generate", STORIES, "-dpb", "ray", "-dp", 2, "-dpl", 1, "--input", rows, "--output", tmp_path / "out.jsonl", *LIMITS],
                            nodes[0].cluster, strategy)
        runs.append(head)
        where = [head.wait_for(rf"Ray has placed worker rank {rank} on node (\S+)").group(1) for rank in (0, 1)]
        for rank in (0, 1):
            head.wait_for(f"Worker rank {rank} is ready")
        if strategy == "strict":  # one rank a node, this machine's own first
            assert where[0] == nodes[0].address != where[1]
        lost = 1 if where[1] != nodes[0].address else 0  # not the node that chorus-ray is connected to
        before = rank_processes(head)
        next(node for node in nodes if node.address == where[lost]).kill_raylet()
        head.wait_for(f"Ray has lost worker rank {lost}")
        assert gone_within([before[lost]], 10)
        head.wait_for(rf"(?s)Ray has placed worker rank {lost} on.*Ray has placed worker rank {lost} on node \S+", within_s=90)
        assert re.findall(rf"Ray has placed worker rank {lost} on node (\S+)", head.log)[1] not in where
        head.wait_for(f"(?s)Worker rank {lost} is ready.*Worker rank {lost} is ready")
        assert rank_processes(head)[1 - lost] == before[1 - lost]
        assert f"lost worker rank {1 - lost}" not in head.log
    finally:
        for running in runs:
            running.kill()
        for node in reversed(nodes):
            node.close()


def test_killed_raylet_of_the_head_is_an_error(tmp_path, runs):
    """At once, not when Ray's library gives up after a minute."""
    node = RayNode("127.0.0.8", 1)
    try:
        head = start_work(runs, (many_rows(tmp_path / "rows.jsonl", 20000), None), tmp_path, node, ["-dp", 1])
        head.wait_for("Worker rank 0 is ready")
        mine = [launcher_of(head), rank_processes(head)[0]]
        node.kill_raylet()
        head.wait_for("Ray is gone: the raylet of this machine has ended", within_s=20)
        assert head.finish(60) == 1
        assert gone_within(mine, 25)
    finally:
        node.close()


def refused(status, *expected, arguments=(), **environment):
    head = start_on_ray(["generate", STORIES, "--data-parallel-backend", "ray", "--prompt", "x", *LIMITS, *arguments], **environment)
    assert head.finish() == status, head.log
    for words in expected:
        assert words in head.log
    return head


def test_strict_says_what_there_is(cluster):
    refused(1, "room for 0 of 2", "CPU 3", "127.0.0.2 has CPU 4", "CHORUS_RAY_DP_PACK_STRATEGY=fill", arguments=["-dp", 2, "--threads", 3],
            address=cluster.cluster)


def test_fill_says_what_there_is(cluster):
    refused(1, "room for 4 of 5", "127.0.0.2 has CPU 4", arguments=["-dp", 5], address=cluster.cluster, strategy="fill")


def test_a_cluster_in_use_is_waited_for(cluster, runs, work, tmp_path):
    head = start_work(runs, work, tmp_path, cluster, ["-dp", 4])
    head.wait_for("Worker rank 3 is ready")
    os.kill(head.process.pid, signal.SIGSTOP)
    try:
        refused(1, "ranks 0 did not come within 8000 ms", "Ray has not placed ranks 0", "CPU 1", address=cluster.cluster,
                arguments=["-dp", 1, "--engine-start-timeout-ms", 8000])
    finally:
        os.kill(head.process.pid, signal.SIGCONT)
    assert head.finish() == 0, head.log


@pytest.mark.parametrize("address, expected", [
    ("127.0.0.1:9", "no Ray cluster is reached at RAY_ADDRESS 127.0.0.1:9: Connection refused; start one with ray start --head"),
    ("[::1]:9", "no Ray cluster is reached at RAY_ADDRESS [::1]:9: Connection refused"),
    ("nonsense", "it is not HOST:PORT"),
])
def test_no_cluster_there(address, expected):
    refused(1, expected, address=address)


@pytest.mark.parametrize("options, expected", [
    ({"strategy": "pack"}, 'CHORUS_RAY_DP_PACK_STRATEGY is "pack"; accepted: strict, fill, span'),
    ({"address": "ray://127.0.0.1:10001"}, "no client mode"),
])
def test_wrong_options(options, expected):
    refused(2, expected, **options)


def test_not_built(tmp_path):
    alone = tmp_path / "chorus"
    shutil.copy(CHORUS, alone)
    done = subprocess.run([alone, "generate", STORIES, "-dpb", "ray", "--prompt", "x"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert f"there is no {tmp_path}/chorus-ray; build it with make ray" in done.stderr


def test_a_model_that_a_node_does_not_have(cluster, tmp_path, runs):
    """What the rank's node says last reaches the user: here the head has its key, and the node reads it when it is gone."""
    key = tmp_path / "key"
    key.write_text("k" * 40)
    key.chmod(0o600)
    head = start_on_ray(["generate", STORIES, "-dpb", "ray", "--prompt", "x", "--cluster-key-file", key, *LIMITS], cluster.cluster)
    runs.append(head)
    head.wait_for("Connecting to Ray")
    key.unlink()
    assert head.finish() in (1, 2)
    assert f"cluster key file {key}" in head.log
