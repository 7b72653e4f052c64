"""Parallelism inside the replica, on the real program: whatever the sizes of tp, pp, cp, dp and ep, the same bytes; and when a
worker dies its replica ends at once, and its requests go on elsewhere with the same tokens."""
import json
import os
import random
import re
import subprocess
import time

import pytest

from chorus_process import CHORUS, STORIES, TINY, chorus, gone_within

DENSE = ["llama", "mistral", "qwen2", "qwen3"]
EXPERTS = ["mixtral", "qwen3_moe", "phimoe"]
SIZES = {
    "tp2": ["-tp", "2"],
    "tp4": ["-tp", "4"],
    "tp8": ["-tp", "8"],
    "pp2": ["-pp", "2"],
    "pp4": ["-pp", "4"],
    "dp2": ["-dp", "2"],
    "dp4": ["-dp", "4"],
    "dcp2": ["-dcp", "2"],
    "dcp2 tp2 pp2": ["-dcp", "2", "-tp", "2", "-pp", "2"],
    "dp2 tp2 pp2": ["-dp", "2", "-tp", "2", "-pp", "2"],
    "tp2 small batches": ["-tp", "2", "--max-num-batched-tokens", "16", "--max-num-seqs", "4"],
    "pp2 small batches": ["-pp", "2", "--max-num-batched-tokens", "16", "--max-num-seqs", "4"],
}
BALANCING = json.dumps({"step_interval": 5, "window_size": 5, "num_redundant_experts": 4})
EXPERT_SIZES = {
    "tp2 ep": ["-tp", "2", "-ep"],
    "dp2 ep": ["-dp", "2", "-ep"],
    "dp2 pp2 ep": ["-dp", "2", "-pp", "2", "-ep"],
    "dp2 tp2 ep": ["-dp", "2", "-tp", "2", "-ep"],
    "dp4 tp2 ep": ["-dp", "4", "-tp", "2", "-ep"],
    "dp2 ep, experts that move": ["-dp", "2", "-ep", "--enable-eplb", "--eplb-config", BALANCING],
}


def rows_of_ids(count):
    """Greedy and sampled, with logprobs of outputs and prompts; some share a beginning."""
    rng = random.Random(5)
    shared = [rng.randrange(3, 512) for _ in range(48)]
    rows = []
    for index in range(count):
        ids = [1] + [rng.randrange(3, 512) for _ in range(rng.randrange(1, 150))]
        row = {"id": index, "prompt_token_ids": [1] + shared + ids[1:] if index % 5 == 0 else ids, "max_tokens": rng.randrange(1, 24),
               "logprobs": 3, "temperature": 0}
        if index % 3:
            row.update(temperature=0.9, top_p=0.95, seed=index)
        if index % 7 == 0:
            row["prompt_logprobs"] = 2
        if index % 11 == 0:
            row["n"] = 2
        rows.append(row)
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


ROWS = rows_of_ids(60)


def run(model, dtype, *options, stdin=ROWS):
    return chorus("generate", model, "--dtype", dtype, "--max-model-len", "256", *options, stdin=stdin)


@pytest.fixture(scope="module")
def expected():
    """Output of one replica of one worker, made once a model and dtype."""
    known = {}

    def get(model, dtype):
        if (model, dtype) not in known:
            done = run(model, dtype)
            assert done.returncode == 0, done.stderr.decode()
            known[model, dtype] = done.stdout
        return known[model, dtype]
    return get


def fits(model, options):
    """Whether the model can be cut so: chorus says which sizes would do when it cannot."""
    done = chorus("inspect", model, *[option for option in options if not option.startswith("--max-num")])
    if done.returncode == 0:
        return True
    assert done.returncode == 2, done.stderr.decode()
    assert re.search(rb"these do: 1|at most \d", done.stderr), done.stderr.decode()
    return False


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("name", ["stories260k", *DENSE, *EXPERTS])
def test_every_size_gives_the_same_bytes(name, dtype, expected):
    model = STORIES if name == "stories260k" else TINY / name
    ran = 0
    for label, options in SIZES.items():
        if label in ("tp4", "tp8", "pp4") and not fits(model, options):
            continue
        done = run(model, dtype, *options)
        assert done.returncode == 0, f"{label}: {done.stderr.decode()}"
        assert done.stdout == expected(model, dtype), label
        ran += 1
    assert ran >= len(SIZES) - 3


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("name", EXPERTS)
@pytest.mark.parametrize("label", EXPERT_SIZES)
def test_experts_on_many_ranks(name, dtype, label, expected):
    done = run(TINY / name, dtype, *EXPERT_SIZES[label])
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == expected(TINY / name, dtype)


def test_tp_that_divides_no_heads_says_which_sizes_would():
    done = chorus("generate", STORIES, "--prompt", "a", "-tp", "3")
    assert done.returncode == 2
    assert b"--tensor-parallel-size 3" in done.stderr and b"these do: 1, 2, 4" in done.stderr


