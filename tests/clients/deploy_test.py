"""The files of deploy/ as they are: nginx and haproxy before two servers, the rules and the dashboard over the metrics that there are."""
import contextlib
import json
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest
import yaml

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from chorus_process import CHORUS, ROOT, STORIES  # noqa: E402 pylint: disable=wrong-import-position
from serving import Server  # noqa: E402 pylint: disable=wrong-import-position

DEPLOY = ROOT / "deploy"
BODY = {"model": "stories", "prompt": "Once upon a time", "temperature": 0, "max_tokens": 60}
BALANCERS = {"nginx": (["nginx", "-c", str(DEPLOY / "nginx.conf"), "-g", "daemon off;"], 8080),
             "haproxy": (["haproxy", "-f", str(DEPLOY / "haproxy.cfg")], 8081)}


# What is before ports 8001 and 8002, as deploy/README.md has it.
SERVERS = {"external": [["-dp", "2", "-dpn", "0", "--port", "8001"], ["-dp", "2", "-dpn", "1", "--port", "8002"]],
           "hybrid": [["-dp", "4", "-dph", "-dpl", "2", "--port", "8001"], ["-dp", "4", "-dph", "-dpl", "2", "-dpr", "2", "--port", "8002"]],
           "multi-port": [["-dp", "2", "-dpm", "--port", "8001"]]}


def start(options):
    command = [CHORUS, "serve", STORIES, *options, "--threads", "1", "--kv-cache-memory", "16MiB", "--served-model-name", "stories"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout.readline()
    return process


def ask(port, body=None, timeout_s=30):
    """The bytes of the answer through the balancer."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/completions", json.dumps(body or BODY).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=timeout_s) as answer:
        return answer.read()


def text_of(answer):
    return json.loads(answer)["choices"][0]["text"]


def wait_for(port, balancer):
    deadline = time.monotonic() + 20
    while True:
        try:
            return ask(port)
        except (OSError, urllib.error.URLError):
            assert time.monotonic() < deadline and balancer.poll() is None, balancer.stderr.read()
            time.sleep(0.1)


@contextlib.contextmanager
def balanced(balancer, mode):
    """The port of a balancer before running servers, and the servers."""
    command, port = BALANCERS[balancer]
    processes = []
    try:
        for options in SERVERS[mode]:
            processes.append(start(options))
        processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True))
        wait_for(port, processes[-1])
        yield port, processes[:-1]
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(timeout=40)


@pytest.fixture(params=BALANCERS)
def door(request):
    with balanced(request.param, "external") as running:
        yield running


def tokens_by_rank(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        found = re.findall(r'^vllm:generation_tokens_total\{engine="(\d+)".* (\d+)$', answer.read().decode(), re.M)
    return {int(rank): int(tokens) for rank, tokens in found}


@pytest.mark.parametrize("balancer", BALANCERS)
@pytest.mark.parametrize("mode", SERVERS)
def test_every_answer_is_the_same_whichever_server_gave_it(balancer, mode):
    with balanced(balancer, mode) as (port, _):
        answers = {text_of(ask(port)) for _ in range(20)}
        assert len(answers) == 1
        tokens = {**tokens_by_rank(8001), **tokens_by_rank(8002)}
    assert set(tokens) == set(range(4 if mode == "hybrid" else 2)) and min(tokens.values()) > 0, tokens


def test_a_stream_comes_as_it_is_made(door):
    port, _ = door
    body = json.dumps({**BODY, "stream": True, "max_tokens": 300}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/completions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        first = answer.readline()
        assert first.startswith(b"data: {")
        assert answer.read().endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_one_server_goes_and_nobody_notices(door, how):
    port, servers = door
    expected, failures, stop = text_of(ask(port)), [], threading.Event()

    def client():
        while not stop.is_set():
            try:
                if text_of(ask(port)) != expected:
                    failures.append("another text")
            except (OSError, urllib.error.URLError) as error:
                failures.append(repr(error))

    clients = [threading.Thread(target=client) for _ in range(4)]
    for thread in clients:
        thread.start()
    time.sleep(0.5)
    servers[0].send_signal(how)
    time.sleep(3)
    stop.set()
    for thread in clients:
        thread.join()
    # What a killed server was in the middle of is cut off: at most one request a client.
    assert len(failures) <= (len(clients) if how == signal.SIGKILL else 0), failures
    assert text_of(ask(port)) == expected


def test_rules_and_dashboard_ask_for_metrics_that_there_are():
    server = Server(STORIES, "--threads", "1", "--kv-cache-memory", "16MiB")
    try:
        served = server.request("GET", "/metrics")[2].decode()
    finally:
        server.close()
    there = set(re.findall(r"^# TYPE (\S+)", served, re.M)) | set(re.findall(r"^([a-z0-9_:]+)(?:\{| )", served, re.M))
    rules = [rule["expr"] for group in yaml.safe_load((DEPLOY / "rules.yml").read_text())["groups"] for rule in group["rules"]]
    dashboard = [target["expr"] for panel in json.loads((DEPLOY / "grafana.json").read_text())["panels"] for target in panel["targets"]]
    asked = {name for text in rules + dashboard for name in re.findall(r"(?:vllm|chorus):[a-z0-9_]+", text)}
    assert asked and asked <= there, asked - there
    subprocess.run(["promtool", "check", "rules", DEPLOY / "rules.yml"], check=True, capture_output=True)
    subprocess.run(["promtool", "check", "config", DEPLOY / "prometheus.yml"], check=True, capture_output=True)


def test_the_manifests_ask_for_options_and_routes_that_there_are():
    documents = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
    container = documents[0]["spec"]["template"]["spec"]["containers"][0]
    known = subprocess.run([CHORUS, "serve", "--help"], capture_output=True, text=True, check=True).stdout
    used = [argument for argument in container["args"] if argument.startswith("--")]
    unit = (DEPLOY / "chorus.conf").read_text() + (DEPLOY / "Dockerfile").read_text()
    used += re.findall(r"(--(?:host|port|data-parallel-size))\b", unit)
    assert used and all(option in known for option in used)
    server = Server(STORIES, "--threads", "1", "--kv-cache-memory", "16MiB")
    try:
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert server.request("GET", container[probe]["httpGet"]["path"])[0] == 200
    finally:
        server.close()
