"""Context parallelism on the real program: the KV cache of a sequence lies on several workers, the bytes stay the same, and
the workers' memory adds up."""
import json
import random
import shutil

import pytest

from chorus_process import STORIES, TINY, chorus

VARIANTS = {
    "dcp2": ["-dcp", "2"],
    "dcp3": ["-dcp", "3"],
    "dcp4": ["-dcp", "4"],
    "dcp2 tp2": ["-dcp", "2", "-tp", "2"],
    "dcp2 pp2": ["-dcp", "2", "-pp", "2"],
    "dcp2 dp2": ["-dcp", "2", "-dp", "2"],
    "blocks of 128": ["-dcp", "2", "--block-size", "128"],
    "small chunks, no prefix cache": ["-dcp", "2", "--no-enable-prefix-caching", "--max-num-batched-tokens", "48"],
}


def long_rows(count, lengths, vocabulary):
    """Prompts about the ends of partitions of 256 keys, some with the beginning of the one before them."""
    rng = random.Random(5)
    previous = []
    for index in range(count):
        ids = [1] + [rng.randrange(3, vocabulary) for _ in range(rng.choice(lengths) - 1)]
        if index % 5 == 4:
            ids = previous[:280] + ids[:100]
        previous = ids
        row = {"prompt_token_ids": ids, "max_tokens": 16, "temperature": index % 2, "seed": index, "logprobs": 2}
        if index % 7 == 0:
            row["prompt_logprobs"] = 1
        if index % 6 == 1:
            row["n"] = 2
        yield row


def write_rows(path, *arguments):
    path.write_text("".join(json.dumps(row) + "\n" for row in long_rows(*arguments)))
    return path


def run(model, rows, *options):
    done = chorus("generate", model, "--input", rows, "--threads", "1", *options)
    assert done.returncode == 0, done.stderr.decode() + done.stdout.decode()[:2000]
    return done.stdout


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_same_bytes(dtype, tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", 40, [3, 200, 255, 256, 257, 300, 480], 500)
    expected = run(STORIES, rows, "--dtype", dtype)
    for name, options in VARIANTS.items():
        assert run(STORIES, rows, "--dtype", dtype, *options) == expected, name
    # A worker's memory for a sequence and a half: requests are preempted and begin anew.
    small = ["-dcp", "2", "--kv-cache-memory", "240KiB" if dtype == "bfloat16" else "480KiB"]
    assert run(STORIES, rows, "--dtype", dtype, *small) == expected


@pytest.mark.parametrize("model, window", [("llama", None), ("mistral", 700), ("mixtral", None), ("qwen3", None)])
def test_same_bytes_over_many_partitions(model, window, tmp_path):
    """The tiny models with more positions: what they say means nothing, which shows a wrong key as well."""
    directory = tmp_path / model
    shutil.copytree(TINY / model, directory)
    config = json.loads((directory / "config.json").read_text())
    config["max_position_embeddings"] = 4096
    if window:
        config["sliding_window"] = window
    (directory / "config.json").write_text(json.dumps(config))
    rows = write_rows(tmp_path / "rows.jsonl", 12, [40, 700, 1500, 2700, 3500], 500)
    expected = run(directory, rows)
    for options in (["-dcp", "2"], ["-dcp", "3", "--max-num-batched-tokens", "300"], ["-dcp", "2", "-tp", "2"]):
        assert run(directory, rows, *options) == expected, options
    if model == "mixtral":
        assert run(directory, rows, "-dcp", "2", "-dp", "2", "--enable-expert-parallel") == expected


def test_the_memory_of_the_workers_adds_up(tmp_path):
    """18 blocks of 16 tokens a worker: 288 tokens on one, of a prompt of 420."""
    rows = tmp_path / "rows.jsonl"
    ids = [1] + [3 + i * 7 % 490 for i in range(419)]
    rows.write_text(json.dumps({"prompt_token_ids": ids, "max_tokens": 16, "temperature": 0}) + "\n")
    small = ["--dtype", "bfloat16", "--kv-cache-memory", "180KiB"]
    alone = json.loads(chorus("generate", STORIES, "--input", rows, *small).stdout)
    assert "max_model_len 288" in alone["error"] and not alone["outputs"]
    assert run(STORIES, rows, *small, "-dcp", "2") == run(STORIES, rows, "--dtype", "bfloat16")
