"""chorus ctl: what an operator does to a running server changes no stream, and nobody else may do it."""
import concurrent.futures
import contextlib
import json
import os
import socket
import stat
import subprocess
import time

import pytest

from chorus_process import CHORUS, STORIES, chorus
from nodes import free_port, make_key
from serve_faults_test import with_template
from serve_trials_test import streams
from serving import Operator, serving

FAST = ["--threads", "1", "--kv-cache-memory", "32MiB", "--max-num-seqs", "16"]
ROW = {"prompt": "Once upon a time", "max_tokens": 20, "temperature": 0}


@pytest.fixture(name="case")
def running(tmp_path):
    path = tmp_path / "control"
    with serving(with_template(tmp_path), "-dp", "2", "-asc", "2", "--control-socket", path, *FAST) as server:
        yield server, Operator(path)
        assert server.stop() == 0
    assert not path.exists()


def metric(server, name, **labels):
    """The value of each series with these labels, by engine."""
    found = {}
    for line in server.request("GET", "/metrics")[2].decode().splitlines():
        if line.startswith(name + "{") and all(f'{key}="{value}"' in line for key, value in labels.items()):
            found[int(line.split('engine="')[1].split('"')[0])] = float(line.rsplit(" ", 1)[1])
    return found


def test_streams_are_the_same_whatever_the_operator_does(case):
    server, operator = case
    acts = [("add",), ("restart", "0"), ("drain", "1"), ("resume", "1"), ("remove", "1"), ("pause",), ("drain", "0", "--finish", "--no-wait"), ("add",), ("restart", "2"),
            ("resume", "0"), ("remove", "0", "--finish")]
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        expected = [stream.result() for stream in streams(server, pool)]
        begun, hit = [], 0
        for act in acts:
            if all(stream.done() for stream in begun[-32:]):
                begun += streams(server, pool)
                while sum(stream.done() for stream in begun[-32:]) < 2:
                    time.sleep(0.002)
            under_way = sum(not stream.done() for stream in begun)
            operator.ctl(*act)
            if act == ("pause",):
                operator.ctl("resume")  # now: streams that begin in a pause wait, and so would this test for the first of them
            hit += under_way if act[0] != "resume" else 0
        for i, stream in enumerate(begun):
            assert stream.result(timeout=120) == expected[i % 32], i
        assert hit > 32, "the streams were over before anything was done"
    assert operator.states() == {0: "removed", 1: "removed", 2: "ready", 3: "ready"}
    assert [replica["deaths"] for replica in operator.replicas().values()] == [0] * 4
    assert "WARNING" not in server.logged()


def test_a_drained_replica_is_empty_and_an_added_one_takes_requests(case):
    server, operator = case
    assert server.request("POST", "/v1/completions", ROW, {"X-data-parallel-rank": "2"})[0] == 400
    assert operator.ctl("add").strip() == "2"
    expected = server.post("/v1/completions", ROW)["choices"]
    served = metric(server, "vllm:generation_tokens_total").get(2, 0)
    deadline = time.monotonic() + 10
    while metric(server, "vllm:generation_tokens_total").get(2, 0) < served + 20:  # each front end hears of it in its own time
        assert server.post("/v1/completions", ROW, {"X-data-parallel-rank": "2"})["choices"] == expected
        assert time.monotonic() < deadline
    operator.ctl("drain", "2")
    assert operator.states() == {0: "ready", 1: "ready", 2: "drained"}
    assert metric(server, "chorus:replica_state", state="drained") == {0: 0, 1: 0, 2: 1}
    assert metric(server, "chorus:replica_ready") == {0: 1, 1: 1, 2: 0}
    before = metric(server, "vllm:generation_tokens_total")[2]
    for _ in range(4):
        assert server.post("/v1/completions", ROW, {"X-data-parallel-rank": "2"})["choices"] == expected
    assert metric(server, "vllm:generation_tokens_total")[2] == before
    pid = operator.replicas()[0]["pid"]
    operator.ctl("restart", "0")
    restarted = operator.replicas()[0]
    assert restarted["pid"] != pid and restarted["epoch"] == 2 and restarted["state"] == "ready"
    operator.ctl("remove", "2")
    assert sorted(metric(server, "chorus:replica_ready")) == [0, 1]
    assert operator.ctl("add").strip() == "3"


def test_while_it_is_paused_requests_wait(case):
    server, operator = case
    expected = server.post("/v1/completions", ROW)
    operator.ctl("pause")
    assert operator.states() == {0: "drained", 1: "drained"} and "paused" in operator.ctl("list")
    assert server.request("GET", "/health")[0] == 200 and server.request("GET", "/ready")[0] == 503
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        asked = pool.submit(server.post, "/v1/completions", ROW)
        time.sleep(0.5)
        assert not asked.done()
        operator.ctl("resume")
        assert asked.result(timeout=30)["choices"] == expected["choices"]
    assert server.request("GET", "/ready")[0] == 200


