"""chorus complete: a prompt in, its continuation out, by a running server and by one of its own."""
import os
import signal
import subprocess

import pytest

from chorus_process import CHORUS, STORIES, chorus, descendants, gone_within, other_lines
from serving import answering, serving

FAST = ["--threads", "1", "--kv-cache-memory", "32MiB"]
GREEDY = ["--set", "temperature=0", "--set", "max_tokens=40"]
PROMPT = "Once upon a time"


@pytest.fixture(scope="module")
def server():
    with serving(STORIES, *FAST) as served:
        yield served


def continuation(server, prompt=PROMPT, **settings):
    return server.post("/v1/completions", {"prompt": prompt, "temperature": 0, "max_tokens": 40, **settings})["choices"][0]["text"]


def test_the_text_is_the_servers(server):
    expected = continuation(server)
    done = chorus("complete", server.url(), "--prompt", PROMPT, *GREEDY)
    assert (done.returncode, done.stdout.decode()) == (0, expected + "\n"), done.stderr
    assert not other_lines(done.stderr)
    for stdin in (PROMPT, PROMPT + "\n"):
        assert chorus("complete", server.url(), *GREEDY, stdin=stdin.encode()).stdout == done.stdout
    two_lines = chorus("complete", server.url(), *GREEDY, stdin=(PROMPT + "\n\n").encode())
    assert two_lines.stdout.decode() == continuation(server, PROMPT + "\n") + "\n"
    echoed = chorus("complete", server.url(), "--prompt", PROMPT, *GREEDY, "--set", "echo=true")
    assert echoed.stdout.decode() == PROMPT + expected + "\n"


def test_a_model_of_its_own_gives_the_same_and_leaves_nothing(server):
    done = chorus("complete", STORIES, *FAST, "-dp", "2", "--prompt", PROMPT, *GREEDY)
    assert (done.returncode, done.stdout.decode()) == (0, continuation(server) + "\n"), done.stderr


def test_what_is_wrong_is_said(server):
    for arguments, status, words in (
            ([server.url(), "--prompt", "a", "--prompt", "b"], 2, "chorus generate"), ([server.url(), "--prompt", "a", "--set", "prompt=b"], 2, "cannot be set"),
            ([server.url(), "--prompt", "a", "--set", "temperature"], 2, "NAME=VALUE"), ([server.url(), "--prompt", "a", "--set", "temperature=-1"], 2, "temperature"),
            ([server.url(), "--prompt", "a", "-dp", "2"], 2, "chorus serve"), (["http://127.0.0.1:1", "--prompt", "a"], 1, "no server at"),
            (["/nowhere", "--prompt", "a"], 2, "ended with status 2"), ([server.url(), "--prompt", "a", "--api-key-file", "/nowhere"], 2, "cannot be read")):
        done = chorus("complete", *arguments)
        assert done.returncode == status and words in done.stderr.decode() and not done.stdout, done
    with answering(b'HTTP/1.1 200 OK\r\n\r\n{"data": [{"id": "m"}]}', b'HTTP/1.1 200 OK\r\n\r\ndata: {"choices": [{"text": "half"}]}\n\n') as url:
        done = chorus("complete", url, "--prompt", "a")
        assert (done.returncode, done.stdout) == (1, b"half\n") and b"broke off" in done.stderr


def test_a_key(tmp_path):
    key = tmp_path / "key"
    key.write_text("secret-key\n")
    with serving(STORIES, *FAST, "--api-key-file", key) as server:
        assert b"401" in chorus("complete", server.url(), "--prompt", PROMPT).stderr
        done = chorus("complete", server.url(), "--prompt", PROMPT, *GREEDY, "--api-key-file", key)
        assert done.returncode == 0 and len(done.stdout) > 40


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_it_can_be_interrupted(how):
    long = ["--set", "ignore_eos=true", "--set", "max_tokens=480", "--prompt", PROMPT]
    with subprocess.Popen([CHORUS, "complete", STORIES, *FAST, *long], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.read(1)
        below = descendants(process.pid)
        assert len(below) >= 3  # the server, its front end and an engine
        process.send_signal(how)
        stdout, stderr = process.communicate(timeout=60)
        assert process.returncode == {signal.SIGKILL: -9}.get(how, 130), stderr
        assert how is signal.SIGKILL or stdout.endswith(b"\n")
        assert gone_within(below, 10)


def test_an_interrupt_while_the_prompt_is_awaited():
    with subprocess.Popen([CHORUS, "complete", "http://127.0.0.1:1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          env=dict(os.environ, CHORUS_LOG_LEVEL="info")) as process:
        process.stdin.write(b"Once")
        process.stdin.flush()
        while "SigCgt" not in (status := open(f"/proc/{process.pid}/status", encoding="utf-8").read()) or not int(
                next(line for line in status.splitlines() if line.startswith("SigCgt")).split()[1], 16) & 1 << (signal.SIGINT - 1):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 130 and process.stdout.read() == b""


def test_the_log_level_is_the_servers_too():
    environment = {name: value for name, value in os.environ.items() if not name.endswith(("LOG_LEVEL", "LOGGING_LEVEL"))}
    quiet, loud = (subprocess.run([CHORUS, "complete", STORIES, *FAST, "--prompt", PROMPT, *GREEDY, *level], capture_output=True, timeout=60, env=environment, check=True)
                   for level in ([], ["--log-level", "info"]))
    assert quiet.stdout == loud.stdout and b"Worker rank" in loud.stderr and b"Worker rank" not in quiet.stderr
