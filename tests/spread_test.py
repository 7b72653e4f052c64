"""Replicas whose workers are on several nodes: a head and other nodes over the loopback. The same bytes as on one; and when a
worker, a node or the head dies, what is left goes on or ends.

tests/launchers/two_nodes_test.py has some of it on two networks."""
import json
import os
import signal

import pytest

from chorus_process import STORIES, TINY, chorus, gone_within
from nodes import SpreadNodes, process_of
from parallel_test import BALANCING, rows_of_ids
from two_nodes_checks import write_rows

LIMITS = ["--threads", "1", "--engine-start-timeout-ms", "60000", "--max-model-len", "256"]

# Sizes, then what each node but the head is told.
PLACES = {
    "tp2 over 2": (["-tp", "2", "--nodes-per-replica", "2"], [["--node-rank", "1"]]),
    "tp4 over 2": (["-tp", "4", "--nodes-per-replica", "2"], [["--node-rank", "1"]]),
    "tp4 over 4": (["-tp", "4", "--nodes-per-replica", "4"], [["--node-rank", "3"], ["--node-rank", "1"], ["--node-rank", "2"]]),
    "pp2 tp2 over 2": (["-pp", "2", "-tp", "2", "--nodes-per-replica", "2"], [["--node-rank", "1"]]),
    "dcp2 over 2": (["-dcp", "2", "--nodes-per-replica", "2"], [["--node-rank", "1"]]),
    "dp2 tp2, both over both": (["-dp", "2", "-tp", "2", "--nodes-per-replica", "2"], [["--node-rank", "1"]]),
    "dp2 tp2, each over two of four": (["-dp", "2", "-dpl", "1", "-tp", "2", "--nodes-per-replica", "2"],
                                       [["--node-rank", "1"], ["-dpr", "1", "--node-rank", "0"], ["-dpr", "1", "--node-rank", "1"]]),
}
EXPERT_PLACES = {
    "dp2 ep": (["-dp", "2", "-dpl", "1", "-ep"], [["-dpr", "1"]]),
    "dp2 tp2 ep": (["-dp", "2", "-dpl", "1", "-tp", "2", "-ep"], [["-dpr", "1"]]),
    "dp2 tp2 ep, each over both": (["-dp", "2", "-tp", "2", "-ep", "--nodes-per-replica", "2"], [["--node-rank", "1"]]),
    "dp3 ep on three": (["-dp", "3", "-dpl", "1", "-ep"], [["-dpr", "1"], ["-dpr", "2"]]),
    "dp2 ep, experts that move": (["-dp", "2", "-dpl", "1", "-ep", "--enable-eplb", "--eplb-config", BALANCING], [["-dpr", "1"]]),
}


@pytest.fixture
def spread(tmp_path):
    made = []

    def make(model, sizes, others, rows):
        made.append(SpreadNodes(tmp_path, model, [*sizes, *LIMITS], others, rows))
        return made[-1]
    yield make
    for nodes in made:
        nodes.close()


@pytest.fixture(scope="module")
def ids(tmp_path_factory):
    path = tmp_path_factory.mktemp("spread") / "ids.jsonl"
    path.write_bytes(rows_of_ids(40))
    return path


