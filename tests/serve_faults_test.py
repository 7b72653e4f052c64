"""Mixed requests to chorus serve while its processes die: what their clients get is what a calm server gives them."""
import concurrent.futures
import json
import os
import random
import shutil
import signal
import subprocess
import time

import pytest

from chorus_process import STORIES, chorus, engines_of, gone_within, is_running
from serving import choices_of, events_of_chunks, put_together, receive_all, serving

FAST = ["--threads", "1", "--kv-cache-memory", "32MiB", "--max-num-seqs", "16"]
TEMPLATE = "{% for message in messages %}<{{ message.role }}> {{ message.content }}\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"


def with_template(folder):
    """The stories model with a chat template."""
    model = folder / "stories"
    shutil.copytree(STORIES, model)
    path = model / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": TEMPLATE}))
    return model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return with_template(tmp_path_factory.mktemp("model"))


def mixed(count, tokens=(5, 120)):
    """Requests of all kinds: greedy and sampled, several choices, stop strings, logprobs, echo, chats, lists of prompts, token ids."""
    chance = random.Random(7)
    words = "Once upon a time there was a little dog who liked to play in the park with Lily and Tom".split()
    requests = []
    for i in range(count):
        text = " ".join(chance.choices(words, k=chance.randint(1, 12)))
        body = {"max_tokens": chance.randint(*tokens), "temperature": chance.choice([0, 0.8]), "seed": i}
        if chance.random() < 0.3:
            body["n"] = 2
        if chance.random() < 0.3:
            body["stop"] = chance.choice([["."], ["the", "and"], "\n"])
        if chance.random() < 0.3:
            body.update(top_p=0.9, top_k=40, repetition_penalty=1.1, presence_penalty=0.5)
        if chance.random() < 0.2:
            body["ignore_eos"] = True
        if i % 3 == 0:
            path, body = "/v1/chat/completions", {**body, "messages": [{"role": "user", "content": text}]}
            if chance.random() < 0.3:
                body.update(logprobs=True, top_logprobs=2)
        else:
            path, body = "/v1/completions", {**body, "prompt": [text, text + " and"] if chance.random() < 0.2 else text}
            if chance.random() < 0.3:
                body["logprobs"] = 1
            if chance.random() < 0.2:
                body["echo"] = True
        requests.append((path, body))
    return requests


def ask_all(server, requests, streams, at_once=32):
    """The choices of each request, in order."""
    def ask(request):
        path, body = request
        return put_together(server.stream(path, body)) if streams else choices_of(server.post(path, body))
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(ask, requests))


@pytest.fixture(scope="module")
def calm(model):
    """Requests and what a server of one replica answers to them one after the other."""
    requests = mixed(120)
    with serving(model, *FAST) as server:
        answers = ask_all(server, requests, streams=False, at_once=1)
        assert server.stop() == 0
    return requests, answers


@pytest.mark.parametrize("replicas, front_ends", [(1, 1), (2, 1), (2, 2)])
def test_streamed_is_unstreamed_is_one_after_the_other(model, calm, replicas, front_ends):
    requests, answers = calm
    with serving(model, "-dp", replicas, "-asc", front_ends, *FAST) as server:
        for streams in (True, False):
            for request, given, expected in zip(requests, ask_all(server, requests, streams), answers):
                assert given == expected, request
        assert server.stop() == 0


def test_it_is_what_generate_writes(model, calm):
    requests, answers = calm
    alike = ["max_tokens", "temperature", "seed", "n", "stop", "top_p", "top_k", "repetition_penalty", "presence_penalty", "ignore_eos", "messages", "prompt"]
    chosen = [(body, answer) for (_, body), answer in zip(requests, answers) if isinstance(body.get("prompt", ""), str) and not body.get("echo")]
    rows = "".join(json.dumps({key: body[key] for key in alike if key in body}) + "\n" for body, _ in chosen)
    lines = chorus("generate", model, "-dp", "2", *FAST, stdin=rows.encode()).stdout.splitlines()
    assert len(lines) == len(chosen) > 80
    for line, (body, answer) in zip(lines, chosen):
        for output in json.loads(line)["outputs"]:
            told = answer[output["index"]]
            assert (output["text"], output["finish_reason"], output["stop_reason"]) == (told["text"], told["finish_reason"], told["stop_reason"]), body


