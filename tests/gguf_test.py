"""Models from GGUF files: the same tokens as from the Hugging Face folder of the same weights, and texts to the same ids."""
import json
import math
import os
import pathlib
import random
import shutil
import struct

import pytest

import gguf_files
from chorus_process import ROOT, TINY, chorus, other_lines

DATA = ROOT / "tests" / "data"
QUIET = ["--disable-progress-bars", "--threads", "1", "--kv-cache-memory", "16MiB"]
# The folder: what llama.cpp calls its pre-tokenizer (gguf-py and convert_hf_to_gguf.py); None: SentencePiece.
PRE = {"gpt-2": "gpt-2", "deepseek-coder": "deepseek-coder", "llama-3": "llama-bpe", "phi-2": "phi-2", "qwen2": "qwen2", "llama-2": None,
       "mistral-v3": None}


def lines(objects):
    return "".join(json.dumps(entry) + "\n" for entry in objects).encode()


def rows(done):
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("name", PRE)
def test_texts_become_the_same_ids(name, tmp_path):
    folder = DATA / "tokenizers" / name
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    (tmp_path / "t.gguf").write_bytes(gguf_files.gguf({"general.architecture": "llama", **gguf_files.tokenizer_metadata(tokenizer, PRE[name])}))
    texts = [vector["text"] for vector in json.loads((folder / "vectors.json").read_text())["cases"]]
    stdin = lines({"text": text} for text in texts)
    arguments = ["--jsonl", "--no-add-special-tokens"]
    assert rows(chorus("tokenize", tmp_path / "t.gguf", *arguments, stdin=stdin)) == rows(chorus("tokenize", folder, *arguments, stdin=stdin))


