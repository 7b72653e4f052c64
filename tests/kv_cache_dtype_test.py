"""Keys and values in another type than the computation's: the same bytes however the work is spread, as much accuracy as the documents say, the
memory that is saved, and what is refused."""
import json
import random

import pytest

from chorus_process import STORIES, STORIES_F32, TINY, chorus, generate_and_kill
from workload import rows as workload_rows

ROWS = list(workload_rows())[::6][:90]
# Computed in, stored in.
TYPES = [("bfloat16", "int8"), ("float32", "bfloat16")]
VARIANTS = {
    "dp2": ["-dp", "2", "--threads", "1"],
    "tp2": ["-tp", "2", "--threads", "1"],
    "tp2 pp2": ["-tp", "2", "-pp", "2", "--threads", "1"],
    "dcp2": ["-dcp", "2", "--threads", "1"],
    "one at a time": ["--max-num-seqs", "1"],
    "small chunks": ["--max-num-batched-tokens", "16", "--max-num-seqs", "16"],
    "no prefix cache": ["--no-enable-prefix-caching"],
    "preempting": ["--max-num-seqs", "64", "--kv-cache-memory", "SMALL"],
    "blocks of 64": ["--block-size", "64"],
    "two threads": ["--threads", "2"],
}
# 40 blocks of 16 tokens, 5 layers, 4 heads of 8 dimensions, for keys and values: sequences push each other out.
SMALL = {"bfloat16": 40 * 16 * 5 * 4 * 2 * 8 * 2, "float32": 40 * 16 * 5 * 4 * 2 * 8 * 4, "int8": 40 * 16 * 5 * 4 * 2 * (8 + 4)}


def lines(objects):
    return "".join(json.dumps(entry) + "\n" for entry in objects).encode()


def generate(model, stdin, *options):
    memory = [] if "--kv-cache-memory" in options else ["--kv-cache-memory", "16MiB"]
    done = chorus("generate", model, "--disable-progress-bars", *memory, *options, stdin=stdin, timeout_s=600)
    assert done.returncode in (0, 3), done.stderr.decode()
    return done.stdout


@pytest.fixture(scope="module", params=TYPES, ids="-".join)
def baseline(request):
    dtype, stored = request.param
    options = ["--dtype", dtype, "--kv-cache-dtype", stored]
    return stored, options, generate(STORIES, lines(ROWS), *options, "--threads", "1")


@pytest.mark.parametrize("name", VARIANTS)
def test_the_same_bytes(baseline, name):
    stored, options, expected = baseline
    variant = [str(SMALL[stored]) if word == "SMALL" else word for word in VARIANTS[name]]
    assert generate(STORIES, lines(ROWS), *options, *variant) == expected


def test_the_same_bytes_when_a_replica_is_killed(baseline, tmp_path):
    _, options, expected = baseline
    (tmp_path / "rows").write_bytes(lines(ROWS))
    killed = generate_and_kill(STORIES, tmp_path / "rows", tmp_path / "out", "--disable-progress-bars", "--kv-cache-memory", "16MiB", *options, "--threads", "1")
    assert killed == expected


def token_rows(seed, count, longest):
    rng = random.Random(seed)
    return lines({"prompt_token_ids": [1] + [rng.randrange(3, 512) for _ in range(rng.randrange(1, longest))], "max_tokens": 10, "temperature": i % 2,
                  "seed": i, "logprobs": 2} for i in range(count))


