"""chorus chat: conversations over a pipe and at a terminal, with a running server and with one of its own."""
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import time

import pytest

from chorus_process import CHORUS, STORIES, chorus, descendants, gone_within, other_lines
from script_model import script_model
from serving import answering, serving

FAST = ["--threads", "1", "--kv-cache-memory", "32MiB"]
SCRIPTS = {"hello": "Good day, my friend.", "bye": "See you later!"}
GREEDY = ["--set", "temperature=0"]
TEMPLATE = "{% for message in messages %}<{{ message.role }}> {{ message.content }}\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"


@pytest.fixture(scope="module")
def scripted(tmp_path_factory):
    return script_model(tmp_path_factory.mktemp("script"), SCRIPTS)


@pytest.fixture(scope="module")
def stories(tmp_path_factory):
    """A model that talks for long."""
    model = tmp_path_factory.mktemp("model") / "stories"
    shutil.copytree(STORIES, model)
    path = model / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": TEMPLATE}))
    return model


def test_a_conversation_over_a_pipe(scripted, tmp_path):
    saved = tmp_path / "saved.json"
    with serving(scripted, *FAST) as server:
        lines = f"<hello>\n/set max_tokens 50\n\n<bye>\n/save {saved}\n/reset\n/system\n/set max_tokens\n<hello>"
        done = chorus("chat", server.url(), "--system", "Be nice.", *GREEDY, stdin=lines.encode())
        assert (done.returncode, done.stdout.decode()) == (0, "Good day, my friend.\nSee you later!\nGood day, my friend.\n"), done.stderr
        assert not other_lines(done.stderr)
    conversation = json.loads(saved.read_text())
    assert conversation["parameters"] == {"temperature": 0, "max_tokens": 50}
    assert [(message["role"], message["content"]) for message in conversation["messages"]] == [
        ("system", "Be nice."), ("user", "<hello>"), ("assistant", SCRIPTS["hello"]), ("user", "<bye>"), ("assistant", SCRIPTS["bye"])]


def test_a_key_and_a_unix_socket(scripted, tmp_path):
    key = tmp_path / "key"
    key.write_text("secret-key\n")
    with serving(scripted, *FAST, "--uds", tmp_path / "socket", "--api-key-file", key) as server:
        refused = chorus("chat", server.url(), stdin=b"<hello>\n")
        assert refused.returncode == 2 and b"401" in refused.stderr and not refused.stdout
        for arguments, env in ((["--api-key-file", key], {}), ([], {"CHORUS_API_KEY": "secret-key"})):
            done = chorus("chat", server.url(), *GREEDY, *arguments, stdin=b"<hello>\n", env=env)
            assert (done.returncode, done.stdout) == (0, b"Good day, my friend.\n"), done.stderr


def test_what_is_wrong_is_said(scripted):
    with serving(scripted, *FAST) as server:
        for line, words in (("/sett x", "unknown command /sett"), ("/set stream true", "cannot be set"), ("/save", "name is missing"), ("/set temperature -1", "temperature")):
            done = chorus("chat", server.url(), stdin=f"{line}\n<hello>\n".encode())
            assert done.returncode == 2 and words in done.stderr.decode() and not done.stdout, done
        done = chorus("chat", server.url(), "-dp", "2")
        assert done.returncode == 2 and b"chorus serve" in done.stderr
    for target, status, words in ((server.url(), 1, "no server at"), ("https://localhost", 2, "plain HTTP"), ("/nowhere", 2, "ended with status 2"), ("ftp://x", 2, "no server's URL")):
        done = chorus("chat", target, stdin=b"<hello>\n")
        assert done.returncode == status and words in done.stderr.decode() and not done.stdout, done


def test_servers_that_answer_nonsense():
    models = b'HTTP/1.1 200 OK\r\n\r\n{"data": [{"id": "m"}]}'
    stream = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    for answer, words in ((b"nonsense\r\n\r\n", "broke off"), (stream + b"5\r\ndata:", "broke off"), (b'HTTP/1.1 200 OK\r\n\r\ndata: {"choices": []}\n\n', "broke off"),
                          (b"HTTP/1.1 200 OK\r\n\r\ndata: {\n\n", "an event of the answer"), (b"HTTP/1.1 500 No\r\n\r\n\x1b[2J", "500"),
                          (b'HTTP/1.1 200 OK\r\n\r\ndata: {"error": {"message": "too \\u001b hot"}}\n\n', "too \\x1b hot")):
        with answering(models, answer) as url:
            done = chorus("chat", url, stdin=b"hello\n")
            assert done.returncode in (1, 2) and words in done.stderr.decode() and b"\x1b" not in done.stderr, (answer, done)
    with answering(b"HTTP/1.1 200 OK\r\n\r\n{}") as url:
        done = chorus("chat", url, stdin=b"hello\n")
        assert done.returncode == 2 and b"names no model" in done.stderr


