"""chorus serve behind a load balancer of somebody else's: one server a replica, one a node, a port a replica. The same request has the same tokens at every door."""
import concurrent.futures
import contextlib
import os
import pathlib
import shutil
import signal
import socket
import time

import pytest

from chorus_process import STORIES, TINY, chorus, engines_of
from serve_ctl_test import metric
from serve_faults_test import with_template
from serve_trials_test import streams
from serving import Operator, serving

FAST = ["--threads", "1", "--kv-cache-memory", "32MiB", "--max-num-seqs", "16"]
ROW = {"prompt": "Once upon a time", "max_tokens": 40, "temperature": 0}
LONG = {"prompt": "Once upon a time there was a little dog who liked to play in the park. " * 4, "max_tokens": 4, "temperature": 0}
MODES = {"external": [["-dp", 2, "-dpn", 0, "-dpa", "127.0.0.1", "-dpp", 29550], ["-dp", 2, "-dpn", 1, "-dpa", "127.0.0.1", "-dpp", 29550]],
         "hybrid": [["-dp", 4, "-dph", "-dpl", 2, "-dpr", 0, "-dpa", "127.0.0.1", "-dpp", 29550], ["-dp", 4, "-dpl", 2, "-dpr", 2]]}


def told_ranks(first, last, of):
    return f"rank {first} of {of}" if first == last else f"ranks {first} to {last} of {of}"


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """What a server alone streams."""
    with serving(with_template(tmp_path_factory.mktemp("alone")), *FAST) as server, concurrent.futures.ThreadPoolExecutor(32) as pool:
        return [stream.result(timeout=120) for stream in streams(server, pool)]


@pytest.fixture(params=MODES)
def servers(request, tmp_path):
    model = with_template(tmp_path)
    with contextlib.ExitStack() as stack:
        made = []
        for i, options in enumerate(MODES[request.param]):
            made.append(stack.enter_context(serving(model, *options, "--control-socket", tmp_path / f"control{i}", *FAST)))
        yield made, [Operator(tmp_path / f"control{i}") for i in range(len(made))]


def ranks_of(servers, number):
    size = servers[number].replicas
    return list(range(number * size, (number + 1) * size))


def test_ranks_are_those_of_the_whole_deployment(servers):
    """In what the server says of itself, its log, its processes, its metrics, to an operator and in a header."""
    doors, operators = servers
    count = sum(door.replicas for door in doors)
    for number, (server, operator) in enumerate(zip(doors, operators)):
        own, others = ranks_of(doors, number), ranks_of(doors, 1 - number)
        assert server.ranks == told_ranks(own[0], own[-1], count)
        assert [name.split()[-1] for name in process_names(engines_of(server.process.pid))] == [f"dp={rank}" for rank in own]
        for rank in own:
            assert f"Worker rank {rank} is ready" in server.logged()
            assert server.request("POST", "/v1/completions", ROW, {"X-data-parallel-rank": str(rank)})[0] == 200
        status, _, body = server.request("POST", "/v1/completions", ROW, {"X-data-parallel-rank": str(others[0])})
        assert status == 400 and f"no data parallel rank {others[0]}".encode() in body
        assert list(operator.states().items()) == [(rank, "ready") for rank in own]
        assert "outer load balancer" in operator.refused("add")
        assert f"no data parallel rank {others[0]}" in operator.refused("drain", str(others[0]))
        assert {rank: value > 0 for rank, value in metric(server, "vllm:generation_tokens_total").items()} == {rank: True for rank in own}
        assert metric(server, "chorus:replica_ready") == {rank: 1 for rank in own}
        assert server.request("GET", "/ready")[0] == 200
        assert f"ready_replicas\":{len(own)}".encode() in server.request("GET", "/ready")[2]


def process_names(pids):
    names = []
    for pid in sorted(pids):
        with open(f"/proc/{pid}/cmdline", "rb") as command:
            names.append(command.read().rstrip(b"\0").decode())
    return sorted(names)


def test_every_door_gives_the_same_and_a_death_at_one_is_nothing_to_the_other(servers, expected):
    """kill -9 of an engine: its door's streams go on, with another replica or when it is back. kill -9 of a server: the other one goes on."""
    doors, operators = servers
    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        begun = [streams(server, pool) for server in doors]
        while sum(stream.done() for stream in begun[0]) < 2:
            time.sleep(0.002)
        os.kill(engines_of(doors[0].process.pid)[0], signal.SIGKILL)
        for of_door in begun:
            assert [stream.result(timeout=120) for stream in of_door] == expected
        assert sum(replica["deaths"] for replica in operators[0].replicas().values()) == 1
        assert sum(replica["deaths"] for replica in operators[1].replicas().values()) == 0
        begun = streams(doors[1], pool)
        doors[0].process.kill()
        doors[0].process.wait()
        assert [stream.result(timeout=120) for stream in begun] == expected
    assert doors[1].stop() == 0


def test_load_is_spread_over_a_nodes_own_replicas(tmp_path):
    options = MODES["hybrid"][1]
    with serving(with_template(tmp_path), *options, *FAST) as server, concurrent.futures.ThreadPoolExecutor(32) as pool:
        for stream in streams(server, pool):
            stream.result(timeout=120)
        tokens = metric(server, "vllm:generation_tokens_total")
        assert set(tokens) == {2, 3} and min(tokens.values()) > 0.25 * sum(tokens.values()), tokens


def three_free_ports():
    """The first of three in a row."""
    while True:
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            first = stack.enter_context(socket.socket())
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            for i in (1, 2):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port + i))
            return port


