"""kill -9 and SIGSTOP of an engine under 32 mixed streams, trial after trial: each stream is what the calm server gave, ids, times and the borders of chunks aside.

A few of each here; CHORUS_KILL_TRIALS=200 CHORUS_STOP_TRIALS=20 python3 -m pytest -s tests/serve_trials_test.py by hand."""
import concurrent.futures
import os
import random
import signal
import time

import pytest

from chorus_process import engines_of
from serve_faults_test import with_template
from serving import Operator, put_together, serving

FAST = ["--threads", "1", "--kv-cache-memory", "32MiB", "--max-num-seqs", "16"]
KILLS, STOPS = int(os.environ.get("CHORUS_KILL_TRIALS", "5")), int(os.environ.get("CHORUS_STOP_TRIALS", "1"))
WORDS = "Once upon a time there was a little dog who liked to play in the park with Lily and Tom".split()
# Of each kind a request in turn.
KINDS = [{"temperature": 0}, {"temperature": 0.9, "top_p": 0.95}, {"temperature": 0.8, "n": 2}, {"temperature": 0, "stop": ["the end", "mom", "\n\n"]},
         {"temperature": 0.7, "logprobs": True}, {"temperature": 0, "stream_options": {"include_usage": True}}, {"temperature": 1.1, "bad_words": ["was"], "ignore_eos": True},
         {"temperature": 0.9, "n": 3, "presence_penalty": 0.5, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}]


def requests(count=32):
    chance = random.Random(5)
    for i in range(count):
        text = " ".join(chance.choices(WORDS, k=chance.randint(2, 40)))
        body = {**KINDS[i % len(KINDS)], "seed": i, "max_tokens": chance.randint(100, 250)}
        if i // len(KINDS) % 2 == 0:
            if "logprobs" in body:
                body["top_logprobs"] = 2
            yield "/v1/chat/completions", {**body, "messages": [{"role": "user", "content": text}]}
        else:
            if "logprobs" in body:
                body["logprobs"] = 2
            yield "/v1/completions", {**body, "prompt": text}


def streams(server, pool):
    def ask(request):
        chunks = server.stream(*request)
        return put_together(chunks), [chunk["usage"] for chunk in chunks if not chunk["choices"]]
    return [pool.submit(ask, request) for request in requests()]


class Trials:
    """A server, and what its streams are while nothing happens."""

    def __init__(self, server, operator, pool):
        self.server, self.operator, self.pool, self.chance = server, operator, pool, random.Random(9)
        self.expected = [stream.result() for stream in streams(server, pool)]
        assert [stream.result() for stream in streams(server, pool)] == self.expected

    def run(self, what):
        """Does `what` to an engine that runs, when some of the streams have ended. How many of them were under way."""
        begun = streams(self.server, self.pool)
        ended = self.chance.randint(0, 24)
        while sum(stream.done() for stream in begun) < ended:
            time.sleep(0.002)
        time.sleep(self.chance.uniform(0, 0.03))
        under_way = sum(not stream.done() for stream in begun)
        victim = self.chance.choice(engines_of(self.server.process.pid))
        os.kill(victim, what)
        for request, stream, expected in zip(requests(), begun, self.expected):
            assert stream.result(timeout=120) == expected, request
        if what == signal.SIGSTOP and victim in engines_of(self.server.process.pid):
            os.kill(victim, signal.SIGCONT)  # it had nothing to do, and so nobody missed it
            return 0
        self.bring_back()
        return under_way

    def bring_back(self):
        """Two replicas again. One that waits for its restart is started at once, as an operator would: the pauses between deaths in a row are another test's."""
        deadline = time.monotonic() + 60
        while True:
            states = self.operator.states()
            if all(state == "ready" for state in states.values()):
                return
            assert time.monotonic() < deadline, self.server.logged()[-3000:]
            for rank in [rank for rank, state in states.items() if state == "restarting"]:
                self.operator.ctl("restart", str(rank))


@pytest.mark.parametrize("what, trials", [(signal.SIGKILL, KILLS), (signal.SIGSTOP, STOPS)])
def test_trials(tmp_path, what, trials):
    control = tmp_path / "control"
    with serving(with_template(tmp_path), "-dp", "2", "--control-socket", control, *FAST) as server, concurrent.futures.ThreadPoolExecutor(32) as pool:
        case = Trials(server, Operator(control), pool)
        begin = time.monotonic()
        hit = []
        # A machine that is quick may have ended all streams before the signal comes: such a trial shows nothing, and is made again.
        while sum(map(bool, hit)) < trials and len(hit) < 10 * trials:
            hit.append(case.run(what))
        print(f"{len(hit)} trials of {what.name} in {time.monotonic() - begin:.0f} s: {sum(map(bool, hit))} under way, {sum(hit)} of {32 * len(hit)} streams hit, none changed")
        assert sum(map(bool, hit)) == trials, hit
        assert server.stop() == 0
