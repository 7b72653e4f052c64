"""chorus serve: the server as its clients and its operator see it."""
import concurrent.futures
import json
import os
import re
import signal
import socket
import threading
import time

import pytest

from chorus_process import CHORUS, STORIES, TINY, chorus, engines_of, gone_within, other_lines
from serving import choices_of, events_of_chunks, put_together, receive_all, serving

FAST = ["--threads", "1", "--kv-cache-memory", "16MiB"]


@pytest.fixture(scope="module")
def server():
    with serving(STORIES, "-dp", "2", "--served-model-name", "stories", "--served-model-name", "tales", *FAST) as running:
        yield running


def test_says_where_it_serves(server):
    assert server.name == "stories" and server.host == "127.0.0.1" and server.replicas == 2
    print(f"ready after {server.ready_s:.2f} s")
    models = json.loads(server.request("GET", "/v1/models")[2])
    assert [model["id"] for model in models["data"]] == ["stories", "tales"]
    assert server.request("GET", "/health")[0] == 200 and server.request("GET", "/ready")[0] == 200
    assert set(json.loads(server.request("GET", "/version")[2])) == {"version", "profile"}


def test_its_log_says_what_it_loads_what_fits_and_what_it_answers(server):
    server.wait_for_log("INFO Routes: ")
    parts = [r"INFO Starting 2 data parallel workers\n", r"INFO Worker rank \d is ready\n", r"INFO Loaded \d+\.\d MiB of weights in \d+\.\d\d s\n",
             r"INFO KV cache: 16\.0 MiB per worker, (\d+) tokens per replica: room for (\d+\.\d) requests of (\d+) tokens\n",
             r"INFO Routes: (?=.*GET /health)(?=.*POST /v1/chat/completions).*\n"]
    log, found = server.logged(), None
    for part in parts:
        found = re.search(part, log)
        assert found, (part, server.logged())
        if "KV cache" in part:
            tokens, requests, longest = found.groups()
            assert float(requests) == pytest.approx(int(tokens) / int(longest), abs=0.051)
        log = log[found.end():]


