"""A head and a node without a front end on two networks: namespaces of this machine, joined by a cable of the kernel's (veth).

    CHORUS=build/chorus python3 -m pytest tests/launchers/two_nodes_test.py      (as root)
"""
import os
import pathlib
import subprocess
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
# pylint: disable=wrong-import-position
from two_nodes_checks import TwoNodes, TwoNodesContract, one_node, write_rows

HEAD, NODE = f"chorus-head-{os.getpid()}", f"chorus-node-{os.getpid()}"
ADDRESS, PORT = "10.213.7.1", 29550


def ip(*arguments):
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)


def make_networks():
    """What went wrong, or nothing."""
    near, far = f"ca{os.getpid()}"[:14], f"cb{os.getpid()}"[:14]
    for command in (f"netns add {HEAD}", f"netns add {NODE}", f"link add {near} type veth peer name {far}", f"link set {near} netns {HEAD}",
                    f"link set {far} netns {NODE}", f"-n {HEAD} addr add {ADDRESS}/24 dev {near}", f"-n {NODE} addr add 10.213.7.2/24 dev {far}",
                    f"-n {HEAD} link set {near} up", f"-n {NODE} link set {far} up", f"-n {HEAD} link set lo up", f"-n {NODE} link set lo up"):
        done = ip(*command.split())
        if done.returncode != 0:
            return f"ip {command}: {done.stderr.strip()}"
    return ""


def remove_networks():
    ip("netns", "del", HEAD)
    ip("netns", "del", NODE)


@pytest.fixture(scope="module")
def networks():
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    try:
        failed = make_networks()
        if failed:
            pytest.skip(f"no network namespaces here: {failed}")
        yield
    except FileNotFoundError:
        pytest.skip("ip (iproute2) is not installed")
    finally:
        remove_networks()


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    rows = write_rows(tmp_path_factory.mktemp("two_nodes") / "rows.jsonl")
    return rows, one_node(rows)


@pytest.fixture
def nodes(tmp_path, work, networks):
    two = TwoNodes(tmp_path, *work, ADDRESS, PORT, ["ip", "netns", "exec", HEAD], ["ip", "netns", "exec", NODE])
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
    done = ip("-n", NODE, "link", "set", f"cb{os.getpid()}"[:14], "down")
    assert done.returncode == 0, done.stderr
    began = time.monotonic()
    head.wait_for("Worker rank [23] .* requests go to the others", within_s=30)
    assert time.monotonic() - began < 25
    nodes.expect_all_rows(head)
    ip("-n", NODE, "link", "set", f"cb{os.getpid()}"[:14], "up")


def test_a_stranger_in_the_network_gets_nothing(nodes):
    head = nodes.head(options=["--engine-start-timeout-ms", "5000"])
    head.wait_for("Waiting for ranks 2, 3")
    stranger = subprocess.run(["ip", "netns", "exec", NODE, sys.executable, "-c",
                               f"import socket; s = socket.create_connection(('{ADDRESS}', {PORT})); s.sendall(b'x' * 4096); print(len(s.recv(41)), s.recv(99))"],
                              capture_output=True, text=True, timeout=30, check=False)
    assert stranger.stdout.startswith("41 "), stranger.stderr
    head.wait_for("Refused a connection")
    assert head.finish() == 1
