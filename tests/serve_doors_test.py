"""chorus serve behind TLS and at a Unix socket."""
import concurrent.futures
import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import stat
import subprocess
import time

import pytest

from chorus_process import STORIES, chorus
from serving import events, put_together, serving

FAST = ["--threads", "1", "--kv-cache-memory", "16MiB"]
ROW = {"prompt": "Once upon a time", "max_tokens": 40, "temperature": 0, "logprobs": 5}


def certificate(folder, name):
    files = folder / f"{name}.pem", folder / f"{name}.key"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-out", files[0], "-keyout", files[1]], check=True, capture_output=True)
    return files


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return certificate(tmp_path_factory.mktemp("tls"), "server")


@pytest.fixture(scope="module")
def secure(files):
    with serving(STORIES, "-dp", "2", "--ssl-certfile", files[0], "--ssl-keyfile", files[1], *FAST) as server:
        yield server
        assert server.stop() == 0


def context_of(files):
    return ssl.create_default_context(cafile=files[0])


def ask(connection, body, path="/v1/completions"):
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    answer = response.read()
    assert response.status == 200, answer
    return answer


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


def test_tls(secure, files):
    with serving(STORIES, *FAST) as plain:
        expected = plain.post("/v1/completions", ROW)["choices"]
    with contextlib.closing(http.client.HTTPSConnection("127.0.0.1", secure.port, context=context_of(files), timeout=60)) as connection:
        for _ in range(3):  # over one connection
            assert json.loads(ask(connection, ROW))["choices"] == expected
        streamed = put_together(events(ask(connection, {**ROW, "stream": True})))
        assert streamed[0]["text"] == expected[0]["text"]
        large = json.loads(ask(connection, {"prompt": "Once upon a time. " * 100_000}, "/tokenize"))
        assert large["count"] > 500_000


def test_many_at_once_and_a_slow_reader(secure, files):
    context = context_of(files)

    def one(i):
        with contextlib.closing(http.client.HTTPSConnection("127.0.0.1", secure.port, context=context, timeout=120)) as connection:
            return put_together(events(ask(connection, {**ROW, "prompt": f"Story {i % 4}", "stream": True})))
    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        slow = pool.submit(slow_read, secure.port, context)
        answers = list(pool.map(one, range(128)))
    assert all(answers[i] == answers[i % 4] for i in range(128))
    assert b"data: [DONE]" in slow.result()


def slow_read(port, context):
    body = json.dumps({**ROW, "max_tokens": 400, "ignore_eos": True, "n": 4, "stream": True}).encode()
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.connect(("127.0.0.1", port))
    with context.wrap_socket(raw, server_hostname="localhost") as reader:
        reader.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        time.sleep(1)
        received = b""
        while piece := reader.recv(1000):
            received += piece
        return received


def test_a_client_that_goes_ends_its_request(secure, files):
    connection = http.client.HTTPSConnection("127.0.0.1", secure.port, context=context_of(files), timeout=60)
    connection.request("POST", "/v1/completions", json.dumps({**ROW, "max_tokens": 500, "ignore_eos": True, "n": 8, "stream": True}), {"Content-Type": "application/json"})
    connection.getresponse().read(10)
    connection.close()
    deadline = time.monotonic() + 3
    with contextlib.closing(http.client.HTTPSConnection("127.0.0.1", secure.port, context=context_of(files), timeout=60)) as other:
        while True:
            other.request("GET", "/load")
            if json.loads(other.getresponse().read())["server_load"] == 0:
                break
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_what_is_no_tls_gets_no_http(secure):
    with secure.connect() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert b"200" not in connection.recv(1000)
    with secure.connect() as connection:  # a handshake that stops in its middle
        connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    with pytest.deprecated_call():
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with secure.connect() as connection, pytest.raises(ssl.SSLError):
        old.wrap_socket(connection)


def test_wrong_certificates_are_refused_at_the_start(files, tmp_path):
    other = certificate(tmp_path, "other")
    (tmp_path / "junk").write_text("junk")
    for arguments, words in [(["--ssl-certfile", files[0]], "both"), (["--ssl-certfile", files[0], "--ssl-keyfile", other[1]], "other.key"),
                             (["--ssl-certfile", tmp_path / "junk", "--ssl-keyfile", files[1]], "junk"), (["--ssl-certfile", "/nowhere", "--ssl-keyfile", files[1]], "/nowhere")]:
        done = chorus("serve", STORIES, "--port", "0", *arguments)
        assert done.returncode == 2 and words in done.stderr.decode(), done.stderr


@pytest.mark.parametrize("front_ends", [1, 2])
def test_a_unix_socket(tmp_path, front_ends):
    path = str(tmp_path / "socket")
    with serving(STORIES, "--uds", path, "-asc", front_ends, *FAST) as server:
        assert server.path == path and stat.S_IMODE(os.stat(path).st_mode) == 0o600
        for _ in range(4):
            with contextlib.closing(UnixConnection(path)) as connection:
                assert json.loads(ask(connection, ROW))["choices"][0]["finish_reason"] == "length"
        second = chorus("serve", STORIES, "--uds", path)
        assert second.returncode == 1 and "a server listens there" in second.stderr.decode()
        assert server.stop() == 0
    assert not os.path.exists(path)


def test_an_abandoned_socket_is_replaced(tmp_path):
    path = tmp_path / "socket"
    with serving(STORIES, "--uds", path, *FAST, env={"CHORUS_API_KEY": "sk-test"}) as server:
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        assert path.exists()
    with serving(STORIES, "--uds", path, *FAST, env={"CHORUS_API_KEY": "sk-test"}) as server:
        with contextlib.closing(UnixConnection(str(path))) as connection:
            connection.request("GET", "/v1/models", headers={"Host": "any.example"})
            assert connection.getresponse().status == 401, "a key counts here too"
        assert server.stop() == 0
    path.write_text("mine")
    done = chorus("serve", STORIES, "--uds", path)
    assert done.returncode == 2 and "no socket" in done.stderr.decode() and path.read_text() == "mine"
    done = chorus("serve", STORIES, "--uds", "/tmp/" + "x" * 200)
    assert done.returncode == 2 and "at most" in done.stderr.decode()