RAW = [
    (b"GET / HTTP/1.1\nHost: localhost\n\n", 400),
    (b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /health HTTP/1.1\r\n\r\n", 400),
    (b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nabcde", 400),
    (b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n", 400),
    (b"GET /health HTTP/1.1\r\nHost: localhost\r\n: x\r\n\r\n", 400),
    (b"GET /health HTTP/1.1\r\n\r\n", 400),
    (b"GET /health HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", 421),
    (b"GET /health HTTP/1.1\r\nHost: localhost:1\r\nConnection: close\r\n\r\n", 200),
    (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
    (b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20000 + b"\r\n\r\n", 431),
    (b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"X: x\r\n" * 64 + b"\r\n", 431),
    (b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 5000000\r\n\r\n", 413),
    (b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}", 415),
    (b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", 415),
    (b"DELETE /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 405),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
]


@pytest.mark.parametrize("data, status", RAW)
def test_raw_bytes(server, data, status):
    answer = server.raw(data)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer
    assert answer.count(b"\r\ndate: ") == 1, "what came after it was answered"


BAD_BODIES = [
    (b"{", 400, "JSON"),
    (b'{"prompt": "a", "temperature": NaN}', 400, "JSON"),
    (b'{"prompt": "a", "temperature": 1e999}', 400, "beyond"),
    (b'{"prompt": "\\ud800"}', 400, "string"),
    (b'{"prompt": "\xff"}', 400, "UTF-8"),
    (b'{"prompt": "a", "model": "gpt-4"}', 404, "stories, tales"),
    (b'{"prompt": "a", "n": 0}', 400, "n is 0"),
    (b'{"prompt": "a", "logprobs": 21}', 400, "from 0 to 20"),
    (b'{"prompt": [' + b"5," * 600 + b'5]}', 400, "601 tokens, and max_model_len 512"),
    (b'{"prompt": "a", "suffix": "b"}', 400, "suffix is not supported"),
    (b"[" * 70 + b"]" * 70, 400, "64"),
]


@pytest.mark.parametrize("body, status, words", BAD_BODIES)
def test_bad_bodies(server, body, status, words):
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    answer = server.raw(head.encode() + body)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer
    error = json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"]
    assert words in error["message"] and error["code"] == status and error["type"].endswith("Error"), error


def test_an_answer_is_what_generate_writes(server):
    row = {"prompt": "Once upon a time", "max_tokens": 40, "temperature": 0}
    done = chorus("generate", STORIES, *FAST, stdin=json.dumps(row).encode())
    expected = json.loads(done.stdout)["outputs"][0]
    answer = server.post("/v1/completions", {**row, "return_token_ids": True})["choices"][0]
    assert (answer["text"], answer["token_ids"], answer["finish_reason"]) == (expected["text"], expected["token_ids"], expected["finish_reason"])


def test_tokens_there_and_back(server):
    tokens = server.post("/tokenize", {"prompt": "Once upon a time"})
    assert tokens["count"] == len(tokens["tokens"]) and tokens["max_model_len"] == 512
    assert server.post("/detokenize", {"tokens": tokens["tokens"][1:]})["prompt"] == "Once upon a time"
    long_text = "Once upon a time. " * 5000
    assert server.post("/tokenize", {"prompt": long_text})["count"] > 5000


def load(server):
    return json.loads(server.request("GET", "/load")[2])["server_load"]


def wait_for_load(server, expected, within_s):
    deadline = time.monotonic() + within_s
    while load(server) != expected:
        assert time.monotonic() < deadline, f"{load(server)} requests are under way"
        time.sleep(0.01)


def test_a_client_that_goes_ends_its_request(server):
    body = json.dumps({"prompt": "Once", "max_tokens": 500, "ignore_eos": True, "n": 4, "stream": True}).encode()
    connection = server.connect()
    connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    assert b"data: " in connection.recv(100000)
    connection.close()
    wait_for_load(server, 0, within_s=2)


def test_an_aborted_answer_ends_where_it_is(server):
    row = {"prompt": "Once", "max_tokens": 500, "ignore_eos": True, "n": 4, "stream": True, "request_id": "mine"}
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        chunks = pool.submit(server.stream, "/v1/completions", row)
        wait_for_load(server, 1, within_s=5)
        assert server.post("/abort_requests", {"request_ids": ["cmpl-mine"]}) == {"aborted": 1}
        choices = put_together(chunks.result())
    assert {choice["finish_reason"] for choice in choices.values()} == {"abort"} and len(choices) == 4
    assert load(server) == 0


def test_a_slow_reader_gets_all_and_delays_nobody(server):
    row = {"prompt": "Once upon a time", "max_tokens": 480, "ignore_eos": True, "temperature": 0, "logprobs": 20, "n": 1}
    expected = choices_of(server.post("/v1/completions", row))
    body = json.dumps({**row, "stream": True}).encode()
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect((server.host, server.port))
        slow.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        time.sleep(0.5)
        begin = time.monotonic()
        server.post("/v1/completions", {"prompt": "Once", "max_tokens": 5})
        assert time.monotonic() - begin < 5
        answer = receive_all(slow)
    assert put_together(events_of_chunks(answer)) == expected


def test_keys_guard_it(tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("# ours\nsk-first\n")
    with serving(STORIES, "--api-key-file", keys, "--host", "0.0.0.0", *FAST, env={"CHORUS_API_KEY": "sk-second"}) as server:
        server.host = "127.0.0.1"
        assert server.request("GET", "/health")[0] == 200 and server.request("GET", "/ping")[0] == 200
        for path in ["/v1/models", "/version", "/load", "/ready", "/nowhere"]:
            status, headers, body = server.request("GET", path)
            assert status == 401 and headers["www-authenticate"] == "Bearer", body
        assert server.request("GET", "/v1/models", headers={"Authorization": "Bearer sk-wrong"})[0] == 401
        for key in ["sk-first", "sk-second"]:
            assert server.request("GET", "/v1/models", headers={"Authorization": f"Bearer {key}"})[0] == 200
        assert server.stop() == 0


def test_term_lets_what_runs_end(tmp_path):
    with serving(STORIES, "-dp", "2", *FAST) as server:
        answers = []
        row = {"prompt": "Once", "max_tokens": 500, "ignore_eos": True, "temperature": 0}
        threads = [threading.Thread(target=lambda: answers.append(server.stream("/v1/completions", row))) for _ in range(8)]
        for thread in threads:
            thread.start()
        wait_for_load(server, 8, within_s=10)
        engines = engines_of(server.process.pid)
        server.process.send_signal(signal.SIGTERM)
        server.wait_for_log("shutting down")
        with pytest.raises(OSError):
            for _ in range(100):
                server.request("GET", "/ready")
                time.sleep(0.01)
        for thread in threads:
            thread.join()
        assert server.process.wait(timeout=30) == 0, server.logged()
        assert gone_within(engines, 2)
        assert "WARNING" not in server.logged(), server.logged()
        texts = {put_together(chunks)[0]["text"] for chunks in answers}
        assert len(answers) == 8 and len(texts) == 1


def test_after_its_timeout_it_ends_with_what_runs():
    with serving(STORIES, "--shutdown-timeout", "0", *FAST) as server:
        row = {"prompt": "Once", "max_tokens": 500, "ignore_eos": True, "n": 16, "stream": True}
        body = json.dumps(row).encode()
        with server.connect() as connection:
            connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            assert b"data: " in connection.recv(1000)
            assert server.stop(within_s=10) == 0
            assert b"[DONE]" not in receive_all(connection), "an end that is none"


@pytest.mark.parametrize("arguments, words", [
    (["--host", "0.0.0.0"], "there is no API key"),
    (["--host", "no.such.host.invalid"], "--host"),
    (["--port", "70000"], "--port is 70000"),
    (["--api-key-file", "/nowhere"], "/nowhere"),
    (["--api-server-count", "2", "-dp", "2", "-dpl", "1"], "one front end"),
    (["--api-server-count", "0"], "api-server-count"),
])
def test_refused_at_its_start(arguments, words):
    done = chorus("serve", STORIES, *arguments)
    assert done.returncode == 2 and words in done.stderr.decode(), done.stderr


def test_a_port_that_is_taken_is_told_at_once():
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        begin = time.monotonic()
        done = chorus("serve", STORIES, "--port", holder.getsockname()[1])
        assert done.returncode == 1 and time.monotonic() - begin < 5
        assert f"port {holder.getsockname()[1]}" in other_lines(done.stderr)[0], done.stderr
        assert f"pid {os.getpid()} (" in other_lines(done.stderr)[0], done.stderr


def test_a_model_without_a_tokenizer_is_refused():
    done = chorus("serve", TINY / "llama", "--load-format", "dummy", "--port", "0")
    assert done.returncode == 2 and "tokenizer.json" in done.stderr.decode(), done.stderr
