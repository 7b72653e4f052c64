"""Hybrid load balancing over two networks (networks.py): each node has its door and its replicas, and needs nothing of the other.

    CHORUS=build/chorus python3 -m pytest tests/launchers/hybrid_networks_test.py      (as root)
"""
import json
import pathlib
import re
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
# pylint: disable=wrong-import-position
from chorus_process import STORIES
from networks import FAR, FAR_ADDRESS, NEAR, NEAR_ADDRESS, inside, set_cable, two_networks  # noqa: F401
from serving import serving

OPTIONS = ["-dp", 4, "-dph", "-dpl", 2, "-dpa", NEAR_ADDRESS, "-dpp", 29550, "--threads", "1", "--kv-cache-memory", "32MiB"]
KEY = "a-key-for-this-test"
ROWS = [{"prompt": f"Once upon a time, {name}", "max_tokens": 60, "seed": seed, "temperature": seed % 2} for seed, name in enumerate(("Lily", "Tom", "a dog", "Mom"))]
ASK = """
import json, sys, urllib.request
url, key, bodies = json.load(sys.stdin)
def ask(body):
    request = urllib.request.Request(url, body and json.dumps(body).encode(), {"Content-Type": "application/json", "Authorization": "Bearer " + key})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read().decode()
print(json.dumps([ask(body) for body in bodies]))
"""


def ask(network, host, port, path, bodies):
    """The answers to somebody in that network."""
    done = subprocess.run([*inside(network), sys.executable, "-c", ASK], input=json.dumps([f"http://{host}:{port}{path}", KEY, bodies]), capture_output=True, text=True,
                          timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def choices(network, server):
    return [json.loads(answer)["choices"] for answer in ask(network, server.host, server.port, "/v1/completions", ROWS)]


def tokens_by_rank(network, server):
    text = ask(network, server.host, server.port, "/metrics", [None])[0]
    return {int(rank): int(tokens) for rank, tokens in re.findall(r'^vllm:generation_tokens_total\{engine="(\d+)".* (\d+)$', text, re.M)}


@pytest.fixture
def nodes(networks):
    with (serving(STORIES, *OPTIONS, "-dpr", 0, "--host", NEAR_ADDRESS, prefix=inside(NEAR), env={"CHORUS_API_KEY": KEY}) as near,
          serving(STORIES, *OPTIONS, "-dpr", 2, "--host", FAR_ADDRESS, prefix=inside(FAR), env={"CHORUS_API_KEY": KEY}) as far):
        yield near, far


def test_the_same_tokens_at_both_doors_and_each_balances_among_its_own(nodes):
    near, far = nodes
    assert (near.ranks, far.ranks) == ("ranks 0 to 1 of 4", "ranks 2 to 3 of 4")
    expected = choices(NEAR, near)
    assert choices(NEAR, far) == choices(FAR, far) == choices(FAR, near) == expected
    for server, ranks in ((near, {0, 1}), (far, {2, 3})):
        tokens = tokens_by_rank(NEAR, server)
        assert set(tokens) == ranks and min(tokens.values()) > 0


def test_a_node_that_is_gone_is_nothing_to_the_other(nodes):
    near, far = nodes
    expected = choices(NEAR, near)
    set_cable("down")
    assert choices(NEAR, near) == choices(FAR, far) == expected
    set_cable("up")
    far.process.kill()
    far.process.wait()
    assert choices(NEAR, near) == expected
    assert near.stop() == 0
