"""The processes that a launcher (torchrun, mpirun, srun) started with one program, each of which makes the same LLM.

World rank 0 has the front end, the others compute. generate() is called by all of them: the first rank of each replica gives its prompts,
rank 0 runs them all, each on the replica that it came from, and every rank gets the outputs of its replica.
"""
from __future__ import annotations

import hashlib
import json
import os
import threading
import weakref

from chorus import _engine, _native
from chorus.distributed import parallel_state

# Where the ranks of this process's job meet: opened once, for all its engines. By process: a fork has none.
_meetings: dict[int, _native.Meeting] = {}


class LaunchedRanks:
    """What an LLM of one process has of this: nothing but its own groups."""
    meeting = None

    @staticmethod
    def join(who: str, options: dict) -> LaunchedRanks:
        """By the option distributed_executor_backend. Waits for all ranks. Raises ValueError, TimeoutError."""
        if options.get("distributed_executor_backend") != "external_launcher":
            return LaunchedRanks()
        _engine.checked_options(who, options)
        return _World(options)

    def started(self, parallel) -> None:
        parallel_state.set_alone()

    def generate(self, run, prompts, params, priorities, dp_ranks, use_tqdm, add_special_tokens) -> list:
        return run(prompts, params, priorities, dp_ranks, use_tqdm, add_special_tokens)

    def end_with(self, owner, native):
        return _engine.end_with(owner, native)


class _World(LaunchedRanks):
    def __init__(self, options: dict):
        timeout_ms = int(options.get("engine_start_timeout_ms") or 600_000)
        key_file = os.fspath(options.get("cluster_key_file") or "")
        if os.getpid() not in _meetings:
            _meetings[os.getpid()] = _interruptible(lambda: _native.Meeting.open(dict(os.environ), key_file, timeout_ms))
        self.meeting = _meetings[os.getpid()]
        self._world = _interruptible(self.meeting.join)
        self._group = _native.RankGroup(self._world, list(range(self.meeting.world_size)))

    def started(self, parallel) -> None:
        self._parallel = parallel
        parallel_state.set_launched(self._world, parallel, self._group)

    def end_with(self, owner, native):
        return weakref.finalize(owner, _part, self._group, native)

    def generate(self, run, prompts, params, priorities, dp_ranks, use_tqdm, add_special_tokens) -> list:
        work = [[list(prompt) if not isinstance(prompt, str) else prompt for prompt in prompts], [one._json() for one in params], priorities]
        text = json.dumps(work, default=lambda value: value.item())
        called = {"call": "generate", "digest": hashlib.sha256(text.encode()).hexdigest()}
        if self._group.rank % self._parallel.world_size == 0:
            called["work"] = work
        calls = _exchange(self._group, called)
        self._check(calls)
        if self._group.rank != 0:
            answer = _exchange(self._group, None)[0]
        else:
            answer = self._answer(run, calls, params, use_tqdm, add_special_tokens)
            _exchange(self._group, answer)
        if "error" in answer:
            raise {"ValueError": ValueError, "TimeoutError": TimeoutError}.get(answer["type"], RuntimeError)(answer["error"])
        return answer["told"][self._parallel.data_parallel_rank]

    def _check(self, calls) -> None:
        """All ranks see the same calls and come to the same conclusion."""
        for rank, call in enumerate(calls):
            if call["call"] != "generate":
                raise RuntimeError(f"rank {rank} has closed its LLM, or ended, while others call generate(): each rank must call it as often")
            first = rank - rank % self._parallel.world_size
            if call["digest"] != calls[first]["digest"]:
                raise ValueError(f"ranks {first} and {rank} are workers of one replica and give different prompts or sampling parameters: "
                                 "choose prompts by data_parallel_rank alone")

    def _answer(self, run, calls, own_params, use_tqdm, add_special_tokens) -> dict:
        prompts, params, priorities, dp_ranks, counts = [], [], [], [], []
        for rank in range(self._parallel.data_parallel_size):
            work = calls[rank * self._parallel.world_size]["work"]
            prompts += work[0]
            params += [_GivenParams(text) for text in work[1]]
            priorities += work[2]
            dp_ranks += [rank] * len(work[0])
            counts.append(len(work[0]))
        params[:counts[0]] = own_params
        try:
            told = run(prompts, params, priorities, dp_ranks, use_tqdm, add_special_tokens)
        except Exception as error:  # the others learn of it
            return {"type": type(error).__name__, "error": str(error)}
        ends = [sum(counts[:rank + 1]) for rank in range(len(counts))]
        return {"told": [told[end - count:end] for end, count in zip(ends, counts)]}


class _GivenParams:
    """Another rank's sampling parameters, as it has checked them."""

    def __init__(self, text: str):
        self._text = text

    def _native_options(self):
        return _native.SamplingOptions.from_json(self._text)


def _exchange(group, value) -> list:
    """What each rank gives, a value of JSON; waits for all of them."""
    with parallel_state.one_at_a_time:
        return [json.loads(part) for part in group.all_gather(json.dumps(value, default=lambda one: one.item()).encode())]


def _part(group, native) -> None:
    """The end of one rank: all come here and end together, or this one breaks the world."""
    try:
        together = all(call == {"call": "close"} for call in _exchange(group, {"call": "close"}))
    except (RuntimeError, TimeoutError, KeyboardInterrupt):
        together = False
    _engine.end(native, abandon=not together)


def _interruptible(wait):
    """The value of a function that waits in C++, where no signal reaches it."""
    result = {}

    def run():
        try:
            result["value"] = wait()
        except BaseException as error:
            result["error"] = error

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_engine.WAIT_MS / 1000)
    if "error" in result:
        raise result["error"]
    return result["value"]
