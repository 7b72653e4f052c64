"""Ray clusters on this machine for the tests: each node is a `ray start` with a loopback address of its own. And heads on them."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import pytest

from chorus_process import CHORUS, STORIES, chorus
from nodes import Running

VENV = pathlib.Path(os.environ.get("CHORUS_LAUNCHERS_VENV", pathlib.Path.home() / ".cache/chorus/launchers"))
RAY = VENV / "bin" / "ray"
CHORUS_RAY = pathlib.Path(CHORUS).parent / "chorus-ray"
LIMITS = ["--threads", "1", "--max-num-seqs", "16", "--engine-start-timeout-ms", "120000"]

needs_ray = pytest.mark.skipif(not (RAY.exists() and CHORUS_RAY.exists()), reason="no ray in CHORUS_LAUNCHERS_VENV, or no chorus-ray: make ray")


def free_ports(address, count, prefix=()):
    """Different ones: all are taken before the first is given back. `prefix`: what runs a command in the network that has this address."""
    script = ("import socket, sys\nheld = [socket.socket() for _ in range(int(sys.argv[2]))]\n"
              "for one in held:\n    one.bind((sys.argv[1], 0))\nprint(*[one.getsockname()[1] for one in held])")
    done = subprocess.run([*prefix, sys.executable, "-c", script, address, str(count)], capture_output=True, text=True, check=True)
    return done.stdout.split()


class RayNode:
    """One raylet, and with `head` the cluster's store beside it."""

    def __init__(self, address, cpus, head=None, prefix=()):
        self.address = address
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="cr", dir="/tmp"))  # sockets in it: the path must be short
        agent, store, client = free_ports(address, 3, prefix)
        ports = [f"--dashboard-agent-listen-port={agent}"]
        if head is None:
            self.cluster = f"{address}:{store}"
            ports += ["--head", f"--port={store}", "--include-dashboard=false", f"--temp-dir={self.directory}", f"--ray-client-server-port={client}"]
        else:
            self.cluster = head.cluster
            ports += [f"--address={self.cluster}"]
        # A home of its own: with an auth_token in ~/.ray, which a ray.init() of another program leaves there, Ray's store asks all for it.
        env = dict(os.environ, RAY_USAGE_STATS_ENABLED="0", HOME=str(self.directory))
        self.log = open(self.directory / "start.log", "wb")
        self.process = subprocess.Popen([*prefix, RAY, "start", "--block", f"--node-ip-address={address}", f"--num-cpus={cpus}", "--disable-usage-stats",
                                         "--object-store-memory=80000000", *ports], stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
                                        start_new_session=True, env=env)
        self.wait_until_up()

    def wait_until_up(self, within_s=90):
        deadline = time.monotonic() + within_s
        while b"Ray runtime started" not in (self.directory / "start.log").read_bytes():
            assert self.process.poll() is None and time.monotonic() < deadline, (self.directory / "start.log").read_text()
            time.sleep(0.1)

    def kill_raylet(self):
        for pid in descendants(self.process.pid):
            if name_of(pid) == "raylet":
                os.kill(pid, signal.SIGKILL)
                return
        raise AssertionError(f"no raylet under {self.process.pid}")

    def close(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(40)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
        self.log.close()
        shutil.rmtree(self.directory, ignore_errors=True)


def children_of(pid):
    return [int(word) for word in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()]


def launcher_of(head):
    """Process id of its chorus-ray, which may not be itself yet: a moment long it is a copy of the head."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for pid in children_of(head.process.pid):
            if command_of(pid)[:1] == ["chorus-ray"]:
                return pid
        time.sleep(0.02)
    raise AssertionError("no chorus-ray")


def name_of(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def command_of(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def parent_of(pid):
    return int(pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[1])


def descendants(pid):
    found, rest = [], [pid]
    while rest:
        listed = subprocess.run(["ps", "--ppid", ",".join(map(str, rest)), "-o", "pid="], capture_output=True, text=True, check=False).stdout
        rest = [int(word) for word in listed.split()]
        found += rest
    return found


def start_on_ray(arguments, address=None, strategy=None, prefix=()):
    """`chorus ...` with the environment of a user of Ray."""
    environment = {"RAY_ADDRESS": address, "CHORUS_RAY_DP_PACK_STRATEGY": strategy}
    before = {name: os.environ.pop(name, None) for name in environment}
    os.environ.update({name: value for name, value in environment.items() if value is not None})
    try:
        return Running(arguments, prefix)
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def part_processes(head):
    """Process ids of the nodes that Ray's actors run for this head, by rank and part."""
    return parts_at(head.wait_for(r"Waiting for ranks .* at \S+ port (\d+)").group(1))


def parts_at(port):
    """The same of the head that listens at this port."""
    found = {}
    for entry in pathlib.Path("/proc").iterdir():
        command = command_of(int(entry.name)) if entry.name.isdigit() else []
        if "--headless=true" in command and f"--data-parallel-rpc-port={port}" in command:
            options = dict(word.split("=", 1) for word in command if "=" in word)
            found[int(options.get("--data-parallel-start-rank", 0)), int(options.get("--node-rank", 0))] = int(entry.name)
    return found


def rank_processes(head):
    """By rank, where each has one part."""
    return {rank: pid for (rank, _), pid in part_processes(head).items()}


def many_rows(path, count):
    """Long enough that a kill finds requests in flight, and that who comes back still finds work."""
    with open(path, "w", encoding="utf-8") as out:
        for index in range(count):
            out.write(json.dumps({"id": index, "prompt": f"Story {index}", "max_tokens": 150, "ignore_eos": True, "seed": index}) + "\n")
    return path


def few_rows(path, count=12):
    with open(path, "w", encoding="utf-8") as out:
        for index in range(count):
            out.write(json.dumps({"id": index, "prompt_token_ids": [1, 5 + index % 60, 9], "max_tokens": 24, "temperature": 0.9 if index % 2 else 0.0,
                                  "seed": index, "logprobs": 2}) + "\n")
    return path


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Rows and what one machine makes of them."""
    rows = many_rows(tmp_path_factory.mktemp("ray") / "rows.jsonl", 2400)
    done = chorus("generate", STORIES, "--input", rows)
    assert done.returncode == 0, done.stderr.decode()
    return rows, done.stdout


@pytest.fixture
def runs():
    started = []
    yield started
    for running in started:
        running.kill()


def start_work(runs, work, tmp_path, cluster, sizes, strategy=None):
    rows, _ = work
    head = start_on_ray(["generate", STORIES, "--data-parallel-backend", "ray", *sizes, "--input", rows, "--output", tmp_path / "out.jsonl", *LIMITS],
                        cluster.cluster, strategy)
    runs.append(head)
    return head
