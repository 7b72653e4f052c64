"""Our TCP store against torch's, both ways round, and ranks started by torchrun.

    pip install torch && LAUNCHER_TOOL=build/tests/launchers/launcher_tool python -m pytest tests/launchers

Skipped where torch or the built launcher_tool is missing. Made against torch 2.15.0.
"""
import datetime
import os
import pathlib
import socket
import subprocess
import sys
import threading

import pytest

distributed = pytest.importorskip("torch.distributed", reason="torch is not installed")

TOOL = pathlib.Path(os.environ.get("LAUNCHER_TOOL",
                                   pathlib.Path(__file__).parents[2] / "build/tests/launchers/launcher_tool")).absolute()
pytestmark = pytest.mark.skipif(not TOOL.exists(), reason=f"{TOOL} is not built (ninja launcher_tool)")
TIMEOUT = datetime.timedelta(seconds=30)


class Client:
    """launcher_tool client: a command in, a line out."""

    def __init__(self, port):
        self.process = subprocess.Popen([TOOL, "client", "127.0.0.1", str(port)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)

    def __call__(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().rstrip("\n")

    def close(self):
        self.process.stdin.close()
        assert self.process.wait(30) == 0


@pytest.fixture(params=[True, False], ids=["libuv", "poll"])
def torch_server(request):
    return distributed.TCPStore("127.0.0.1", 0, None, True, TIMEOUT, wait_for_workers=False, use_libuv=request.param)


@pytest.fixture
def our_server():
    process = subprocess.Popen([TOOL, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    yield int(process.stdout.readline())
    process.stdin.close()
    assert process.wait(30) == 0


def test_our_client_with_torchs_server(torch_server):
    client = Client(torch_server.port)
    assert client("set key value") == "ok"
    assert torch_server.get("key") == b"value"
    torch_server.set("other", "thing")
    assert client("get other") == "thing"
    assert client("add n 5") == "5"
    assert torch_server.add("n", 2) == 7
    assert client("add n -10") == "-3"
    assert client("check key other n") == "true"
    assert client("check key missing") == "false"
    assert client("compare_set c '' x") == "x"
    assert client("compare_set c y z") == "x"
    assert client("compare_set c x z") == "z"
    assert torch_server.get("c") == b"z"
    assert client("delete c") == "true"
    assert client("delete c") == "false"
    assert client("get missing") == "error deadline_exceeded"
    assert client("wait missing key") == "error deadline_exceeded"
    assert client("get key") == "value"  # the connection is in order after a wait that was cancelled
    client.close()


def test_our_client_waits_for_torchs_key(torch_server):
    client = Client(torch_server.port)
    timer = threading.Timer(0.3, lambda: torch_server.set("late", "1"))
    timer.start()
    assert client("wait late") == "ok"
    timer.join()
    client.close()


@pytest.mark.parametrize("use_libuv", [True, False])
def test_torchs_client_with_our_server(our_server, use_libuv):
    store = distributed.TCPStore("127.0.0.1", our_server, None, False, TIMEOUT, wait_for_workers=False,
                                 use_libuv=use_libuv)
    ours = Client(our_server)
    store.set("key", b"\0binary")
    assert store.get("key") == b"\0binary"
    assert ours("set ours value") == "ok"
    assert store.get("ours") == b"value"
    assert store.add("n", 3) == 3
    assert store.add("n", -5) == -2
    assert store.check(["key", "n"]) and not store.check(["key", "missing"])
    assert store.compare_set("c", "", "x") == b"x"
    assert store.compare_set("c", "y", "z") == b"x"
    assert store.compare_set("none", "y", "z") == b"y"
    assert store.num_keys() == 4
    assert store.delete_key("c") and not store.delete_key("c")
    store.append("a", "12")
    store.append("a", "34")
    assert store.get("a") == b"1234"
    store.multi_set(["m1", "m2"], ["1", "2"])
    assert store.multi_get(["m1", "m2"]) == [b"1", b"2"]
    with pytest.raises(distributed.DistStoreError):
        store.wait(["missing"], datetime.timedelta(milliseconds=200))
    assert store.get("ours") == b"value"
    large = bytes(8 * 1024 * 1024)
    store.set("large", large)
    assert store.get("large") == large
    ours.close()


def test_torch_ranks_meet_at_our_server(our_server):
    """wait_for_workers counts and waits in its own way; the group's barrier makes its own keys."""
    program = ("import sys, datetime, torch, torch.distributed as d\n"
               "r = int(sys.argv[2])\n"
               "s = d.TCPStore('127.0.0.1', int(sys.argv[1]), 2, False, datetime.timedelta(seconds=60))\n"
               "d.init_process_group('gloo', store=s, rank=r, world_size=2)\n"
               "t = torch.tensor([r + 1.]); d.all_reduce(t); assert t.item() == 3; d.barrier()\n")
    ranks = [subprocess.Popen([sys.executable, "-c", program, str(our_server), str(rank)]) for rank in range(2)]
    assert [rank.wait(120) for rank in ranks] == [0, 0]


@pytest.mark.parametrize("tcp", [False, True], ids=["shared-memory", "tcp"])
@pytest.mark.parametrize("rendezvous", ["c10d", "static"])
def test_ranks_under_torchrun(tcp, rendezvous):
    environment = dict(os.environ, OMP_NUM_THREADS="1") | ({"LAUNCHER_TOOL_TCP": "1"} if tcp else {})
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=4", "--no-python"]
    if rendezvous == "c10d":
        command += ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0"]
    else:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            command += ["--master-addr=127.0.0.1", f"--master-port={probe.getsockname()[1]}"]
    result = subprocess.run(command + [TOOL, "join"], capture_output=True, text=True, timeout=180, env=environment)
    assert result.returncode == 0, result.stderr
    assert sorted(line for line in result.stdout.splitlines() if line.startswith("torchrun")) == [
        f"torchrun rank {rank} of 4 sum 10" for rank in range(4)], result.stdout
