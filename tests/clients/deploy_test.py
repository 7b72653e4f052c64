"""The files of deploy/ as they are, but for ports and paths: nginx and HAProxy before two servers, Prometheus's rules, the dashboard, the unit."""
import contextlib
import json
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from chorus_process import ROOT, STORIES  # noqa: E402  pylint: disable=wrong-import-position
from serving import events, serving  # noqa: E402  pylint: disable=wrong-import-position

DEPLOY = ROOT / "deploy"
FAST = ["--threads", "1", "--kv-cache-memory", "16MiB", "--served-model-name", "stories"]
ROW = {"prompt": "Once upon a time", "max_tokens": 300, "temperature": 0, "ignore_eos": True}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def with_ports(path, port, servers):
    text = path.read_text(encoding="utf-8")
    for old, new in [("127.0.0.1:8000", f"127.0.0.1:{servers[0].port}"), ("127.0.0.1:8001", f"127.0.0.1:{servers[1].port}"),
                     ("listen 8080", f"listen {port}"), ("bind :8080", f"bind 127.0.0.1:{port}")]:
        text = text.replace(old, new)
    return text


def nginx(folder, port, servers):
    (folder / "chorus.conf").write_text(with_ports(DEPLOY / "nginx" / "chorus.conf", port, servers), encoding="utf-8")
    (folder / "nginx.conf").write_text(f"pid {folder}/nginx.pid;\nerror_log {folder}/error.log;\ndaemon off;\nevents {{}}\nhttp {{ access_log off; "
                                       f"client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; "
                                       f"scgi_temp_path {folder}; include {folder}/chorus.conf; }}\n", encoding="utf-8")
    return ["nginx", "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]


def haproxy(folder, port, servers):
    (folder / "haproxy.cfg").write_text(with_ports(DEPLOY / "haproxy" / "haproxy.cfg", port, servers), encoding="utf-8")
    return ["haproxy", "-db", "-f", str(folder / "haproxy.cfg")]


@contextlib.contextmanager
def balancer(command, port):
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(timeout=20)


@pytest.mark.parametrize("make", [nginx, haproxy])
def test_a_server_that_drains_behind_a_balancer_loses_nothing(make, tmp_path):
    """Goal: streams pass a balancer, token by token, and one server's end in order is seen by nobody. Method: requests without a pause through it; one of the two
    servers gets SIGTERM in the middle."""
    if shutil.which(make.__name__) is None:
        pytest.fail(f"{make.__name__} is missing: make test-server installs it")
    with serving(STORIES, *FAST) as first, serving(STORIES, *FAST) as second:
        expected = first.post("/v1/completions", ROW)["choices"][0]["text"]
        port = free_port()
        with balancer(make(tmp_path, port, (first, second)), port):
            time.sleep(1.5)  # HAProxy has asked both for their health
            door = type(first).__new__(type(first))
            door.host, door.port = "127.0.0.1", port
            results, stop = [], threading.Event()

            def ask():
                while not stop.is_set():
                    status, headers, answer = door.request("POST", "/v1/completions", {**ROW, "stream": True})
                    results.append(status)
                    if status == 200:
                        chunks = events(answer)
                        assert {name.lower(): value for name, value in headers.items()}["content-type"].startswith("text/event-stream") and len(chunks) > 3
                        results.append("".join(chunk["choices"][0]["text"] for chunk in chunks) == expected)

            threads = [threading.Thread(target=ask) for _ in range(4)]
            for thread in threads:
                thread.start()
            time.sleep(1)
            first.process.send_signal(signal.SIGTERM)
            assert first.process.wait(timeout=30) == 0
            time.sleep(1)
            stop.set()
            for thread in threads:
                thread.join()
            print(f"{len(results) // 2} streams through {make.__name__}")
            assert len(results) >= 16 and all(result in (200, True) for result in results), results
            assert second.process.poll() is None


def names_in(text):
    return set(re.findall(r"\b((?:vllm|chorus):[a-z0-9_]+|http_[a-z_]+)\b", text))


def test_what_rules_and_dashboard_ask_for_is_there():
    dashboard = json.loads((DEPLOY / "grafana" / "chorus.json").read_text(encoding="utf-8"))
    asked = names_in(json.dumps([panel["targets"] for panel in dashboard["panels"]]))
    asked |= names_in((DEPLOY / "prometheus" / "rules.yml").read_text(encoding="utf-8"))
    with serving(STORIES, *FAST) as server:
        lines = server.request("GET", "/metrics")[2].decode().splitlines()
    there = {line.split("{", 1)[0] for line in lines if not line.startswith("#")}
    assert len(asked) > 25 and not asked - there


def test_promtool_takes_the_rules():
    subprocess.run(["promtool", "check", "rules", DEPLOY / "prometheus" / "rules.yml"], check=True)
    subprocess.run(["promtool", "test", "rules", DEPLOY / "prometheus" / "rules_test.yml"], check=True)


def test_systemd_takes_the_unit(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd here")
    unit = tmp_path / "chorus.service"
    text = (DEPLOY / "systemd" / "chorus.service").read_text(encoding="utf-8")
    unit.write_text(text.replace("/usr/bin/chorus", "/bin/true"), encoding="utf-8")
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, check=False)
    assert done.returncode == 0 and b"chorus.service" not in done.stderr, done.stderr