# Latent attention, windows, states beside keys, sinks, several KV heads.
@pytest.mark.parametrize("model", ["deepseek_v3", "gemma3", "gpt_oss", "qwen2", "qwen3_next"])
@pytest.mark.parametrize("stored", ["int8", "bfloat16"])
def test_every_kind_of_layer(model, stored):
    stdin = token_rows(2, 24, 150)
    options = ["--dtype", "float32", "--kv-cache-dtype", stored]
    expected = generate(TINY / model, stdin, *options, "--threads", "1")
    assert expected != generate(TINY / model, stdin, "--dtype", "float32", "--threads", "1"), "stored as without the option"
    for variant in (["-tp", "2", "--threads", "1"], ["-dp", "2", "--threads", "1"], ["--max-num-batched-tokens", "16", "--max-num-seqs", "3"],
                    ["--no-enable-prefix-caching"]):
        assert generate(TINY / model, stdin, *options, *variant) == expected, variant


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_type_of_the_computation_by_its_name_is_auto(dtype):
    expected = generate(STORIES, lines(ROWS[:20]), "--dtype", dtype)
    for stored in ("auto", dtype):
        assert generate(STORIES, lines(ROWS[:20]), "--dtype", dtype, "--kv-cache-dtype", stored) == expected


def test_a_float32_cache_changes_a_computation_in_bfloat16():
    stdin = token_rows(3, 12, 100)
    options = ["--dtype", "bfloat16", "--kv-cache-dtype", "float32"]
    expected = generate(STORIES, stdin, *options, "--threads", "1")
    assert expected != generate(STORIES, stdin, "--dtype", "bfloat16", "--threads", "1")
    assert generate(STORIES, stdin, *options, "-dp", "2", "--max-num-batched-tokens", "16", "--max-num-seqs", "16") == expected


@pytest.mark.parametrize("stored, agreement", [("auto", 1.0), ("bfloat16", 0.99), ("int8", 0.975)])
def test_the_reference_continuation_would_have_been_chosen(stored, agreement):
    """docs/numerics.md states the figures: how many of the tokens of transformers' greedy continuations are the likeliest here."""
    results = json.loads((TINY / "stories260k-f32" / "reference.json").read_text())["results"]
    forced = lines({"prompt_token_ids": r["prompt_ids"] + r["greedy_ids"], "max_tokens": 1, "prompt_logprobs": 1, "temperature": 0} for r in results)
    answers = generate(STORIES_F32, forced, "--dtype", "float32", "--kv-cache-dtype", stored).splitlines()
    chosen = equal = 0
    for result, answer in zip(results, answers, strict=True):
        steps = json.loads(answer)["prompt_logprobs"][-len(result["greedy_ids"]):]
        for token, step in zip(result["greedy_ids"], steps, strict=True):
            chosen += 1
            equal += max(step["top"], key=lambda entry: entry[1])[0] == token
    print(f"{stored}: top-1 agreement {equal} of {chosen}")
    assert equal >= agreement * chosen


def test_the_same_memory_holds_more_tokens():
    def held(*options):
        done = chorus("generate", STORIES, "--prompt", "x", "--max-tokens", "1", "--max-model-len", "512", "--kv-cache-memory", "100KiB", *options)
        assert done.returncode == 2, "512 tokens fit"
        return int(done.stderr.decode().split(" bytes a worker holds, ")[1].split(" tokens")[0])

    # 640 bytes a token in bfloat16; 12 of 16 bytes a head of 8 dimensions in int8.
    assert held("--dtype", "bfloat16") == held("--dtype", "float32", "--kv-cache-dtype", "bfloat16") == 160
    assert held("--dtype", "float32") == held("--dtype", "bfloat16", "--kv-cache-dtype", "float32") == 80
    assert held("--kv-cache-dtype", "int8") == 208


@pytest.mark.parametrize("options, words", [
    (["--kv-cache-dtype", "fp8"], ["--kv-cache-dtype", "fp8", "auto, bfloat16, float32, int8"]),
    (["--kv-cache-dtype", "int8", "--device", "cuda-emulation"], ["--kv-cache-dtype", "GPUs", "--device cpu"]),
])
def test_what_is_refused(options, words):
    done = chorus("generate", STORIES, "--prompt", "x", *options)
    assert done.returncode == 2
    for word in words:
        assert word in done.stderr.decode()
