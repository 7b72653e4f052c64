"""chorus serve: what it counts, says in its log, and refuses."""
import concurrent.futures
import json
import os
import re
import signal
import threading
import time

import pytest

from chorus_process import STORIES, engines_of
from serving import Operator, serving

FAST = ["--threads", "1", "--kv-cache-memory", "16MiB"]
SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*\{.*\}) (\S+)")


def metrics(server):
    """The samples of one scrape."""
    status, headers, body = server.request("GET", "/metrics")
    assert status == 200 and headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = [line for line in body.decode().splitlines() if not line.startswith("#")]
    samples = {match[1]: float(match[2]) for match in map(SAMPLE.fullmatch, lines)}
    assert len(samples) == len(lines)
    return samples


def total(samples, name):
    return sum(value for series, value in samples.items() if series.startswith(name + "{"))


@pytest.fixture(scope="module")
def server():
    with serving(STORIES, "-dp", "2", "-asc", "2", "--served-model-name", "stories", "--enable-prompt-tokens-details", *FAST) as running:
        yield running


def test_counts_the_whole_server_whoever_answers(server):
    """Goal: with two front ends at one port a scrape is of both, and counters never fall. Method: requests and scrapes over connections that the
    system spreads over them."""
    row = {"prompt": "Once upon a time", "max_tokens": 8, "temperature": 0, "ignore_eos": True}
    prompt_tokens = server.post("/v1/completions", row)["usage"]["prompt_tokens"]
    before, seen = metrics(server), []
    for done in range(1, 13):
        server.post("/v1/completions", {**row, "n": 2, "temperature": 1})
        for _ in range(3):
            samples = metrics(server)
            assert total(samples, "vllm:generation_tokens_total") - total(before, "vllm:generation_tokens_total") == 16 * done
            assert total(samples, "vllm:prompt_tokens_total") - total(before, "vllm:prompt_tokens_total") == prompt_tokens * done
            seen.append(samples)
    for earlier, later in zip(seen, seen[1:]):
        falling = [name for name in earlier if ("_total{" in name or "_bucket{" in name or "_count{" in name) and later[name] < earlier[name]]
        assert not falling
    last = seen[-1]
    assert last['vllm:request_success_total{engine="0",model_name="stories",finished_reason="length"}'] > 0
    assert total(last, "vllm:time_to_first_token_seconds_count") == 13 and total(last, "vllm:inter_token_latency_seconds_count") == 7 + 12 * 14
    assert total(last, "vllm:e2e_request_latency_seconds_count") == 13
    assert 0 < total(last, "vllm:request_prefill_time_seconds_sum") < total(last, "vllm:e2e_request_latency_seconds_sum")
    assert last['http_requests_total{handler="/v1/completions",method="POST",status="2xx"}'] == 13
    deadline = time.monotonic() + 5  # the engines report every 20 ms, the parent counts
    while total(metrics(server), "vllm:iteration_tokens_total_sum") < prompt_tokens:
        assert time.monotonic() < deadline


def test_tells_cached_tokens(server):
    row = {"prompt": "The little dog ran to the old house by the big tree and the sun was in the sky " * 3, "max_tokens": 1}
    first = server.post("/v1/completions", row, {"X-data-parallel-rank": "1"})["usage"]
    again = server.post("/v1/completions", row, {"X-data-parallel-rank": "1"})["usage"]
    assert first["prompt_tokens_details"] == {"cached_tokens": 0}
    cached = again["prompt_tokens_details"]["cached_tokens"]
    assert cached % 16 == 0 and first["prompt_tokens"] - 17 <= cached < first["prompt_tokens"]
    chunks = server.stream("/v1/completions", {**row, "stream_options": {"include_usage": True}})
    assert "prompt_tokens_details" in chunks[-1]["usage"]


def test_counts_preemptions_by_request():
    """Eight answers that do not fit together: what the replica counts is what their requests add up to."""
    with serving(STORIES, "--threads", "1", "--kv-cache-memory", "1MiB") as server, concurrent.futures.ThreadPoolExecutor(8) as pool:
        row = {"prompt": "Once", "max_tokens": 300, "ignore_eos": True, "temperature": 0}
        texts = {answer["choices"][0]["text"] for answer in pool.map(lambda _: server.post("/v1/completions", row), range(8))}
        assert len(texts) == 1
        deadline = time.monotonic() + 5
        while not 0 < (of_replica := total(metrics(server), "vllm:num_preemptions_total")) == total(metrics(server), "vllm:request_num_preemptions_sum"):
            assert time.monotonic() < deadline, of_replica
        assert total(metrics(server), "vllm:request_num_preemptions_count") == 8


