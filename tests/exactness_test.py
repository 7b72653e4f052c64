"""The promise, on the real program: the same requests give the same bytes, whatever the parallel size, batch, chunk, cache,
order, threads, and when a replica is killed half way."""
import json
import random

import pytest

from chorus_process import STORIES, TINY, chorus, generate_and_kill
from workload import rows

ROWS = list(rows())
VARIANTS = {
    "dp2": ["-dp", "2"],
    "dp4": ["-dp", "4", "--threads", "1"],
    "one at a time": ["--max-num-seqs", "1"],
    "wide batch": ["--max-num-seqs", "64", "--max-num-batched-tokens", "2048"],
    "small chunks": ["--max-num-batched-tokens", "16", "--max-num-seqs", "16"],
    "no prefix cache": ["--no-enable-prefix-caching"],
    "preempting": ["--kv-cache-memory", "700KiB", "--max-num-seqs", "64"],
    "one thread": ["--threads", "1"],
    "two threads": ["--threads", "2"],
    "contiguous": ["-dp", "2", "--assignment", "contiguous"],
    "round robin": ["-dp", "2", "--load-balancer", "round_robin"],
}


@pytest.fixture(scope="module")
def workload(tmp_path_factory):
    path = tmp_path_factory.mktemp("exactness") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def run(workload, dtype, *options):
    done = chorus("generate", STORIES, "--input", workload, "--dtype", dtype, *options, timeout_s=600)
    assert done.returncode in (0, 3), done.stderr.decode()
    return done.stdout


@pytest.fixture(scope="module", params=["bfloat16", "float32"])
def baseline(request, workload):
    return request.param, run(workload, request.param)


def test_the_workload_is_real(baseline):
    lines = [json.loads(line) for line in baseline[1].splitlines()]
    assert len(lines) == len(ROWS) >= 500
    assert [line["id"] for line in lines] == [row["id"] for row in ROWS]
    failed = [line for line in lines if line["error"]]
    assert len(failed) < len(lines) / 10
    assert all("max_model_len" in line["error"] for line in failed)
    assert sum(len(o["token_ids"]) for line in lines for o in line["outputs"]) > 8000


@pytest.mark.parametrize("name", VARIANTS)
def test_same_bytes(baseline, workload, name):
    dtype, expected = baseline
    assert run(workload, dtype, *VARIANTS[name]) == expected


def test_same_lines_in_another_order(baseline, workload, tmp_path):
    dtype, expected = baseline
    shuffled = ROWS[:]
    random.Random(1).shuffle(shuffled)
    path = tmp_path / "shuffled.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in shuffled))
    assert sorted(run(path, dtype, "-dp", "2").splitlines()) == sorted(expected.splitlines())


def write_token_rows(path, seed, count, longest):
    rng = random.Random(seed)
    with open(path, "w", encoding="utf-8") as out:
        for index in range(count):
            ids = [1] + [rng.randrange(3, 512) for _ in range(rng.randrange(1, longest))]
            out.write(json.dumps({"prompt_token_ids": ids, "max_tokens": 12, "temperature": index % 2, "seed": index, "logprobs": 2}) + "\n")


@pytest.mark.parametrize("model", sorted(path.name for path in TINY.iterdir() if (path / "reference.json").exists() and path.name != "stories260k-f32"))
def test_every_family(model, tmp_path):
    path = tmp_path / "rows.jsonl"
    write_token_rows(path, seed=2, count=60, longest=150)
    for dtype in ("float32", "bfloat16"):
        expected = run_tiny(path, model, dtype)
        for variant in (["-dp", "2"], ["--max-num-batched-tokens", "16", "--max-num-seqs", "3"], ["--threads", "1", "--no-enable-prefix-caching"]):
            assert run_tiny(path, model, dtype, *variant) == expected, variant


# Each has a layer that is cut over ranks in its own way: norms of whole rows, latent attention, states, sinks, shared experts, learned positions.
@pytest.mark.parametrize("model", ["cohere2", "deepseek_v3", "gemma3", "gpt2", "gpt_oss", "olmo2", "qwen2_moe", "qwen3_next"])
def test_families_over_ranks(model, tmp_path):
    path = tmp_path / "rows.jsonl"
    write_token_rows(path, seed=3, count=20, longest=120)
    expected = run_tiny(path, model, "bfloat16")
    for variant in (["-tp", "2"], ["-tp", "2", "-pp", "2"], ["-ep", "-dp", "2"]):
        assert run_tiny(path, model, "bfloat16", "--threads", "1", *variant) == expected, variant


# Layers with a window keep no more than it: what would not fit otherwise does, prompts that begin alike find their beginnings again, and the
# bytes are those of a cache where nothing is ever given back.
@pytest.mark.parametrize("model", ["cohere2", "exaone4", "gemma2", "gemma3", "gpt_oss"])
def test_windows_in_little_memory(model, tmp_path):
    rng = random.Random(5)
    common = [1] + [rng.randrange(3, 512) for _ in range(200)]
    path = tmp_path / "rows.jsonl"
    with open(path, "w", encoding="utf-8") as out:
        for index in range(24):
            ids = common[:rng.randrange(1, 200)] + [rng.randrange(3, 512) for _ in range(rng.randrange(1, 60))]
            row = {"prompt_token_ids": ids, "max_tokens": 40, "temperature": index % 2, "seed": index, "n": 1 + index % 3, "ignore_eos": True}
            out.write(json.dumps(row) + "\n")
    expected = run_tiny(path, model, "bfloat16", "--no-enable-prefix-caching", "--kv-cache-memory", "64MiB")
    small = kv_bytes_of(model, blocks=30)
    for variant in ([], ["--no-enable-prefix-caching"], ["--max-num-batched-tokens", "24", "--max-num-seqs", "16"], ["-pp", "2", "-tp", "2"],
                    ["-dp", "2", "--max-num-batched-tokens", "32", "--max-num-seqs", "16"]):
        assert run_tiny(path, model, "bfloat16", "--threads", "1", "--kv-cache-memory", small, *variant) == expected, variant


# Of so many blocks over all layers.
def kv_bytes_of(model, blocks):
    config = json.loads((TINY / model / "config.json").read_text())
    config = config.get("text_config", config)
    dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return str(blocks * 16 * 2 * 2 * config["num_key_value_heads"] * dim * config["num_hidden_layers"])


def test_states_are_not_spread_over_context_ranks():
    done = chorus("generate", TINY / "qwen3_next", "--prompt", "x", "-dcp", "2")
    assert done.returncode == 2 and b"--decode-context-parallel-size" in done.stderr


def run_tiny(path, model, dtype, *options):
    done = chorus("generate", TINY / model, "--input", path, "--dtype", dtype, *options)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.mark.parametrize("after_s", [0.02, 0.2, 0.5])
def test_same_bytes_when_a_replica_is_killed(baseline, workload, tmp_path, after_s):
    dtype, expected = baseline
    assert generate_and_kill(STORIES, workload, tmp_path / "out.jsonl", "--dtype", dtype, "--threads", "1", after_s=after_s) == expected
