"""Ray on two networks: a machine that joins the cluster when the ranks run already, and a name with two addresses.

    CHORUS_LAUNCHERS_VENV=... python -m pytest tests/launchers/ray_networks_test.py      (as root)
"""
import pathlib
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
# pylint: disable=wrong-import-position
from chorus_process import STORIES
from networks import FAR, FAR_ADDRESS, NEAR, NEAR_ADDRESS, inside, two_networks
from nodes import make_key
from ray_nodes import LIMITS, RayNode, many_rows, needs_ray, runs, start_on_ray

pytestmark = needs_ray


@pytest.fixture
def near_nodes(networks):
    """The head's node in Ray, which takes no rank, and one that does, both on the head's machine."""
    started = [RayNode(NEAR_ADDRESS, 0, prefix=inside(NEAR))]
    try:
        started.append(RayNode("127.0.0.3", 1, started[0], inside(NEAR)))
        yield started
    finally:
        for node in reversed(started):
            node.close()


def move_to_the_far_machine(tmp_path, runs, near_nodes, options=()):
    """A rank whose node goes when a node of another machine has joined."""
    rows = many_rows(tmp_path / "rows.jsonl", 20000)  # more than it gets to
    head = start_on_ray(["generate", STORIES, "-dpb", "ray", "--input", rows, "--output", tmp_path / "out.jsonl", *LIMITS, *options],
                        near_nodes[0].cluster, "fill", inside(NEAR))
    runs.append(head)
    head.wait_for("Ray has placed worker rank 0 on node 127.0.0.3")
    head.wait_for("Worker rank 0 is ready")
    near_nodes.append(RayNode(FAR_ADDRESS, 1, near_nodes[0], inside(FAR)))
    near_nodes[1].kill_raylet()
    head.wait_for("Ray has lost worker rank 0")
    head.wait_for(f"Ray has placed worker rank 0 on node {FAR_ADDRESS}", within_s=90)
    return head


def test_a_rank_that_moves_to_another_machine_finds_the_head(tmp_path, runs, near_nodes):
    """All nodes were on the head's machine at its start, but there is a key."""
    head = move_to_the_far_machine(tmp_path, runs, near_nodes, ["--cluster-key-file", make_key(tmp_path / "key")])
    assert f"Waiting for ranks 0 of other nodes at {NEAR_ADDRESS} port" in head.log
    head.wait_for("(?s)Worker rank 0 is ready.*Worker rank 0 is ready")
    head.kill()


def test_a_rank_that_moves_to_another_machine_without_a_key_says_so(tmp_path, runs, near_nodes):
    head = move_to_the_far_machine(tmp_path, runs, near_nodes)
    head.wait_for(f"Worker rank 0 is given up on Ray: Ray has put it on node {FAR_ADDRESS}, which is another machine than the head's: "
                  "there is no --cluster-key-file; make one with")
    assert head.finish(60) == 1


def test_every_address_of_a_name_is_tried(tmp_path, networks, runs):
    """The first one of two is refused: the store is there without IPv6, which comes later."""
    ipv6 = "/proc/sys/net/ipv6/conf/lo/disable_ipv6"
    subprocess.run([*inside(NEAR), "sh", "-c", f"echo 1 > {ipv6}"], check=True)
    node = RayNode("127.0.0.2", 1, prefix=inside(NEAR))
    try:
        subprocess.run([*inside(NEAR), "sh", "-c", f"echo 0 > {ipv6}"], check=True)
        hosts = tmp_path / "hosts"
        hosts.write_text("127.0.0.1 localhost\n::1 store\n127.0.0.2 store\n")
        renamed = [*inside(NEAR), "unshare", "-m", "sh", "-c", f'mount --bind {hosts} /etc/hosts && exec "$@"', "sh"]
        listed = subprocess.run([*renamed, "getent", "ahosts", "store"], capture_output=True, text=True, check=True).stdout
        assert listed.startswith("::1 ")
        port = node.cluster.split(":")[1]
        first = subprocess.run([*inside(NEAR), sys.executable, "-c", f"import socket; socket.create_connection(('::1', {port}))"],
                               capture_output=True, text=True, check=False)
        assert "Connection refused" in first.stderr
        head = start_on_ray(["generate", STORIES, "-dpb", "ray", "--prompt", "x", *LIMITS], f"store:{port}", None, renamed)
        runs.append(head)
        assert head.finish(60) == 0, head.log
    finally:
        node.close()
