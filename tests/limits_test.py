"""What the system refuses a process: the last line names it. Limits of the address space, which also holds a thread's stack."""
import json
import resource
import subprocess

import pytest

from chorus_process import CHORUS, SANITIZE, STORIES

pytestmark = pytest.mark.skipif(SANITIZE != "", reason="a sanitizer needs more address space than the limit here")

ADDRESS_SPACE = 120 << 20  # the program and this model take 60 MiB


def limited(arguments, rows=b""):
    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    return subprocess.run([CHORUS, "generate", STORIES, "--kv-cache-memory", "1MiB", *arguments], input=rows, capture_output=True,
                          timeout=60, preexec_fn=limit, check=False)


def test_the_parent_runs_out_of_memory():
    row = json.dumps({"id": "x" * (60 << 20), "prompt": "a", "max_tokens": 1}).encode() + b"\n"
    done = limited(["--threads", "1"], row)
    assert done.returncode == 1, done.stderr.decode()
    assert b"the system refused memory" in done.stderr and b"terminate called" not in done.stderr


def test_an_engine_gets_no_thread():
    done = limited(["--threads", "64", "--prompt", "a"])
    assert done.returncode == 1, done.stderr.decode()
    assert b"the system refused a thread" in done.stderr and b"SIGABRT" not in done.stderr
