"""A head and a node without a front end, on one machine or in network namespaces."""
import os
import pathlib
import re
import socket
import subprocess
import threading
import time

from chorus_process import CHORUS, STORIES

LIMITS = ["--max-num-seqs", "16", "--threads", "1", "--engine-start-timeout-ms", "60000"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def make_key(path, letter="k"):
    path.write_text(letter * 40)
    path.chmod(0o600)
    return path


class Running:
    """A started command whose log can be waited on."""

    def __init__(self, arguments, prefix=(), stdout=subprocess.PIPE):
        self.process = subprocess.Popen([*prefix, CHORUS, *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=stdout,
                                        stderr=subprocess.PIPE, env=dict(os.environ, CHORUS_LOG_LEVEL="info"))
        self.lines = []
        self.news = threading.Condition()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stderr:
            with self.news:
                self.lines.append(line.decode(errors="replace"))
                self.news.notify_all()
        with self.news:
            self.lines.append("")  # the end: who waits looks again
            self.news.notify_all()

    @property
    def log(self):
        return "".join(self.lines)

    def wait_for(self, pattern, within_s=60):
        """The first match of `pattern` in the log."""
        deadline = time.monotonic() + within_s
        with self.news:
            while not (found := re.search(pattern, self.log)):
                ended = self.lines and self.lines[-1] == ""
                assert not ended and self.news.wait(max(0.0, deadline - time.monotonic())), f"no {pattern} in:\n{self.log}"
            return found

    def finish(self, within_s=120):
        status = self.process.wait(within_s)
        self.reader.join(10)
        return status

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)


def start_head(rows, output, port, key, address="127.0.0.1", prefix=(), options=()):
    arguments = ["generate", STORIES, "--input", rows, "--output", output, "-dp", 4, "-dpl", 2, "-dpa", address, "-dpp", port, *LIMITS, *options]
    return Running(arguments + (["--cluster-key-file", key] if key else []), prefix)


def start_node(port, key, address="127.0.0.1", prefix=(), options=()):
    arguments = ["serve", STORIES, "--headless", "-dp", 4, "-dpl", 2, "-dpr", 2, "-dpa", address, "-dpp", port, *LIMITS, *options]
    return Running(arguments + (["--cluster-key-file", key] if key else []), prefix)


def engine_of(node, rank):
    """Process id of the node's engine of this rank."""
    children = pathlib.Path(f"/proc/{node.process.pid}/task/{node.process.pid}/children").read_text(encoding="utf-8").split()
    for child in children:
        if pathlib.Path(f"/proc/{child}/cmdline").read_bytes().rstrip(b"\0") == f"chorus engine dp={rank}".encode():
            return int(child)
    raise AssertionError(f"node {node.process.pid} has no engine of rank {rank}")
