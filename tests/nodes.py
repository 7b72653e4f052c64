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


def process_of(node, name):
    """Process id of the child of the node's (or head's) process that has this name."""
    for children in pathlib.Path(f"/proc/{node.process.pid}/task").glob("*/children"):
        for child in children.read_text(encoding="utf-8").split():
            if pathlib.Path(f"/proc/{child}/cmdline").read_bytes().rstrip(b"\0") == name.encode():
                return int(child)
    raise AssertionError(f"process {node.process.pid} has no child {name}")


def engine_of(node, rank):
    return process_of(node, f"chorus engine dp={rank}")


class SpreadNodes:
    """A head and its other nodes, whose workers compute together. `others`: what each is told besides the sizes."""

    def __init__(self, tmp_path, model, sizes, others, rows, address="127.0.0.1", head_prefix=(), node_prefix=()):
        self.model, self.sizes, self.others = model, sizes, others
        self.head_prefix, self.node_prefix = head_prefix, node_prefix
        self.rows, self.output, self.key = rows, tmp_path / "out.jsonl", make_key(tmp_path / "key")
        self.meeting = ["-dpa", address, "-dpp", free_port(), "--cluster-key-file", self.key]
        self.head, self.nodes = None, []

    def start_node(self, options, sizes=None):
        self.nodes.append(Running(["serve", self.model, "--headless", *(sizes or self.sizes), *self.meeting, *options], self.node_prefix))
        return self.nodes[-1]

    def start(self, options=()):
        self.head = Running(["generate", self.model, "--input", self.rows, "--output", self.output, *self.sizes, *self.meeting, *options], self.head_prefix)
        for options_of_node in self.others:
            self.start_node(options_of_node)
        return self.head

    def start_and_wait(self, ranks):
        head = self.start()
        for rank in range(ranks):
            head.wait_for(f"Worker rank {rank} is ready")
        return head

    def expect(self, expected):
        assert self.head.finish() == 0, self.head.log
        assert self.output.read_bytes() == expected
        for node in self.nodes:
            assert node.finish(10) == 0, node.log

    def close(self):
        for running in [self.head, *self.nodes]:
            if running:
                running.kill()
