"""Quantised weights: the same bytes however the work is spread, as much accuracy as the documents say, and what is refused."""
import json
import math
import os
import pathlib
import random
import struct

import pytest

import gguf_files
from chorus_process import ROOT, STORIES, TINY, chorus, generate_and_kill
from workload import rows as workload_rows

QUIET = ["--disable-progress-bars", "--kv-cache-memory", "16MiB"]
ROWS = [row for row in workload_rows()][::5][:110]
VARIANTS = {
    "dp2": ["-dp", "2", "--threads", "1"],
    "tp2": ["-tp", "2", "--threads", "1"],
    "tp4": ["-tp", "4", "--threads", "1"],
    "pp2": ["-pp", "2", "--threads", "1"],
    "one at a time": ["--max-num-seqs", "1"],
    "small chunks": ["--max-num-batched-tokens", "16", "--max-num-seqs", "16"],
    "no prefix cache": ["--no-enable-prefix-caching"],
    "two threads": ["--threads", "2"],
}


def lines(objects):
    return "".join(json.dumps(entry) + "\n" for entry in objects).encode()


def generate(model, stdin, *options):
    done = chorus("generate", model, *QUIET, *options, stdin=stdin, timeout_s=600)
    assert done.returncode in (0, 3), done.stderr.decode()
    return done.stdout


def outputs(model, stdin, *options):
    return [json.loads(line)["outputs"][0] for line in generate(model, stdin, *options).splitlines()]


@pytest.fixture(scope="module", params=["int8", "int4"])
def baseline(request):
    return request.param, generate(STORIES, lines(ROWS), "--quantization", request.param, "--threads", "1")


@pytest.mark.parametrize("name", VARIANTS)
def test_the_same_bytes(baseline, name):
    quantization, expected = baseline
    assert generate(STORIES, lines(ROWS), "--quantization", quantization, *VARIANTS[name]) == expected


def test_the_same_bytes_when_a_replica_is_killed(baseline, tmp_path):
    quantization, expected = baseline
    (tmp_path / "rows").write_bytes(lines(ROWS))
    assert generate_and_kill(STORIES, tmp_path / "rows", tmp_path / "out", *QUIET, "--quantization", quantization, "--threads", "1") == expected


@pytest.mark.parametrize("quantization", ["int8", "int4"])
@pytest.mark.parametrize("model", ["mixtral", "qwen3_moe", "phi3", "qwen2"])
def test_every_kind_of_layer(model, quantization):
    rng = random.Random(2)
    stdin = lines({"prompt_token_ids": [1] + [rng.randrange(3, 512) for _ in range(rng.randrange(1, 100))], "max_tokens": 8, "temperature": i % 2, "seed": i,
                   "logprobs": 2} for i in range(20))
    expected = generate(TINY / model, stdin, "--quantization", quantization, "--threads", "1")
    variants = [["-tp", "2", "--threads", "1"], ["--max-num-batched-tokens", "16", "--max-num-seqs", "3"]]
    if "mo" in model or model == "mixtral":
        variants.append(["-dp", "2", "-ep", "--threads", "1"])
    for variant in variants:
        assert generate(TINY / model, stdin, "--quantization", quantization, *variant) == expected, variant


# ---- blocks of GGUF files ----

BLOCKS = {"Q8_0": (8, 1, 32, 0.003), "Q4_0": (2, 1, 16, 0.03), "Q4_1": (3, 2, 16, 0.03), "Q5_0": (6, 1, 20, 0.015), "Q6_K": (14, 0, 210, 0)}