def long_chat(*arguments, **options):
    return subprocess.Popen([CHORUS, "chat", *map(str, arguments), "--set", "ignore_eos=true", "--set", "max_tokens=480"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, **options)


def test_a_server_that_is_killed_in_the_middle_of_an_answer(stories):
    with serving(stories, *FAST) as server, long_chat(server.url()) as chat:
        chat.stdin.write(b"Once upon a time\n")
        chat.stdin.flush()
        assert chat.stdout.read(1)
        # At once: a front end that outlives its parent says so in the answer, and then it does not break off.
        for pid in [*descendants(server.process.pid), server.process.pid]:
            os.kill(pid, signal.SIGSTOP)
        for pid in [*descendants(server.process.pid), server.process.pid]:
            os.kill(pid, signal.SIGKILL)
        _, stderr = chat.communicate(timeout=30)
        assert chat.returncode == 1 and b"broke off" in stderr


def test_a_server_whose_parent_is_killed_says_so(stories):
    with serving(stories, *FAST) as server, long_chat(server.url()) as chat:
        chat.stdin.write(b"Once upon a time\n")
        chat.stdin.flush()
        assert chat.stdout.read(1)
        server.process.kill()
        _, stderr = chat.communicate(timeout=30)
        assert chat.returncode == 1 and (b"broke off" in stderr or b"the parent: the peer closed the connection" in stderr)


@pytest.mark.parametrize("how", [None, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_model_with_a_server_of_its_own_leaves_nothing(stories, how):
    with long_chat(stories, *FAST, "-dp", "2", "--no-enable-prefix-caching") as chat:
        chat.stdin.write(b"Once upon a time\n")
        chat.stdin.flush()
        assert chat.stdout.read(1)
        below = descendants(chat.pid)
        assert len(below) >= 3  # the server and two engines
        if how is not None:
            chat.send_signal(how)
        stdout, stderr = chat.communicate(timeout=60)
        assert chat.returncode == {None: 0, signal.SIGKILL: -9}.get(how, 130), stderr
        assert how is not None or len(stdout) > 100
        assert gone_within(below, 10)


class Terminal:
    """chorus chat at a terminal of its own."""

    def __init__(self, *arguments):
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.execve(CHORUS, [CHORUS, "chat", *map(str, arguments)], dict(os.environ, TERM="dumb"))
        self.shown = b""

    def read_until(self, done, within_s=30):
        deadline = time.monotonic() + within_s
        while not done(self.shown):
            assert time.monotonic() < deadline, self.shown
            if select.select([self.terminal], [], [], 0.1)[0]:
                self.shown += os.read(self.terminal, 65536)

    def write(self, text):
        self.shown = b""
        os.write(self.terminal, text)

    def end(self, within_s=30):
        """The exit status."""
        deadline = time.monotonic() + within_s
        while True:
            assert time.monotonic() < deadline, self.shown
            if not select.select([self.terminal], [], [], 0.1)[0]:
                continue
            try:
                if not os.read(self.terminal, 65536):
                    break
            except OSError:  # the other side is closed
                break
        os.close(self.terminal)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_at_a_terminal_ctrl_c_stops_the_answer_and_ctrl_d_ends(stories):
    with serving(stories, *FAST, "-dp", "1") as server:
        chat = Terminal(server.url(), "--set", "ignore_eos=true", "--set", "max_tokens=480", "--set", "temperature=0")
        chat.read_until(lambda shown: shown.endswith(b"> "))
        for _ in range(3):
            chat.write(b"Once upon a time\n")
            chat.read_until(lambda shown: len(shown) > 60)
            os.write(chat.terminal, b"\x03")
            chat.read_until(lambda shown: shown.endswith(b"> "))
            assert len(chat.shown) < 1500  # it was not the whole answer
        chat.write(b"half a line\x03")
        chat.read_until(lambda shown: shown.endswith(b"> ") and b"\n" in shown)
        chat.write(b"/wrong\n")
        chat.read_until(lambda shown: b"unknown command /wrong" in shown and shown.endswith(b"> "))
        os.write(chat.terminal, b"\x04")
        assert chat.end() == 0


def test_ctrl_d_may_be_typed_ahead(stories):
    with serving(stories, *FAST, "-dp", "1") as server:
        chat = Terminal(server.url(), "--set", "ignore_eos=true", "--set", "max_tokens=200", "--set", "temperature=0")
        chat.read_until(lambda shown: shown.endswith(b"> "))
        chat.write(b"Once upon a time\n")
        chat.read_until(lambda shown: len(shown) > 60)
        os.write(chat.terminal, b"\x04")  # while it answers
        assert chat.end() == 0
