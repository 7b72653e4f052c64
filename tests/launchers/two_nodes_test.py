"""A head and a node without a front end on two networks (networks.py).

    CHORUS=build/chorus python3 -m pytest tests/launchers/two_nodes_test.py      (as root)
"""
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
# pylint: disable=wrong-import-position
from chorus_process import STORIES, chorus
from networks import FAR, NEAR, NEAR_ADDRESS, inside, set_cable, two_networks  # noqa: F401
from nodes import SpreadNodes, process_of
from spread_test import DP2_TP2, LIMITS, TINY, rows_of_ids
from two_nodes_checks import TwoNodes, TwoNodesContract, one_node, write_rows

PORT = 29550


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    rows = write_rows(tmp_path_factory.mktemp("two_nodes") / "rows.jsonl")
    return rows, one_node(rows)


@pytest.fixture
def nodes(tmp_path, work, networks):
    two = TwoNodes(tmp_path, *work, NEAR_ADDRESS, PORT, inside(NEAR), inside(FAR))
    yield two
    two.close()


class TestOverTwoNetworks(TwoNodesContract):
    pass


def test_no_key(nodes):
    for running in (nodes.head(key=None), nodes.node(key=None)):
        assert running.finish() == 2
        assert "openssl rand" in running.log


def test_a_cable_that_is_pulled_is_noticed(nodes):
    """Nobody says a word: the kernel's timers alone tell, within about ten seconds."""
    head, _ = nodes.both_start()
    set_cable("down")
    began = time.monotonic()
    head.wait_for("Worker rank [23] .* requests go to the others", within_s=30)
    assert time.monotonic() - began < 25
    nodes.expect_all_rows(head)
    set_cable("up")


def test_a_stranger_in_the_network_gets_nothing(nodes):
    head = nodes.head(options=["--engine-start-timeout-ms", "5000"])
    head.wait_for("Waiting for ranks 2, 3")
    stranger = subprocess.run([*inside(FAR), sys.executable, "-c",
                               f"import socket; s = socket.create_connection(('{NEAR_ADDRESS}', {PORT})); s.sendall(b'x' * 4096); print(len(s.recv(41)), s.recv(99))"],
                              capture_output=True, text=True, timeout=30, check=False)
    assert stranger.stdout.startswith("41 "), stranger.stderr
    head.wait_for("Refused a connection")
    assert head.finish() == 1


@pytest.fixture
def spread(tmp_path, networks):
    made = []

    def make(model, sizes, others, rows):
        made.append(SpreadNodes(tmp_path, model, [*sizes, *LIMITS], others, rows, NEAR_ADDRESS, inside(NEAR), inside(FAR)))
        return made[-1]
    yield make
    for nodes_of_test in made:
        nodes_of_test.close()


@pytest.mark.parametrize("model, sizes, other", [
    ("llama", ["-tp", "2", "--nodes-per-replica", "2"], ["--node-rank", "1"]),
    ("qwen3", DP2_TP2, ["--node-rank", "1"]),
    ("mixtral", ["-dp", "2", "-dpl", "1", "-tp", "2", "-ep"], ["-dpr", "1"]),
])
def test_replicas_that_compute_over_both(spread, tmp_path, model, sizes, other):
    rows = tmp_path / "ids.jsonl"
    rows.write_bytes(rows_of_ids(40))
    alone = chorus("generate", TINY / model, "--input", rows, *LIMITS)
    assert alone.returncode == 0, alone.stderr.decode()
    both = spread(TINY / model, sizes, [other], rows)
    both.start()
    both.expect(alone.stdout)


def test_a_worker_on_the_other_network_that_dies(spread, work):
    rows, expected = work
    both = spread(STORIES, ["-tp", "2", "--nodes-per-replica", "2"], [["--node-rank", "1"]], rows)
    both.sizes += ["--max-model-len", "512"]
    head = both.start_and_wait(1)
    os.kill(process_of(both.nodes[0], "chorus worker dp=0 pp=0 tp=1"), signal.SIGKILL)
    head.wait_for(r"Worker rank 0 \(pid \d+\) (was ended|failed)")
    both.expect(expected)
