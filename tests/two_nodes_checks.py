"""What two nodes must do, wherever they are: imported by the tests that place them."""
import json
import os
import signal

from chorus_process import STORIES, chorus, gone_within
from nodes import engine_of, make_key, start_head, start_node

COUNT = 160


def write_rows(path):
    """Long enough that a kill finds requests in flight."""
    with open(path, "w", encoding="utf-8") as out:
        for index in range(COUNT):
            row = {"id": index, "prompt": f"Story {index} is about", "max_tokens": 60 + index % 90, "ignore_eos": True,
                   "temperature": 0.8 if index % 2 else 0.0, "seed": index}
            out.write(json.dumps(row) + "\n")
    return path


def one_node(rows):
    done = chorus("generate", STORIES, "--input", rows)
    assert done.returncode == 0, done.stderr.decode()
    assert len(done.stdout.splitlines()) == COUNT
    return done.stdout


class TwoNodesContract:
    """The tests of a module that has the fixture `nodes`, by a class that derives from this one."""

    def test_same_bytes(self, nodes):
        nodes.check_same_bytes()

    def test_killed_engine(self, nodes):
        nodes.check_killed_engine()

    def test_killed_node(self, nodes):
        nodes.check_killed_node()

    def test_wrong_key(self, nodes):
        nodes.check_wrong_key()

    def test_other_sizes(self, nodes):
        nodes.check_other_sizes()


class TwoNodes:
    """`place`: address, port and the command prefixes of the head and of the node."""

    def __init__(self, tmp_path, rows, expected, address, port, head_prefix=(), node_prefix=()):
        self.tmp_path, self.rows, self.expected = tmp_path, rows, expected
        self.address, self.port = address, port
        self.head_prefix, self.node_prefix = head_prefix, node_prefix
        self.key = make_key(tmp_path / "key")
        self.output = tmp_path / "out.jsonl"
        self.started = []

    def head(self, key="same", options=()):
        self.started.append(start_head(self.rows, self.output, self.port, self.key if key == "same" else key, self.address, self.head_prefix, options))
        return self.started[-1]

    def node(self, key="same", options=()):
        self.started.append(start_node(self.port, self.key if key == "same" else key, self.address, self.node_prefix, options))
        return self.started[-1]

    def close(self):
        for running in self.started:
            running.kill()

    def expect_all_rows(self, head):
        assert head.finish() == 0, head.log
        assert self.output.read_bytes() == self.expected

    def both_start(self):
        head, node = self.head(), self.node()
        for rank in range(4):
            head.wait_for(f"Worker rank {rank} is ready")
        return head, node

    def check_same_bytes(self):
        head, node = self.both_start()
        self.expect_all_rows(head)
        assert node.finish() == 0, node.log
        assert "The head has ended" in node.log

    def check_killed_engine(self):
        head, node = self.both_start()
        os.kill(engine_of(node, 2), signal.SIGKILL)
        head.wait_for(r"Worker rank 2 .*was killed by SIGKILL.* requests go to the others")
        node.wait_for("Worker rank 2 .*was killed by SIGKILL")
        self.expect_all_rows(head)
        assert node.finish() == 0, node.log

    def check_killed_node(self):
        head, node = self.both_start()
        engines = [engine_of(node, rank) for rank in (2, 3)]
        node.process.kill()
        head.wait_for("Worker rank [23] .* requests go to the others")
        assert gone_within(engines, 10)
        self.expect_all_rows(head)

    def check_wrong_key(self):
        head = self.head(options=["--engine-start-timeout-ms", "2000"])
        node = self.node(key=make_key(self.tmp_path / "other", "o"))
        assert node.finish() == 2, node.log
        assert "another cluster key" in node.log
        assert head.finish() == 1, head.log
        assert "Refused a connection" in head.log
        last = head.log.splitlines()[-1]
        assert "ranks 2, 3 did not come" in last and "the last connection that was refused" in last and "cluster key" in last
        assert not self.output.exists()

    def check_other_sizes(self):
        head = self.head(options=["--engine-start-timeout-ms", "2000"])
        node = self.node(options=["--max-model-len", "256"])
        assert node.finish() == 2, node.log
        head.finish()
        for log in (head.log, node.log):
            assert "max-model-len is 512 on the head and 256 on node" in log