def test_counts_deaths_and_what_they_cost():
    with serving(STORIES, "-dp", "2", *FAST) as server:
        row = {"prompt": "Once", "max_tokens": 400, "ignore_eos": True, "n": 4}
        results = []
        threads = [threading.Thread(target=lambda: results.append(server.post("/v1/completions", row))) for _ in range(8)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 20
        while total(metrics(server), "vllm:generation_tokens_total") < 100:
            assert time.monotonic() < deadline
        os.kill(engines_of(server.process.pid)[0], signal.SIGKILL)
        for thread in threads:
            thread.join()
        samples = metrics(server)
        assert len(results) == 8 and total(samples, "chorus:replica_deaths_total") == 1
        assert total(samples, "chorus:requests_moved_total") > 0 and total(samples, "chorus:tokens_replayed_total") > 0
        assert total(samples, "vllm:generation_tokens_total") == 8 * 4 * 400, "what was computed anew is not said anew"


def test_a_front_end_that_is_started_again_counts_on():
    with serving(STORIES, *FAST) as server:
        server.post("/v1/completions", {"prompt": "Once", "max_tokens": 5, "ignore_eos": True})
        front_end = [pid for pid in os.listdir("/proc") if pid.isdigit() and is_front_end_of(pid, server.process.pid)]
        os.kill(int(front_end[0]), signal.SIGKILL)
        server.post("/v1/completions", {"prompt": "Once", "max_tokens": 5, "ignore_eos": True})
        samples = metrics(server)
        assert total(samples, "vllm:generation_tokens_total") == 10 and total(samples, "chorus:front_end_deaths_total") == 1


def is_front_end_of(pid, parent):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as line, open(f"/proc/{pid}/stat", encoding="ascii") as stat:
            return line.read().startswith(b"chorus front-end") and int(stat.read().rsplit(") ", 1)[1].split()[1]) == parent
    except FileNotFoundError:
        return False


def test_the_line_that_vllms_users_look_for():
    line = re.compile(r"Engine 000: Avg prompt throughput: [0-9.]+ tokens/s, Avg generation throughput: ([0-9.]+) tokens/s, Running: \d+ reqs, "
                      r"Waiting: \d+ reqs, GPU KV cache usage: [0-9.]+%, Prefix cache hit rate: [0-9.]+%")
    with serving(STORIES, *FAST) as server:
        server.post("/v1/completions", {"prompt": "Once", "max_tokens": 200, "ignore_eos": True})
        server.wait_for_log("Engine 000: Avg prompt throughput", within_s=20)
        time.sleep(11)  # idle: no further line
        lines = line.findall(server.logged())
        assert len(lines) == 1 and float(lines[0]) > 10


def test_refuses_beyond_the_limit_at_once(tmp_path):
    """Goal: what is beyond the limit is refused while nothing is computed, with Retry-After, and what was taken is answered. Method: the replica is
    paused, and the queue fills."""
    socket_path = tmp_path / "ctl"
    with serving(STORIES, "--max-num-queued-reqs", "3", "--max-num-seqs", "1", "--control-socket", socket_path, *FAST) as server:
        row = {"prompt": "Once", "max_tokens": 500, "ignore_eos": True}
        results = []
        threads = [threading.Thread(target=lambda: results.append(server.request("POST", "/v1/completions", row)[0])) for _ in range(3)]
        deadline = time.monotonic() + 20
        Operator(socket_path).ctl("pause")
        for index, thread in enumerate(threads, start=1):
            thread.start()
            while total(metrics(server), "chorus:queued_requests") < index:
                assert time.monotonic() < deadline
        for _ in range(20):
            status, headers, body = server.request("POST", "/v1/completions", row)
            assert status == 429 and headers["retry-after"] == "1" and "--max-num-queued-reqs is 3" in json.loads(body)["error"]["message"]
        Operator(socket_path).ctl("resume")
        for thread in threads:
            thread.join()
        assert results == [200] * 3
        assert total(metrics(server), "vllm:admission_rejections_total") == 20


def test_prefix_affinity_sends_a_conversation_where_it_was():
    """Goal: what a replica has computed it is given again. Method: four conversations over two front ends and three replicas; a turn is the one before and
    more; what the cache had is told in `usage`."""
    with serving(STORIES, "-dp", "3", "-asc", "2", "--load-balancer", "prefix_affinity", "--enable-prompt-tokens-details", *FAST) as server:
        talks = [f"The {animal} went to the big forest to find a friend and it saw the sun. " for animal in ("dog", "cat", "bird", "fish")]
        cached = prompts = 0
        for turn in range(5):
            for i, talk in enumerate(talks):
                row = {"prompt": talk, "max_tokens": 12, "temperature": 0, "ignore_eos": True}
                answer = server.post("/v1/completions", row)
                usage = answer["usage"]
                if turn > 0:
                    cached, prompts = cached + usage["prompt_tokens_details"]["cached_tokens"], prompts + usage["prompt_tokens"]
                talks[i] = talk + answer["choices"][0]["text"] + " Then the friend said hello to the other one."
            time.sleep(0.1)  # the engines report every 20 ms
        samples = metrics(server)
        print(f"{cached} of {prompts} prompt tokens were cached")
        assert cached > prompts / 2
        assert total(samples, "chorus:prefix_placements_total") >= 16
