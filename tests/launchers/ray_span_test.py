"""Ranks whose workers Ray spreads over nodes (CHORUS_RAY_DP_PACK_STRATEGY=span), on nodes that are too small for a rank.

    CHORUS_LAUNCHERS_VENV=... python -m pytest tests/launchers/ray_span_test.py      (make ray builds what it needs)
"""
import os
import pathlib
import re
import signal
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
# pylint: disable=wrong-import-position
from chorus_process import STORIES, TINY, chorus, gone_within
from ray_nodes import LIMITS, RayNode, few_rows, many_rows, needs_ray, parent_of, part_processes, runs, start_on_ray, start_work, work

pytestmark = needs_ray


@pytest.fixture(scope="module")
def cluster():
    """Four nodes, each of which takes one worker."""
    nodes = [RayNode("127.0.0.11", 1)]
    try:
        nodes += [RayNode(f"127.0.0.{last}", 1, nodes[0]) for last in (12, 13, 14)]
        yield nodes[0]
    finally:
        for node in reversed(nodes):
            node.close()


def nodes_of(head, rank, parts):
    """Where each part of the rank was put first."""
    return [head.wait_for(rf"Ray has placed worker rank {rank} part {part} on node (\S+)").group(1) for part in range(parts)]


@pytest.mark.parametrize("model, sizes, ranks, parts", [
    (STORIES, ["-tp", 2], 1, 2),
    (STORIES, ["-pp", 2], 1, 2),
    (STORIES, ["-tp", 2, "-pp", 2], 1, 4),
    (STORIES, ["-dp", 2, "-tp", 2], 2, 2),
    (TINY / "mixtral", ["-dp", 2, "-tp", 2, "-ep"], 2, 2),
], ids=str)
def test_same_bytes(tmp_path, cluster, runs, model, sizes, ranks, parts):
    rows = few_rows(tmp_path / "rows.jsonl")
    expected = chorus("generate", model, "--input", rows, *LIMITS)
    assert expected.returncode == 0, expected.stderr.decode()
    output = tmp_path / "out.jsonl"
    head = start_on_ray(["generate", model, "--data-parallel-backend", "ray", *sizes, "--input", rows, "--output", output, *LIMITS], cluster.cluster,
                        "span")
    runs.append(head)
    head.wait_for(f"each of {ranks} ranks gets {parts} x CPU 1")
    placed = [node for rank in range(ranks) for node in nodes_of(head, rank, parts)]
    assert len(set(placed)) == ranks * parts
    assert head.finish() == 0, head.log
    assert output.read_bytes() == expected.stdout
    for rank in range(ranks):
        assert f"Worker rank {rank} is ready" in head.log


def test_a_rank_of_one_worker_has_one_part(tmp_path, cluster, runs):
    rows = few_rows(tmp_path / "rows.jsonl")
    output = tmp_path / "out.jsonl"
    head = start_on_ray(["generate", STORIES, "--data-parallel-backend", "ray", "-dp", 2, "--input", rows, "--output", output, *LIMITS], cluster.cluster,
                        "span")
    runs.append(head)
    assert head.finish() == 0, head.log
    assert "Ray has placed worker rank 1 on node" in head.log
    assert output.read_bytes() == chorus("generate", STORIES, "--input", rows, *LIMITS).stdout


@pytest.mark.parametrize("victim", ["node", "actor"])
def test_killed_part(tmp_path, cluster, runs, work, victim):
    """Ray starts that part again; the rank's other part stays and finds it, and the other rank does not notice."""
    head = start_work(runs, work, tmp_path, cluster, ["-dp", 2, "-tp", 2], "span")
    for rank in (0, 1):
        nodes_of(head, rank, 2)
        head.wait_for(f"Worker rank {rank} is ready")
    before = part_processes(head)
    os.kill(before[1, 1] if victim == "node" else parent_of(before[1, 1]), signal.SIGKILL)
    assert gone_within([before[1, 1]], 5)
    head.wait_for("Ray has lost worker rank 1 part 1 and starts it again")
    head.wait_for("(?s)Worker rank 1 is ready.*Worker rank 1 is ready")
    after = part_processes(head)
    assert {part: pid for part, pid in after.items() if part != (1, 1)} == {part: pid for part, pid in before.items() if part != (1, 1)}
    assert head.finish() == 0, head.log
    assert (tmp_path / "out.jsonl").read_bytes() == work[1]
    assert len(re.findall("Ray has lost", head.log)) == 1