def random_blocks(rng, name, count):
    """Of 32 elements: scale (and minimum) and random codes. Q6_K has 256, and its scales among the codes' bytes."""
    _, halves, size, scale = BLOCKS[name]
    if name == "Q6_K":
        return b"".join(rng.randbytes(192) + bytes(rng.randrange(1, 5) for _ in range(16)) + struct.pack("<e", 0.0005) for _ in range(count // 8))
    heads = [struct.pack("<e", scale * rng.uniform(0.5, 1.5)) + (struct.pack("<e", -scale * 8) if halves == 2 else b"") for _ in range(64)]
    return b"".join(rng.choice(heads) + rng.randbytes(size) for _ in range(count))


@pytest.fixture(scope="module", params=BLOCKS)
def quantised(request, tmp_path_factory):
    """A model of random blocks, wide enough for tensor parallelism to cut it between them."""
    config = json.loads((TINY / "llama" / "config.json").read_text())
    config.update(hidden_size=256, intermediate_size=2048, num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=4, head_dim=32, vocab_size=512)
    rng = random.Random(4)
    kind = BLOCKS[request.param][0]

    def matrix(name, count, columns):
        return (name, [count, columns], kind, random_blocks(rng, request.param, count * columns // 32))

    def norm(name):
        # The last one keeps the logits small, so that their errors are.
        return (name, [256], 0, struct.pack("<256f", *[0.25 if name.startswith("output") else 1.0] * 256))

    tensors = [matrix("token_embd.weight", 512, 256), matrix("output.weight", 512, 256), norm("output_norm.weight")]
    for layer in range(2):
        sizes = {"attn_q": (256, 256), "attn_k": (128, 256), "attn_v": (128, 256), "attn_output": (256, 256), "ffn_gate": (2048, 256), "ffn_up": (2048, 256),
                 "ffn_down": (256, 2048)}
        tensors += [matrix(f"blk.{layer}.{part}.weight", *size) for part, size in sizes.items()]
        tensors += [norm(f"blk.{layer}.attn_norm.weight"), norm(f"blk.{layer}.ffn_norm.weight")]
    path = tmp_path_factory.mktemp("blocks") / f"{request.param}.gguf"
    path.write_bytes(gguf_files.gguf(gguf_files.model_metadata(config), tensors))
    return path


def block_rows(count=16):
    rng = random.Random(6)
    return lines({"prompt_token_ids": [rng.randrange(3, 512) for _ in range(rng.randrange(1, 60))], "max_tokens": 10, "temperature": i % 2, "seed": i,
                  "logprobs": 5, "ignore_eos": True} for i in range(count))


def test_blocks_give_the_same_bytes_however_they_are_cut(quantised):
    expected = generate(quantised, block_rows(), "--threads", "1")
    assert expected != generate(quantised, block_rows(), "--threads", "1", "--quantization", "none"), "computed in floats"
    for variant in (["-tp", "2", "--threads", "1"], ["-tp", "4", "--threads", "1"], ["-dp", "2", "--threads", "1"], ["--max-num-batched-tokens", "16"]):
        assert generate(quantised, block_rows(), *variant) == expected, variant


def test_blocks_give_the_same_bytes_when_a_replica_is_killed(quantised, tmp_path):
    rows = block_rows(300)
    (tmp_path / "rows").write_bytes(rows)
    assert generate_and_kill(quantised, tmp_path / "rows", tmp_path / "out", *QUIET, "--threads", "1") == generate(quantised, rows, "--threads", "1")


def test_blocks_stand_for_their_values(quantised):
    """Against float32 over the de-quantised weights, whose values gguf_test.py knows: what is left is the rounding of x to 8 bits."""
    native = outputs(quantised, block_rows(), "--dtype", "float32")
    exact = outputs(quantised, block_rows(), "--dtype", "float32", "--quantization", "none")
    for ours, theirs in zip(native, exact, strict=True):
        first, expected = dict(ours["logprobs"][0]["top"]), dict(theirs["logprobs"][0]["top"])
        common = first.keys() & expected.keys()
        assert len(common) >= 3
        for token in common:
            assert first[token] == pytest.approx(expected[token], abs=0.15)


# ---- a real model ----

SMOLLM2 = pathlib.Path(os.environ.get("CHORUS_MODELS_CACHE", pathlib.Path.home() / ".cache/chorus/models")) / "SmolLM2-135M-Instruct.Q4_1.gguf"
DATA = ROOT / "tests" / "data" / "gguf"
TOP = 20


def divergence(exact, ours):
    """KL of the exact distribution over its most likely tokens and all others together: at most that over all."""
    pairs = [(math.exp(p), math.exp(ours[token])) for token, p in exact.items() if token in ours]
    rest = (1 - sum(p for p, _ in pairs), 1 - sum(q for _, q in pairs))
    return sum(p * math.log(p / q) for p, q in [*pairs, rest] if p > 1e-9 and q > 1e-9)


@pytest.mark.skipif(not SMOLLM2.exists(), reason="no SmolLM2: tools/fetch_smollm2.sh fetches it")
def test_smollm2_in_its_own_blocks_keeps_its_accuracy():
    """docs/model-folder.md states both figures: the reference's tokens that ours would have chosen, and how far the first step's
    distribution is from float32's."""
    prompts = [prompt for kind in ("text", "chat") for prompt in json.loads((DATA / f"smollm2_{kind}.json").read_text())["prompts"]]
    forced = lines({"prompt_token_ids": p["ids"] + p["greedy"], "max_tokens": 1, "prompt_logprobs": 1, "temperature": 0} for p in prompts)
    chosen = equal = 0
    done = chorus("generate", SMOLLM2, "--disable-progress-bars", "--dtype", "float32", stdin=forced, timeout_s=600)
    for prompt, line in zip(prompts, done.stdout.splitlines(), strict=True):
        steps = json.loads(line)["prompt_logprobs"][-len(prompt["greedy"]):]
        for token, step in zip(prompt["greedy"], steps, strict=True):
            chosen += 1
            equal += max(step["top"], key=lambda entry: entry[1])[0] == token
    first = lines({"prompt_token_ids": p["ids"], "max_tokens": 1, "temperature": 0, "logprobs": TOP} for p in prompts)
    native = outputs(SMOLLM2, first, "--dtype", "float32")
    exact = outputs(SMOLLM2, first, "--dtype", "float32", "--quantization", "none")
    kl = [divergence(dict(e["logprobs"][0]["top"]), dict(n["logprobs"][0]["top"])) for e, n in zip(exact, native, strict=True)]
    print(f"top-1 agreement {equal / chosen:.4f} of {chosen}; KL of the first step: mean {sum(kl) / len(kl):.6f}, largest {max(kl):.6f}")
    assert chosen == 768 and equal >= 0.97 * chosen
    assert max(kl) < 0.01


def test_an_unknown_name_is_refused():
    done = chorus("generate", STORIES, "--prompt", "x", "--quantization", "int3")
    assert done.returncode == 2 and b"auto, none, int8, int4" in done.stderr
