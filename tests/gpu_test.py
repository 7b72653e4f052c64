"""The promise on the device path: the same requests give the same bytes on a GPU whatever the batch, the chunks, the cache and the replicas,
and when a replica is killed. Runs on the emulation, which is slow, so on little; with CHORUS_TEST_DEVICE=cuda (a build with CUDA, a GPU) on all
of the exactness workload."""
import json
import os

import pytest

from chorus_process import STORIES, TINY, chorus, generate, generate_and_kill
from workload import rows

DEVICE = os.environ.get("CHORUS_TEST_DEVICE", "cuda-emulation")
PROMPTS = ["Once upon a time", "Once upon a time there was a dog", "Lily went to the park with her mom and her little brother Tom"]
FEW = [{"id": number, "prompt": PROMPTS[number % 3], "max_tokens": 4 + number, "temperature": number % 2, "seed": number, "logprobs": 2 if number == 2 else None}
       for number in range(4)]
ROWS = list(rows()) if DEVICE == "cuda" else FEW
VARIANTS = {
    "dp2": ["-dp", "2"],
    "one at a time": ["--max-num-seqs", "1"],
    "chunks": ["--max-num-batched-tokens", "16"],
    "no prefix cache": ["--no-enable-prefix-caching"],
    "preempting": ["--kv-cache-memory", "700KiB" if DEVICE == "cuda" else "31KiB"],
}


def run(path, *options, model=STORIES):
    done = chorus("generate", model, "--device", DEVICE, "--input", path, *options, timeout_s=600)
    assert done.returncode in (0, 3), done.stderr.decode()
    return done.stdout


@pytest.fixture(scope="module")
def workload(tmp_path_factory):
    path = tmp_path_factory.mktemp("gpu") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.fixture(scope="module")
def baseline(workload):
    return run(workload)


def test_greedy_text_is_the_cpus(baseline):
    del baseline  # the device works
    row = {"prompt": PROMPTS[0], "max_tokens": 6, "temperature": 0}
    on_gpu, on_cpu = (generate(STORIES, "--device", device, rows=[row]) for device in (DEVICE, "cpu"))
    assert on_gpu[0]["outputs"][0]["text"] == on_cpu[0]["outputs"][0]["text"]


@pytest.mark.parametrize("name", VARIANTS)
def test_same_bytes(baseline, workload, name):
    assert run(workload, *VARIANTS[name]) == baseline


def test_same_bytes_when_a_replica_is_killed(baseline, workload, tmp_path):
    assert generate_and_kill(STORIES, workload, tmp_path / "out.jsonl", "--device", DEVICE) == baseline


@pytest.mark.parametrize("options, said", [
    (["--device", "cuda-emulation" if DEVICE == "cuda-emulation" else "cuda", "-tp", "2"], "one GPU a replica"),
    (["--device", DEVICE, "--dtype", "float32"], "bfloat16"),
])
def test_what_is_not_computed_is_refused(options, said):
    done = chorus("generate", STORIES, "--prompt", "a", *options)
    assert done.returncode == 2 and said in done.stderr.decode()


def test_experts_are_refused():
    done = chorus("generate", TINY / "mixtral", "--device", DEVICE, "--prompt", "a")
    assert done.returncode == 2 and "experts are not computed on GPUs" in done.stderr.decode()


@pytest.mark.skipif(DEVICE == "cuda", reason="this build has CUDA")
def test_a_build_without_cuda_says_so():
    done = chorus("generate", STORIES, "--device", "cuda", "--prompt", "a")
    assert done.returncode == 2 and "no CUDA backend" in done.stderr.decode()