def family_of(pid):
    """(pid, arguments) of the engines and workers under a process."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=False).stdout
    processes = [line.split(None, 2) for line in listed.splitlines()]
    family, parents = [], {pid}
    for _ in range(2):
        children = [(int(p), arguments) for p, parent, arguments in processes if int(parent) in parents]
        family += [(p, arguments) for p, arguments in children if re.match(r"chorus (engine|worker) ", arguments)]
        parents = {p for p, _ in children}
    return family


def replica_of(arguments):
    return re.search(r"dp=(\d+)", arguments)[1]


@pytest.fixture(scope="module")
def long_run():
    """Enough work that a death falls into its middle, and its undisturbed output."""
    stdin = rows_of_ids(400)
    return stdin, {model: run(model, "float32", stdin=stdin).stdout for model in (STORIES, str(TINY / "mixtral"))}


TRIALS = [(model, options, seed)
          for model, options in ((STORIES, ["-dp", "2", "-tp", "2"]), (STORIES, ["-pp", "2", "-tp", "2"]),
                                 (str(TINY / "mixtral"), ["-dp", "2", "-tp", "2", "-ep"]))
          for seed in range(int(os.environ.get("CHORUS_KILL_TRIALS", "8")))]


@pytest.mark.parametrize("model, options, seed", TRIALS)
def test_kill_any_worker_at_any_time(model, options, seed, long_run):
    """At a random moment, from the first process on. Before a replica was ready the start fails, which is said; afterwards the
    output is as if nothing had happened."""
    rng = random.Random(seed)
    stdin, undisturbed = long_run
    shared_memory = set(os.listdir("/dev/shm"))
    process = subprocess.Popen([CHORUS, "generate", model, "--dtype", "float32", "--max-model-len", "256", *options],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdin.write(stdin)
    process.stdin.close()
    process.stdin = None
    while process.poll() is None and not family_of(process.pid):
        time.sleep(0.001)
    time.sleep(rng.random() * 0.6)
    family = family_of(process.pid)
    victim = rng.choice(family) if family else None
    if victim:
        os.kill(victim[0], 9)
        group = [pid for pid, arguments in family if replica_of(arguments) == replica_of(victim[1])]
        assert gone_within(group, 2), f"of {family} after {victim} was killed"
    out, err = process.communicate(timeout=120)
    seen = {pid for pid, _ in family} | {pid for pid, _ in family_of(process.pid)}
    assert gone_within(seen, 2)
    assert set(os.listdir("/dev/shm")) <= shared_memory
    if process.returncode == 1:
        assert re.search(rb"SIGKILL|gone|ended|closed|died", err), err.decode()
        assert b"did not start" in err, err.decode()
    else:
        assert process.returncode == 0, err.decode()
        assert out == undisturbed[model]


POINTS = ["configured", "joined", "made", "idle", "plan-received", "layers-done", "step-done", "told-to-end"]
DEATHS = [(options, worker, point)
          for options, worker in ((["-dp", "2", "-tp", "2"], "dp=1 pp=0 tp=1"), (["-pp", "2", "-tp", "2"], "dp=0 pp=1 tp=0"),
                                  (["-tp", "2"], "dp=0 pp=0 tp=0"))
          for point in POINTS]


@pytest.mark.parametrize("options, worker, point", DEATHS)
def test_death_at_a_named_point(options, worker, point, long_run):
    """On the third pass where there are several. Before READY it ends the start; afterwards only the log tells. When a worker
    is made the engine may have said READY or not."""
    stdin, undisturbed = long_run
    passes = 3 if point in ("idle", "plan-received", "layers-done", "step-done") else 1
    shared_memory = set(os.listdir("/dev/shm"))
    process = subprocess.Popen([CHORUS, "generate", STORIES, "--dtype", "float32", "--max-model-len", "256", *options,
                                "--fault-point", f"{worker}@{point}:{passes}"],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(stdin, timeout=120)
    if point in ("configured", "joined") or (point == "made" and process.returncode != 0):
        assert process.returncode == 1, err.decode()
        assert b"did not start" in err and re.search(rb"SIGKILL|gone|closed|died", err), err.decode()
    else:
        assert process.returncode == 0, err.decode()
        assert out == undisturbed[STORIES]
        assert (b"SIGKILL" in err) == (point != "told-to-end"), err.decode()
    assert not [line for line in subprocess.run(["ps", "-eo", "ppid=,args="], capture_output=True, text=True, check=False).stdout
                .splitlines() if line.split(None, 1)[0] == "1" and "chorus worker" in line and "<defunct>" not in line]
    assert set(os.listdir("/dev/shm")) <= shared_memory


def test_kill_the_parent_and_nothing_is_left():
    process = subprocess.Popen([CHORUS, "generate", STORIES, "-dp", "2", "-tp", "2", "-pp", "2"], stdin=subprocess.PIPE,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    process.stdin.write(ROWS * 20)
    process.stdin.close()
    deadline = time.monotonic() + 30
    while len(family_of(process.pid)) < 8:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.002)
    family = [pid for pid, _ in family_of(process.pid)]
    process.kill()
    process.wait()
    assert gone_within(family, 2)
