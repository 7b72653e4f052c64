"""A running `chorus serve`, and requests to it over raw sockets and over http.client."""
import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time

from chorus_process import CHORUS, chorus

LINE = re.compile(r"chorus: serving (\S+) at (?:https?://(\S+):(\d+)|unix:(\S+)) \((\d+) replicas(?:, (ranks? .*))?\)\n")


class Door:
    """Where a server listens."""

    def __init__(self, host, port, ranks):
        self.host, self.port, self.ranks = host, port, ranks

    def connect(self):
        return socket.create_connection((self.host, self.port), timeout=60)

    def raw(self, data):
        """What comes back until the server closes."""
        with self.connect() as connection:
            connection.sendall(data)
            return receive_all(connection)

    def request(self, method, path, body=None, headers=None):
        """(status, headers, body) of one request on a connection of its own."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=120)
        with contextlib.closing(connection):
            all_headers = {"Content-Type": "application/json", **(headers or {})} if body is not None else headers or {}
            connection.request(method, path, None if body is None else json.dumps(body), all_headers)
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()

    def post(self, path, body, headers=None):
        status, _, answer = self.request("POST", path, body, headers)
        assert status == 200, answer
        return json.loads(answer)

    def stream(self, path, body):
        """The chunks of a stream that must end in order."""
        status, headers, answer = self.request("POST", path, {**body, "stream": True})
        assert status == 200, answer
        assert headers["content-type"] == "text/event-stream; charset=utf-8"
        return events(answer)


class Server(Door):
    """`doors`: how many it has, each with a line; `prefix`: what runs a command elsewhere, in another network."""

    def __init__(self, model, *arguments, env=None, within_s=60, start_new_session=False, doors=1, prefix=()):
        self.log = tempfile.TemporaryFile()  # pylint: disable=consider-using-with
        port = [] if "--port" in arguments else ["--port", "0"]
        self.process = subprocess.Popen([*prefix, CHORUS, "serve", model, *port, *map(str, arguments)], stdout=subprocess.PIPE, stderr=self.log,
                                        env=dict(os.environ, CHORUS_LOG_LEVEL="info", **(env or {})), start_new_session=start_new_session)
        begin = time.monotonic()
        self.doors = []
        for _ in range(doors):
            line = self.process.stdout.readline().decode()
            match = LINE.fullmatch(line)
            self.ready_s = time.monotonic() - begin
            assert match and self.ready_s < within_s, f"{line!r} after {self.ready_s} s: {self.logged()}"
            self.doors.append(Door(match[2], int(match[3] or 0), match[6]))
        super().__init__(self.doors[0].host, self.doors[0].port, self.doors[0].ranks)
        self.name, self.path, self.replicas = match[1], match[4], int(match[5])

    def url(self):
        return f"unix:{self.path}" if self.path else f"http://{self.host}:{self.port}"

    def logged(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def wait_for_log(self, text, within_s=30):
        deadline = time.monotonic() + within_s
        while text not in self.logged():
            assert time.monotonic() < deadline and self.process.poll() is None, f"no {text!r}: {self.logged()}"
            time.sleep(0.01)

    def stop(self, within_s=30):
        """The exit status after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=within_s)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.log.close()


class Operator:
    """chorus ctl at a server's control socket."""

    def __init__(self, path):
        self.path = path

    def ctl(self, *arguments):
        done = chorus("ctl", *arguments, "--control-socket", self.path)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def refused(self, *arguments):
        done = chorus("ctl", *arguments, "--control-socket", self.path)
        assert done.returncode == 2 and not done.stdout, done
        return done.stderr.decode()

    def replicas(self):
        return {replica["rank"]: replica for replica in json.loads(self.ctl("list", "--json"))["replicas"]}

    def states(self):
        return {rank: replica["state"] for rank, replica in self.replicas().items()}


@contextlib.contextmanager
def serving(model, *arguments, **options):
    server = Server(model, *arguments, **options)
    try:
        yield server
    finally:
        server.close()


@contextlib.contextmanager
def answering(*answers):
    """A server that sends these bytes, one a connection, and closes; yields its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def serve():
            for answer in answers:
                connection = listener.accept()[0]
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(timeout=10)


def receive_all(connection):
    received = b""
    while piece := connection.recv(65536):
        received += piece
    return received


def events(answer):
    """Chunks of a whole stream; its last event must be [DONE]."""
    lines = answer.decode().split("\n\n")
    assert lines.pop() == "" and lines.pop() == "data: [DONE]", answer
    assert all(line.startswith("data: ") for line in lines)
    return [json.loads(line[len("data: "):]) for line in lines]


def events_of_chunks(answer):
    """The events of a raw chunked answer."""
    body, text = answer.split(b"\r\n\r\n", 1)[1], b""
    while True:
        size, body = body.split(b"\r\n", 1)
        if int(size, 16) == 0:
            break
        text, body = text + body[:int(size, 16)], body[int(size, 16) + 2:]
    lines = text.decode().split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    return [json.loads(line[len("data: "):]) for line in lines[:-2]]


def put_together(chunks):
    """The choices of a stream as an answer that was not streamed has them: by index {"text", "finish_reason", "stop_reason", "tokens"}."""
    choices = {}
    for chunk in chunks:
        for part in chunk["choices"]:
            choice = choices.setdefault(part["index"], {"text": "", "finish_reason": None, "stop_reason": None, "logprobs": []})
            assert choice["finish_reason"] is None, "something after the end of a choice"
            choice["text"] += part["text"] if "text" in part else part["delta"].get("content") or ""
            choice["finish_reason"], choice["stop_reason"] = part["finish_reason"], part.get("stop_reason")
            choice["logprobs"] += logprobs_of(part)
    return choices


def choices_of(answer):
    return {choice["index"]: {"text": choice["text"] if "text" in choice else choice["message"]["content"], "finish_reason": choice["finish_reason"],
                              "stop_reason": choice["stop_reason"], "logprobs": logprobs_of(choice)} for choice in answer["choices"]}


def logprobs_of(choice):
    """A list with an entry a token, whichever endpoint it is of."""
    told = choice.get("logprobs")
    if not told:
        return []
    if "content" in told:
        return [(entry["token"], entry["logprob"], [(top["token"], top["logprob"]) for top in entry["top_logprobs"]]) for entry in told["content"]]
    return list(zip(told["tokens"], told["token_logprobs"], told["top_logprobs"], told["text_offset"]))