@pytest.fixture(name="doors")
def multi_port(tmp_path):
    port = three_free_ports()
    with serving(with_template(tmp_path), "-dp", 5, "-dpm", "-dpl", 3, "-dpr", 1, "--port", port, "--control-socket", tmp_path / "control", *FAST, doors=3) as server:
        assert [door.port for door in server.doors] == [port, port + 1, port + 2]
        assert [door.ranks for door in server.doors] == [f"rank {rank} of 5" for rank in (1, 2, 3)]
        yield server, Operator(tmp_path / "control")
        assert server.stop() == 0


def test_each_of_several_ports_is_its_own_replicas(doors, expected):
    server, operator = doors
    for rank, door in zip((1, 2, 3), server.doors):
        before = metric(server, "vllm:generation_tokens_total")
        for _ in range(4):
            door.post("/v1/completions", ROW)
        after = metric(server, "vllm:generation_tokens_total")
        assert {other: after[other] - before[other] for other in after} == {other: 160 if other == rank else 0 for other in (1, 2, 3)}
        status, _, body = door.request("POST", "/v1/completions", ROW, {"X-data-parallel-rank": str(rank % 3 + 1)})
        assert status == 400 and b"ask the server of that rank" in body
        assert door.request("POST", "/v1/completions", ROW, {"X-data-parallel-rank": str(rank)})[0] == 200
    operator.ctl("drain", "2", "--finish")
    assert [door.request("GET", "/ready")[0] for door in server.doors] == [200, 503, 200]
    operator.ctl("resume", "2")
    assert "no door" in operator.refused("add")
    with concurrent.futures.ThreadPoolExecutor(96) as pool:
        begun = [streams(door, pool) for door in server.doors]
        while sum(stream.done() for stream in begun[1]) < 2:
            time.sleep(0.002)
        os.kill(operator.replicas()[2]["pid"], signal.SIGKILL)
        for of_door in begun:
            assert [stream.result(timeout=120) for stream in of_door] == expected


def with_tokenizer(folder):
    """A model with experts, and a tokenizer of as many ids."""
    model = folder / "mixtral"
    shutil.copytree(TINY / "mixtral", model)
    shutil.copy(pathlib.Path(STORIES) / "tokenizer.json", model)
    return model


def test_experts_over_the_replicas_of_several_ports(tmp_path):
    """They step together, each behind its door."""
    model = with_tokenizer(tmp_path)
    row = {"prompt": list(range(5, 25)), "max_tokens": 12, "temperature": 0, "ignore_eos": True}
    with serving(model, *FAST) as server:
        alone = server.post("/v1/completions", row)["choices"]
    with serving(model, "-dp", 2, "-ep", "-dpm", "--port", three_free_ports(), *FAST, doors=2) as server:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            for answer in [pool.submit(door.post, "/v1/completions", row) for door in server.doors for _ in range(3)]:
                assert answer.result()["choices"] == alone
        tokens = metric(server, "vllm:generation_tokens_total")
        assert tokens == {0: 36, 1: 36}


def test_what_makes_no_sense_is_refused(tmp_path):
    def refused(*options):
        port = () if "--port" in options else ("--port", "0")
        done = chorus("serve", STORIES, *port, *map(str, options))
        assert done.returncode == 2 and not done.stdout, done
        return done.stderr.decode()
    assert "--data-parallel-rank is 2; accepted: 0 to 1" in refused("-dp", 2, "-dpn", 2)
    assert "--uds" in refused("-dp", 2, "-dpm", "--uds", tmp_path / "door")
    assert "at most 65535" in refused("-dp", 2, "-dpm", "--port", 65535)
    done = chorus("serve", with_tokenizer(tmp_path), "--port", "0", "-dp", "2", "-dpn", "0", "-ep")
    assert done.returncode == 2 and "spreads the experts over 2 replicas, and this server has 1" in done.stderr.decode()
    done = chorus("generate", STORIES, "-dp", "2", "-dpn", "0", "--prompt", "x")
    assert done.returncode == 2 and "--data-parallel-rank is chorus serve's" in done.stderr.decode()


@pytest.mark.parametrize("front_ends", [1, 2])
def test_a_reset_empties_the_prefix_cache_of_every_replica(front_ends):
    def cached(server, rank):
        answer = server.post("/v1/completions", LONG, {"X-data-parallel-rank": str(rank)})
        texts.add(answer["choices"][0]["text"])
        return answer["usage"]["prompt_tokens_details"]["cached_tokens"]
    texts = set()
    with serving(STORIES, "-dp", 2, "-asc", front_ends, "--enable-prompt-tokens-details", *FAST, env={"CHORUS_API_KEY": "secret"}) as server:
        assert server.request("POST", "/reset_prefix_cache")[0] == 401
        server.request = with_key(server.request)
        for number in (1, 2):
            for rank in (0, 1):
                assert cached(server, rank) == 0 and cached(server, rank) > 32
            status, _, body = server.request("POST", "/reset_prefix_cache?reset_running_requests=false")
            assert (status, body) == (200, b"")
            deadline = time.monotonic() + 10  # the parent hears of it with the replicas' next report
            while metric(server, "chorus:prefix_cache_resets_total") != {0: number, 1: number}:
                assert time.monotonic() < deadline
    assert len(texts) == 1


def with_key(request):
    return lambda method, path, body=None, headers=None: request(method, path, body, {**(headers or {}), "Authorization": "Bearer secret"})