def test_what_cannot_be_is_refused(case):
    server, operator = case
    assert "no data parallel rank 7: there are 2" in operator.refused("drain", "7")
    assert "needs the rank" in operator.refused("remove") and "takes no rank" in operator.refused("add", "1")
    assert "is no rank" in operator.refused("drain", "one") and "is none of list" in operator.refused("dance")
    operator.ctl("remove", "0")
    assert "was removed" in operator.refused("restart", "0")
    assert "is the last one" in operator.refused("remove", "1")
    assert "--control-socket is missing" in chorus("ctl", "list").stderr.decode()
    gone = chorus("ctl", "list", "--control-socket", str(operator.path) + "x")
    assert gone.returncode == 1 and "is a server running" in gone.stderr.decode()
    second = chorus("serve", STORIES, "--port", "0", "--control-socket", operator.path)
    assert second.returncode == 1 and "a server listens there" in second.stderr.decode()
    assert server.post("/v1/completions", ROW)["choices"]


def ask_raw(path, data):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(path))
        connection.sendall(data)
        with contextlib.suppress(ConnectionResetError):  # something was left unread
            return connection.recv(65536)
        return b""


def test_the_socket_is_its_users_alone_and_takes_what_it_understands(case):
    _, operator = case
    assert stat.S_IMODE(operator.path.stat().st_mode) == 0o600
    for request in [b"{}", b"[]", b"nonsense", b'{"command": "drain", "rank": -1}', b'{"command": "drain", "rank": 1e9}', b'{"command": 5}', b"\xff\xfe", b'{"command": "drain"}',
                    b'{"command": "list", "rank": 1}', b'{"command": "add", "force": true}', b'{"command": "pause", "move": "yes"}']:
        answer = json.loads(ask_raw(operator.path, request + b"\n"))
        assert answer["ok"] is False and answer["error"], request
    assert ask_raw(operator.path, b"x" * 10_000) == b""
    assert operator.states() == {0: "ready", 1: "ready"}
    if os.geteuid() != 0:
        pytest.skip("another user's part needs root")
    operator.path.chmod(0o666)
    for folder in operator.path.parents:
        folder.chmod(folder.stat().st_mode | 0o111)
    asked = subprocess.run([CHORUS, "ctl", "list", "--control-socket", operator.path], capture_output=True, user=65534, check=False)
    assert asked.returncode == 1 and b"this user is not its own" in asked.stderr, asked


def test_replicas_on_a_node_are_drained_and_restarted_from_the_head(tmp_path):
    model, key, port, path = with_template(tmp_path), make_key(tmp_path / "key"), free_port(), tmp_path / "control"
    across = ["-dp", "2", "-dpl", "1", "-dpa", "127.0.0.1", "-dpp", str(port), "--cluster-key-file", key, *FAST]
    with subprocess.Popen([CHORUS, "serve", model, "--headless", "-dpr", "1", *across], stderr=subprocess.DEVNULL) as node:
        try:
            with serving(model, "--control-socket", path, *across) as server, concurrent.futures.ThreadPoolExecutor(32) as pool:
                operator = Operator(path)
                expected = [stream.result() for stream in streams(server, pool)]
                for act in [("drain", "1"), ("resume", "1"), ("restart", "1"), ("pause",), ("resume",)]:
                    begun = streams(server, pool)
                    while not any(stream.done() for stream in begun):
                        time.sleep(0.002)
                    operator.ctl(*act)
                    if act == ("pause",):
                        operator.ctl("resume")
                    assert [stream.result(timeout=120) for stream in begun] == expected, act
                assert "their number is fixed" in operator.refused("add")
                assert server.stop() == 0
        finally:
            node.kill()


def test_a_service_manager_is_told(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        with serving(STORIES, *FAST, env={"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}) as server:
            heard = [manager.recv(1000).decode() for _ in range(5)]
            assert heard[0].startswith("READY=1\nSTATUS=serving ") and str(server.port) in heard[0]
            assert heard[1:] == ["WATCHDOG=1"] * 4
            assert server.stop() == 0
        rest = []
        while not rest or not rest[-1].startswith("STOPPING=1"):
            rest.append(manager.recv(1000).decode())
    refused = chorus("serve", STORIES, "--port", "0", env={"NOTIFY_SOCKET": "nonsense"})
    assert refused.returncode == 2 and b"NOTIFY_SOCKET" in refused.stderr