def test_deepseek_llm_cuts_as_its_tokenizer_json_does(tmp_path):
    """GPT-2's merges behind the cuts of deepseek-ai/DeepSeek-V2-Lite, whose letters are those with a case."""
    tokenizer = json.loads((DATA / "tokenizers" / "gpt-2" / "tokenizer.json").read_text())
    metadata = {"general.architecture": "llama", **gguf_files.tokenizer_metadata(tokenizer, "deepseek-llm")}
    (tmp_path / "t.gguf").write_bytes(gguf_files.gguf(metadata))
    patterns = ["[\r\n]", r"\s?\p{L&}+",
                "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+", r"\s+$", "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"]
    splits = [{"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False} for pattern in patterns]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [*splits, {"type": "Digits", "individual_digits": True}, byte_level]}
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "tokenizer.json").write_text(json.dumps(tokenizer))
    texts = [vector["text"] for vector in json.loads((DATA / "tokenizers" / "gpt-2" / "vectors.json").read_text())["cases"]]
    stdin = lines({"text": text} for text in [*texts, "\u1f7d\u1fd3 \u212b\u2126 \U00010400\U0001e900 x12 34\uff21!\uff01 \u3042\u4e00 "])
    arguments = ["--jsonl", "--no-add-special-tokens"]
    assert rows(chorus("tokenize", tmp_path / "t.gguf", *arguments, stdin=stdin)) == rows(chorus("tokenize", tmp_path / "folder", *arguments, stdin=stdin))


# The format has no word for it: everybody's value.
FIXED = {"smollm3": {"no_rope_layer_interval": 4, "no_rope_layers": None}, "gemma2": {"query_pre_attn_scalar": 16}, "gemma3": {"query_pre_attn_scalar": 16}}


def as_converted(name, tmp_path):
    """The folder of a tiny model with the values that a GGUF file would stand for."""
    folder = tmp_path / name
    shutil.copytree(TINY / name, folder)
    config = json.loads((folder / "config.json").read_text())
    for key, value in FIXED.get(name, {}).items():
        config.pop(key, None)
        config.update({} if value is None else {key: value})
    (folder / "config.json").write_text(json.dumps(config))
    return folder


FAMILIES = sorted(path.name for path in TINY.iterdir() if (path / "config.json").exists() and path.name != "stories260k-f32")


def greedy(model, *arguments):
    prompts = [[3 + seed * 7 % 50, 9, 20 + seed, 4, 31] for seed in range(4)]
    stdin = lines({"prompt_token_ids": prompt, "max_tokens": 12, "temperature": 0, "logprobs": 3, "ignore_eos": True} for prompt in prompts)
    return rows(chorus("generate", model, *QUIET, *arguments, stdin=stdin))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_gives_the_same_tokens(name, tmp_path):
    folder = as_converted(name, tmp_path)
    gguf_files.write_model(folder, tmp_path / "m.gguf")
    assert greedy(tmp_path / "m.gguf") == greedy(folder)
    assert b"are not read by" not in chorus("generate", tmp_path / "m.gguf", *QUIET, "--max-tokens", "1", stdin=lines([{"prompt_token_ids": [3]}])).stderr


# Whose tensors are not rows of the file one after the other.
REORDERED = ["deepseek_v2", "gpt2", "gpt_oss", "qwen3_next"]


@pytest.mark.parametrize("name", REORDERED)
def test_workers_read_their_slices_of_what_lies_in_another_order(name, tmp_path):
    gguf_files.write_model(TINY / name, tmp_path / "m.gguf")
    assert greedy(tmp_path / "m.gguf", "-tp", "2") == greedy(TINY / name)


def layers_with(tensors, parts):
    """Those of the layers that have the parts: {layer: {part: (shape, type, content)}}, and the other tensors."""
    layers, others = {}, []
    for name, *rest in tensors:
        part = name.split(".", 2)[-1]
        if part in parts:
            layers.setdefault(name.split(".")[1], {})[part] = rest
        else:
            others.append((name, *rest))
    return layers, others


def older_phi2(config, metadata, tensors):
    """q, k and v in one."""
    metadata["phi2.attention.head_count_kv"] = config["num_key_value_heads"]
    for kind in ("weight", "bias"):
        parts = [f"attn_{one}.{kind}" for one in "qkv"]
        layers, tensors = layers_with(tensors, parts)
        for layer, found in layers.items():
            count = sum(found[part][0][0] for part in parts)
            tensors.append((f"blk.{layer}.attn_qkv.{kind}", [count, *found[parts[0]][0][1:]], 0, b"".join(found[part][2] for part in parts)))
    return metadata, tensors


def older_deepseek2(config, metadata, tensors):
    """Before llama.cpp computed in the narrow row: kv_b whole, all heads' sizes; no word for the gating."""
    for key in ("attention.key_length_mla", "attention.value_length_mla", "expert_gating_func"):
        metadata.pop(f"deepseek2.{key}")
    metadata["deepseek2.attention.head_count_kv"] = config["num_attention_heads"]
    metadata["deepseek2.attention.key_length"] = config["qk_nope_head_dim"] + config["qk_rope_head_dim"]
    metadata["deepseek2.attention.value_length"] = config["v_head_dim"]
    _, tensors = layers_with(tensors, ["attn_k_b.weight", "attn_v_b.weight"])
    return metadata, tensors + of_folder(config, "self_attn.kv_b_proj", "attn_kv_b")


def older_qwen3next(config, metadata, tensors):
    """in_proj_qkvz as Hugging Face has it."""
    _, tensors = layers_with(tensors, ["attn_qkv.weight", "attn_gate.weight"])
    return metadata, tensors + of_folder(config, "linear_attn.in_proj_qkvz", "ssm_in")


def of_folder(config, part, new):
    """The tensors of such a part as the folder has them."""
    stored = gguf_files.safetensors(TINY / config["model_type"] / "model.safetensors")
    return [(f"blk.{name.split('.')[2]}.{new}.weight", shape, 0, content) for name, (_, shape, content) in stored.items() if f".{part}.weight" in name]


def older_gpt2(config, metadata, tensors):
    """With the head, which is the embedding."""
    return metadata, tensors + [("output.weight", *rest) for name, *rest in tensors if name == "token_embd.weight"]


OLDER = {"gpt2": older_gpt2, "phi": older_phi2, "deepseek_v2": older_deepseek2, "deepseek_v3": older_deepseek2, "qwen3_next": older_qwen3next}


@pytest.mark.parametrize("name", OLDER)
def test_older_files_give_the_same_tokens(name, tmp_path):
    config = json.loads((TINY / name / "config.json").read_text())
    metadata, tensors = OLDER[name](config, gguf_files.model_metadata(config), gguf_files.tensors_of(TINY / name, config))
    (tmp_path / "m.gguf").write_bytes(gguf_files.gguf(metadata, tensors))
    assert greedy(tmp_path / "m.gguf") == greedy(TINY / name)


# What the tiny models leave at the values that change nothing.
CHANGED = {"yarn": ("deepseek_v3", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 40.0, "original_max_position_embeddings": 16,
                                                        "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 0.707, "mscale_all_dim": 0.707}}),
           "groups": ("deepseek_v2", {"n_group": 2, "topk_group": 1, "topk_method": "group_limited_greedy"}),
           "all of a head turns": ("glm4_moe", {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0}}),
           "weights": ("glm4_moe", {"routed_scaling_factor": 1.5, "norm_topk_prob": False})}


@pytest.mark.parametrize("change", CHANGED)
def test_what_a_file_says_otherwise_counts(change, tmp_path):
    name, values = CHANGED[change]
    folder = as_converted(name, tmp_path)
    config = {**json.loads((folder / "config.json").read_text()), **values}
    (folder / "config.json").write_text(json.dumps(config))
    gguf_files.write_model(folder, tmp_path / "m.gguf")
    assert greedy(tmp_path / "m.gguf") == greedy(folder) != greedy(TINY / name)


@pytest.mark.parametrize("arguments", [[], ["--dtype", "float32", "--quantization", "none"]])
def test_mxfp4_blocks_are_those_of_the_folder(arguments, tmp_path):
    """Packed as integers, exactly, and as floats."""
    folder = DATA / "quantized" / "mxfp4"
    gguf_files.write_model(folder, tmp_path / "m.gguf")
    assert greedy(tmp_path / "m.gguf", *arguments) == greedy(folder, *arguments)


def q8_0(content):
    """Blocks, and the float32 that they stand for."""
    blocks, values = b"", b""
    for at in range(0, len(content), 128):
        floats = struct.unpack("<32f", content[at:at + 128])
        (scale,) = struct.unpack("<e", struct.pack("<e", max(map(abs, floats)) / 127 or 1.0))
        codes = [max(-128, min(127, round(value / scale))) for value in floats]
        blocks += struct.pack("<e32b", scale, *codes)
        values += struct.pack("<32f", *(code * scale for code in codes))
    return blocks, values


@pytest.mark.parametrize("name", REORDERED)
def test_blocks_in_another_order_stand_for_their_values(name, tmp_path):
    config = json.loads((TINY / name / "config.json").read_text())
    metadata, tensors = gguf_files.model_metadata(config), gguf_files.tensors_of(TINY / name, config)
    if name == "deepseek_v2":  # so that a row of k_b is a block
        tensors = widened(metadata, tensors)
    blocks, floats = [], []
    for tensor, shape, kind, content in tensors:
        is_quantised = len(shape) > 1 and shape[-1] % 32 == 0 and tensor.endswith("weight") and not tensor.startswith("position")
        packed, values = q8_0(content) if is_quantised else (content, content)
        blocks.append((tensor, shape, 8 if is_quantised else kind, packed))
        floats.append((tensor, shape, kind, values))
    assert name != "deepseek_v2" or any("attn_k_b" in tensor and kind == 8 for tensor, _, kind, _ in blocks)
    for path, written in ((tmp_path / "q.gguf", blocks), (tmp_path / "f.gguf", floats)):
        path.write_bytes(gguf_files.gguf(metadata, written))
    arguments = ["--dtype", "float32", "--quantization", "none"]
    assert greedy(tmp_path / "q.gguf", *arguments) == greedy(tmp_path / "f.gguf", *arguments)
    # In integers: what is left is the rounding of x to 8 bits.
    native, exact = greedy(tmp_path / "q.gguf", "--dtype", "float32"), greedy(tmp_path / "q.gguf", *arguments)
    compared = 0
    for ours, theirs in zip(native, exact, strict=True):
        first, expected = (dict(row["outputs"][0]["logprobs"][0]["top"]) for row in (ours, theirs))
        for token in first.keys() & expected.keys():
            assert first[token] == pytest.approx(expected[token], abs=0.15)
            compared += 1
    assert compared >= 4


def widened(metadata, tensors):
    """With 32 rows of a key that do not turn, in place of 16, of other numbers."""
    metadata["deepseek2.attention.key_length_mla"] += 16
    rng, changed = random.Random(2), []
    for name, shape, kind, content in tensors:
        if name.endswith("attn_q.weight"):
            shape = [shape[0] // 24 * 40, shape[1]]
        elif name.endswith("attn_k_b.weight"):
            shape = [*shape[:2], 32]
        count = math.prod(shape)
        changed.append((name, shape, kind, content if 4 * count == len(content) else struct.pack(f"<{count}f", *(rng.gauss(0, 0.2) for _ in range(count)))))
    return changed


# ---- a real model ----

SMOLLM2 = pathlib.Path(os.environ.get("CHORUS_MODELS_CACHE", pathlib.Path.home() / ".cache/chorus/models")) / "SmolLM2-135M-Instruct.Q4_1.gguf"
needs_smollm2 = pytest.mark.skipif(not SMOLLM2.exists(), reason="no SmolLM2: tools/fetch_smollm2.sh fetches it")


@needs_smollm2
@pytest.mark.parametrize("kind", ["text", "chat"])
def test_smollm2_continues_as_transformers_does(kind):
    """transformers in float32 over the same de-quantised weights: data/gguf/README.md."""
    prompts = json.loads((DATA / "gguf" / f"smollm2_{kind}.json").read_text())["prompts"]
    stdin = lines({"prompt_token_ids": p["ids"], "max_tokens": len(p["greedy"]), "temperature": 0, "logprobs": 5, "ignore_eos": True} for p in prompts)
    answers = rows(chorus("generate", SMOLLM2, "--disable-progress-bars", "--dtype", "float32", "--quantization", "none", stdin=stdin))
    for prompt, answer in zip(prompts, answers, strict=True):
        output = answer["outputs"][0]
        sure = next((step for step, margin in enumerate(prompt["margins"]) if margin < 1e-3), len(prompt["greedy"]))
        assert output["token_ids"][:sure] == prompt["greedy"][:sure], prompt["prompt"]
        first = dict(output["logprobs"][0]["top"])
        assert first == pytest.approx(dict(prompt["first_top"]), abs=1e-3)


@needs_smollm2
def test_smollm2_renders_and_answers_a_chat():
    row = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0, "max_tokens": 20}
    # The first word's margin is 0.08: what 8 bits of x may turn round (quantization_test.py).
    output = rows(chorus("generate", SMOLLM2, "--disable-progress-bars", "--quantization", "none", stdin=lines([row])))[0]["outputs"][0]
    assert (output["text"], output["finish_reason"]) == ("The capital of France is Paris.", "stop")


# ---- files that are wrong ----

TENSOR = ("token_embd.weight", [4, 8], 0, bytes(128))
LLAMA = {"general.architecture": "llama"}
GPT_OSS = {"general.architecture": "gpt-oss", "gpt-oss.expert_count": 2, "gpt-oss.expert_used_count": 1, "gpt-oss.attention.sliding_window": 8}


def damaged(change):
    content = bytearray(gguf_files.gguf(LLAMA, [TENSOR]))
    change(content)
    return bytes(content)


WRONG = {
    "nothing": (b"", "not a GGUF file"),
    "another kind": (b"PK\x03\x04" + bytes(100), "not a GGUF file"),
    "an LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 98362432\n", "git lfs pull"),
    "an old version": (damaged(lambda c: c.__setitem__(4, 1)), "version 1; accepted: 2, 3"),
    "cut short": (gguf_files.gguf(LLAMA, [TENSOR])[:-64], "tensor token_embd.weight"),
    "cut in the head": (gguf_files.gguf(LLAMA, [TENSOR])[:40], "cut short"),
    "an unknown architecture": (gguf_files.gguf({"general.architecture": "mamba"}, [TENSOR]), "read from GGUF are llama, qwen2"),
    "a key that the architecture needs": (gguf_files.gguf({"general.architecture": "gpt-oss"}, [TENSOR]), "no gpt-oss.expert_count among its metadata"),
    "a gating that the architecture has not": (gguf_files.gguf({"general.architecture": "glm4moe", "glm4moe.expert_gating_func": 1}, [TENSOR]),
                                               "glm4moe.expert_gating_func is 1; accepted: 2"),
    "a gating that nobody has": (gguf_files.gguf({"general.architecture": "deepseek2", "deepseek2.expert_gating_func": 3}, [TENSOR]), "is 3; accepted: 1, 2"),
    "half of a tensor": (gguf_files.gguf(GPT_OSS, [TENSOR, ("blk.0.ffn_gate_exps.weight", [2, 4, 8], 0, bytes(256))]),
                         "tensor blk.0.ffn_gate_exps.weight is there without blk.0.ffn_up_exps.weight"),
    "halves that differ": (gguf_files.gguf(GPT_OSS, [("blk.0.ffn_gate_exps.weight", [2, 4, 8], 0, bytes(256)),
                                                     ("blk.0.ffn_up_exps.weight", [2, 8, 4], 0, bytes(256))]), "are not two parts of one"),
    "q, k and v that share nothing": (gguf_files.gguf({"general.architecture": "phi2", "phi2.rope.dimension_count": 4, "phi2.embedding_length": 8},
                                                      [("blk.0.attn_qkv.weight", [8, 8], 0, bytes(256))]), "accepted: 8 rows of q"),
    "a part of several": (gguf_files.gguf({**LLAMA, "split.count": 3, "split.no": 1}), "NAME-00001-of-00003.gguf"),
    "a key twice": (gguf_files.gguf({**LLAMA, "general.architecturf": "llama"}).replace(b"turf", b"ture"), "is there twice"),
    "sizes missing": (gguf_files.gguf(LLAMA, [TENSOR]), "hidden_size"),
    "an element type that is not read": (gguf_files.gguf(LLAMA, [("token_embd.weight", [4, 256], 16, bytes(264))]), "hidden_size"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_refused_by_name(name, tmp_path):
    content, message = WRONG[name]
    (tmp_path / "m.gguf").write_bytes(content)
    done = chorus("generate", tmp_path / "m.gguf", "--prompt", "x", *QUIET)
    said = "\n".join(other_lines(done.stderr))
    assert done.returncode == 2 and "m.gguf" in said and message in said, done.stderr.decode()


def test_parts_are_read_together(tmp_path):
    config = json.loads((TINY / "qwen2" / "config.json").read_text())
    metadata, tensors = gguf_files.model_metadata(config), gguf_files.tensors_of(TINY / "qwen2", config)
    half = len(tensors) // 2
    for number, part in ((0, tensors[:half]), (1, tensors[half:])):
        values = {**(metadata if number == 0 else {}), "split.no": number, "split.count": 2, "split.tensors.count": len(tensors)}
        (tmp_path / f"m-{number + 1:05}-of-00002.gguf").write_bytes(gguf_files.gguf(values, part))
    stdin = lines([{"prompt_token_ids": [5, 6, 7], "max_tokens": 8, "temperature": 0, "ignore_eos": True}])
    first = tmp_path / "m-00001-of-00002.gguf"
    assert rows(chorus("generate", first, *QUIET, stdin=stdin)) == rows(chorus("generate", TINY / "qwen2", *QUIET, stdin=stdin))
    (tmp_path / "m-00002-of-00002.gguf").unlink()
    assert b"m-00002-of-00002.gguf" in chorus("generate", first, *QUIET, stdin=stdin).stderr
