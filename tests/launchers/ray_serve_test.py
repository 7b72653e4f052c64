"""A server whose replicas are Ray's actors: its streams are those of one machine, also when an actor is killed under them.

    CHORUS_LAUNCHERS_VENV=... python -m pytest tests/launchers/ray_serve_test.py      (make ray builds what it needs)
"""
import concurrent.futures
import os
import pathlib
import re
import signal
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
# pylint: disable=wrong-import-position
from chorus_process import gone_within
from ray_nodes import LIMITS, RayNode, descendants, needs_ray, parent_of, parts_at
from serve_ctl_test import metric
from serve_faults_test import with_template
from serve_trials_test import streams
from serving import serving

pytestmark = needs_ray

ROW = {"prompt": "Once upon a time", "max_tokens": 20, "temperature": 0}
SIZES = [*LIMITS, "--kv-cache-memory", "32MiB"]


@pytest.fixture(scope="module")
def cluster():
    node = RayNode("127.0.0.2", 4)
    yield node
    node.close()


def test_streams_go_on_when_an_actor_is_killed_and_its_rank_comes_back(tmp_path, cluster):
    model = with_template(tmp_path)
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        with serving(model, *SIZES) as alone:
            expected = [stream.result(timeout=120) for stream in streams(alone, pool)]
        with serving(model, "-dpb", "ray", "-dp", 2, *SIZES, env={"RAY_ADDRESS": cluster.cluster}, within_s=180) as server:
            assert [stream.result(timeout=120) for stream in streams(server, pool)] == expected
            port = re.search(r"Waiting for ranks .* at \S+ port (\d+)", server.logged())[1]
            nodes = {rank: pid for (rank, _), pid in parts_at(port).items()}
            begun = streams(server, pool)
            while sum(stream.done() for stream in begun) < 2:
                time.sleep(0.002)
            os.kill(parent_of(nodes[1]), signal.SIGKILL)
            under_way = sum(not stream.done() for stream in begun)
            assert [stream.result(timeout=120) for stream in begun] == expected
            assert under_way > 2 and gone_within([nodes[1]], 5)
            server.wait_for_log("Ray has lost worker rank 1 and starts it again", within_s=60)
            before = metric(server, "vllm:generation_tokens_total")[1]
            deadline = time.monotonic() + 60
            while metric(server, "vllm:generation_tokens_total")[1] == before:  # it takes what is pinned to it when it is back
                server.post("/v1/completions", ROW, {"X-data-parallel-rank": "1"})
                assert time.monotonic() < deadline, server.logged()
            assert metric(server, "chorus:replica_deaths_total") == {0: 0, 1: 1}
            below = descendants(server.process.pid)
            assert server.stop() == 0
            assert gone_within(below, 10)