def test_a_killed_part_of_the_only_rank(tmp_path, cluster, runs, work):
    """Nobody else could go on with its requests."""
    head = start_work(runs, work, tmp_path, cluster, ["-tp", 2], "span")
    nodes_of(head, 0, 2)
    head.wait_for("Worker rank 0 is ready")
    os.kill(part_processes(head)[0, 0], signal.SIGKILL)
    assert head.finish() == 0, head.log
    assert len(re.findall("Ray has placed worker rank 0 part 0", head.log)) == 2
    assert len(re.findall("Ray has placed worker rank 0 part 1", head.log)) == 1
    assert (tmp_path / "out.jsonl").read_bytes() == work[1]


def test_killed_head_leaves_nothing(tmp_path, cluster, runs, work):
    head = start_work(runs, work, tmp_path, cluster, ["-dp", 2, "-tp", 2], "span")
    for rank in (0, 1):
        head.wait_for(f"Worker rank {rank} is ready")
    parts = part_processes(head)
    assert len(parts) == 4
    head.kill()
    assert gone_within(parts.values(), 25)


def test_killed_raylet(tmp_path, runs):
    """Its part goes to another node, the rank's other part stays where it is."""
    nodes = [RayNode("127.0.0.15", 1)]
    try:
        nodes += [RayNode("127.0.0.16", 1, nodes[0]), RayNode("127.0.0.17", 1, nodes[0])]
        rows = many_rows(tmp_path / "rows.jsonl", 20000)  # more than it gets to
        head = start_work(runs, (rows, None), tmp_path, nodes[0], ["-tp", 2], "span")
        where = nodes_of(head, 0, 2)
        head.wait_for("Worker rank 0 is ready")
        lost = 1 if where[1] != nodes[0].address else 0  # not the node that chorus-ray is connected to
        before = part_processes(head)
        next(node for node in nodes if node.address == where[lost]).kill_raylet()
        head.wait_for(f"Ray has lost worker rank 0 part {lost}")
        again = head.wait_for(rf"(?s)placed worker rank 0 part {lost} on.*placed worker rank 0 part {lost} on node (\S+)", within_s=90).group(1)
        assert again not in where
        head.wait_for("(?s)Worker rank 0 is ready.*Worker rank 0 is ready")
        assert part_processes(head)[0, 1 - lost] == before[0, 1 - lost]
        assert f"lost worker rank 0 part {1 - lost}" not in head.log
    finally:
        for running in runs:
            running.kill()
        for node in reversed(nodes):
            node.close()


def test_span_says_what_there_is(cluster, runs):
    head = start_on_ray(["generate", STORIES, "--data-parallel-backend", "ray", "--prompt", "x", "-dp", 3, "-tp", 2, *LIMITS], cluster.cluster, "span")
    runs.append(head)
    assert head.finish() == 1, head.log
    assert "room for 4 of 6 workers of 3 data parallel ranks, each with CPU 1: 127.0.0.11 has CPU 1 (1 free), " in head.log


def test_fill_names_span(cluster, runs):
    head = start_on_ray(["generate", STORIES, "--data-parallel-backend", "ray", "--prompt", "x", "-tp", 2, *LIMITS], cluster.cluster, "fill")
    runs.append(head)
    assert head.finish() == 1, head.log
    assert "room for 0 of 1 data parallel ranks, each with CPU 2 on one node" in head.log
    assert "CHORUS_RAY_DP_PACK_STRATEGY=span" in head.log
