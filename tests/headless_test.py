"""A head and a node without a front end over the loopback; tests/launchers/two_nodes_test.py has them on two networks."""
import pytest

from chorus_process import STORIES, chorus
from nodes import free_port
from two_nodes_checks import TwoNodes, TwoNodesContract, one_node, write_rows


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    rows = write_rows(tmp_path_factory.mktemp("headless") / "rows.jsonl")
    return rows, one_node(rows)


@pytest.fixture
def nodes(tmp_path, work):
    two = TwoNodes(tmp_path, *work, "127.0.0.1", free_port())
    yield two
    two.close()


class TestOverTheLoopback(TwoNodesContract):
    pass


@pytest.mark.parametrize("arguments, expected", [
    (["generate", "-dp", "2", "-dpl", "1", "-dpa", "0.0.0.0", "--prompt", "x"], "openssl rand"),
    (["generate", "-dp", "2", "--headless", "-dpr", "1", "-dpp", "1", "--prompt", "x"], "--headless is chorus serve's"),
    (["generate", "-asc", "2", "--prompt", "x"], "--api-server-count is chorus serve's"),
    (["serve", "--headless", "-dp", "2", "-dpr", "1", "-dpp", "1", "-asc", "2"], "a node with --headless has none"),
    (["serve", "--headless", "-dp", "2"], "--data-parallel-start-rank"),
    (["serve", "--headless", "-dp", "2", "-dpr", "1"], "--data-parallel-rpc-port"),
    (["serve", "--headless", "-dp", "2", "-dpr", "1", "-dpp", "1", "--cluster-key-file", "/nowhere"], "cluster key file /nowhere"),
])
def test_refused(arguments, expected):
    done = chorus(arguments[0], STORIES, *arguments[1:])
    assert done.returncode == 2
    assert expected in done.stderr.decode()
