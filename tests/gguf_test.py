"""Models from GGUF files: the same tokens as from the Hugging Face folder of the same weights, and texts to the same ids."""
import json
import os
import pathlib
import shutil

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


# The format has no word for it: everybody's value.
FIXED = {"smollm3": {"no_rope_layer_interval": 4, "no_rope_layers": None}, "gemma2": {"query_pre_attn_scalar": 16}, "gemma3": {"query_pre_attn_scalar": 16}}
# Read from folders alone.
WITHOUT_GGUF = {"deepseek_v2", "deepseek_v3", "glm4_moe", "gpt2", "gpt_oss", "phi", "qwen3_next"}


def as_converted(name, tmp_path):
    """The folder of a tiny model with the values that a GGUF file would stand for."""
    folder = tmp_path / name
    shutil.copytree(TINY / name, folder)
    config = json.loads((folder / "config.json").read_text())
    config.update(FIXED.get(name, {}))
    (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return folder


FAMILIES = sorted(path.name for path in TINY.iterdir() if (path / "config.json").exists() and path.name not in {"stories260k-f32", *WITHOUT_GGUF})


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_gives_the_same_tokens(name, tmp_path):
    folder = as_converted(name, tmp_path)
    gguf_files.write_model(folder, tmp_path / "m.gguf")
    prompts = [[3 + seed * 7 % 50, 9, 20 + seed, 4, 31] for seed in range(4)]
    stdin = lines({"prompt_token_ids": prompt, "max_tokens": 12, "temperature": 0, "logprobs": 3, "ignore_eos": True} for prompt in prompts)
    assert rows(chorus("generate", tmp_path / "m.gguf", *QUIET, stdin=stdin)) == rows(chorus("generate", folder, *QUIET, stdin=stdin))


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