@pytest.fixture(scope="module")
def long_ids(tmp_path_factory):
    """Long enough that a kill finds requests in flight."""
    path = tmp_path_factory.mktemp("spread") / "long_ids.jsonl"
    rows = [{**json.loads(line), "max_tokens": 100, "ignore_eos": True} for line in rows_of_ids(60).splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def stories(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("spread") / "stories.jsonl")


@pytest.fixture(scope="module")
def expected():
    """Output of one replica of one worker."""
    known = {}

    def get(model, rows):
        if (model, rows) not in known:
            done = chorus("generate", model, "--input", rows, *LIMITS)
            assert done.returncode == 0, done.stderr.decode()
            known[model, rows] = done.stdout
        return known[model, rows]
    return get


@pytest.mark.parametrize("place", PLACES)
def test_same_bytes(spread, ids, expected, place):
    nodes = spread(TINY / "llama", *PLACES[place], ids)
    nodes.start()
    nodes.expect(expected(TINY / "llama", ids))


@pytest.mark.parametrize("place", EXPERT_PLACES)
@pytest.mark.parametrize("model", ["mixtral", "qwen3_moe"])
def test_same_bytes_of_experts(spread, ids, expected, model, place):
    nodes = spread(TINY / model, *EXPERT_PLACES[place], ids)
    nodes.start()
    nodes.expect(expected(TINY / model, ids))


DP2_TP2 = ["-dp", "2", "-tp", "2", "--nodes-per-replica", "2"]


@pytest.mark.parametrize("where, name", [("node", "chorus worker dp=0 pp=0 tp=1"), ("node", "chorus worker dp=1 pp=0 tp=1"),
                                         ("head", "chorus engine dp=0"), ("head", "chorus engine dp=1")])
def test_a_killed_worker_is_one_dead_replica(spread, stories, expected, where, name):
    nodes = spread(STORIES, DP2_TP2, [["--node-rank", "1"]], stories)
    head = nodes.start_and_wait(2)
    rank = int(name.split("dp=")[1][0])
    os.kill(process_of(head if where == "head" else nodes.nodes[0], name), signal.SIGKILL)
    head.wait_for(rf"Worker rank {rank} \(pid \d+\) (was ended|failed)")
    nodes.expect(expected(STORIES, stories))


@pytest.mark.parametrize("where, name", [("node", "chorus worker dp=0 pp=1 tp=0"), ("node", "chorus worker dp=0 pp=1 tp=1"),
                                         ("head", "chorus engine dp=0"), ("head", "chorus worker dp=0 pp=0 tp=1")])
def test_a_replica_comes_back_whole(spread, stories, expected, where, name):
    nodes = spread(STORIES, ["-pp", "2", "-tp", "2", "--nodes-per-replica", "2"], [["--node-rank", "1"]], stories)
    head = nodes.start_and_wait(1)
    os.kill(process_of(head if where == "head" else nodes.nodes[0], name), signal.SIGKILL)
    head.wait_for(r"Worker rank 0 \(pid \d+\) (was ended|failed)")
    nodes.expect(expected(STORIES, stories))


def test_a_killed_node_takes_its_replicas_along_until_it_is_back(spread, stories, expected):
    nodes = spread(STORIES, DP2_TP2, [["--node-rank", "1"]], stories)
    head = nodes.start_and_wait(2)
    workers = [process_of(nodes.nodes[0], f"chorus worker dp={rank} pp=0 tp=1") for rank in (0, 1)]
    nodes.nodes.pop().kill()
    assert gone_within(workers, 2)
    head.wait_for("No replica is left")
    nodes.start_node(["--node-rank", "1"])
    nodes.expect(expected(STORIES, stories))


def test_experts_end_together_and_go_on_together(spread, long_ids, expected):
    nodes = spread(TINY / "mixtral", ["-dp", "2", "-dpl", "1", "-ep"], [["-dpr", "1"]], long_ids)
    head = nodes.start_and_wait(2)
    os.kill(process_of(nodes.nodes[0], "chorus engine dp=1"), signal.SIGKILL)
    head.wait_for("steps together with")
    nodes.expect(expected(TINY / "mixtral", long_ids))


def test_experts_whose_other_node_stays_away_are_the_end(spread, long_ids):
    nodes = spread(TINY / "mixtral", ["-dp", "2", "-dpl", "1", "-ep"], [["-dpr", "1"]], long_ids)
    nodes.sizes += ["--engine-start-timeout-ms", "4000"]
    head = nodes.start_and_wait(2)
    nodes.nodes.pop().kill()
    status = head.finish(60)
    assert "no replica could be kept alive" in head.log, head.log
    assert status == 1


def test_expert_parallelism_of_a_dense_model_is_none(spread, ids, expected):
    nodes = spread(TINY / "llama", ["-dp", "2", "-dpl", "1", "-ep"], [["-dpr", "1"]], ids)
    nodes.start()
    nodes.expect(expected(TINY / "llama", ids))


def test_what_cannot_work_is_told_at_once(spread, stories):
    nodes = spread(STORIES, ["-tp", "2", "--nodes-per-replica", "2", "--kv-cache-memory", "1000"], [["--node-rank", "1"]], stories)
    head = nodes.start()
    assert head.finish(20) == 2, head.log
    assert "kv-cache-memory" in head.log


def test_a_worker_that_waits_is_told_that_the_head_has_ended(spread, stories, expected):
    """The second replica lacks a part when the first has done all the work."""
    nodes = spread(STORIES, [*DP2_TP2], [["--node-rank", "1"]], stories)
    head = nodes.start_and_wait(2)
    os.kill(process_of(head, "chorus engine dp=1"), signal.SIGSTOP)
    os.kill(process_of(nodes.nodes[0], "chorus worker dp=1 pp=0 tp=1"), signal.SIGKILL)
    nodes.expect(expected(STORIES, stories))


def test_a_killed_head_leaves_nothing(spread, stories):
    nodes = spread(STORIES, DP2_TP2, [["--node-rank", "1"]], stories)
    head = nodes.start_and_wait(2)
    left = [process_of(nodes.nodes[0], f"chorus worker dp={rank} pp=0 tp=1") for rank in (0, 1)]
    left += [process_of(head, f"chorus engine dp={rank}") for rank in (0, 1)]
    head.kill()
    assert gone_within(left, 2)


def test_a_missing_part_is_named(spread, stories):
    nodes = spread(STORIES, DP2_TP2, [], stories)
    head = nodes.start(["--engine-start-timeout-ms", "2000"])
    assert head.finish(20) == 1
    assert "ranks 0, 1 did not come within 2000 ms" in head.log
    assert "rank 0 lacks workers 1; rank 1 lacks workers 1" in head.log


def test_nodes_that_count_otherwise_are_refused(spread, stories):
    nodes = spread(STORIES, ["-dp", "2", "-tp", "2", "--nodes-per-replica", "2"], [], stories)
    head = nodes.start(["--engine-start-timeout-ms", "10000"])
    node = nodes.start_node(["-dpr", "1"], ["-dp", "2", "-tp", "2", *LIMITS])
    assert node.finish(20) == 2
    assert "nodes-per-replica is 2 on the head and 1 on node" in node.log
    head.kill()
