"""Runs the built program as a user does."""
import json
import os
import pathlib
import re
import signal
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
CHORUS = os.environ.get("CHORUS", str(ROOT / "build" / "chorus"))
STORIES = str(ROOT / "models" / "stories260k")
STORIES_F32 = str(ROOT / "tests" / "data" / "models" / "stories260k-f32")
TINY = ROOT / "tests" / "data" / "models"
# "address,undefined" or "thread" where the program was built with sanitizers, which take memory and address space of their own.
SANITIZE = os.environ.get("CHORUS_SANITIZE", "")


def chorus(*arguments, stdin=b"", timeout_s=300, env=None):
    """The finished process; output as bytes."""
    full = dict(os.environ, CHORUS_LOG_LEVEL="info", **(env or {}))
    return subprocess.run([CHORUS, *map(str, arguments)], input=stdin, capture_output=True, timeout=timeout_s, env=full, check=False)


def generate(model, *arguments, rows=None, stdin=b"", **options):
    """Output lines of a run that must succeed."""
    if rows is not None:
        stdin = "".join(json.dumps(row) + "\n" for row in rows).encode()
    done = chorus("generate", model, *arguments, stdin=stdin, **options)
    assert done.returncode in (0, 3), done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()]


LOG_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} (DEBUG|INFO|WARNING|ERROR) ")


def log_lines(stderr):
    return [line for line in stderr.decode(errors="replace").splitlines() if LOG_LINE.match(line)]


def other_lines(stderr):
    """What the program says besides its log: on an error one line, else nothing (or progress)."""
    return [line for line in stderr.decode(errors="replace").splitlines() if not LOG_LINE.match(line)]


def engines_of(parent):
    listed = subprocess.run(["ps", "--ppid", str(parent), "-o", "pid=,args="], capture_output=True, text=True, check=False).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if "chorus engine dp=" in line]


def wait_for_engines(process, count, within_s=30):
    """Process ids of the engines under `process`, in order of rank."""
    deadline = time.monotonic() + within_s
    while process.poll() is None and time.monotonic() < deadline:
        engines = engines_of(process.pid)
        if len(engines) == count:
            return engines
        time.sleep(0.005)
    raise AssertionError(f"no {count} engines under process {process.pid} (exit status {process.returncode})")


def generate_and_kill(model, rows, output, *options, after_s=0.0):
    """What `generate -dp 2` writes of the file `rows` to the file `output` when an engine is killed while it runs."""
    with subprocess.Popen([CHORUS, "generate", model, "--input", rows, "--output", output, "-dp", "2", *options], stderr=subprocess.PIPE) as process:
        # A death before READY would end the start, however slow the machine is.
        ready = 0
        while ready < 2:
            line = process.stderr.readline()
            assert line, "the engines did not get ready"
            ready += b"is ready" in line
        time.sleep(after_s)
        killed = engines_of(process.pid)
        assert killed, "the run was over before a replica could be killed"
        os.kill(killed[-1], signal.SIGKILL)
        errors = process.communicate(timeout=600)[1].decode()
    assert process.returncode in (0, 3), errors
    assert "SIGKILL" in errors
    return pathlib.Path(output).read_bytes()


def descendants(pid):
    """Process ids of all below it."""
    children = [int(child) for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return children + [below for child in children for below in descendants(child)]


def is_running(pid):
    """A zombie that nobody has waited for yet runs no more."""
    try:
        return "\nState:\tZ" not in pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return False


def wait_for_weights(process, within_s=30):
    """Until `process` has mapped the memory into which it packs the weights."""
    deadline = time.monotonic() + within_s
    while process.poll() is None and time.monotonic() < deadline:
        if "chorus-weights" in pathlib.Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8"):
            return
        time.sleep(0.005)
    raise AssertionError(f"process {process.pid} loads no weights (exit status {process.returncode})")


def gone_within(pids, within_s):
    end = time.monotonic() + within_s
    while any(is_running(pid) for pid in pids):
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True