def test_killed_engines_change_no_stream(model):
    requests = mixed(64, tokens=(150, 300))
    with serving(model, "-dp", "2", *FAST) as server:
        expected = ask_all(server, requests, streams=True)
        killed = []
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            streams = pool.submit(ask_all, server, requests, True)
            while not streams.done() and len(killed) < 4:
                time.sleep(0.15)
                engines = engines_of(server.process.pid)
                if len(engines) == 2 and not streams.done():
                    killed.append(engines[len(killed) % 2])
                    os.kill(killed[-1], signal.SIGKILL)
            given = streams.result(timeout=120)
        assert len(killed) >= 2, "the streams were over too soon"
        assert "was killed by SIGKILL" in server.logged()
        for request, one, other in zip(requests, given, expected):
            assert one == other, request
        assert server.stop() == 0


def front_ends_of(server):
    listed = subprocess.run(["ps", "--ppid", str(server.process.pid), "-o", "pid=,args="], capture_output=True, text=True, check=True).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if "chorus front-end" in line]


def begin_stream(server, body):
    data = json.dumps({**body, "stream": True}).encode()
    connection = server.connect()
    connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
    return connection, connection.recv(1000)


LONG = {"prompt": "Once", "max_tokens": 500, "ignore_eos": True, "n": 8, "temperature": 0}


def test_a_killed_front_end_cuts_its_clients_and_comes_back(model):
    with serving(model, "-dp", "2", *FAST) as server:
        front_end, = front_ends_of(server)
        engines = engines_of(server.process.pid)
        connection, begun = begin_stream(server, LONG)
        assert b"data: " in begun
        os.kill(front_end, signal.SIGKILL)
        rest = b""
        try:
            rest = receive_all(connection)
        except ConnectionResetError:
            pass
        assert b"[DONE]" not in rest, "a false end"
        # The listening socket stays: a client that comes now waits for the new one.
        assert server.post("/v1/completions", {"prompt": "Once", "max_tokens": 3})["choices"]
        server.wait_for_log("front end 0 (pid")
        assert front_ends_of(server) != [front_end] and engines_of(server.process.pid) == engines
        assert json.loads(server.request("GET", "/load")[2])["server_load"] == 0
        assert server.stop() == 0


def rest_of(connection):
    try:
        return receive_all(connection)
    except ConnectionResetError:
        return b""


def test_one_of_two_front_ends_cuts_its_own_clients_alone(model):
    with serving(model, "-dp", "2", "-asc", "2", *FAST) as server:
        expected = put_together(server.stream("/v1/completions", LONG))
        first, second = front_ends_of(server)
        streams = [begin_stream(server, LONG) for _ in range(16)]
        os.kill(first, signal.SIGKILL)
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            whole = list(pool.map(lambda stream: stream[1] + rest_of(stream[0]), streams))
        ended = [answer for answer in whole if b"data: [DONE]" in answer]
        assert 0 < len(ended) < 16, "all of them were on one front end"
        assert all(put_together(events_of_chunks(answer)) == expected for answer in ended)
        server.wait_for_log("front end 0 (pid")
        assert second in front_ends_of(server)
        assert server.stop() == 0


def test_streams_go_on_while_the_parent_is_stopped(model):
    with serving(model, "-dp", "2", *FAST) as server:
        expected = put_together(server.stream("/v1/completions", LONG))
        os.kill(server.process.pid, signal.SIGSTOP)
        try:
            assert put_together(server.stream("/v1/completions", LONG)) == expected
        finally:
            os.kill(server.process.pid, signal.SIGCONT)
        assert server.stop() == 0


def test_the_parents_death_ends_everything(model):
    with serving(model, "-dp", "2", *FAST) as server:
        children = front_ends_of(server) + engines_of(server.process.pid)
        assert len(children) == 3 and all(map(is_running, children))
        connection, _ = begin_stream(server, LONG)
        server.process.kill()
        server.process.wait()
        assert gone_within(children, 1)
        connection.close()


def test_an_engine_that_cannot_come_back_ends_the_server(model):
    with serving(model, "--engine-restarts-max", "0", *FAST) as server:
        os.kill(engines_of(server.process.pid)[0], signal.SIGKILL)
        assert server.process.wait(timeout=20) == 1
        assert "was killed by SIGKILL" in server.logged()


def test_a_signal_for_the_whole_group_lets_what_runs_end(model):
    with serving(model, "-dp", "2", *FAST, start_new_session=True) as server:
        connection, begun = begin_stream(server, LONG)
        assert b"data: " in begun
        os.killpg(server.process.pid, signal.SIGTERM)
        assert b"data: [DONE]" in receive_all(connection)
        assert server.process.wait(timeout=30) == 0, server.logged()
