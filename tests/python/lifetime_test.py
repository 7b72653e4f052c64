"""How an LLM and its processes live and end: with the object, with Ctrl-C, with kill -9, across fork and spawn."""
import gc
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from chorus import LLM, SamplingParams

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from chorus_process import STORIES, engines_of, gone_within, wait_for_engines  # noqa: E402

SMALL = {"max_model_len": 128, "kv_cache_memory": "8MiB", "threads": 1}
GREEDY = SamplingParams(temperature=0, max_tokens=16)
ENDLESS = "llm.generate(['Once'] * 4000, SamplingParams(max_tokens=None, ignore_eos=True), use_tqdm=False)"


def texts(llm):
    return [output.outputs[0].text for output in llm.generate(["Once upon a time", "The dog"], GREEDY, use_tqdm=False)]


@pytest.fixture(scope="module")
def expected():
    with LLM(STORIES, **SMALL) as llm:
        return texts(llm)


def start_program(body):
    """A Python program of its own with the LLM `llm`; it has said "ready" once that is there."""
    code = textwrap.dedent("""
        import time
        from chorus import LLM, SamplingParams
        llm = LLM({model!r}, data_parallel_size=2, **{small!r})
        print("ready", flush=True)
        {body}
    """).format(model=STORIES, small=SMALL, body=body)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n", process.stderr.read()
    return process


def test_twice_at_once_and_one_after_the_other(expected):
    with LLM(STORIES, **SMALL) as one, LLM(STORIES, data_parallel_size=2, **SMALL) as two:
        assert texts(one) == texts(two) == expected
    with LLM(STORIES, **SMALL) as again:
        assert texts(again) == expected
    assert engines_of(os.getpid()) == []


def test_the_object_ends_its_engines():
    llm = LLM(STORIES, data_parallel_size=2, **SMALL)
    engines = wait_for_engines_here(2)
    del llm
    gc.collect()
    assert gone_within(engines, 3)


def wait_for_engines_here(count):
    class Own:
        pid = os.getpid()
        returncode = None

        @staticmethod
        def poll():
            return None
    return wait_for_engines(Own, count)


def test_any_thread_makes_and_uses_one(expected):
    """The engines live on when the thread that made them has ended."""
    made = []
    maker = threading.Thread(target=lambda: made.append(LLM(STORIES, **SMALL)))
    maker.start()
    maker.join()
    with made.pop() as llm:
        results = [None] * 4
        threads = [threading.Thread(target=lambda i=i: results.__setitem__(i, texts(llm))) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [expected] * 4


def test_python_runs_while_the_engine_computes():
    with LLM(STORIES, **SMALL) as llm:
        thread = threading.Thread(target=lambda: llm.generate(["Once"] * 200, SamplingParams(max_tokens=None, ignore_eos=True), use_tqdm=False))
        thread.start()
        longest, last = 0.0, time.perf_counter()
        while thread.is_alive():
            time.sleep(0.001)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now
        thread.join()
    assert longest < 0.5, "the GIL was held"


def child_generates(queue):
    with LLM(STORIES, **SMALL) as llm:
        queue.put(texts(llm))


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_multiprocessing(method, expected):
    """Beside an LLM of the parent, which a fork leaves alone."""
    context = multiprocessing.get_context(method)
    with LLM(STORIES, **SMALL) as llm:
        assert texts(llm) == expected
        queue = context.Queue()
        children = [context.Process(target=child_generates, args=(queue,)) for _ in range(2)]
        for child in children:
            child.start()
        assert [queue.get(timeout=60) for _ in children] == [expected] * 2
        for child in children:
            child.join(30)
            assert child.exitcode == 0
        assert texts(llm) == expected


def test_a_fork_is_told_that_the_llm_is_its_parents(expected):
    with LLM(STORIES, **SMALL) as llm:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                llm.generate("Once", GREEDY, use_tqdm=False)
            except RuntimeError as error:
                status = 0 if "fork" in str(error) else 2
            finally:
                llm.close()  # the parent's engines stay
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert texts(llm) == expected


def test_ctrl_c_ends_a_call_and_not_the_llm(expected):
    with LLM(STORIES, **SMALL) as llm:
        for _ in range(3):
            sent = []
            timer = threading.Timer(0.3, lambda: (sent.append(time.perf_counter()), os.kill(os.getpid(), signal.SIGINT)))
            timer.start()
            with pytest.raises(KeyboardInterrupt):
                llm.generate(["Once"] * 4000, SamplingParams(max_tokens=None, ignore_eos=True), use_tqdm=False)
            assert time.perf_counter() - sent[0] < 0.1
        assert texts(llm) == expected


def test_ctrl_c_while_engines_start():
    code = f"from chorus import LLM\nprint('go', flush=True)\nLLM({STORIES!r}, data_parallel_size=4)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "go\n"
    time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGINT and "KeyboardInterrupt" in errors
    assert "chorus engine" not in subprocess.run(["ps", "-o", "args=", "--ppid", "1"], capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize("number,status", [(signal.SIGINT, -signal.SIGINT), (signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, -signal.SIGTERM)])
def test_nothing_is_left_of_a_program_that_is_ended(number, status):
    process = start_program(ENDLESS)
    engines = wait_for_engines(process, 2)
    time.sleep(0.2)
    process.send_signal(number)
    process.communicate(timeout=20)
    assert process.returncode == status
    assert gone_within(engines, 3)


def test_kill_9_of_engines_loses_no_token():
    params = SamplingParams(temperature=1.0, max_tokens=100, ignore_eos=True, logprobs=1)
    prompts = [f"Story {i}" for i in range(300)]
    with LLM(STORIES, data_parallel_size=2, **SMALL) as llm:
        undisturbed = llm.generate(prompts, params, use_tqdm=False)
        engines = wait_for_engines_here(2)
        timers = [threading.Timer(delay, os.kill, (engine, signal.SIGKILL)) for delay, engine in zip((0.1, 0.3), engines)]
        for timer in timers:
            timer.start()
        disturbed = llm.generate(prompts, params, use_tqdm=False)
        for timer in timers:
            timer.join()
        assert gone_within(engines, 3), "both were killed while it ran"
    assert [one.outputs for one in disturbed] == [one.outputs for one in undisturbed]


def open_descriptors():
    return len(os.listdir("/proc/self/fd"))


def resident_kib():
    text = pathlib.Path("/proc/self/status").read_text(encoding="utf-8")
    return int(text.split("VmRSS:")[1].split()[0])


def test_nothing_leaks():
    """200 LLMs made and closed. The allocator keeps a few pages of each thread that was: 40 KiB an LLM are allowed, one's weights are 500."""
    def make(count):
        for _ in range(count):
            with LLM(STORIES, **SMALL) as llm:
                llm.generate("Once", SamplingParams(max_tokens=1), use_tqdm=False)
    make(20)
    gc.collect()
    descriptors, memory, threads = open_descriptors(), resident_kib(), len(os.listdir("/proc/self/task"))
    make(200)
    gc.collect()
    assert engines_of(os.getpid()) == []
    assert open_descriptors() == descriptors
    assert len(os.listdir("/proc/self/task")) == threads
    grown = resident_kib() - memory
    assert grown < 200 * 40, f"{grown} KiB"
